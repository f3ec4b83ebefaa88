"""`px`: the day's quotes as they were printed, unadjusted: what a later split cannot change."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    yield "px_open", panel.open
    yield "px_high", panel.high
    yield "px_low", panel.low
    yield "px_close", panel.close
    yield "px_volume", panel.volume
    yield "px_turnover", panel.turnover


COLUMNS = (
    Column("px_open", "f32", "open, yen", "", "null on a day without trades", "log"),
    Column("px_high", "f32", "high, yen", "", "null on a day without trades", "log"),
    Column("px_low", "f32", "low, yen", "", "null on a day without trades", "log"),
    Column("px_close", "f32", "close, yen", "", "null on a day without trades", "log"),
    Column("px_volume", "f32", "volume, shares", "", "0 stays 0, null stays null", "log"),
    Column("px_turnover", "f32", "turnover, yen", "", "0 stays 0, null stays null", "log"),
)

GROUP = Group(
    name="px",
    tier="base",
    tables=("calendar", "master", "bars_daily"),
    availability="T, after the close",
    columns=COLUMNS,
    compute=compute,
)
