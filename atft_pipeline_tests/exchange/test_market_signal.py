"""The planted signal: exact sizes, decay with delay, what the bars show of it, and that nothing else is there."""

from __future__ import annotations

import json
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.exchange.drawing import Market, draw_market
from atft_pipeline.exchange.market import generate
from atft_pipeline.exchange.oracle import daily_correlation, forward_returns, label_columns
from atft_pipeline.exchange.plants import PARTS
from atft_pipeline.exchange.prices import tick_size
from atft_pipeline.exchange.signals import LAGS, NEIGHBOURS, lagged
from atft_pipeline.settings import MarketSize

START, END = date(2022, 1, 4), date(2022, 12, 30)


@lru_cache(maxsize=8)
def market(plant: str, stocks: int = 60) -> Market:
    return draw_market(MarketSize(stocks=stocks, start=START, end=END, seed=2, plant=plant))


def labels(drawn: Market) -> dict[str, NDArray[np.float64]]:
    return label_columns(drawn.effects, drawn.scale, drawn.schedule)


def returns(drawn: Market) -> NDArray[np.float64]:
    return drawn.quotes.returns(drawn.closes)


def mean_ic(drawn: Market, score: NDArray[np.float64], delay: int = 0, horizon: int = 1) -> float:
    future = forward_returns(returns(drawn), delay, horizon)
    return float(np.nanmean(daily_correlation(score, future, drawn.members)))


@pytest.mark.parametrize("part", PARTS)
def test_each_part_has_its_planted_size_on_the_written_bars(part: str) -> None:
    drawn = market(part)
    columns = labels(drawn)
    assert mean_ic(drawn, columns["d0_h1"]) == pytest.approx(0.05, abs=0.003)
    assert np.array_equal(columns["d0_h1"], columns[f"part_{part}"])
    for other in set(PARTS) - {part}:
        assert not columns[f"part_{other}"].any()


def test_five_parts_together_each_keep_their_size() -> None:
    drawn = market("demo")
    columns = labels(drawn)
    for part in PARTS:
        assert mean_ic(drawn, columns[f"part_{part}"]) == pytest.approx(0.045, abs=0.003)
    total = sum(columns[f"part_{part}"] for part in PARTS)
    assert np.allclose(total, columns["d0_h1"], atol=1e-12)
    assert mean_ic(drawn, columns["d0_h1"]) == pytest.approx(np.sqrt(5) * 0.045, abs=0.03)


def test_an_empty_plant_expects_nothing_and_hidden_characteristics_predict_nothing() -> None:
    drawn = market("null")
    assert not any(column.any() for column in labels(drawn).values())
    for part in PARTS:
        ic = daily_correlation(drawn.effects.expected(part, 0), forward_returns(returns(drawn), 0, 1), drawn.members)
        ic = ic[np.isfinite(ic)]
        assert abs(ic.mean()) < 3.5 * ic.std() / np.sqrt(len(ic))


def test_expectations_shrink_with_delay_as_each_part_decays() -> None:
    def spread(plant: str) -> list[float]:
        columns = labels(market(plant))
        return [float(columns[f"d{delay}_h1"][10:].std() / columns["d0_h1"][10:].std()) for delay in (0, 1, 2, 5)]

    assert spread("linear") == pytest.approx([1, *(0.5 ** (delay / 20) for delay in (1, 2, 5))], rel=0.02)
    assert spread("interaction") == pytest.approx([1, *(0.5 ** (2 * delay / 5) for delay in (1, 2, 5))], rel=0.02)
    whole = np.sqrt(sum(weight**2 for weight in LAGS))
    for plant in ("reversal", "graph"):
        one, two, gone = spread(plant)[1:]
        assert one == pytest.approx(np.hypot(LAGS[1], LAGS[2]) / whole, rel=0.1)
        assert two == pytest.approx(LAGS[2] / whole, rel=0.1)
        assert gone == 0
    assert spread("cycle") == pytest.approx([1, 1, 1, 1], rel=0.05)


@pytest.mark.parametrize("plant", ["reversal", "interaction"])
def test_the_realised_ic_of_fading_parts_falls_with_delay(plant: str) -> None:
    drawn = market(plant)
    columns = labels(drawn)
    ic = [mean_ic(drawn, columns[f"d{delay}_h1"], delay) for delay in (0, 1, 2)]
    assert ic[0] > max(ic[1:])


