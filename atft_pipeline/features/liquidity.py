"""`liq`: how much trades and what trading costs. A ratio to the prior rows (without T) measures surprise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.panel.operators import (
    Array,
    divide,
    elementwise,
    log,
    relative,
    ts_corr,
    ts_cov,
    ts_lag,
    ts_mean,
    ts_std,
    where,
)
from atft_pipeline.panel.panel import Panel


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    v, tv, r = panel.v, panel.turnover, panel.ret_1d
    before, log_v = ts_lag(v, 1), elementwise(np.log1p, v)
    log_before = ts_lag(log_v, 1)
    market_turnover = panel.market_turnover[:, None]
    x = panel.logret_1d
    yield "liq_vol_ratio_5", divide(v, ts_mean(before, 5, 4))
    yield "liq_vol_ratio_20", panel.vol_ratio_20
    surprise = elementwise(np.subtract, log_v, ts_mean(log_before, 20, 15))
    yield "liq_vol_z_20", divide(surprise, ts_std(log_before, 20, 15))
    yield "liq_vol_accel", relative(ts_mean(v, 5, 4), ts_mean(v, 20, 15))
    yield "liq_log_adv_20", panel.log_adv_20
    yield "liq_log_adv_60", elementwise(np.log1p, ts_mean(tv, 60, 30))
    yield "liq_tv_mkt_share_bp", elementwise(_share_bp, tv, market_turnover)
    impact = elementwise(lambda r, tv: divide(np.abs(r), np.where(tv > 0, tv, np.nan)), r, tv)
    yield "liq_amihud_20", elementwise(lambda mean: np.log1p(1e9 * mean), ts_mean(impact, 20, 10))
    yield "liq_zero_frac_60", ts_mean(where(panel.axes.listed, ~panel.traded), 60, 30)
    yield "liq_vwap_dev", relative(elementwise(np.multiply, panel.close, panel.volume), tv)
    covariance = ts_cov(x, ts_lag(x, 1), 20, 15)
    yield "liq_roll_spread_20", elementwise(lambda cov: 2 * np.sqrt(np.maximum(0, -cov)), covariance)
    yield "liq_cs_spread_20", ts_mean(corwin_schultz(panel), 20, 15)
    yield "liq_retvol_corr_20", ts_corr(elementwise(np.abs, r), log_v, 20, 15)


def _share_bp(turnover: Array, whole: Array) -> Array:
    return np.where(turnover == 0, 0.0, 1e4 * divide(turnover, whole))


def corwin_schultz(panel: Panel) -> Array:
    """Spread of each pair of days from their ranges, [T, N], not below 0 (Corwin and Schultz, 2012).

    Two days' range holds twice the variance of one day's, but the spread only once.
    """
    high, low = panel.h, panel.l
    highest, lowest = elementwise(np.maximum, high, ts_lag(high, 1)), elementwise(np.minimum, low, ts_lag(low, 1))
    day, two_days = log(divide(high, low)), log(divide(highest, lowest))
    k = 3 - 2 * np.sqrt(2)

    def spread(day: Array, day_before: Array, two_days: Array) -> Array:
        b, g = day**2 + day_before**2, two_days**2
        a = (np.sqrt(2 * b) - np.sqrt(b)) / k - np.sqrt(g / k)
        return np.maximum(0, 2 * np.expm1(a) / (1 + np.exp(a)))

    return elementwise(spread, day, ts_lag(day, 1), two_days)


_CS = "cross_section"
COLUMNS = (
    Column("liq_vol_ratio_5", "f32", "v/mean(v), prior rows", "5/4 prior", "null if mean 0", _CS, spectral=True),
    Column("liq_vol_ratio_20", "f32", "v/mean(v), prior rows", "20/15 prior", "null if mean 0", _CS),
    Column("liq_vol_z_20", "f32", "z of ln(1 + v), prior rows", "20/15 prior", "null if sd 0", _CS, spectral=True),
    Column("liq_vol_accel", "f32", "mean5(v)/mean20(v) - 1", "20/15", "mean5 needs 4 rows", _CS),
    Column("liq_log_adv_20", "f32", "ln(1 + mean(turnover))", "20/10", "", _CS),
    Column("liq_log_adv_60", "f32", "ln(1 + mean(turnover))", "60/30", "", _CS),
    Column("liq_tv_mkt_share_bp", "f32", "1e4 turnover / universe's turnover on T", "", "0 if turnover is 0", _CS),
    Column("liq_amihud_20", "f32", "ln(1 + 1e9 mean(|ret_1d|/turnover)), turnover > 0", "20/10", "", _CS),
    Column("liq_zero_frac_60", "f32", "share of listed rows with volume 0 or null", "60/30", "", _CS),
    Column("liq_vwap_dev", "f32", "px_close px_volume/px_turnover - 1", "", "null if volume 0", _CS, spectral=True),
    Column("liq_roll_spread_20", "f32", "2 sqrt(max(0, -cov(x, x[-1]))), x = logret_1d", "20/15", "", _CS),
    Column("liq_cs_spread_20", "f32", "mean of the Corwin-Schultz spread", "20/15", "", _CS),
    Column("liq_retvol_corr_20", "f32", "corr(|ret_1d|, ln(1 + v))", "20/15", "null if either sd 0", _CS),
)

GROUP = Group(
    name="liq",
    tier="base",
    tables=("calendar", "master", "bars_daily"),
    availability="T, after the close",
    columns=COLUMNS,
    compute=compute,
    by_stock=True,
)
