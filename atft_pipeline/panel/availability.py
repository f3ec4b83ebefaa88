"""When a published record may be used: the first trading day whose row may know it.

A row is knowledge at that day's close. Dates are pl.Date series or datetime64[D] arrays; results are datetime64[D],
NaT where the input date is null.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

Days = NDArray[np.datetime64]

DISCLOSURE_CUT_OFF = 15 * 60
"""Minutes after midnight. 15:00 itself is after the close, and the most common disclosure minute. Kept at 15:00 after
the close moved to 15:30 on 2024-11-05: conservative, and one rule for all years."""

HALF_DAY_CUT_OFF = 11 * 60 + 30


class CalendarError(ValueError):
    """The trading calendar is malformed or too short; the text names the date and the remedy."""


@dataclass(frozen=True)
class TradingCalendar:
    """Every known trading day, days after the last quote included: next year's calendar is published about March."""

    days: Days
    """datetime64[D], strictly ascending."""
    half_days: Days
    """The trading days among `days` with a morning session only."""

    @classmethod
    def from_frame(cls, calendar: pl.DataFrame) -> TradingCalendar:
        """Read the raw table: HolDiv 1 is a trading day, 2 a half day, 0 and 3 closed. Raises CalendarError."""
        missing = {"Date", "HolDiv"} - set(calendar.columns)
        if missing:
            raise CalendarError(f"calendar lacks the columns {sorted(missing)}; ingest it again")
        unknown = set(calendar["HolDiv"].unique()) - {"0", "1", "2", "3"}
        if unknown:
            raise CalendarError(f"calendar has HolDiv {sorted(map(str, unknown))}; known are 0, 1, 2 and 3")
        trading = calendar.filter(pl.col("HolDiv").is_in(["1", "2"])).sort("Date")
        if trading["Date"].n_unique() != trading.height:
            raise CalendarError("calendar holds a date twice; ingest it again")
        half = trading.filter(pl.col("HolDiv") == "2")
        return cls(_days(trading["Date"]), _days(half["Date"]))

    def is_trading_day(self, dates: pl.Series | Days) -> NDArray[np.bool_]:
        return np.isin(_days(dates), self.days)


def next_trading_day(dates: pl.Series | Days, calendar: TradingCalendar) -> Days:
    """The first trading day strictly after each date."""
    return trading_days_after(dates, 1, calendar)


def trading_days_after(dates: pl.Series | Days, k: int, calendar: TradingCalendar) -> Days:
    """The k-th trading day strictly after each date, k >= 1. Raises CalendarError past the calendar's end."""
    if k < 1:
        raise ValueError(f"the {k}-th trading day after a date is not after it; k must be at least 1")
    days = _days(dates)
    place = np.searchsorted(calendar.days, days, side="right") + k - 1
    known = ~np.isnat(days)
    short = known & (place >= len(calendar.days))
    if short.any():
        raise CalendarError(
            f"calendar ends {calendar.days[-1:]}, before trading day {k} after {days[short].max()}; ingest it again"
        )
    result = np.full(len(days), np.datetime64("NaT", "D"))
    result[known] = calendar.days[place[known]]
    return result


def trading_position(dates: Days, days: Days) -> NDArray[np.float64]:
    """Position of each date, rolled forward to a trading day, among the calendar's `days`; null for no date.

    Beyond the calendar's end weekdays are counted: its holidays are not published yet.
    """
    position = np.searchsorted(days, dates).astype(np.float64)
    beyond = dates > days[-1]
    position[beyond] = len(days) - 1 + np.busday_count(days[-1], np.busday_offset(dates[beyond], 0, roll="forward"))
    return np.where(np.isnat(dates), np.nan, position)


def by_disclosure_time(dates: pl.Series | Days, times: pl.Series, calendar: TradingCalendar) -> Days:
    """The date itself if disclosed before 15:00 (11:30 on a half day) on a trading day, else the next trading day.

    `times` are texts HH:MM or HH:MM:SS; null or empty means unknown, hence the next trading day. Raises ValueError on
    any other text: a time that fails to parse must not become midnight.
    """
    days = _days(dates)
    minutes = _minutes(times)
    cut_off = np.where(np.isin(days, calendar.half_days), HALF_DAY_CUT_OFF, DISCLOSURE_CUT_OFF)
    in_time = calendar.is_trading_day(days) & (minutes < cut_off)
    result = days.copy()
    result[~in_time] = next_trading_day(days[~in_time], calendar)
    return result


def _days(dates: pl.Series | Days) -> Days:
    values = dates.cast(pl.Date).to_numpy() if isinstance(dates, pl.Series) else dates
    return np.asarray(values).astype("datetime64[D]")


def _minutes(times: pl.Series) -> NDArray[np.float64]:
    """Minutes after midnight, infinite where the time is unknown."""
    text = pl.Series("time", times, dtype=pl.String).replace("", None)
    fields = text.str.extract_groups(r"^([01]\d|2[0-3]):([0-5]\d)(?::[0-5]\d)?$").struct.unnest()
    hour, minute = (fields[name].cast(pl.Float64) for name in fields.columns)
    malformed = text.is_not_null() & hour.is_null()
    if malformed.any():
        raise ValueError(f"disclosure time {text.filter(malformed)[0]!r} is not HH:MM or HH:MM:SS; check the raw table")
    return (hour * 60 + minute).fill_null(float("inf")).to_numpy()