def test_longer_horizons_are_the_sum_of_their_days() -> None:
    columns = labels(market("demo"))
    assert np.allclose(columns["d0_h2"], columns["d0_h1"] + columns["d1_h1"])
    assert np.allclose(columns["d0_h3"], columns["d0_h2"] + columns["d2_h1"])
    assert np.allclose(columns["d1_h2"], columns["d1_h1"] + columns["d2_h1"])
    cycle = labels(market("cycle"))
    assert np.allclose(cycle["d0_h20"], 0, atol=1e-12)


def test_a_one_day_effect_acts_with_its_lag_profile() -> None:
    effect = np.zeros((6, 1))
    effect[2] = 1.0
    assert lagged(effect, 0, slice(0, 6))[:, 0].tolist() == [0, 0, *LAGS, 0]
    assert lagged(effect, 1, slice(0, 6))[:, 0].tolist() == [0, 0, *LAGS[1:], 0, 0]
    assert lagged(effect, 0, slice(3, 6))[:, 0].tolist() == [LAGS[1], LAGS[2], 0]
    assert not lagged(effect, 3, slice(0, 6)).any()


def test_expectations_use_nothing_that_comes_later() -> None:
    drawn = market("demo")
    columns = labels(drawn)
    cut = 120
    for series in (drawn.effects.reversal, drawn.effects.graph, drawn.hidden.linear, drawn.hidden.left):
        kept = series[cut:].copy()
        series[cut:] = 9.0
        poisoned = labels(drawn)
        series[cut:] = kept
        for name, values in columns.items():
            assert np.array_equal(values[:cut], poisoned[name][:cut]), name


def test_a_part_that_flips_changes_the_sign_of_what_is_expected() -> None:
    since = date(2022, 7, 1)
    drawn = market(f"linear=.05:flip@{since.isoformat()}")
    column = labels(drawn)["d0_h1"]
    day = drawn.trading_days.index(since)
    hidden = drawn.hidden.linear
    stock = drawn.universe.common
    assert np.all(np.sign(column[: day - 1, stock]) == np.sign(hidden[: day - 1, stock]))
    assert np.all(np.sign(column[day - 1 :, stock]) == -np.sign(hidden[day - 1 :, stock]))
    assert mean_ic(drawn, column) == pytest.approx(0.05, abs=0.003)
    off = labels(market(f"linear=.05:off@{since.isoformat()}"))["d0_h1"]
    assert not off[day - 1 :].any()


def bar_features(drawn: Market) -> dict[str, NDArray[np.float64]]:
    """The features of one day that should show a hidden characteristic, from the written quotes."""
    quotes, factor = drawn.quotes, np.cumprod(drawn.closes.factor, axis=0)
    o, h, low, c = (np.where(quotes.traded, x, np.nan) for x in (quotes.open, quotes.high, quotes.low, quotes.close))
    volume = np.log(quotes.volume * factor)
    spread = np.log(h / low)

    def surprise(x: NDArray[np.float64]) -> NDArray[np.float64]:
        score = np.full_like(x, np.nan)
        for t in range(20, len(x)):
            window = x[t - 20 : t]
            score[t] = (x[t] - np.nanmean(window, axis=0)) / np.nanstd(window, axis=0, ddof=1)
        return score

    overnight = np.full_like(c, np.nan)
    overnight[1:] = (o / factor)[1:] / (c / factor)[:-1] - 1
    return {
        "overnight": overnight,
        "vwap": quotes.close * quotes.volume / quotes.turnover - 1,
        "volume": surprise(volume),
        "range": surprise(spread),
        "close_location": (2 * c - h - low) / (h - low),
    }


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:Degrees of freedom")
def test_each_hidden_characteristic_shows_in_its_own_bar_feature() -> None:
    drawn = market("null")
    features = bar_features(drawn)
    hidden = {
        "linear": drawn.hidden.linear,
        "left": drawn.hidden.left,
        "right": drawn.hidden.right,
        "cycle": drawn.hidden.cycle(np.arange(len(drawn.trading_days))),
    }

    def seen(name: str, feature: str) -> float:
        rows = slice(25, None)
        where = drawn.members[rows]
        return float(np.nanmean(daily_correlation(features[feature][rows], hidden[name][rows], where)))

    assert 0.6 < seen("linear", "overnight") < 0.8
    assert seen("linear", "vwap") < -0.15
    assert 0.5 < seen("left", "volume") < 0.8
    assert 0.45 < seen("right", "range") < 0.8
    assert 0.2 < seen("cycle", "close_location") < 0.5
    for name, feature in (("left", "range"), ("right", "volume"), ("linear", "volume"), ("cycle", "overnight")):
        assert abs(seen(name, feature)) < 0.06


