"""Many months of one raw table, the cheapest way: bulk files, one span, one call per sector, or day by day.

The way is chosen in `routes.py`. Whatever the way, the same rows end in the same bytes: each month goes through the
same decoding rules, the same checks and the same `Month.store`. Months that are current cost no request.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from atft_pipeline.jquants.bulk import BulkFile, fetch_file, list_files, month_files
from atft_pipeline.jquants.client import Client
from atft_pipeline.jquants.errors import ExchangeError
from atft_pipeline.jquants.fetch import (
    LOOPBACK_WORKERS,
    WORKERS,
    fetch_sectors,
    fetch_unit,
    fetch_units,
    forgetting_refused,
    ingest_month,
    inside_window,
    listed_codes,
    plan_floor,
    require_plan,
    staging_of,
)
from atft_pipeline.jquants.months import Month, MonthReport
from atft_pipeline.jquants.routes import Need, Way, cheapest, route_of
from atft_pipeline.jquants.rules import require_unit
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.units import Coverage, Span, Unit, is_current, month_span, units_to_fetch

REVISED_A_RUN = 6
"""Most overwritten files of months outside the run's own that one run reads; the next run goes on. A split may rewrite
the files of all months at once, and a night has a budget of requests."""

AHEAD = 3
"""Files on their way while an earlier one is stored."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Due:
    """A month that needs something."""

    job: Month
    whole: Span
    stored: Coverage | None
    units: tuple[Unit, ...]


def ingest_table(
    client: Client,
    lake: Path,
    table: Table,
    months: Sequence[str],
    *,
    last_date: date,
    refetch: bool = False,
    bulk: bool = True,
    workers: int | None = None,
) -> Iterator[MonthReport]:
    """Store `months` ("YYYY-MM", ascending) of `table` up to `last_date`; yields each month's report when it is stored.

    Needs the calendar in the lake. After the wanted months come older stored ones whose bulk file was overwritten
    since. `bulk` False leaves bulk files out; `refetch` reads everything anew. A failure ends the iteration with one
    `ExchangeError`; months already yielded stay stored, the failing one is unchanged.
    """
    require_plan(client, table)
    due, current = _sorted_out(client, lake, table, months, last_date, refetch)
    for month, job in current.items():
        staging_of(job, last_date).clear()
        if month not in due:
            yield job.reused()
    if not due:
        return
    need = _need(due.values(), last_date)
    way = cheapest(table, client.plan, need, bulk=bulk)
    if way is Way.BULK:
        files = _listed(client, table)
        if files is not None:
            yield from _by_bulk(client, lake, table, due, files[0], files[1], last_date, refetch, workers)
            return
        way = cheapest(table, client.plan, need, bulk=False)
    if way in (Way.SPAN, Way.SECTOR):
        yield from _by_span(client, table, list(due.values()), way)
        return
    for month in due:
        yield ingest_month(client, lake, table, month, last_date=last_date, refetch=refetch, workers=workers)


def _sorted_out(
    client: Client, lake: Path, table: Table, months: Sequence[str], last_date: date, refetch: bool
) -> tuple[dict[str, _Due], dict[str, Month]]:
    """Months that need something, and months that do not."""
    due: dict[str, _Due] = {}
    current: dict[str, Month] = {}
    for month in months:
        job = Month(client, lake, table, month, refetch=refetch)
        whole = month_span(lake, month, last_date)
        stored = job.stored()
        if stored and not refetch and is_current(stored, whole):
            current[month] = job
            continue
        if refetch:
            staging_of(job, last_date).clear()
        have = None if refetch else stored
        units = units_to_fetch(table, whole, have, route_of(table).revisit)
        due[month] = _Due(job, whole, stored, tuple(units))
    return due, current


def _need(due: Iterable[_Due], last_date: date) -> Need:
    days = past = left = 0
    for item in due:
        asked = [
            day
            for unit in item.units
            for day in ([unit.first] if unit.first == unit.last else item.whole.business)
            if unit.covers(day)
        ]
        held = item.stored
        new = [day for day in asked if held is None or not held.first <= day <= held.last]
        is_past = item.whole.is_whole and item.whole.month_end < last_date
        days, past, left = days + len(asked), past + is_past, left + (0 if is_past else len(new))
    return Need(days, past, left)


def _listed(client: Client, table: Table) -> tuple[list[BulkFile], int] | None:
    """The table's files and the requests that the list cost; None where the service refuses bulk files."""
    before = client.requests_sent
    try:
        return list_files(client, table), client.requests_sent - before
    except ExchangeError as error:
        if error.status != 403:
            raise
        log.warning("%s: the service gives no bulk files (HTTP 403); the API is asked instead", table.path)
        return None


