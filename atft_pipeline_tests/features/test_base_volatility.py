"""Volatility and spread estimators on a simulated geometric Brownian motion whose truth is known (Q21)."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from atft_pipeline.features import liquidity, volatility
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.panel.availability import TradingCalendar
from atft_pipeline.panel.axes import Axes
from atft_pipeline.panel.panel import Panel
from atft_pipeline.settings import ANNUAL_DAYS
from atft_pipeline_tests.synthetic import START, calendar_frame, one_code_panel, trading_days

SIGMA = 0.30
DAYS, CODES, STEPS = 120, 30, 400
OVERNIGHT = 0.2
"""Share of a day's variance between close and open."""


def brownian_panel(spread: float = 0.0, overnight: float = OVERNIGHT) -> Panel:
    """Quotes of a driftless diffusion with yearly volatility 30 %; trades bounce by +-spread/2 around it."""
    rng = np.random.default_rng(11)
    daily = SIGMA / np.sqrt(ANNUAL_DAYS)
    gap = rng.normal(0, daily * np.sqrt(overnight), (DAYS, CODES))
    steps = rng.normal(0, daily * np.sqrt((1 - overnight) / STEPS), (DAYS, CODES, STEPS))
    opens_at = np.concatenate([np.zeros((1, CODES)), (gap + steps.sum(2))[:-1]]).cumsum(0) + gap
    path = np.concatenate([np.zeros((DAYS, CODES, 1)), steps.cumsum(2)], axis=2) + opens_at[:, :, None]
    bounce = np.where(rng.random(path.shape) < 0.5, 1, -1) * np.log1p(spread / 2)
    price = 1000 * np.exp(path + bounce)
    calendar = calendar_frame(START, START + timedelta(days=400))
    dates = np.array(trading_days(calendar)[:DAYS], "datetime64[D]")
    codes = np.array([f"{1300 + i}0" for i in range(CODES)])
    one, ids = np.ones((DAYS, CODES)), np.ones((DAYS, CODES), np.int8)
    return Panel(
        Axes(dates, codes, np.ones((DAYS, CODES), np.bool_)),
        TradingCalendar.from_frame(calendar),
        open=price[:, :, 0], high=price.max(2), low=price.min(2), close=price[:, :, -1],
        volume=1e5 * one, turnover=1e8 * one, factor=one, upper=0 * one, lower=0 * one,
        market=ids, sector17=ids, sector33=ids, scale=ids, margin=ids,
    )  # fmt: skip


@pytest.fixture(scope="module")
def columns() -> dict[str, NDArray[np.float32]]:
    return compute_group(volatility.GROUP, Inputs(brownian_panel(), {}))


@pytest.mark.parametrize("name", ["vol_cc_20", "vol_cc_60", "vol_yz_20", "vol_yz_60"])
def test_whole_day_estimators_find_the_true_volatility(columns: dict[str, NDArray[np.float32]], name: str) -> None:
    assert np.nanmean(columns[name][60:]) == pytest.approx(SIGMA, rel=0.10)


@pytest.mark.parametrize("name", ["vol_pk_20", "vol_rs_20"])
def test_range_estimators_find_the_session_volatility(columns: dict[str, NDArray[np.float32]], name: str) -> None:
    assert np.nanmean(columns[name][60:]) == pytest.approx(SIGMA * np.sqrt(1 - OVERNIGHT), rel=0.10)


def test_downside_is_half_the_variance_of_a_symmetric_walk(columns: dict[str, NDArray[np.float32]]) -> None:
    assert np.nanmean(columns["vol_down_20"][60:]) == pytest.approx(SIGMA / np.sqrt(2), rel=0.10)


def test_ratios_are_ratios_of_their_columns(columns: dict[str, NDArray[np.float32]]) -> None:
    ratio = columns["vol_cc_5"] / columns["vol_cc_60"]
    np.testing.assert_allclose(columns["vol_ratio_5_60"], ratio, rtol=1e-5)
    window = columns["vol_cc_5"][80:100, 0].astype(float)
    assert columns["vol_of_vol_20"][99, 0] == pytest.approx(window.std(ddof=1) / window.mean(), rel=1e-4)


def test_range_surprise_leaves_today_out_of_its_window(columns: dict[str, NDArray[np.float32]]) -> None:
    prior = columns["range_hl_1d"][70:90, 3].astype(float)
    today = float(columns["range_hl_1d"][90, 3])
    assert columns["range_z_20"][90, 3] == pytest.approx((today - prior.mean()) / prior.std(ddof=1), rel=1e-4)


def test_still_price_has_volatility_zero_and_no_ratio() -> None:
    days = trading_days(calendar_frame(START, START + timedelta(days=200)))[:80]
    still = compute_group(volatility.GROUP, Inputs(one_code_panel(days, [500.0] * 80), {}))
    assert all(still[name][-1, 0] == 0 for name in ("vol_cc_60", "vol_pk_20", "vol_rs_20", "vol_yz_20", "vol_down_20"))
    assert all(np.isnan(still[name][-1, 0]) for name in ("vol_ratio_5_60", "vol_of_vol_20", "range_z_20"))


def test_corwin_schultz_grows_with_the_spread_and_is_of_its_size() -> None:
    """Negative days count as 0, so a small spread is overestimated; a large one is found."""
    estimates = [
        float(np.nanmean(compute_group(liquidity.GROUP, Inputs(brownian_panel(s, 0.0), {}))["liq_cs_spread_20"]))
        for s in (0.0, 0.01, 0.03)
    ]
    assert estimates[0] < estimates[1] < estimates[2]
    assert estimates[2] == pytest.approx(0.03, rel=0.15)


def test_corwin_schultz_of_two_days_by_hand() -> None:
    days = trading_days(calendar_frame(START, START + timedelta(days=60)))[:2]
    panel = one_code_panel(days, [100.0, 101.0], H=[102.0, 103.0], L=[99.0, 100.0])
    b = np.log(102 / 99) ** 2 + np.log(103 / 100) ** 2
    g = np.log(103 / 99) ** 2
    k = 3 - 2 * np.sqrt(2)
    a = (np.sqrt(2 * b) - np.sqrt(b)) / k - np.sqrt(g / k)
    expected = max(0.0, 2 * (np.exp(a) - 1) / (1 + np.exp(a)))
    assert liquidity.corwin_schultz(panel)[1, 0] == pytest.approx(expected)


def test_roll_spread_of_a_pure_bounce_is_the_spread() -> None:
    """c alternates by +-s/2 at random around a constant: -cov of neighbouring returns is s^2/4."""
    rng = np.random.default_rng(3)
    days = trading_days(calendar_frame(START, START + timedelta(days=900)))[:500]
    close = 1000 * np.exp(np.where(rng.random(500) < 0.5, 0.005, -0.005))
    ours = compute_group(liquidity.GROUP, Inputs(one_code_panel(days, close.tolist()), {}))["liq_roll_spread_20"]
    assert np.sqrt(np.nanmean(ours.astype(float) ** 2)) == pytest.approx(0.01, rel=0.15)
