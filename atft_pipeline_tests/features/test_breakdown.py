"""Breakdown columns: golden values, the identity of the two sides, windows over records, nulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.breakdown import GROUP, LEGS
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.panel.panel import build_panel
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic import START, Frames, calendar_frame, market, one_code_panel, trading_days
from atft_pipeline_tests.synthetic_trading import typed_rows

CODE = "13010"
DAYS = trading_days(calendar_frame(START, date(2023, 3, 1)))


def day(t: int, *legs: float) -> dict[str, object]:
    """Yen of the legs in the order of LEGS: cash, shorts, new margin and closing sales; cash, new and closing buys."""
    return {"Date": DAYS[t], "Code": CODE, **dict(zip(LEGS, legs, strict=True))}


def columns(rows: Sequence[Mapping[str, object]]) -> dict[str, NDArray[np.float32]]:
    inputs = Inputs(one_code_panel(DAYS, [100.0] * len(DAYS)), {"breakdown": typed_rows("breakdown", rows)})
    return {name: values[:, 0] for name, values in compute_group(GROUP, inputs).items()}


@pytest.fixture(scope="module")
def frames() -> Frames:
    return market(codes=20, days=260)


def test_shares_of_a_day() -> None:
    found = columns([day(49, 50, 30, 5, 15, 70, 25, 5), day(50, 400, 300, 100, 200, 550, 350, 100)])
    wanted = {
        "bd_margin_buy_share": 0.35,
        "bd_margin_cover_share": 0.10,
        "bd_long_sell_share": 0.40,
        "bd_short_share": 0.40,
        "bd_inst_short_share": 0.30,
        "bd_margin_short_share": 0.10,
        "bd_margin_unwind_share": 0.20,
        "bd_margin_long_net": 0.15,
        "bd_margin_short_net": 0.0,
        "bd_margin_net": 0.15,
        "bd_cash_net": 0.15,
        "bd_margin_activity": 0.375,
        "bd_short_share_chg_1d": 0.05,
        "bd_valid": 1.0,
    }
    assert {name: found[name][51] for name in wanted} == pytest.approx(wanted, abs=1e-7)


def test_a_day_is_known_on_the_next_and_valid_on_that_day_only() -> None:
    found = columns([day(50, 400, 300, 100, 200, 550, 350, 100)])
    assert np.flatnonzero(np.isfinite(found["bd_short_share"]))[0] == 51
    assert found["bd_valid"][50:54].tolist() == [0, 1, 0, 0]
    assert found["bd_short_share"][60] == pytest.approx(0.4)


def test_a_day_without_turnover_is_null() -> None:
    found = columns([day(50, 0, 0, 0, 0, 0, 0, 0)])
    assert all(np.isnan(found[name]).all() for name in found if name != "bd_valid")
    assert found["bd_valid"][51] == 1


def test_windows_count_records() -> None:
    rng = np.random.default_rng(4)
    traded = [t for t in range(280) if t % 11 != 3]  # no row on a day without a trade
    whole = np.round(rng.uniform(1e6, 1e8, 250))
    sells, buys = (np.round(whole[:, None] * rng.dirichlet([2] * k, 250)) for k in (4, 3))
    sells[:, 0] += whole - sells.sum(axis=1)
    buys[:, 0] += whole - buys.sum(axis=1)
    legs = np.hstack([sells, buys])
    found = columns([day(t, *map(float, legs[n])) for n, t in enumerate(traded[:250])])
    short = (legs[:, 1] + legs[:, 2]) / whole
    numerator = legs[:, 5] - legs[:, 3] - legs[:, 2] + legs[:, 6]
    cash = (legs[:, 4] - legs[:, 0]) / whole

    def z(x: NDArray[np.float64]) -> float:
        return float((x[-1] - x.mean()) / x.std(ddof=1))

    for n in (14, 30, 249):
        row, last = traded[n] + 1, slice(max(0, n - 19), n + 1)
        assert found["bd_short_share_z20"][row] == pytest.approx(z(short[last]), rel=1e-4)
        assert found["bd_margin_net_z20"][row] == pytest.approx(z((numerator / whole)[last]), rel=1e-4)
        assert found["bd_cash_net_z20"][row] == pytest.approx(z(cash[last]), rel=1e-4)
        five = slice(n - 4, n + 1)
        assert found["bd_margin_net_sum5"][row] == pytest.approx(numerator[five].sum() / whole[five].sum(), rel=1e-4)
    assert found["bd_activity_ratio_20"][traded[30] + 1] == pytest.approx(whole[30] / whole[10:30].mean(), rel=1e-5)
    assert found["bd_short_share_z240"][traded[249] + 1] == pytest.approx(z(short[10:]), rel=1e-4)
    assert np.isnan(found["bd_short_share_z240"][traded[118] + 1])
    assert np.isfinite(found["bd_short_share_z240"][traded[119] + 1])
    assert np.isnan(found["bd_short_share_z20"][traded[13] + 1])


def test_the_two_sides_of_every_trade_cancel(frames: Frames) -> None:
    """Total buying minus total selling is 0, so these four columns are tied: the composition is what is left."""
    found = compute_group(GROUP, Inputs(build_panel(frames.calendar, frames.master, frames.bars), frames.events))
    tied = (
        found["bd_cash_net"] + found["bd_margin_long_net"] - found["bd_margin_short_net"] - found["bd_inst_short_share"]
    )
    known = np.isfinite(tied)
    assert known.mean() > 0.8 and np.abs(tied[known]).max() < 1e-6


def test_a_missing_leg_is_named() -> None:
    with pytest.raises(ContractBroken, match="breakdown lacks the columns MrgnBuyNewVa"):
        frame = typed_rows("breakdown", [day(50, 400, 300, 100, 200, 550, 350, 100)]).drop("MrgnBuyNewVa")
        compute_group(GROUP, Inputs(one_code_panel(DAYS, [100.0] * len(DAYS)), {"breakdown": frame}))
