"""Market regime from TOPIX: values by hand, null rules, alignment to the trading days."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.features.market import GROUP, yang_zhang
from atft_pipeline.features.topix import Topix, read_topix
from atft_pipeline.panel.panel import build_panel
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic_events import market_tables, topix_bars, weekdays

DAYS = weekdays(500, date(2020, 1, 6))


def columns(bars: pl.DataFrame) -> dict[str, NDArray[np.float32]]:
    """Every column as one series [T]; both stocks have the same."""
    tables = market_tables(["10010", "10020"], DAYS, np.random.default_rng(0))
    panel = build_panel(tables["calendar"], tables["master"], tables["bars_daily"])
    built = compute_group(GROUP, Inputs(panel, {"topix": bars}))
    assert all(np.array_equal(values[:, 0], values[:, 1], equal_nan=True) for values in built.values())
    return {name: values[:, 0] for name, values in built.items()}


def test_values_of_the_last_day_by_hand() -> None:
    bars = topix_bars(DAYS, np.random.default_rng(1))
    k, o = bars["C"].to_numpy(), bars["O"].to_numpy()
    built = {name: values[-1] for name, values in columns(bars).items()}
    logs = np.diff(np.log(k))
    ret = k[1:] / k[:-1] - 1
    mean, sd = k[-20:].mean(), k[-20:].std()
    assert built["mkt_ret_20d"] == pytest.approx(k[-1] / k[-21] - 1)
    assert built["mkt_ret_overnight"] == pytest.approx(o[-1] / k[-2] - 1)
    assert (1 + built["mkt_ret_overnight"]) * (1 + built["mkt_ret_intraday"]) == pytest.approx(
        1 + built["mkt_ret_1d"], rel=1e-6
    )
    assert built["mkt_vol_cc_20"] == pytest.approx(logs[-20:].std(ddof=1) * np.sqrt(245))
    assert built["mkt_bb_pctb_20"] == pytest.approx((k[-1] - mean + 2 * sd) / (4 * sd))
    assert built["mkt_dd_240"] == pytest.approx(k[-1] / k[-240:].max() - 1)
    assert built["mkt_ret_1d_z240"] == pytest.approx((ret[-1] - ret[-240:].mean()) / ret[-240:].std(ddof=1))
    assert built["mkt_flag_bull_200"] == float(k[-1] > k[-200:].mean())


def test_big_move_is_measured_against_the_days_before_it() -> None:
    bars = topix_bars(DAYS, np.random.default_rng(1))
    crash = bars.with_columns(C=pl.when(pl.col("Date") == DAYS[300]).then(pl.col("C") * 0.5).otherwise("C"))
    flag = columns(crash)["mkt_flag_big_move"]
    assert flag[300] == 1.0
    assert flag[303] == 0.0, "the crash itself widens what counts as usual"


def test_rising_market_has_a_full_strength_index_and_a_flat_one_the_middle() -> None:
    bars = topix_bars(DAYS, np.random.default_rng(1))
    step = np.arange(len(DAYS), dtype=float)
    for close, rsi in ((1000 + step, 100.0), (1000 - step, 0.0), (np.full(len(DAYS), 1000.0), 50.0)):
        assert columns(bars.with_columns(C=pl.Series(close)))["mkt_rsi_14"][-1] == pytest.approx(rsi)


def test_flags_are_null_before_their_windows_fill() -> None:
    built = columns(topix_bars(DAYS, np.random.default_rng(1)))
    first = {name: int(np.flatnonzero(np.isfinite(values))[0]) for name, values in built.items()}
    assert first["mkt_flag_bull_200"] == 179
    assert first["mkt_flag_trend_up"] == 19
    assert first["mkt_flag_big_move"] == 46
    assert first["mkt_flag_high_vol"] == first["mkt_vol_20_z240"] == 15 + 119


def test_group_without_its_table_is_refused() -> None:
    tables = market_tables(["10010"], DAYS[:3], np.random.default_rng(0))
    panel = build_panel(tables["calendar"], tables["master"], tables["bars_daily"])
    with pytest.raises(ContractBroken, match="topix"):
        compute_group(GROUP, Inputs(panel, {}))


def test_bars_off_the_axis_are_left_out_and_missing_ones_are_null() -> None:
    days = DAYS[:10]
    bars = topix_bars(days, np.random.default_rng(1))
    axis = np.array([days[0], days[1], days[3], days[9] + timedelta(days=1)], "datetime64[D]")
    close = read_topix(bars.filter(pl.col("Date") != days[3]), axis).close
    assert close[:2].tolist() == bars["C"].to_list()[:2]
    assert np.isnan(close[2:]).all()


def test_repeated_date_is_refused() -> None:
    bars = topix_bars(DAYS[:3], np.random.default_rng(1))
    with pytest.raises(ContractBroken, match="twice"):
        read_topix(pl.concat([bars, bars.head(1)]), bars["Date"].to_numpy())


def test_yang_zhang_recovers_the_volatility_of_a_random_walk() -> None:
    rng = np.random.default_rng(2)
    days, steps, sigma = 400, 300, 0.01
    path = np.exp(np.cumsum(rng.normal(0, sigma / np.sqrt(steps), (days, steps)), axis=1))
    start = np.cumprod(np.concatenate([[1.0], path[:-1, -1]]))[:, None]
    bars = path * start
    topix = Topix(start[:, 0], np.maximum(bars.max(1), start[:, 0]), np.minimum(bars.min(1), start[:, 0]), bars[:, -1])
    assert yang_zhang(topix, 240, 240)[-1] == pytest.approx(sigma * np.sqrt(245), rel=0.1)
