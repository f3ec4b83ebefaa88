"""`vol`: how much the price moves, from closes and from the day's range; annualised by sqrt(245) unless said."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.panel.operators import Array, divide, elementwise, log, ts_lag, ts_mean, ts_std, ts_var
from atft_pipeline.panel.panel import Panel
from atft_pipeline.settings import ANNUAL_DAYS

ANNUAL = np.sqrt(ANNUAL_DAYS)


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    r = panel.logret_1d
    hl = log(divide(panel.h, panel.l))
    rs = rogers_satchell(panel)
    vol_5, vol_60 = _annual(ts_std(r, 5, 4)), panel.vol_cc(60, 45)
    yield "vol_cc_5", vol_5
    yield "vol_cc_10", _annual(ts_std(r, 10, 8))
    yield "vol_cc_20", panel.vol_cc(20, 15)
    yield "vol_cc_60", vol_60
    squares = ts_mean(elementwise(np.square, hl), 20, 15)
    yield "vol_pk_20", elementwise(lambda mean: np.sqrt(ANNUAL_DAYS * mean / (4 * np.log(2))), squares)
    yield "vol_rs_20", _annual_root(ts_mean(rs, 20, 15))
    overnight, session = log(divide(panel.o, ts_lag(panel.c, 1))), log(divide(panel.c, panel.o))
    yield "vol_yz_20", yang_zhang(overnight, session, rs, 20, 15)
    yield "vol_yz_60", yang_zhang(overnight, session, rs, 60, 45)
    falls = ts_mean(elementwise(lambda r: np.minimum(r, 0) ** 2, r), 20, 15)
    yield "vol_down_20", elementwise(lambda mean: np.sqrt(ANNUAL_DAYS * mean), falls)
    yield "vol_of_vol_20", divide(ts_std(vol_5, 20, 15), ts_mean(vol_5, 20, 15))
    yield "vol_ratio_5_60", divide(vol_5, vol_60)
    yield "range_hl_1d", hl
    before = ts_lag(hl, 1)
    yield "range_z_20", divide(elementwise(np.subtract, hl, ts_mean(before, 20, 15)), ts_std(before, 20, 15))


def _annual(daily: Array) -> Array:
    return elementwise(lambda daily: daily * ANNUAL, daily)


def _annual_root(variance: Array) -> Array:
    """Annualised root of a daily variance, which may come out below 0."""
    return elementwise(lambda variance: np.sqrt(ANNUAL_DAYS * np.maximum(variance, 0)), variance)


def rogers_satchell(panel: Panel) -> Array:
    """ln(h/c) ln(h/o) + ln(l/c) ln(l/o), a day's variance whatever its drift (Rogers and Satchell, 1991)."""
    o, high, low, c = panel.o, panel.h, panel.l, panel.c

    def variance(high: Array, low: Array, o: Array, c: Array) -> Array:
        return log(divide(high, c)) * log(divide(high, o)) + log(divide(low, c)) * log(divide(low, o))

    return elementwise(variance, high, low, o, c)


def yang_zhang(overnight: Array, session: Array, rs: Array, n: int, min_obs: int) -> Array:
    """Annualised volatility with overnight jumps (Yang and Zhang, 2000), weighted for least variance.

    `overnight` ln(o/c[-1]), `session` ln(c/o), `rs` the day's `rogers_satchell`.
    """
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    parts = ts_var(overnight, n, min_obs), ts_var(session, n, min_obs), ts_mean(rs, n, min_obs)
    return _annual_root(elementwise(lambda jump, day, drift: jump + k * day + (1 - k) * drift, *parts))


_CS = "cross_section"
_YZ = "sqrt(245 (var(ov) + k var(oc) + (1 - k) mean(RS)))"
COLUMNS = (
    Column("vol_cc_5", "f32", "sd(logret_1d) sqrt(245)", "5/4", "", _CS, spectral=True),
    Column("vol_cc_10", "f32", "sd(logret_1d) sqrt(245)", "10/8", "", _CS, spectral=True),
    Column("vol_cc_20", "f32", "sd(logret_1d) sqrt(245)", "20/15", "", _CS),
    Column("vol_cc_60", "f32", "sd(logret_1d) sqrt(245)", "60/45", "", _CS),
    Column("vol_pk_20", "f32", "sqrt(245 mean(ln(h/l)^2)/(4 ln 2))", "20/15", "h=l=o=c counts as 0", _CS),
    Column("vol_rs_20", "f32", "sqrt(245 max(mean(RS), 0))", "20/15", "", _CS),
    Column("vol_yz_20", "f32", f"{_YZ}, n = 20", "20/15", "", _CS),
    Column("vol_yz_60", "f32", f"{_YZ}, n = 60", "60/45", "", _CS),
    Column("vol_down_20", "f32", "sqrt(245 mean(min(logret_1d, 0)^2))", "20/15", "", _CS),
    Column("vol_of_vol_20", "f32", "sd(vol_cc_5)/mean(vol_cc_5)", "20/15", "null if mean <= 1e-12", _CS),
    Column("vol_ratio_5_60", "f32", "vol_cc_5/vol_cc_60", "60/45", "null if vol_cc_60 <= 1e-12", _CS),
    Column("range_hl_1d", "f32", "ln(h/l), not annualised", "", "", _CS, spectral=True),
    Column("range_z_20", "f32", "(ln(h/l) - mean)/sd, prior rows", "20/15 prior", "null if sd 0", _CS, spectral=True),
)

GROUP = Group(
    name="vol",
    tier="base",
    tables=("calendar", "master", "bars_daily"),
    availability="T, after the close",
    columns=COLUMNS,
    compute=compute,
    by_stock=True,
)
