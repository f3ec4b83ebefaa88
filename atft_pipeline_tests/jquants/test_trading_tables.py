"""Which dates the margin balances are asked for: weekly ones, then daily ones, from the stored calendar."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from atft_pipeline.exchange.margin import reference_dates
from atft_pipeline.exchange.tokyo_calendar import calendar_table
from atft_pipeline.jquants.tables import CALENDAR, partition_path
from atft_pipeline.jquants.tables_trading import MARGIN_INTEREST, margin_week_ends
from atft_pipeline.jquants.units import month_span
from atft_pipeline.lake.store import write_table


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    days = calendar_table(date(2018, 12, 3), date(2026, 12, 31)).with_columns(pl.col("Date").str.to_date())
    write_table(folder / partition_path(CALENDAR), days, keys=CALENDAR.keys, source={})
    return folder


@pytest.mark.parametrize(
    ("month", "days"),
    [
        ("2018-12", [7, 14, 21, 28]),
        ("2019-01", [11, 18, 25]),  # the year began with a week of one session
        ("2019-05", [10, 17, 24, 31]),  # after the closure of ten days
        ("2024-01", [12, 19, 26]),  # the 4th and 5th are two sessions
        ("2024-05", [2, 10, 17, 24, 31]),  # Friday the 3rd is a holiday
        ("2026-09", [4, 11, 18, 25, 28, 29, 30]),  # daily from the 25th; the 24th has no balance of its own
    ],
)
def test_only_dates_that_can_have_balances_are_asked_for(lake: Path, month: str, days: list[int]) -> None:
    span = month_span(lake, month, date(2026, 12, 30))
    assert [day.day for day in span.days(MARGIN_INTEREST)] == days


def test_ingestion_and_the_exchange_agree_on_the_dates(lake: Path) -> None:
    """Two writings of the same rule: what the exchange dates, and what is asked for."""
    asked = [
        day
        for year in range(2019, 2027)
        for month in range(1, 13)
        for day in month_span(lake, f"{year}-{month:02d}", date(2026, 12, 30)).days(MARGIN_INTEREST)
    ]
    assert asked == reference_dates(date(2019, 1, 1), date(2026, 12, 30))


def test_the_week_in_which_the_calendar_begins_is_asked_for() -> None:
    """How many sessions it had is not known: one request too many is better than a week too few."""
    thursday = date(2024, 2, 1)
    open_days = [thursday, *(thursday + timedelta(days=n) for n in (1, 4, 5, 6, 7, 8))]
    assert margin_week_ends(open_days, thursday) == {date(2024, 2, 2), date(2024, 2, 9)}