def _by_span(client: Client, table: Table, due: Sequence[_Due], way: Way) -> Iterator[MonthReport]:
    """One call, or one per sector, for all months from the first to the last that is due; each month cut out of it."""
    before = client.requests_sent
    rows = _span_rows(
        client, table, min(d.whole.first for d in due), max(min(d.whole.last, d.whole.known_until) for d in due), way
    )
    charge = client.requests_sent - before
    for item in due:

        def cut(span: Span, item: _Due = item) -> MonthReport:
            unit = Unit(span.first, span.last)
            part = rows.filter(pl.col(table.date_column).is_between(unit.first, unit.last))
            require_unit(table, unit, part, span.due(table), listed_codes(item.job.lake, table, item.job.month))
            floor = plan_floor(item.whole, span, item.stored)
            return item.job.store(span, item.stored, {unit: part}, requests=0, units=1, route=way, floor=floor)

        report = inside_window(item.job, item.whole, item.stored, cut)
        yield replace(report, requests=report.requests + charge)
        charge = 0


def _span_rows(client: Client, table: Table, first: date, last: date, way: Way) -> pl.DataFrame:
    """The rows from `first` to `last`, or of the part that the plan covers."""
    while True:
        window = client.window(table.path) or (date.min, None)
        asked = Unit(max(first, window[0]), min(last, window[1] or last))
        if asked.first > asked.last:
            return pl.DataFrame(schema=dict(table.schema))
        try:
            return fetch_sectors(client, table, asked) if way is Way.SECTOR else fetch_unit(client, table, asked)
        except ExchangeError as error:
            learned = client.window(table.path) or (date.min, None)
            if error.covered is None or learned == window:
                raise
            log.warning("%s: %s; the rest is left out", table.path, error)


def _by_bulk(
    client: Client,
    lake: Path,
    table: Table,
    due: dict[str, _Due],
    files: Sequence[BulkFile],
    list_requests: int,
    last_date: date,
    refetch: bool,
    workers: int | None,
) -> Iterator[MonthReport]:
    """Past months from their files, the days of other months from theirs, what has no file by date; then older months
    whose file was overwritten."""
    whole_files = {month: _month_file(client, due[month], files, last_date) for month in due}
    wanted: dict[str, BulkFile] = {}
    for month, file in whole_files.items():
        known = {} if refetch else due[month].job.signatures()
        if file and (known.get(file.key) != file.signature or not _is_whole(due[month].stored)):
            wanted[month] = file
    revised = _revised(client, lake, table, set(due), files)
    wanted |= {month: file for month, (_, file) in revised.items()}
    count = min(AHEAD, workers or (LOOPBACK_WORKERS if client.is_loopback else WORKERS))
    with ThreadPoolExecutor(max_workers=max(1, count)) as pool:
        coming = _Ahead(pool, client, lake, table, wanted)
        try:
            for month, item in due.items():
                if whole_files[month] is None:
                    report = _open_month(item, files, refetch, workers)
                elif month in wanted:
                    report = _past_month(item, coming.take(month), workers)
                else:
                    assert item.stored is not None
                    report = item.job.restamp(item.whole, item.stored, item.job.signatures(), requests=0)
                yield replace(report, requests=report.requests + list_requests)
                list_requests = 0
                staging_of(item.job, last_date).clear()
            for month, (job, _) in revised.items():
                whole = month_span(lake, month, last_date)
                yield _past_month(_Due(job, whole, job.stored(), ()), coming.take(month), workers)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class _Ahead:
    """Month files, downloaded a few ahead of the month that is being stored."""

    def __init__(self, pool: ThreadPoolExecutor, client: Client, lake: Path, table: Table, wanted: dict[str, BulkFile]):
        self._pool, self._client, self._lake, self._table = pool, client, lake, table
        self._waiting = dict(wanted)
        self._running: dict[str, Future[tuple[BulkFile, pl.DataFrame, int]]] = {}

    def take(self, month: str) -> tuple[BulkFile, pl.DataFrame, int]:
        """The month's file with its rows and the requests that it cost; starts the next downloads."""
        while self._waiting and len(self._running) < AHEAD:
            name, file = next(iter(self._waiting.items()))
            del self._waiting[name]
            self._running[name] = self._pool.submit(_counted, self._client, self._lake, self._table, file)
        return self._running.pop(month).result()


def _counted(client: Client, lake: Path, table: Table, file: BulkFile) -> tuple[BulkFile, pl.DataFrame, int]:
    before = client.requests_sent
    fetched, frame = fetch_file(client, table, file, lake / "raw" / table.name / "_downloads")
    return fetched, frame, client.requests_sent - before


def _month_file(client: Client, item: _Due, files: Sequence[BulkFile], last_date: date) -> BulkFile | None:
    """The file of a past month. A month in which the plan's dates begin is asked for by date instead: its file may be
    cut short there, and a table that has no rows on many days would not show it."""
    if not item.whole.is_whole or item.whole.month_end >= last_date:
        return None
    begins = client.plan.window(client.today)[0]
    if (begins.year, begins.month) == (item.whole.month_end.year, item.whole.month_end.month):
        return None
    return month_files(files, item.job.month)[0]


def _is_whole(stored: Coverage | None) -> bool:
    return stored is not None and stored.complete and not stored.is_outside


