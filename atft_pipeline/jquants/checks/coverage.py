"""Completeness against the calendar and the list of issues, and freshness against the publication times."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl

from atft_pipeline.jquants.checks.publication import (
    FLOW_SLACK,
    margin_days,
    monday,
    newest_due,
    publication_day,
    publication_of,
)
from atft_pipeline.jquants.checks.scan import Month, Part, absent
from atft_pipeline.jquants.checks.structure import days_of
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import BUSINESS, CALENDAR, OUTAGE_DAYS, TABLES, partition_path
from atft_pipeline.lake.store import read_table
from atft_pipeline.panel.ids import SECTOR33_CODES
from atft_pipeline.verdict import Verdict

CALENDAR_AHEAD = timedelta(days=30)
"""The calendar must reach this far beyond now: days to the next session and to month ends are counted in it."""


def sessions_of(lake: Path) -> list[date]:
    """All business days of the stored calendar, in order."""
    calendar = read_table(lake / partition_path(CALENDAR), columns=["Date", "HolDiv"])
    return sorted(calendar.filter(pl.col("HolDiv").is_in(BUSINESS))["Date"])


def coverage_of(lake: Path, table: Table) -> Part:
    """The completeness check that the table's declaration asks for."""
    if table is CALENDAR:
        return CalendarDays()
    if table.covers and not table.among:
        return ListedIssues(lake, table)
    if table.name == "investor_types":
        return FlowWeeks(lake, table)
    if table.name == "margin_interest":
        return Days(lake, table, lambda sessions: margin_days(sessions))
    if table.name == "short_ratio":
        return Sectors(lake, table)
    if table.dense:
        return Days(lake, table, lambda sessions: list(sessions))
    return Months(table)


def _complete(table: Table, got: float, want: float, what: str, details: dict[str, object]) -> dict[str, Verdict]:
    return {"complete": Verdict(got >= want, got, want, f"{table.name}: {what}", details)}


class CalendarDays:
    """Days of the calendar without a gap."""

    columns = ("Date",)

    def add(self, month: Month) -> None:
        self._days = month.rows["Date"].sort()

    def verdicts(self) -> dict[str, Verdict]:
        days = self._days
        expected = (days[-1] - days[0]).days + 1 if len(days) else 1
        got = days.n_unique() / expected
        what = f"{days.n_unique()} of {expected} days"
        return _complete(CALENDAR, got, 1.0, what, {"first": str(days.min()), "last": str(days.max())})


class Spanned:
    """Common to the checks that compare stored days with the sessions inside the spans that the months declare."""

    def __init__(self, lake: Path, table: Table) -> None:
        self._lake = lake
        self._table = table
        self._spans: list[tuple[date, date]] = []
        self._have: set[date] = set()

    @property
    def columns(self) -> tuple[str, ...]:
        return (self._table.date_column,)

    def add(self, month: Month) -> None:
        self._spans.append(month.span)
        self._have |= days_of(month.rows, self._table.date_column)

    def _is_out(self, day: date, sessions: Sequence[date]) -> bool:
        """Whether the rows of `day` were published by the newest date that was asked for."""
        out = publication_day(publication_of(self._table), day, sessions)
        return out is not None and out <= max(last for _, last in self._spans)

    def _inside(self, days: Collection[date]) -> list[date]:
        return sorted(day for day in days if any(first <= day <= last for first, last in self._spans))


class Days(Spanned):
    """Days that must have rows and do; `wanted` picks them from all sessions."""

    def __init__(self, lake: Path, table: Table, wanted: Callable[[Sequence[date]], list[date]]) -> None:
        super().__init__(lake, table)
        self._wanted = wanted

    def verdicts(self) -> dict[str, Verdict]:
        sessions = sessions_of(self._lake)
        wanted = [
            day
            for day in self._inside(self._wanted(sessions))
            if day not in OUTAGE_DAYS and self._is_out(day, sessions)
        ]
        missing = [day for day in wanted if day not in self._have]
        got = 1.0 - len(missing) / len(wanted) if wanted else 1.0
        what = f"{len(wanted) - len(missing)} of {len(wanted)} business days have rows" + _named("missing", missing)
        return _complete(self._table, got, 1.0, what, {"missing_days": [str(day) for day in missing]})


