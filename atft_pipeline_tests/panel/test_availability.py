"""First usable trading day: Golden Week, year end, half days, the 15:00 rule."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from atft_pipeline.panel.availability import (
    CalendarError,
    TradingCalendar,
    by_disclosure_time,
    next_trading_day,
    trading_days_after,
    trading_position,
)

GOLDEN_WEEK = {"2024-04-29", "2024-05-03", "2024-05-06"}
YEAR_END = {"2023-12-31", "2024-01-01", "2024-01-02", "2024-01-03", "2024-01-08"}
HALF_DAY = "2023-12-29"


@pytest.fixture(scope="module")
def calendar() -> TradingCalendar:
    """Weekdays from December 2023 to May 2024; 2023-12-29 as a half day, a holiday with derivatives trading (3)."""
    days = [date(2023, 12, 1) + timedelta(days=i) for i in range(183)]
    kind = {day: "3" for day in GOLDEN_WEEK | YEAR_END} | {HALF_DAY: "2"}
    divisions = ["0" if d.weekday() > 4 else kind.get(d.isoformat(), "1") for d in days]
    return TradingCalendar.from_frame(pl.DataFrame({"Date": days, "HolDiv": divisions}))


def day(text: str) -> np.ndarray:
    return np.array([text], "datetime64[D]")


@pytest.mark.parametrize(
    ("published", "usable"),
    [
        ("2024-05-02", "2024-05-07"),  # Thursday before the second half of Golden Week
        ("2024-04-26", "2024-04-30"),  # Friday before Showa day
        ("2024-05-04", "2024-05-07"),  # a Saturday inside it
        ("2023-12-29", "2024-01-04"),  # last session of the year
        ("2024-01-05", "2024-01-09"),  # Friday before coming-of-age day
        ("2024-03-14", "2024-03-15"),  # Thursday: not Sunday, as a Monday-is-1 weekday once made it
    ],
)
def test_next_trading_day(calendar: TradingCalendar, published: str, usable: str) -> None:
    assert next_trading_day(day(published), calendar) == day(usable)


@pytest.mark.parametrize(
    ("reference", "usable"),
    [("2024-03-15", "2024-03-20"), ("2024-05-02", "2024-05-09"), ("2024-04-27", "2024-05-02")],
)
def test_third_trading_day_after_a_week_end(calendar: TradingCalendar, reference: str, usable: str) -> None:
    assert trading_days_after(day(reference), 3, calendar) == day(usable)


@pytest.mark.parametrize(
    ("disclosed", "time", "usable"),
    [
        ("2024-03-14", "14:59:00", "2024-03-14"),
        ("2024-03-14", "14:59", "2024-03-14"),
        ("2024-03-14", "15:00:00", "2024-03-15"),
        ("2024-03-14", "15:30:00", "2024-03-15"),
        ("2024-03-14", "16:00", "2024-03-15"),
        ("2024-03-14", None, "2024-03-15"),
        ("2024-03-14", "", "2024-03-15"),
        ("2024-03-16", "09:00:00", "2024-03-18"),  # Saturday
        ("2024-05-03", "09:00:00", "2024-05-07"),  # holiday with derivatives trading
        (HALF_DAY, "11:29:00", HALF_DAY),
        (HALF_DAY, "11:30:00", "2024-01-04"),
        (HALF_DAY, "11:31:00", "2024-01-04"),
    ],
)
def test_disclosure_time_rule(calendar: TradingCalendar, disclosed: str, time: str | None, usable: str) -> None:
    times = pl.Series([time], dtype=pl.String)
    assert by_disclosure_time(day(disclosed), times, calendar) == day(usable)


def test_series_go_in_and_nulls_come_out_null(calendar: TradingCalendar) -> None:
    dates = pl.Series([date(2024, 3, 14), None, date(2024, 3, 15)])
    usable = by_disclosure_time(dates, pl.Series(["10:00:00", "10:00:00", "15:00:00"]), calendar)
    assert pl.Series(usable).to_list() == [date(2024, 3, 14), None, date(2024, 3, 18)]


@pytest.mark.parametrize("time", ["9:00", "25:00:00", "15.00", "noon"])
def test_malformed_time_is_refused_not_read_as_midnight(calendar: TradingCalendar, time: str) -> None:
    with pytest.raises(ValueError, match="not HH:MM"):
        by_disclosure_time(day("2024-03-14"), pl.Series([time]), calendar)


def test_calendar_that_ends_too_early_is_refused(calendar: TradingCalendar) -> None:
    with pytest.raises(CalendarError, match="ingest it again"):
        next_trading_day(day("2024-05-31"), calendar)


def test_zeroth_day_after_is_refused(calendar: TradingCalendar) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        trading_days_after(day("2024-03-14"), 0, calendar)


def test_unknown_day_type_and_repeated_date_are_refused() -> None:
    with pytest.raises(CalendarError, match="HolDiv"):
        TradingCalendar.from_frame(pl.DataFrame({"Date": [date(2024, 1, 4)], "HolDiv": ["4"]}))
    with pytest.raises(CalendarError, match="twice"):
        TradingCalendar.from_frame(pl.DataFrame({"Date": [date(2024, 1, 4)] * 2, "HolDiv": ["1", "1"]}))


def test_dates_roll_forward_and_beyond_the_calendar_weekdays_count() -> None:
    days = np.array(["2024-12-27", "2024-12-30", "2025-01-06"], "datetime64[D]")  # the new year's days are closed
    dates = np.array(["2024-12-28", "2024-12-31", "2025-01-06", "2025-01-08", "2025-01-11", "NaT"], "datetime64[D]")
    assert trading_position(dates, days).tolist()[:5] == [1, 2, 2, 4, 7]
    assert np.isnan(trading_position(dates, days)[5])