def test_the_interaction_has_no_marginal_effect() -> None:
    drawn = market("interaction")
    product = drawn.effects.expected("interaction", 0)
    for side in (drawn.hidden.left, drawn.hidden.right):
        ic = daily_correlation(side, product, drawn.members)
        assert abs(np.nanmean(ic)) < 0.05


def test_neighbours_move_together_and_share_a_group() -> None:
    drawn = market("null", stocks=200)
    edges = list(drawn.groups.edges())
    own = {issue: [b for a, b in edges if a == issue] for issue in np.flatnonzero(drawn.universe.common)[:20]}
    assert all(1 <= len(near) <= NEIGHBOURS and issue not in near for issue, near in own.items())
    assert all(drawn.groups.member[a] == drawn.groups.member[b] for a, b in edges)
    r = np.nan_to_num(returns(drawn)[1:])
    market_return = r[:, drawn.universe.common].mean(axis=1, keepdims=True)
    beta = (r * market_return).sum(axis=0) / (market_return**2).sum()
    correlation = np.corrcoef((r - beta * market_return).T)
    near = np.array([correlation[a, b] for a, b in edges])
    strangers = drawn.groups.member[:, None] != drawn.groups.member[None, :]
    strangers &= drawn.universe.common[:, None] & drawn.universe.common[None, :]
    assert np.median(near) > 0.3
    assert abs(np.median(correlation[strangers])) < 0.1


def test_the_graph_part_cannot_be_read_from_a_stocks_own_return() -> None:
    drawn = market("graph", stocks=200)
    ic = daily_correlation(-drawn.effects.reversal, drawn.effects.graph, drawn.members)
    assert abs(np.nanmean(ic)) < 0.06


def test_ticks_cost_almost_nothing_of_the_signal() -> None:
    drawn = market("demo")
    stock = drawn.universe.common
    tick = tick_size(drawn.closes.close, drawn.closes.fine) / drawn.closes.close
    noise = tick[1:, stock] / np.sqrt(12) * np.sqrt(2)  # of a return between two rounded prices
    assert np.mean(noise**2) < 0.002 * np.nanvar(drawn.closes.returns()[1:, stock])


def test_the_oracle_file_has_one_row_per_bar_and_says_what_was_realised(tmp_path: Path) -> None:
    size = MarketSize(stocks=40, start=date(2023, 1, 4), end=date(2023, 7, 31), seed=9, plant="linear=.05,graph=.03")
    generate(size, tmp_path / "market")
    bars = pl.read_parquet(tmp_path / "market" / "tables" / "bars_daily.parquet")
    oracle = pl.read_parquet(tmp_path / "market" / "oracle" / "oracle.parquet")
    names = [f"d{delay}_h{horizon}" for delay in (0, 1, 2, 5) for horizon in (1, 2, 3, 5, 10, 20)]
    assert oracle.columns == ["date", "code", *names, *(f"part_{part}" for part in PARTS)]
    assert oracle["date"].dtype == pl.Date
    assert oracle.select(pl.col("date").dt.to_string("%Y-%m-%d"), "code").rows() == bars.select("Date", "Code").rows()
    facts = json.loads((tmp_path / "market" / "oracle" / "oracle.json").read_text())
    assert facts["parts"]["linear"]["ic"] == pytest.approx(0.05, abs=0.003)
    assert facts["parts"]["graph"]["planted"] == 0.03
    assert set(facts["labels"]) == set(names)
    assert facts["labels"]["d0_h1"]["se"] > 0
    neighbours = pl.read_parquet(tmp_path / "market" / "oracle" / "neighbours.parquet")
    assert set(neighbours["code"]) <= set(bars["Code"])
    for path in (tmp_path / "market" / "tables").iterdir():
        assert not {"part_linear", "d0_h1"} & set(pl.read_parquet_schema(path))
