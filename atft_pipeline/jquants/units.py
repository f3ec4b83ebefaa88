"""Which requests a month still needs: trading days from the stored calendar, what is stored already, what may change.

A month is asked for in units (one request chain each). A stored month says in its record which dates it covers and
what the newest date was when it was fetched (`as_of`); from that follows which units to fetch, and which to read again.
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from atft_pipeline.jquants.checks.publication import PUBLICATIONS, margin_days, monday, publication_day
from atft_pipeline.jquants.errors import IncompleteError
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import BUSINESS, CALENDAR, partition_path
from atft_pipeline.jquants.tables_trading import MARGIN_DAILY_SINCE, margin_week_ends
from atft_pipeline.lake.store import read_record, read_table

SETTLED = timedelta(days=7)
"""Corrections mostly come within a week: a month read earlier than this after its end is read again once."""

OLD = timedelta(days=14)
"""A day that was read this long after its date has had its corrections."""


@dataclass(frozen=True, order=True)
class Unit:
    """One request chain: a day, or a span of days."""

    first: date
    last: date

    @property
    def name(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}_{self.last}"

    @property
    def text(self) -> str:
        return f"date={self.first}" if self.first == self.last else f"from={self.first} to={self.last}"

    @classmethod
    def from_name(cls, name: str) -> Unit:
        first, _, last = name.partition("_")
        return cls(date.fromisoformat(first), date.fromisoformat(last or first))

    def covers(self, day: date) -> bool:
        return self.first <= day <= self.last


@dataclass(frozen=True)
class Span:
    """The dates of a month that are to be stored, with the calendar's view of them."""

    month: str
    first: date
    last: date
    month_end: date
    last_date: date
    business: tuple[date, ...]
    week_ends: frozenset[date]
    """Dates that a weekly margin balance can have."""
    margin_due: frozenset[date] = frozenset()
    """Margin dates whose balances were published before `last_date`: by now they must have rows."""
    known_from: date = date.min
    known_until: date = date.max
    """First and last day of a calendar that the plan's window cut short: nothing else can be judged, or asked for."""

    @property
    def is_whole(self) -> bool:
        return self.last == self.month_end

    def due(self, table: Table) -> list[date]:
        """The days that must have rows by now."""
        if table.dense:
            return list(self.business)
        return sorted(self.margin_due) if table.days == "margin" else []

    def days(self, table: Table) -> list[date]:
        """The days to ask for: those that can have rows, as the table declares them."""
        if table.days == "business":
            return list(self.business)
        if table.days == "margin":
            return [day for day in self.business if day >= MARGIN_DAILY_SINCE or day in self.week_ends]
        return [self.first + timedelta(days=n) for n in range((self.last - self.first).days + 1)]


@dataclass(frozen=True)
class Coverage:
    """What a stored file says it covers; `last` before `first`: the month lies outside the plan's dates.

    `floor`: the plan's first date when it cut the month short; nothing older can be asked for on that plan.
    `other_plan`: another plan cut the month short, so this one may show more.
    """

    first: date
    last: date
    as_of: date
    complete: bool
    floor: date | None = None
    other_plan: bool = False

    @property
    def is_outside(self) -> bool:
        return self.last < self.first


def stored_coverage(path: Path, origin: str, plan: str = "") -> Coverage | None:
    """The dates behind the file at `path`; None when there is none or it came from another market.

    A damaged file raises `LakeError`.
    """
    if not path.exists():
        return None
    source = read_record(path).source
    if source.get("origin") != origin:
        return None
    first, last, as_of = (date.fromisoformat(source[name]) for name in ("from", "to", "as_of"))
    window_plan, _, window_first = source.get("window", "").partition(" ")
    other_plan = bool(plan and window_plan) and window_plan != plan
    floor = date.fromisoformat(window_first) if window_first and not other_plan else None
    return Coverage(first, last, as_of, source["complete"] == "true", floor, other_plan)


