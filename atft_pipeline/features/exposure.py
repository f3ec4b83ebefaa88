"""`mb`: a stock against the market: beta, correlation, and the returns that the market does not explain.

Pairs are rows on which both the stock's and TOPIX's return of the same day are known. A residual uses the beta of the
row before, so no day explains itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.residuals import market_beta, residual_return
from atft_pipeline.features.tables import required_table
from atft_pipeline.features.topix import read_topix
from atft_pipeline.panel.operators import Array, divide, elementwise, ts_corr, ts_lag, ts_mean, ts_sum, ts_var
from atft_pipeline.settings import ANNUAL_DAYS


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    topix = read_topix(required_table(inputs.tables, "topix"), panel.axes.dates)
    market = np.broadcast_to(topix.simple_return(1)[:, None], panel.axes.shape)
    r, m = (elementwise(_where_both, x, y) for x, y in ((panel.ret_1d, market), (market, panel.ret_1d)))
    beta = market_beta(panel, topix, 60, 40)
    residual_volatility = elementwise(_unexplained, ts_var(r, 60, 40), beta, ts_var(m, 60, 40))
    e = residual_return(panel, topix)

    yield "mb_beta_60", beta
    yield "mb_beta_240", market_beta(panel, topix, 240, 160)
    yield "mb_corr_60", ts_corr(r, m, 60, 40)
    yield "mb_resid_vol_60", residual_volatility
    yield "mb_alpha_60", elementwise(_alpha, ts_mean(r, 60, 40), beta, ts_mean(m, 60, 40))
    yield "mb_resid_ret_1d", e
    yield "mb_resid_ret_5d", ts_sum(e, 5, 5)
    yield "mb_resid_ret_20d", ts_sum(e, 20, 18)
    yield "mb_rel_ret_5d", elementwise(np.subtract, panel.ret(5), topix.simple_return(5)[:, None])
    yield "mb_rel_ret_20d", elementwise(np.subtract, panel.ret(20), topix.simple_return(20)[:, None])
    yield "mb_idio_vol_ratio", divide(residual_volatility, panel.vol_cc(60, 45))
    yield "mb_beta_chg_20", elementwise(np.subtract, beta, ts_lag(beta, 20))


def _where_both(x: Array, other: Array) -> Array:
    return np.where(np.isfinite(x) & np.isfinite(other), x, np.nan)


def _unexplained(variance: Array, beta: Array, market: Array) -> Array:
    return np.sqrt(np.maximum(variance - beta**2 * market, 0) * ANNUAL_DAYS)


def _alpha(mean: Array, beta: Array, market: Array) -> Array:
    return mean - beta * market


_CS = "cross_section"
COLUMNS = (
    Column("mb_beta_60", "f32", "cov(r, m)/var(m), m = mkt_ret_1d of the same day", "60/40", "null if var(m) = 0", _CS),
    Column("mb_beta_240", "f32", "cov(r, m)/var(m)", "240/160", "null if var(m) = 0", _CS),
    Column("mb_corr_60", "f32", "corr(r, m)", "60/40", "null if r or m is constant", _CS),
    Column("mb_resid_vol_60", "f32", "sqrt(max(0, var(r) - mb_beta_60^2 var(m)) 245)", "60/40", "", _CS),
    Column("mb_alpha_60", "f32", "mean(r) - mb_beta_60 mean(m), daily units", "60/40", "", _CS),
    Column("mb_resid_ret_1d", "f32", "e = r - mb_beta_60[-1] m", "61/40", "null if the lagged beta is null", _CS),
    Column("mb_resid_ret_5d", "f32", "sum of e", "5/5", "", _CS),
    Column("mb_resid_ret_20d", "f32", "sum of e", "20/18", "", _CS),
    Column("mb_rel_ret_5d", "f32", "ret_5d - mkt_ret_5d", "5 lag", "", _CS),
    Column("mb_rel_ret_20d", "f32", "ret_20d - mkt_ret_20d", "20 lag", "", _CS),
    Column("mb_idio_vol_ratio", "f32", "mb_resid_vol_60/vol_cc_60", "60/45", "null if vol_cc_60 = 0", _CS),
    Column("mb_beta_chg_20", "f32", "mb_beta_60 - mb_beta_60[-20]", "80/40", "", _CS),
)

GROUP = Group(
    name="mb",
    tier="standard",
    tables=("calendar", "master", "bars_daily", "topix"),
    availability="T, after the close",
    columns=COLUMNS,
    compute=compute,
    by_stock=True,
)
