"""When rows are published (Tokyo time), and from that: which days and weeks a table must hold, and how new it must be.

Source: the update-time page of the official v2 documentation; times there are approximate.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables_trading import MARGIN_DAILY_SINCE, MARGIN_SESSIONS

TOKYO = ZoneInfo("Asia/Tokyo")

GRACE = timedelta(hours=1)
"""Published times are approximate: a table is late only after this."""

WEEKLY_MARGIN_LAG = 2
"""Business days from a weekly margin balance to its publication; a daily one is out on the next."""

FLOW_LAG = 4
"""A week's investor flows are published on the 4th business day after it."""

FLOW_SLACK = timedelta(days=14)
"""A week is missed only when this much is stored beyond its end."""


@dataclass(frozen=True)
class Publication:
    """A row of a business day is out `lag` business days later at `at`.

    `cadence`: `daily` tables have rows on every business day, `weekly` flows once a week, `margin` balances weekly and
    since `MARGIN_DAILY_SINCE` daily; `events` may have none on any day, so only the stored span can be late.
    """

    lag: int
    at: time
    cadence: Literal["daily", "weekly", "margin", "events"] = "daily"


PUBLICATIONS: dict[str, Publication] = {
    "master": Publication(0, time(8, 0)),
    "bars_daily": Publication(0, time(16, 30)),
    "topix": Publication(0, time(16, 30)),
    "indices": Publication(0, time(16, 30)),
    "fin_summary": Publication(1, time(0, 30), "events"),
    "fin_details": Publication(1, time(0, 30), "events"),
    "dividend": Publication(0, time(19, 0), "events"),
    "earnings_date": Publication(0, time(10, 5), "events"),
    "investor_types": Publication(FLOW_LAG, time(18, 0), "weekly"),
    "margin_interest": Publication(1, time(16, 30), "margin"),
    "margin_alert": Publication(0, time(16, 30), "events"),
    "short_ratio": Publication(0, time(16, 30)),
    "short_sale_report": Publication(0, time(17, 30), "events"),
    "breakdown": Publication(0, time(18, 0)),
    "options_225": Publication(1, time(3, 15)),
    "futures": Publication(1, time(3, 15)),
}


def publication_of(table: Table) -> Publication:
    """The table's publication; one that is not listed is taken as out at the day's end."""
    known = PUBLICATIONS.get(table.name)
    return known or Publication(1, time(0, 0), "daily" if table.dense else "events")


def publication_day(publication: Publication, day: date, sessions: Sequence[date]) -> date | None:
    """The session on which the rows of session `day` are out; None when the calendar does not reach that far."""
    weekly_balance = publication.cadence == "margin" and day < MARGIN_DAILY_SINCE
    position = bisect_left(sessions, day) + (WEEKLY_MARGIN_LAG if weekly_balance else publication.lag)
    return sessions[position] if position < len(sessions) else None


def published_by(publication: Publication, day: date, sessions: Sequence[date]) -> datetime | None:
    """When the rows of session `day` are out at the latest; None when the calendar does not reach that far."""
    out = publication_day(publication, day, sessions)
    return datetime.combine(out, publication.at, TOKYO) + GRACE if out else None


def newest_due(publication: Publication, sessions: Sequence[date], now: datetime) -> date | None:
    """The newest session whose rows must be out at `now` (aware); for weekly tables the last one of its week."""
    ends = sessions if publication.cadence in ("daily", "events") else _period_ends(publication, sessions)
    for day in reversed(ends):
        out = published_by(publication, day, sessions)
        if out is not None and out <= now:
            return day
    return None


def asked_until(table: Table, last_date: date, sessions: Sequence[date], now: datetime) -> date:
    """The newest date worth asking for at `now` (aware): the day before the first session whose rows are not out.

    Only for tables that must have rows on every session, where a missing day is a failure; of the others whatever is
    out is stored, and read again later.
    """
    if not table.dense:
        return last_date
    publication = publication_of(table)
    days = margin_days(sessions) if publication.cadence == "margin" else sessions
    for day in reversed([day for day in days if day <= last_date]):
        out = published_by(publication, day, sessions)
        if out is None or out <= now:
            break
        last_date = day - timedelta(days=1)
    return last_date


def margin_days(sessions: Sequence[date]) -> list[date]:
    """Dates of margin balances: the last session of each longer week, and every session since the change."""
    weekly = [
        days[-1] for days in _weeks(sessions).values() if len(days) >= MARGIN_SESSIONS and days[-1] < MARGIN_DAILY_SINCE
    ]
    return weekly + [day for day in sessions if day >= MARGIN_DAILY_SINCE]


def _period_ends(publication: Publication, sessions: Sequence[date]) -> list[date]:
    if publication.cadence == "margin":
        return margin_days(sessions)
    return [days[-1] for days in _weeks(sessions).values()]


def _weeks(sessions: Sequence[date]) -> dict[date, list[date]]:
    """Monday -> its sessions."""
    weeks: dict[date, list[date]] = {}
    for day in sessions:
        weeks.setdefault(monday(day), []).append(day)
    return weeks


def monday(day: date) -> date:
    return day - timedelta(days=day.weekday())
