"""Calendar columns against the Tokyo calendar of 2024, written out by hand (Q17)."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from atft_pipeline.features import calendar as cal
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.panel.availability import CalendarError, TradingCalendar
from atft_pipeline.panel.axes import Axes
from atft_pipeline.panel.panel import Panel

CLOSED_2024 = (
    "2024-01-01 2024-01-02 2024-01-03 2024-01-08 2024-02-12 2024-02-23 2024-03-20 2024-04-29 2024-05-03 2024-05-06 "
    "2024-07-15 2024-08-12 2024-09-16 2024-09-23 2024-10-14 2024-11-04 2024-12-31 2025-01-01 2025-01-02 2025-01-03"
)
SQ_2024 = (
    "2024-01-12 2024-02-09 2024-03-08 2024-04-12 2024-05-10 2024-06-14 2024-07-12 2024-08-09 2024-09-13 2024-10-11 "
    "2024-11-08 2024-12-13"
)
TRADING_DAYS_2024 = 245


def bare_panel(divisions: pl.DataFrame, last: str = "2024-12-30") -> Panel:
    known = TradingCalendar.from_frame(divisions)
    dates = known.days[(known.days >= np.datetime64("2024-01-04")) & (known.days <= np.datetime64(last))]
    grid, ids = np.ones((len(dates), 1)), np.ones((len(dates), 1), np.int8)
    axes = Axes(dates, np.array(["13010"]), np.ones((len(dates), 1), np.bool_))
    return Panel(axes, known, *[grid] * 9, *[ids] * 5)


def divisions(closed: str = CLOSED_2024, end: date = date(2025, 3, 31)) -> pl.DataFrame:
    days = [date(2023, 12, 1) + timedelta(days=i) for i in range((end - date(2023, 12, 1)).days + 1)]
    off = set(closed.split())
    return pl.DataFrame(
        {"Date": days, "HolDiv": ["0" if d.weekday() > 4 or d.isoformat() in off else "1" for d in days]}
    )


@pytest.fixture(scope="module")
def year() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    panel = bare_panel(divisions())
    return panel.axes.dates, {
        name: values[:, 0] for name, values in compute_group(cal.GROUP, Inputs(panel, {})).items()
    }


def at(year: tuple[np.ndarray, dict[str, np.ndarray]], day: str, column: str) -> float:
    dates, columns = year
    return float(columns[f"cal_{column}"][np.flatnonzero(dates == np.datetime64(day))[0]])


def test_year_has_its_trading_days(year: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    assert len(year[0]) == TRADING_DAYS_2024
    assert all(np.isfinite(values).all() for values in year[1].values())


def test_settlement_days_are_where_the_distance_is_zero(year: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    dates, columns = year
    assert dates[columns["cal_td_to_sq"] == 0].astype(str).tolist() == SQ_2024.split()


@pytest.mark.parametrize(
    ("day", "column", "value"),
    [
        ("2024-01-04", "dow", 3),
        ("2024-05-07", "dow", 1),  # Tuesday after Golden Week
        ("2024-12-30", "dow", 0),
        ("2024-12-30", "month", 12),
        ("2024-01-04", "td_of_month", 1),
        ("2024-01-09", "td_of_month", 3),  # 4, 5, then the holiday of the 8th
        ("2024-03-29", "td_to_month_end", 0),  # the 30th and 31st are a weekend
        ("2024-03-28", "td_to_month_end", 1),
        ("2024-12-30", "td_to_month_end", 0),  # the 31st is closed
        ("2024-05-02", "td_to_sq", 4),  # 7, 8, 9, 10 May
        ("2024-05-10", "td_to_sq", 0),
        ("2024-05-13", "td_to_sq", 24),  # to 14 June
        ("2024-12-16", "td_to_sq", 15),  # to 10 January 2025, in a calendar known ahead
        ("2024-05-02", "closed_gap_next", 4),  # Friday to Monday closed
        ("2024-03-19", "closed_gap_next", 1),  # equinox day
        ("2024-03-14", "closed_gap_next", 0),
        ("2024-03-15", "closed_gap_next", 2),
        ("2024-12-30", "closed_gap_next", 6),
    ],
)
def test_golden_values(year: tuple[np.ndarray, dict[str, np.ndarray]], day: str, column: str, value: int) -> None:
    assert at(year, day, column) == value


def test_settlement_moves_before_a_closed_second_friday() -> None:
    panel = bare_panel(divisions(CLOSED_2024 + " 2024-06-14"))
    sq = cal.next_sq(np.array(["2024-06-03", "2024-06-13", "2024-06-17"], "datetime64[D]"), panel.calendar.days)
    assert sq.astype(str).tolist() == ["2024-06-13", "2024-06-13", "2024-07-12"]


def test_calendar_that_does_not_reach_the_next_settlement_is_refused() -> None:
    with pytest.raises(CalendarError, match="ingest it again"):
        compute_group(cal.GROUP, Inputs(bare_panel(divisions(end=date(2025, 1, 9))), {}))


def test_a_calendar_that_begins_after_its_first_months_sq_counts_to_the_next_one() -> None:
    days = np.array([d for d in np.arange("2024-06-17", "2024-08-31", dtype="datetime64[D]") if cal.weekday(d) < 5])
    assert cal.next_sq(np.array(["2024-06-17", "2024-06-28"], "datetime64[D]"), days).astype(str).tolist() == [
        "2024-07-12",
        "2024-07-12",
    ]
