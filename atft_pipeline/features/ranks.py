"""`xs`: where a stock stands among the universe on its date."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.panel.operators import Array, cs_rank, cs_zscore, divide, log, ts_lag

MIN_MEMBERS = 100
CLIP = 5.0


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel

    def pct(x: Array) -> Array:
        return cs_rank(x, panel.universe, MIN_MEMBERS)

    def z(x: Array) -> Array:
        return cs_zscore(x, panel.universe, MIN_MEMBERS, CLIP)

    yield "xs_pct_ret_1d", pct(panel.ret(1))
    yield "xs_pct_ret_5d", pct(panel.ret(5))
    yield "xs_pct_ret_20d", pct(panel.ret(20))
    yield "xs_pct_mom_240_20", pct(divide(ts_lag(panel.c, 20), ts_lag(panel.c, 240)) - 1)
    yield "xs_pct_vol_cc_20", pct(panel.vol_cc(20, 15))
    yield "xs_pct_adv_20", pct(panel.log_adv_20)
    yield "xs_z_ret_5d", z(panel.ret(5))
    yield "xs_z_vol_ratio_20", z(log(panel.vol_ratio_20))


_CS = "cross_section"
_N = "null outside U(T), n >= 100"
COLUMNS = (
    Column("xs_pct_ret_1d", "f32", "(average rank - 1)/(n - 1) of ret_1d", "1 lag", _N, _CS),
    Column("xs_pct_ret_5d", "f32", "(average rank - 1)/(n - 1) of ret_5d", "5 lag", _N, _CS),
    Column("xs_pct_ret_20d", "f32", "(average rank - 1)/(n - 1) of ret_20d", "20 lag", _N, _CS),
    Column("xs_pct_mom_240_20", "f32", "(average rank - 1)/(n - 1) of mom_240_20", "240 lag", _N, _CS),
    Column("xs_pct_vol_cc_20", "f32", "(average rank - 1)/(n - 1) of vol_cc_20", "20/15", _N, _CS),
    Column("xs_pct_adv_20", "f32", "(average rank - 1)/(n - 1) of liq_log_adv_20", "20/10", _N, _CS),
    Column("xs_z_ret_5d", "f32", "z of ret_5d within +-5", "5 lag", f"{_N}; null if sd 0", _CS),
    Column("xs_z_vol_ratio_20", "f32", "z of ln(liq_vol_ratio_20) within +-5", "20/15 prior", f"{_N}, ratio > 0", _CS),
)

GROUP = Group(
    name="xs",
    tier="base",
    tables=("calendar", "master", "bars_daily"),
    availability="T, after the close",
    columns=COLUMNS,
    compute=compute,
)
