"""Storing one month: its parts put together, judged, compared with what was stored, and replaced in one rename."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import polars as pl

from atft_pipeline.jquants.client import Client
from atft_pipeline.jquants.revisions import Revision, appended, compare, facts_hash, log_revision
from atft_pipeline.jquants.routes import route_of
from atft_pipeline.jquants.rules import require_even_days, require_kept, require_standing
from atft_pipeline.jquants.staging import assemble
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import partition_path
from atft_pipeline.jquants.units import Coverage, Span, Unit, stored_coverage
from atft_pipeline.lake.manifest import write_fetched
from atft_pipeline.lake.store import LakeError, Record, read_json, read_record, read_table, write_json


@dataclass(frozen=True)
class MonthReport:
    """What one ingestion did. `days`: dates with rows in the stored partition; `units`: request chains and files just
    read; `route`: how they were read; `covers`: first and last stored date, empty for a month outside the plan.
    `content_hash` covers everything stored, `facts_hash` leaves out what the service restates."""

    table: str
    month: str
    rows: int
    requests: int
    days: int
    reused: bool
    seconds: float
    units: int
    complete: bool
    content_hash: str
    route: str = ""
    covers: str = ""
    revision: Revision | None = field(default=None, repr=False)
    facts_hash: str = ""

    @property
    def outside(self) -> bool:
        """Whether the plan shows no day of this month."""
        return not self.covers


class Month:
    """One month of one table on its way into the lake."""

    def __init__(self, client: Client, lake: Path, table: Table, month: str, *, refetch: bool = False) -> None:
        """`refetch`: the month is read anew by request, so what the service has now holds, even with rows gone."""
        self.client, self.lake, self.table, self.month = client, lake, table, month
        self.path = lake / partition_path(table, month)
        self.files_path = self.path.parent / "_bulk" / f"{month}.json"
        self.refetch = refetch
        self.began = time.monotonic()

    def stored(self) -> Coverage | None:
        """What the stored file covers; None when there is none, or it came from another market."""
        return stored_coverage(self.path, self.client.origin, self.client.plan.name)

    def signatures(self) -> dict[str, str]:
        """Bulk files behind the stored rows: key -> signature; empty when the rows were stored by another way since."""
        try:
            known = read_json(self.files_path)
            return dict(known["files"]) if known["content_hash"] == read_record(self.path).content_hash else {}
        except LakeError:
            return {}

    def note_files(self, files: Mapping[str, str]) -> None:
        """Remember the signatures of the bulk files behind the stored rows."""
        self._note(files, read_record(self.path))

    def _note(self, files: Mapping[str, str], record: Record) -> None:
        noted = {"content_hash": record.content_hash, "files": dict(sorted(files.items()))}
        write_json(self.files_path, noted)

    def store(
        self,
        span: Span,
        stored: Coverage | None,
        parts: Mapping[Unit, pl.DataFrame],
        *,
        requests: int,
        units: int,
        route: str,
        files: Mapping[str, str] | None = None,
        floor: date | None = None,
    ) -> MonthReport:
        """Replace the month by `parts` and the stored rows of the days that no part covers.

        `files`: signatures of the bulk files behind the month from now on. `floor`: the plan's first date, where it cut
        the month short. Raises `IncompleteError` for a day much thinner than the others, or than it was when it was
        stored; nothing is replaced then.
        """
        table = self.table
        held = stored if stored and not stored.is_outside else None
        old = read_table(self.path) if held else None
        frame = assemble(table, parts, *_kept(table, list(parts), old, parts))
        require_even_days(table, self.month, frame)
        revision = None
        if old is not None and held is not None:
            again = pl.col(table.date_column).is_between(held.first, held.last)
            if not self.refetch:
                require_kept(table, old.filter(again), frame)
            revision = compare(table, self.month, old.filter(again), frame.filter(again))
            revision = revision or appended(table, self.month, old, frame)
        if not self.refetch:
            require_standing(table, frame, self._day_before(frame))
        if revision:
            log_revision(self.lake, revision)
        covered = Coverage(
            min(span.first, held.first) if held else span.first,
            max(span.last, held.last) if held else span.last,
            max(span.last_date, stored.as_of) if held and stored else span.last_date,
            span.is_whole or bool(held and held.complete),
        )
        source = self._source(covered, frame, floor)
        # Noted first, with the hash of the rows to come: a kill in between must not leave rows without their files.
        note = partial(self._note, files) if files else None
        record = write_fetched(self.path, frame, keys=table.keys, source=source, requests=requests, before_rename=note)
        return self._report(record, requests=requests, units=units, route=route, days=_days(table, frame), new=revision)

    def _day_before(self, frame: pl.DataFrame) -> pl.DataFrame | None:
        """Contracts of the newest day of the month before, if it is stored as far as its end."""
        if not self.table.standing or not frame.height:
            return None
        first = date.fromisoformat(f"{self.month}-01")
        path = self.lake / partition_path(self.table, f"{first - timedelta(days=1):%Y-%m}")
        if not path.exists() or read_record(path).source.get("complete") != "true":
            return None
        rows = read_table(path, columns=[self.table.date_column, "Code", "LTD"])
        return rows.filter(pl.col(self.table.date_column) == pl.col(self.table.date_column).max())

    def restamp(self, span: Span, stored: Coverage, files: Mapping[str, str], requests: int) -> MonthReport:
        """Note that the stored rows are still what the service has at `span.last_date`."""
        return self.store(span, stored, {}, requests=requests, units=0, route="unchanged", files=files)

    def mark_outside(self, span: Span, floor: date | None) -> MonthReport:
        """Record a month that the plan does not show: no rows, not complete, no failure. `floor`: its first date."""
        nothing = Coverage(span.first, span.first - timedelta(days=1), span.last_date, False)
        frame = pl.DataFrame(schema=dict(self.table.schema))
        source = self._source(nothing, frame, floor)
        record = write_fetched(self.path, frame, keys=self.table.keys, source=source, requests=0)
        return self._report(record, requests=0, units=0, route="outside the plan's dates", days=0)

    def reused(self) -> MonthReport:
        days = _days(self.table, read_table(self.path, columns=[self.table.date_column]))
        return self._report(read_record(self.path), requests=0, units=0, route="stored", days=days, is_reused=True)

    def _source(self, covered: Coverage, frame: pl.DataFrame, floor: date | None) -> dict[str, str]:
        source = source_of(self.client, self.table, covered)
        if route_of(self.table).restated:
            source["facts_hash"] = facts_hash(self.table, frame)
        cut = floor is not None or covered.is_outside
        return source | ({"window": f"{self.client.plan.name} {floor or ''}".strip()} if cut else {})

    def _report(
        self,
        record: Record,
        *,
        requests: int,
        units: int,
        route: str,
        days: int,
        new: Revision | None = None,
        is_reused: bool = False,
    ) -> MonthReport:
        first, last = record.source["from"], record.source["to"]
        return MonthReport(
            table=self.table.name,
            month=self.month,
            rows=record.rows,
            requests=requests,
            days=days,
            reused=is_reused,
            seconds=time.monotonic() - self.began,
            units=units,
            complete=record.source["complete"] == "true",
            content_hash=record.content_hash,
            route=str(route),  # a plain word, not a member of an enumeration
            covers=f"{first} to {last}" if first <= last else "",
            revision=new,
            facts_hash=record.source.get("facts_hash", record.content_hash),
        )


def source_of(client: Client, table: Table, covered: Coverage) -> dict[str, str]:
    """Where a stored month came from and which dates it vouches for."""
    return {
        "endpoint": table.path,
        "origin": client.origin,
        "from": covered.first.isoformat(),
        "to": covered.last.isoformat(),
        "as_of": covered.as_of.isoformat(),
        "complete": "true" if covered.complete else "false",
    }


def _kept(
    table: Table, units: Sequence[Unit], old: pl.DataFrame | None, parts: Mapping[Unit, pl.DataFrame]
) -> list[pl.DataFrame]:
    """Stored rows that stay: those of dates that no unit covers, and every vintage of a table with appended ones."""
    if old is None:
        return []
    days = [day for day in old[table.date_column].unique() if not any(unit.covers(day) for unit in units)]
    again = pl.col(table.date_column).is_in(days)
    kept = [old.filter(again)]
    if table.revision == "append":
        fresh = [part.select(table.keys) for part in parts.values() if part.height]
        vintages = old.filter(~again)
        kept.append(vintages.join(pl.concat(fresh), on=table.keys, how="anti") if fresh else vintages)
    return kept


def _days(table: Table, frame: pl.DataFrame) -> int:
    return frame[table.date_column].n_unique()
