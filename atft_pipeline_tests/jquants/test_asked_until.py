"""What a night may ask for: never a session whose rows are not out, always one whose rows are."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest

from atft_pipeline.jquants.checks.publication import TOKYO, asked_until
from atft_pipeline.jquants.tables import TABLES

FRIDAY = date(2026, 11, 6)
SESSIONS = [
    day for n in range(-20, 60) if (day := FRIDAY + timedelta(days=n)).weekday() < 5 and day != date(2026, 11, 3)
]


@pytest.mark.parametrize(
    ("table", "now", "last"),
    [
        ("options_225", datetime(2026, 11, 6, 19, 30), date(2026, 11, 5)),  # that day's options come at 03:15
        ("options_225", datetime(2026, 11, 9, 3, 0), date(2026, 11, 5)),
        ("options_225", datetime(2026, 11, 9, 4, 30), date(2026, 11, 8)),
        ("futures", datetime(2026, 11, 6, 19, 30), date(2026, 11, 5)),
        ("bars_daily", datetime(2026, 11, 6, 15, 0), date(2026, 11, 5)),
        ("bars_daily", datetime(2026, 11, 6, 19, 30), FRIDAY),
        ("margin_interest", datetime(2026, 11, 6, 19, 30), FRIDAY),  # no row is owed for every session
        ("topix", datetime(2026, 11, 7, 12, 0), date(2026, 11, 7)),  # a weekend hides nothing
        ("fin_summary", datetime(2026, 11, 6, 9, 0), FRIDAY),  # whatever is out is stored, and read again
    ],
)
def test_a_dense_table_is_asked_up_to_what_is_out(table: str, now: datetime, last: date) -> None:
    now = now.replace(tzinfo=TOKYO)
    assert asked_until(TABLES[table], now.date(), SESSIONS, now) == last


def test_a_history_that_ended_long_ago_is_asked_for_whole() -> None:
    now = datetime(2026, 11, 6, 3, 0, tzinfo=TOKYO)
    for table in TABLES.values():
        assert asked_until(table, date(2026, 10, 30), SESSIONS, now) == date(2026, 10, 30), table.name