def _past_month(item: _Due, fetched: tuple[BulkFile, pl.DataFrame, int], workers: int | None) -> MonthReport:
    """Store a month from its file. Business days that the file lacks are asked for by date: it may be a day behind."""
    file, rows, requests = fetched
    job, table = item.job, item.job.table
    codes = listed_codes(job.lake, table, job.month)

    def fetch(span: Span) -> MonthReport:
        unit = Unit(span.first, span.last)
        frame = rows.filter(pl.col(table.date_column).is_between(span.first, span.last))
        lost = [Unit(day, day) for day in _lost_days(table, span, frame)]
        late, more, made = fetch_units(job, span, lost, workers)
        require_unit(table, unit, pl.concat([frame, *late.values()], how="diagonal"), span.due(table), codes)
        with forgetting_refused(job, span.last_date, late):
            return job.store(
                span,
                item.stored,
                {unit: frame} | late,
                requests=requests + more,
                units=1 + made,
                route=Way.BULK,
                files={file.key: file.signature},
                floor=plan_floor(item.whole, span, item.stored),
            )

    return inside_window(job, item.whole, item.stored, fetch)


def _lost_days(table: Table, span: Span, frame: pl.DataFrame) -> list[date]:
    """Days of a daily table that must have rows and that its month file lacks, when it has most of them."""
    if table.unit != "day" or not frame.height:
        return []
    have, due = set(frame[table.date_column].unique()), span.due(table)
    lost = [day for day in due if day not in have]
    return lost if len(lost) < len(due) else []


def _open_month(item: _Due, files: Sequence[BulkFile], refetch: bool, workers: int | None) -> MonthReport:
    """Store a month day by day: from day files that are new or were overwritten, else by date."""
    job, table = item.job, item.job.table
    known = {} if refetch else job.signatures()
    listed = month_files(files, job.month)[1]

    def fetch(span: Span) -> MonthReport:
        units = _open_units(table, span, item, listed, known, refetch)
        days = [unit for unit in units if unit.first == unit.last]
        from_files = {unit: listed[unit.first] for unit in days if unit.first in listed}
        parts: dict[Unit, pl.DataFrame] = {}
        signs, requests = dict(known), 0
        codes = listed_codes(job.lake, table, job.month)
        for unit, file in from_files.items():
            read, frame, more = _counted(job.client, job.lake, table, file)
            require_unit(table, unit, frame, span.due(table), codes)
            parts[unit], requests = frame, requests + more
            signs[read.key] = read.signature
        rest = [unit for unit in units if unit not in from_files]
        asked, more, made = fetch_units(job, span, rest, workers)
        route = " and ".join([Way.BULK] * bool(from_files) + [Way.DAY] * bool(rest)) or "unchanged"
        with forgetting_refused(job, span.last_date, asked):
            return job.store(
                span,
                item.stored,
                parts | asked,
                requests=requests + more,
                units=len(from_files) + made,
                route=route,
                files=signs,
                floor=plan_floor(item.whole, span, item.stored),
            )

    return inside_window(job, item.whole, item.stored, fetch)


def _open_units(
    table: Table,
    span: Span,
    item: _Due,
    listed: dict[date, BulkFile],
    known: dict[str, str],
    refetch: bool,
) -> list[Unit]:
    """Days to read: missing ones, ones with a new or overwritten file, and recent ones that have no file to tell.

    A held day without a file, while a later day has one, had no rows: a late one would bring its file.
    """
    held = None if refetch else item.stored
    route = route_of(table)
    units = set(units_to_fetch(table, span, held, route.revisit))
    if table.unit != "day":
        return sorted(units)
    days = {unit.first for unit in units}
    for day, file in listed.items():
        is_same = known.get(file.key) == file.signature
        is_held = held is not None and held.first <= day <= held.last
        if span.first <= day <= span.last and not (is_same and is_held):
            days.add(day)
        elif is_same and is_held:
            days.discard(day)
    newest = max(listed, default=date.min)
    if held is not None:
        days -= {day for day in days if day not in listed and day < newest and held.first <= day <= held.last}
    return [Unit(day, day) for day in sorted(days)]


def _revised(
    client: Client, lake: Path, table: Table, due: set[str], files: Sequence[BulkFile]
) -> dict[str, tuple[Month, BulkFile]]:
    """Stored months, newest first, whose file was overwritten since they were stored; at most `REVISED_A_RUN`.

    A month that was stored by another way has no known file: it counts as overwritten when its file is younger than
    the stored rows, else the file is noted as the one behind them.
    """
    found: dict[str, tuple[Month, BulkFile]] = {}
    left = 0
    for file in sorted((file for file in files if file.is_month), key=lambda file: file.month, reverse=True):
        job = Month(client, lake, table, file.month)
        stored = None if file.month in due else job.stored()
        if stored is None or not _is_whole(stored):
            continue
        known = job.signatures().get(file.key)
        if known == file.signature:
            continue
        if (
            known is None
            and file.modified
            and date.fromisoformat(file.modified[:10]) + timedelta(days=1) < stored.as_of
        ):
            job.note_files({file.key: file.signature})
        elif len(found) < REVISED_A_RUN:
            found[file.month] = (job, file)
        else:
            left += 1
    if left:
        log.warning("%s: %d more months have a new bulk file; later runs read them", table.path, left)
    return found
