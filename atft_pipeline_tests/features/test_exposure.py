"""Stock against market by hand: exact betas, windows that fill, days that do not explain themselves."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features import exposure, residuals
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.panel.operators import ts_beta, ts_lag
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic import calendar_frame, one_code_panel, trading_days

DAYS = trading_days(calendar_frame(date(2022, 1, 4), date(2023, 12, 29)))[:300]
MARKET = np.random.default_rng(4).normal(0, 0.01, len(DAYS))
Array = NDArray[np.float64]


def level(returns: Array, start: float = 1000.0) -> Array:
    """Closes whose daily returns are `returns` from the second day on."""
    return start * np.cumprod(np.append(1.0, 1 + returns[1:]))


def columns(stock: Array, market: Array = MARKET, close: Array | None = None) -> dict[str, NDArray[np.float32]]:
    """The group for one stock with the given returns (or closes), each [T]."""
    topix = pl.DataFrame({"Date": DAYS, **{name: level(market, 2000.0) for name in "OHLC"}})
    prices = [None if np.isnan(c) else float(c) for c in (level(stock) if close is None else close)]
    built = compute_group(exposure.GROUP, Inputs(one_code_panel(DAYS, prices), {"topix": topix}))
    return {name: values[:, 0] for name, values in built.items()}


def test_beta_is_that_of_the_same_day() -> None:
    """Q20: r = 1.3 m exactly."""
    ours = columns(1.3 * MARKET)
    assert ours["mb_beta_60"][-1] == pytest.approx(1.3, rel=1e-6)
    assert ours["mb_beta_240"][-1] == pytest.approx(1.3, rel=1e-6)
    assert ours["mb_corr_60"][-1] == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(ours["mb_resid_vol_60"][100:], 0, atol=1e-6)
    np.testing.assert_allclose(ours["mb_resid_ret_20d"][100:], 0, atol=1e-6)
    np.testing.assert_allclose(ours["mb_beta_chg_20"][100:], 0, atol=1e-6)


def test_yesterdays_market_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault of Q20: a default lag of one day."""

    def lagged(r: Array, m: Array, rows: int, min_obs: int) -> Array:
        return ts_beta(r, ts_lag(m, 1), rows, min_obs)

    monkeypatch.setattr(residuals, "ts_beta", lagged)
    assert abs(columns(1.3 * MARKET)["mb_beta_60"][-1]) < 0.6


def test_alpha_is_the_daily_drift_beside_the_market() -> None:
    ours = columns(0.5 * MARKET + 0.001)
    assert ours["mb_alpha_60"][-1] == pytest.approx(0.001, rel=1e-4)
    assert ours["mb_resid_ret_5d"][-1] == pytest.approx(0.005, rel=1e-4)
    assert ours["mb_resid_ret_20d"][-1] == pytest.approx(0.020, rel=1e-4)


def test_residual_uses_the_beta_of_the_day_before() -> None:
    jump = np.where(np.arange(len(DAYS)) == 200, 0.2, 0.8 * MARKET)
    ours = columns(jump)
    assert ours["mb_beta_60"][200] != pytest.approx(0.8, rel=1e-3)
    assert ours["mb_resid_ret_1d"][200] == pytest.approx(0.2 - 0.8 * MARKET[200], rel=1e-5)


def test_idiosyncratic_share_of_an_independent_stock_is_nearly_all() -> None:
    own = np.random.default_rng(5).normal(0, 0.02, len(DAYS))
    window, x = own[-60:], MARKET[-60:]
    slope, intercept = np.polyfit(x, window, 1)
    ours = columns(own)
    assert ours["mb_beta_60"][-1] == pytest.approx(slope, rel=1e-4)
    assert ours["mb_alpha_60"][-1] == pytest.approx(intercept, rel=1e-3)
    left = np.sqrt(((window - intercept - slope * x) ** 2).sum() / 59 * 245)
    assert ours["mb_resid_vol_60"][-1] == pytest.approx(left, rel=1e-4)
    assert 0.9 < ours["mb_idio_vol_ratio"][-1] < 1.01


def test_relative_returns_are_differences() -> None:
    ours, stock, market = columns(2 * MARKET), level(2 * MARKET), level(MARKET)
    assert ours["mb_rel_ret_20d"][-1] == pytest.approx(stock[-1] / stock[-21] - market[-1] / market[-21], rel=1e-4)
    assert ours["mb_rel_ret_5d"][-1] == pytest.approx(stock[-1] / stock[-6] - market[-1] / market[-6], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("mb_beta_60", 40), ("mb_beta_240", 160), ("mb_corr_60", 40), ("mb_resid_ret_1d", 41), ("mb_resid_ret_5d", 45),
        ("mb_resid_ret_20d", 58), ("mb_idio_vol_ratio", 45), ("mb_beta_chg_20", 60), ("mb_rel_ret_20d", 20),
    ],
)  # fmt: skip
def test_columns_are_null_until_their_minimum(name: str, first: int) -> None:
    """Row 0 has no return, so n pairs are complete on row n."""
    known = np.flatnonzero(np.isfinite(columns(0.7 * MARKET + 0.0001)[name]))
    assert known[0] == first and len(known) == len(DAYS) - first


def test_days_without_a_pair_are_left_out_on_both_sides() -> None:
    close = level(1.3 * MARKET)
    close[150:160] = np.nan
    ours = columns(MARKET, close=close)
    assert ours["mb_beta_60"][165] == pytest.approx(1.3, rel=1e-5)
    assert np.isnan(ours["mb_resid_ret_5d"][164]) and np.isfinite(ours["mb_resid_ret_5d"][165])


def test_still_market_has_no_beta_and_a_still_stock_no_ratio() -> None:
    names = ("mb_beta_60", "mb_beta_240", "mb_corr_60", "mb_resid_ret_1d", "mb_resid_vol_60", "mb_alpha_60")
    still = columns(MARKET, market=np.zeros(len(DAYS)))
    assert all(np.isnan(still[name]).all() for name in names)
    assert np.isnan(columns(np.zeros(len(DAYS)))["mb_idio_vol_ratio"]).all()


def test_the_index_is_required() -> None:
    with pytest.raises(ContractBroken, match="topix"):
        compute_group(exposure.GROUP, Inputs(one_code_panel(DAYS[:5], [1.0] * 5), {}))
