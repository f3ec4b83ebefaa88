"""`evt`: days at a price limit and days of a split. Only "since": days to the next one would need the future."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.panel.operators import ts_since, ts_sum, where_known

SINCE_CAP = 250


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    at_limit = np.fmax(panel.upper, panel.lower)
    ex_date = where_known(panel.factor != 1, panel.factor)
    yield "lim_is_up", panel.upper
    yield "lim_is_down", panel.lower
    yield "lim_cnt_20", ts_sum(at_limit, 20, 1)
    yield "lim_td_since", ts_since(at_limit, SINCE_CAP)
    yield "split_is_ex", ex_date
    yield "split_td_since", ts_since(ex_date, SINCE_CAP)


_CS = "cross_section"
COLUMNS = (
    Column("lim_is_up", "i8", "traded at the upper limit", "", "null if the field is missing", "flag"),
    Column("lim_is_down", "i8", "traded at the lower limit", "", "null if the field is missing", "flag"),
    Column("lim_cnt_20", "i8", "rows at either limit", "20/1", "", _CS),
    Column("lim_td_since", "i16", "rows since the last one at a limit, cap 250", "250 lag", "250 if none seen", _CS),
    Column("split_is_ex", "i8", "adjustment factor != 1 on T", "", "", "flag"),
    Column("split_td_since", "i16", "rows since the last split, cap 250", "250 lag", "250 if none seen", _CS),
)

GROUP = Group(
    name="evt",
    tier="base",
    tables=("calendar", "master", "bars_daily"),
    availability="T, after the close (the factor is on the row of the ex-date itself)",
    columns=COLUMNS,
    compute=compute,
    by_stock=True,
)