def month_span(lake: Path, month: str, last_date: date) -> Span:
    """The dates of `month` up to `last_date`, from the first date of the stored calendar.

    Raises `LakeError` without a calendar and `IncompleteError` when the calendar does not reach these dates.
    """
    year, number = (int(part) for part in month.split("-"))
    month_end = date(year, number, calendar.monthrange(year, number)[1])
    path = lake / partition_path(CALENDAR)
    days = read_table(path, columns=["Date", "HolDiv"]).sort("Date")
    source = read_record(path).source
    is_cut = "cut" in source
    begins, ends = days["Date"][0], days["Date"][-1]
    if "begins" in source and month_end < begins:
        return Span(month, date(year, number, 1), month_end, month_end, last_date, (), frozenset(), known_from=begins)
    first, last = max(date(year, number, 1), begins), min(month_end, last_date)
    if first > last or (last > ends and not is_cut):
        raise IncompleteError(
            f"{CALENDAR.path} {month} up to {last_date}: the stored calendar covers {begins} to {ends}; materialise "
            f"the calendar for these dates first, or leave this month out",
            endpoint=CALENDAR.path,
            request=month,
        )
    known_until = ends if is_cut else date.max
    open_days = days.filter(pl.col("HolDiv").is_in(BUSINESS))["Date"]
    business = tuple(open_days.filter(open_days.is_between(first, last)))
    week_ends = margin_week_ends(open_days, begins)
    sessions = list(open_days)
    due = frozenset(
        day
        for day in margin_days(sessions)
        if first <= day <= last and monday(day) >= begins and _is_out(day, sessions, last_date)
    )
    return Span(month, first, last, month_end, last_date, business, week_ends, due, known_until=known_until)


def _is_out(day: date, sessions: Sequence[date], last_date: date) -> bool:
    """Whether the balances of `day` were out the day before `last_date`: at what hour a run asks does not matter."""
    out = publication_day(PUBLICATIONS["margin_interest"], day, sessions)
    return out is not None and out < last_date


def clamp(span: Span, window: tuple[date, date | None] | None) -> Span | None:
    """The part of `span` inside the dates that a plan covers; None when there is none."""
    begins, ends = window or (date.min, None)
    first, last = max(span.first, begins, span.known_from), min(span.last, ends or span.last, span.known_until)
    if first > last:
        return None
    business = tuple(day for day in span.business if first <= day <= last)
    due = frozenset(day for day in span.margin_due if first <= day <= last)
    return replace(span, first=first, last=last, business=business, margin_due=due)


def is_current(stored: Coverage, span: Span) -> bool:
    """Whether the stored month needs no request: it covers the span, and nothing newer can be asked or expected."""
    if stored.other_plan:
        return False
    if stored.floor is not None and stored.floor > span.month_end:
        return True
    if stored.is_outside:
        return stored.as_of >= span.last_date
    if stored.first > max(span.first, stored.floor or span.first):
        return False
    settled = stored.complete and stored.as_of >= span.month_end + SETTLED
    return settled or stored.as_of >= span.last_date


def units_to_fetch(table: Table, span: Span, stored: Coverage | None, revisit_days: int) -> list[Unit]:
    """Units that are missing, and the newest `revisit_days` stored ones, which may have been corrected since.

    A day that was old when it was read (a plan that hides the newest twelve weeks) is not read again.
    """
    if table.unit == "month":
        return [Unit(span.first, span.last)]
    days = span.days(table)
    if stored is None or stored.is_outside:
        return [Unit(day, day) for day in days]
    have = [day for day in days if stored.first <= day <= stored.last]
    again = {day for day in (have[-revisit_days:] if revisit_days else []) if day + OLD > stored.as_of}
    lost = {day for day in days if stored.floor is not None and day < stored.floor}
    return [Unit(day, day) for day in days if (day not in have and day not in lost) or day in again]


def is_settled(unit: Unit, as_of: date, last_date: date) -> bool:
    """Whether a unit fetched when `as_of` was the newest date may still be used now."""
    return as_of >= min(last_date, unit.last + SETTLED)
