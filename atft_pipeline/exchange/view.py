"""The market as the service shows it at a moment: the plan's dates, what is published, what has been revised.

JSON pages and bulk files both take their rows from here, so that they never disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import cached_property

import polars as pl

from atft_pipeline.exchange.adjustment import adjusted, splits_of
from atft_pipeline.exchange.clock import MarketClock
from atft_pipeline.exchange.endpoints import Endpoint
from atft_pipeline.exchange.plans import Plan, Window
from atft_pipeline.exchange.publication import RULES, Moment, published
from atft_pipeline.exchange.revisions import Revision, RevisionError, answer_order
from atft_pipeline.exchange.tables import Query, ServedTable

EVERYTHING = Window(None, None)
_BARS = "bars_daily"
_AFTER_EVERYTHING = "end"


class View:
    """Rows of `tables` under `plan`, at the time of `clock`, with `revisions` applied."""

    def __init__(
        self,
        tables: Mapping[str, ServedTable],
        plan: Plan,
        clock: MarketClock,
        revisions: Sequence[Revision] = (),
    ) -> None:
        self._tables = tables
        self._plan = plan
        self._clock = clock
        self.revisions = [revision for revision in revisions if revision.table in tables]
        for revision in self.revisions:
            self.require_target(revision)

    @property
    def window(self) -> Window:
        """The dates that the plan covers now."""
        return self._plan.window(self._clock.today)

    def in_force(self, table: str) -> list[Revision]:
        """The revisions of `table` that have happened, oldest first."""
        now = self._clock.now
        happened = [r for r in self.revisions if r.table == table and (now is None or r.since <= now)]
        return sorted(happened, key=lambda revision: revision.since)

    def rows(self, table: str, query: Query, extra: Iterable[Revision] = ()) -> pl.DataFrame:
        """The answer to a valid query, whole. `extra` revisions act beside those in force.

        Raises `BadRequest` for a date that the plan does not cover.
        """
        served, window = self._tables[table], self.window
        moment = self._moment()
        rows = served.select(self._newest_master(query, moment, window) if table == "master" else query, window)
        revisions = [*self.in_force(table), *extra]
        for revision in revisions:
            if revision.kind == "append":
                rows = self._with_further_rows(served, rows, query, revision, window)
            else:
                rows = revision.corrected(rows)
        if moment is not None:
            rows = rows.filter(published(served.endpoint, moment))
        return self._adjusted(rows, revisions, moment) if table == _BARS else rows

    @property
    def stamp(self) -> str:
        """Names this moment in a cursor: what is published by now is not newer than it."""
        now = self._clock.now
        return _AFTER_EVERYTHING if now is None else now.isoformat()

    def newer(self, table: str, rows: pl.DataFrame, stamp: str) -> pl.DataFrame:
        """Those of `rows` that were published after the moment of `stamp`, whatever their document numbers say."""
        if not stamp:
            return rows
        if stamp == _AFTER_EVERYTHING:
            return rows.head(0)
        seen = Moment(datetime.fromisoformat(stamp), self._business, self._plan.is_premium)
        return rows.filter(~published(self._tables[table].endpoint, seen))

    def require_target(self, revision: Revision) -> None:
        """Raises `RevisionError` for a revision that concerns no row, or a column that is not there."""
        rows = self._originals(self._tables[revision.table], revision)
        if not rows.height:
            raise RevisionError(f"revision {revision} concerns no row of this market")
        if revision.kind == "append":
            revision.appended(rows)
        else:
            revision.corrected(rows)

    def _originals(self, served: ServedTable, revision: Revision) -> pl.DataFrame:
        rows = served.select(Query(day=revision.date, code=revision.code), EVERYTHING)
        return rows.filter(revision.rows(rows))

    def _moment(self) -> Moment | None:
        now = self._clock.now
        return None if now is None else Moment(now, self._business, self._plan.is_premium)

    @cached_property
    def _business(self) -> list[date]:
        calendar = self._tables["calendar"].select(Query(), EVERYTHING)
        return [date.fromisoformat(day) for day in calendar.filter(pl.col("HolDiv").is_in(["1", "2"]))["Date"]]

    @cached_property
    def _splits(self) -> dict[str, dict[str, float]]:
        changes = pl.col("AdjFactor") != 1.0
        return splits_of(self._tables[_BARS].stored.matching(changes, ["Date", "Code", "AdjFactor"]))

    @staticmethod
    def _newest_master(query: Query, moment: Moment | None, window: Window) -> Query:
        """The list asked for, or the newest one that is out: a later date, and no date, mean that one."""
        if moment is None or query.first is not None or query.last is not None:
            return query
        newest = moment.through(17, 30, lag=-1)
        if window.last is not None and newest > window.last:
            return query
        return replace(query, day=min(query.day or newest, newest))

    def _with_further_rows(
        self, served: ServedTable, rows: pl.DataFrame, query: Query, revision: Revision, window: Window
    ) -> pl.DataFrame:
        """`rows` and the rows that `revision` appends, where `query` asks for their date, code and filters."""
        published_on = revision.since.date()
        unbounded = query.day is None and query.first is None and query.last is None
        if not window.covers(published_on) or not (unbounded or query.touches(published_on)):
            return rows
        further = revision.appended(self._originals(served, revision))
        conditions = [*query.filters, *([("Code", query.code)] if query.code and "Code" in rows.columns else [])]
        for column, value in conditions:
            further = further.filter(pl.col(column) == value)
        return pl.concat([rows, further]).sort(answer_order(served.endpoint), maintain_order=True)

    def _adjusted(self, rows: pl.DataFrame, revisions: Sequence[Revision], moment: Moment | None) -> pl.DataFrame:
        """Adj* as of now, where they differ from those of the market's end."""
        if moment is None and not revisions:
            return rows
        splits = {code: dict(events) for code, events in self._splits.items()}
        touched = {str(revision.code) for revision in revisions if revision.code}
        for revision in revisions:
            if revision.kind == "split":
                splits.setdefault(str(revision.code), {})[revision.date.isoformat()] = revision.factor
            elif revision.code is None:
                touched |= set(rows["Code"])
        if moment is not None:
            out = self._through(self._tables[_BARS].endpoint, moment)
            touched |= {code for code, events in splits.items() if max(events) > out}
            splits = {code: {day: f for day, f in events.items() if day <= out} for code, events in splits.items()}
        return adjusted(rows, splits, touched)

    @staticmethod
    def _through(endpoint: Endpoint, moment: Moment) -> str:
        """The newest date of daily bars that is out, as ISO text."""
        days = pl.DataFrame({endpoint.date_column: [d.isoformat() for d in moment.business]})
        out = days.filter(RULES[endpoint.path](endpoint, moment))[endpoint.date_column]
        return str(out[-1]) if out.len() else ""

    def last_split(self, after: date) -> date | None:
        """The newest ex-date after `after` whose split the adjusted prices of that day already carry; None: none."""
        moment = self._moment()
        out = self._through(self._tables[_BARS].endpoint, moment) if moment else date.max.isoformat()
        days = [day for events in self._splits.values() for day in events if after.isoformat() < day <= out]
        return date.fromisoformat(max(days)) if days else None

    def last_change(self, table: str, first: date, last: date) -> datetime | None:
        """When a revision last changed rows of [first, last]; None: never. For the age of bulk files."""
        changes = [
            revision.since
            for revision in self.in_force(table)
            if first <= (revision.since.date() if revision.kind == "append" else revision.date) <= last
            or (revision.kind == "split" and revision.date > last)
        ]
        return max(changes, default=None)
