"""`ret`: past returns of the split-adjusted close, and the shape of their recent distribution."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.panel.operators import divide, log, relative, ts_lag, ts_max, ts_min, ts_skew

LAGS = (1, 3, 5, 10, 20, 60, 120, 240)


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    c, o, r = panel.c, panel.o, panel.ret_1d
    for lag in LAGS:
        yield f"ret_{lag}d", panel.ret(lag)
    yield "logret_1d", panel.logret(1)
    yield "logret_5d", log(divide(c, ts_lag(c, 5)))
    yield "ret_overnight", relative(o, ts_lag(c, 1))
    yield "ret_intraday", relative(c, o)
    yield "mom_240_20", relative(ts_lag(c, 20), ts_lag(c, 240))
    yield "ret_max_20", ts_max(r, 20, 15)
    yield "ret_min_20", ts_min(r, 20, 15)
    yield "ret_skew_60", ts_skew(r, 60, 45)


_CS = "cross_section"
_SIDES = "null if either close is null"
COLUMNS = (
    Column("ret_1d", "f32", "c/c[-1] - 1", "1 lag", _SIDES, _CS, spectral=True),
    Column("ret_3d", "f32", "c/c[-3] - 1", "3 lag", _SIDES, _CS),
    Column("ret_5d", "f32", "c/c[-5] - 1", "5 lag", _SIDES, _CS, spectral=True),
    Column("ret_10d", "f32", "c/c[-10] - 1", "10 lag", _SIDES, _CS),
    Column("ret_20d", "f32", "c/c[-20] - 1", "20 lag", _SIDES, _CS),
    Column("ret_60d", "f32", "c/c[-60] - 1", "60 lag", _SIDES, _CS),
    Column("ret_120d", "f32", "c/c[-120] - 1", "120 lag", _SIDES, _CS),
    Column("ret_240d", "f32", "c/c[-240] - 1", "240 lag", _SIDES, _CS),
    Column("logret_1d", "f32", "ln(c/c[-1])", "1 lag", _SIDES, _CS, spectral=True),
    Column("logret_5d", "f32", "ln(c/c[-5])", "5 lag", _SIDES, _CS, spectral=True),
    Column("ret_overnight", "f32", "o/c[-1] - 1", "1 lag", "null if no open", _CS, spectral=True),
    Column("ret_intraday", "f32", "c/o - 1", "", "null if no open", _CS, spectral=True),
    Column("mom_240_20", "f32", "c[-20]/c[-240] - 1", "240 lag", "", _CS),
    Column("ret_max_20", "f32", "max of ret_1d", "20/15", "", _CS),
    Column("ret_min_20", "f32", "min of ret_1d", "20/15", "", _CS),
    Column("ret_skew_60", "f32", "biased skewness of ret_1d", "60/45", "null if variance 0", _CS),
)

GROUP = Group(
    name="ret",
    tier="base",
    tables=("calendar", "master", "bars_daily"),
    availability="T, after the close",
    columns=COLUMNS,
    compute=compute,
    by_stock=True,
)
