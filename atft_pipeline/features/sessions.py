"""`ses`: what the morning and the afternoon of a day say apart; Premium delivers them beside the daily bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.tables import require_columns, required_table
from atft_pipeline.panel.axes import Axes
from atft_pipeline.panel.operators import Array, divide, elementwise, log, relative, scatter, ts_lag, ts_mean, ts_sum
from atft_pipeline.panel.panel import Panel

Field = Callable[[str], Array]

FIELDS = ("MO", "MH", "ML", "MC", "MVo", "MUL", "MLL", "AO", "AH", "AL", "AC")


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel, bars = inputs.panel, required_table(inputs.tables, "bars_daily")
    require_columns("bars_daily", bars, ("Date", "Code", *FIELDS))
    session = _on_panel(bars, panel.axes)
    yield from _morning(panel, session)
    morning, afternoon = (_move(session(f"{half}O"), session(f"{half}C")) for half in "MA")
    yield "ses_lunch_gap", relative(session("AO"), session("MC"))
    yield "ses_pm_ret", afternoon
    high, low = session("AH"), session("AL")
    yield "ses_pm_range", log(divide(high, low))
    yield "ses_pm_close_loc", _close_location(high, low, session("AC"))
    yield "ses_pm_am_diff", elementwise(np.subtract, afternoon, morning)
    yield "ses_am_ret_sum_20", ts_sum(morning, 20, 15)
    yield "ses_pm_ret_sum_20", ts_sum(afternoon, 20, 15)
    up, down = session("MUL"), session("MLL")
    yield "ses_am_limit", elementwise(_limit, up, down)


def _morning(panel: Panel, session: Field) -> Iterator[tuple[str, Array]]:
    open_, high, low, close = (session(f"M{field}") for field in "OHLC")
    volume = session("MVo")
    in_first_row_units = elementwise(np.multiply, volume, panel.split)
    yield "ses_am_gap", relative(elementwise(np.divide, open_, panel.split), ts_lag(panel.c, 1))
    yield "ses_am_ret", _move(open_, close)
    yield "ses_am_range", log(divide(high, low))
    yield "ses_am_close_loc", _close_location(high, low, close)
    yield "ses_am_vol_share", divide(volume, panel.volume)
    yield "ses_am_vol_ratio_20", divide(in_first_row_units, ts_mean(ts_lag(in_first_row_units, 1), 20, 15))


def _on_panel(bars: pl.DataFrame, axes: Axes) -> Field:
    """A function that lays a field of the bars on the panel, [T, N]: eleven at once would take a gigabyte."""
    row = axes.date_index(bars["Date"].to_numpy().astype("datetime64[D]"))
    column = axes.code_index(bars["Code"])
    inside = (row >= 0) & (column >= 0)
    cells = row * axes.shape[1] + column
    cells = cells if inside.all() else cells[inside]

    def field(name: str) -> Array:
        dense, values = np.full(axes.shape, np.nan), bars[name].cast(pl.Float64).to_numpy()
        scatter(values if len(values) == len(cells) else values[inside], cells, dense)
        return dense

    return field


def _limit(up: Array, down: Array) -> Array:
    """1 at the upper limit, -1 at the lower one, else 0; null where either is unknown."""
    return np.where(np.isnan(up) | np.isnan(down), np.nan, np.where(up == 1, 1.0, np.where(down == 1, -1.0, 0.0)))


def _move(open_: Array, close: Array) -> Array:
    return relative(close, open_)


def _close_location(high: Array, low: Array, close: Array) -> Array:
    """Where the session closed within its range, -1 to 1; 0 when it had none."""

    def location(high: Array, low: Array, close: Array) -> Array:
        return np.where(high == low, 0.0, divide(2 * close - high - low, high - low))

    return elementwise(location, high, low, close)


_CS = "cross_section"
COLUMNS = (
    Column("ses_am_gap", "f32", "MO/(px_close[-1] F) - 1", "1 lag", "null without a morning trade", _CS),
    Column("ses_am_ret", "f32", "MC/MO - 1", "", "null without a morning trade", _CS),
    Column("ses_am_range", "f32", "ln(MH/ML)", "", "null without a morning trade", _CS),
    Column("ses_am_close_loc", "f32", "(2 MC - MH - ML)/(MH - ML)", "", "0 if range 0", _CS),
    Column("ses_am_vol_share", "f32", "MVo/px_volume", "", "null if volume 0", _CS),
    Column("ses_am_vol_ratio_20", "f32", "MVo G / mean of the prior 20", "20/15 prior", "", _CS),
    Column("ses_lunch_gap", "f32", "AO/MC - 1", "", "null if either missing", _CS),
    Column("ses_pm_ret", "f32", "AC/AO - 1", "", "null without an afternoon trade", _CS),
    Column("ses_pm_range", "f32", "ln(AH/AL)", "", "null without an afternoon trade", _CS),
    Column("ses_pm_close_loc", "f32", "(2 AC - AH - AL)/(AH - AL)", "", "0 if range 0", _CS),
    Column("ses_pm_am_diff", "f32", "ses_pm_ret - ses_am_ret", "", "", _CS),
    Column("ses_am_ret_sum_20", "f32", "sum of ses_am_ret", "20/15", "", _CS),
    Column("ses_pm_ret_sum_20", "f32", "sum of ses_pm_ret", "20/15", "", _CS),
    Column("ses_am_limit", "i8", "1 if MUL, -1 if MLL, else 0", "", "null if the field is missing", "flag"),
)

GROUP = Group(
    name="ses",
    tier="premium",
    tables=("calendar", "master", "bars_daily"),
    availability="T, after the close",
    columns=COLUMNS,
    compute=compute,
    plan="premium",
    bar_columns=FIELDS,
)