class FlowWeeks(Spanned):
    """Weeks with a session, published well inside the covered dates, and those found among the rows."""

    def __init__(self, lake: Path, table: Table) -> None:
        super().__init__(lake, table)
        self._weeks: set[date] = set()

    @property
    def columns(self) -> tuple[str, ...]:
        return (self._table.date_column, "StDate")

    def add(self, month: Month) -> None:
        super().add(month)
        self._weeks |= {monday(day) for day in days_of(month.rows, "StDate")}

    def verdicts(self) -> dict[str, Verdict]:
        begin, end = min(first for first, _ in self._spans), max(last for _, last in self._spans)
        weeks = {monday(day) for day in sessions_of(self._lake) if begin <= day <= end}
        due = sorted(week for week in weeks if week >= begin and week + timedelta(days=4) + FLOW_SLACK <= end)
        missing = [week for week in due if week not in self._weeks]
        got = 1.0 - len(missing) / len(due) if due else 1.0
        what = f"{len(due) - len(missing)} of {len(due)} weeks published" + _named("missing weeks of", missing)
        return _complete(self._table, got, 1.0, what, {"missing_weeks": [str(week) for week in missing]})


class Sectors(Spanned):
    """The worst business day's share of the 33 sectors."""

    def __init__(self, lake: Path, table: Table) -> None:
        super().__init__(lake, table)
        self._counts: dict[date, int] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        return (self._table.date_column, "S33")

    def add(self, month: Month) -> None:
        super().add(month)
        known = month.rows.filter(pl.col("S33").is_in(SECTOR33_CODES))
        self._counts |= dict(known.group_by(self._table.date_column).agg(pl.col("S33").n_unique()).iter_rows())

    def verdicts(self) -> dict[str, Verdict]:
        wanted = [day for day in self._inside(sessions_of(self._lake)) if day not in OUTAGE_DAYS]
        worst = min(wanted, key=lambda day: self._counts.get(day, 0), default=None)
        found = self._counts.get(worst, 0) if worst else len(SECTOR33_CODES)
        what = f"worst of {len(wanted)} business days, {worst}, has {found} of {len(SECTOR33_CODES)} sectors"
        return _complete(self._table, float(found), float(len(SECTOR33_CODES)), what, {"worst_day": str(worst)})


class ListedIssues(Spanned):
    """The worst business day's share of the listed codes that have a row; a day without rows counts as 0.

    Beside it, as warnings: listed issues without a row, and rows of codes that are not listed.
    """

    def __init__(self, lake: Path, table: Table) -> None:
        super().__init__(lake, table)
        self._listing = TABLES[table.covers]
        self._shares: list[pl.DataFrame] = []
        self._missing: list[str] = []
        self._without_row: list[pl.DataFrame] = []
        self._foreign: list[pl.DataFrame] = []

    @property
    def columns(self) -> tuple[str, ...]:
        return ("Date", "Code")

    def add(self, month: Month) -> None:
        super().add(month)
        path = self._lake / partition_path(self._listing, month.name)
        if not path.exists():
            self._missing.append(month.name)
            return
        listed = read_table(path, columns=["Date", "Code"])
        rows = month.rows.select("Date", "Code")
        if rows.equals(listed):  # the usual case, without a join of every row
            self._shares.append(listed.select("Date").unique().with_columns(found=pl.lit(1.0)))
            return
        joined = listed.join(rows.with_columns(found=pl.lit(1.0)), on=["Date", "Code"], how="left")
        self._shares.append(joined.group_by("Date").agg(pl.col("found").fill_null(0.0).mean()))
        first, last = month.span
        self._without_row.append(joined.filter(pl.col("found").is_null() & pl.col("Date").is_between(first, last)))
        self._foreign.append(rows.join(listed, on=["Date", "Code"], how="anti"))

    def verdicts(self) -> dict[str, Verdict]:
        if self._missing:
            nothing = absent(self._listing, self._missing)
            return {"complete": nothing, "codes_match_listing": nothing}
        share = dict(pl.concat(self._shares).iter_rows())
        wanted = self._inside(sessions_of(self._lake))
        worst = min(wanted, key=lambda day: share.get(day, 0.0), default=None)
        got = share.get(worst, 0.0) if worst else 1.0
        mean = sum(share.get(day, 0.0) for day in wanted) / len(wanted) if wanted else 1.0
        what = f"worst day {worst} has {got:.1%} of the listed codes; mean over {len(wanted)} business days {mean:.2%}"
        details: dict[str, object] = {"worst_day": str(worst), "mean_share": mean, "business_days": len(wanted)}
        return {
            **_complete(self._table, got, self._table.coverage, what, details),
            "codes_match_listing": self._matched(),
        }

    def _matched(self) -> Verdict:
        nothing = pl.DataFrame(schema={"Date": pl.Date, "Code": pl.String})
        without = pl.concat([nothing, *(rows.select("Date", "Code") for rows in self._without_row)])
        foreign = pl.concat([nothing, *self._foreign])
        odd = without.height + foreign.height
        message = (
            f"{self._table.name}: {without.height} listed issue-days have no row{_issues(without)}, {foreign.height} "
            f"rows are of issues not listed that day{_issues(foreign)}"
        )
        details = {"listed_without_row": without.height, "rows_not_listed": foreign.height}
        return Verdict(odd == 0, float(odd), 0.0, message, details, "warn")


