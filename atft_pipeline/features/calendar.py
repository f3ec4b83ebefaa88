"""`cal`: where the date stands in the week, the month and the settlement cycle. The calendar is known in advance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.panel.availability import CalendarError

Days = NDArray[np.datetime64]
Ints = NDArray[np.int64]

FRIDAY = 4
_EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday; Monday is 0."""


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns, each [T]; see `COLUMNS` for the formulas."""
    dates, trading = inputs.panel.axes.dates, inputs.panel.calendar.days
    month = dates.astype("datetime64[M]")
    _require_reach(trading, dates[-1])
    at = np.searchsorted(trading, dates)
    month_start = np.searchsorted(trading, month.astype("datetime64[D]"))
    next_month_start = np.searchsorted(trading, (month + 1).astype("datetime64[D]"))
    yield "cal_dow", weekday(dates)
    yield "cal_month", month.astype(np.int64) % 12 + 1
    yield "cal_td_of_month", at - month_start + 1
    yield "cal_td_to_month_end", next_month_start - 1 - at
    yield "cal_td_to_sq", np.searchsorted(trading, next_sq(dates, trading)) - at
    yield "cal_closed_gap_next", (trading[at + 1] - dates).astype(np.int64) - 1


def weekday(dates: Days) -> Ints:
    """Monday 0 ... Sunday 6."""
    return (dates.astype("datetime64[D]").astype(np.int64) + _EPOCH_WEEKDAY) % 7


def next_sq(dates: Days, trading: Days) -> Days:
    """The first settlement (SQ) day on or after each date: the month's second Friday, or the trading day before it."""
    month = dates.astype("datetime64[M]")
    this_month = _sq_day(month, trading)
    return np.where(dates <= this_month, this_month, _sq_day(month + 1, trading))


def _sq_day(month: NDArray[np.datetime64], trading: Days) -> Days:
    first = month.astype("datetime64[D]")
    second_friday = first + (FRIDAY - weekday(first)) % 7 + 7
    after = np.searchsorted(trading, second_friday, side="right")
    # A calendar that begins later in its first month does not hold that month's SQ: it is past on all of its days.
    return np.where(after > 0, trading[np.maximum(after - 1, 0)], second_friday)


def _require_reach(trading: Days, last: np.datetime64) -> None:
    """The calendar must hold the whole of the month after the last date: its second Friday may be the next SQ."""
    needed = (last.astype("datetime64[M]") + 1).astype("datetime64[D]") + 14
    if trading[-1] < needed:
        raise CalendarError(f"the calendar ends {trading[-1]}; rows to {last} need it to {needed}: ingest it again")


_M = "market"
COLUMNS = (
    Column("cal_dow", "i8", "weekday, Monday 0 ... Friday 4", "", "", "category"),
    Column("cal_month", "i8", "month 1..12", "", "", "category"),
    Column("cal_td_of_month", "i8", "ordinal among the month's trading days, from 1", "", "", _M),
    Column("cal_td_to_month_end", "i8", "trading days left in the month after T", "", "", _M),
    Column("cal_td_to_sq", "i8", "trading days to the next SQ, 0 on it", "", "", _M),
    Column("cal_closed_gap_next", "i8", "closed days between T and the next trading day", "", "", "flag"),
)

GROUP = Group(
    name="cal",
    tier="base",
    tables=("calendar", "master", "bars_daily"),
    availability="always (the calendar is published up to the end of the next year)",
    columns=COLUMNS,
    compute=compute,
)