class Months:
    """Tables of events: no day must have rows, so only their number is told."""

    columns: tuple[str, ...] = ()

    def __init__(self, table: Table) -> None:
        self._table = table
        self._rows = self._months = 0

    def add(self, month: Month) -> None:
        self._rows += month.record.rows
        self._months += 1

    def verdicts(self) -> dict[str, Verdict]:
        what = f"{self._months} months, {self._rows} rows"
        return _complete(self._table, float(self._months), float(self._months), what, {"rows": self._rows})


class Freshness:
    """Whether what was due at `now` (aware, any zone) is stored, at most up to `end` where the market ends there.

    Late rows warn: what is stored is right, and the asset itself fails with the date when it cannot get a day.
    """

    def __init__(self, lake: Path, table: Table, now: datetime, end: date | None) -> None:
        self._lake = lake
        self._table = table
        self._now = now
        self._end = end
        self._newest: date | None = None
        self._covered: date | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple({self._table.date_column, self._row_day})

    @property
    def _row_day(self) -> str:
        return "EnDate" if self._table.name == "investor_types" else self._table.date_column

    def add(self, month: Month) -> None:
        days = days_of(month.rows, self._row_day)
        if days:
            self._newest = max(max(days), self._newest or date.min)
        last = month.span[1]
        self._covered = max(last, self._covered or last)

    def verdicts(self) -> dict[str, Verdict]:
        if self._table is CALENDAR:
            have = self._newest
            due: date | None = self._calendar_due()
        else:
            publication = publication_of(self._table)
            have = self._covered if publication.cadence == "events" else self._newest
            sessions = sessions_of(self._lake)
            inside = [day for day in sessions if self._end is None or day <= self._end]
            due = newest_due(publication, inside, self._now)
        late = (due - have).days if due and have and have < due else 0
        if due and not have:
            late = (self._now.date() - due).days + 1
        what = f"newest {have}, due by {self._now:%Y-%m-%d %H:%M %Z}: {due}"
        if late:
            what += "; run the nightly job, or wait if the service is late"
        details: dict[str, object] = {"newest": str(have), "due": str(due)}
        return {"fresh": Verdict(not late, float(late), 0.0, f"{self._table.name}: {what}", details, "warn")}

    def _calendar_due(self) -> date:
        return (self._end or self._now.date()) + (timedelta(0) if self._end else CALENDAR_AHEAD)


def _named(word: str, days: Sequence[date]) -> str:
    return f"; {word}: {', '.join(map(str, days[:5]))}" if days else ""


def _issues(rows: pl.DataFrame) -> str:
    told = [f"{code} {day}" for day, code in rows.select("Date", "Code").sort("Date", "Code").head(3).iter_rows()]
    return f" ({', '.join(told)})" if told else ""
