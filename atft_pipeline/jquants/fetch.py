"""Ingestion through the API: the calendar, and one month of one raw table, into the lake, or nothing.

Each fetched unit is staged beside the partition, so an interrupted month goes on where it stopped; the partition is
replaced in one rename when every unit is there and the month passes its rules. Any failure is one `ExchangeError`, and
what was stored before stays as it was. `ingest.py` stores many months of a table the cheapest way, on top of this.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import pandas as pd
import polars as pl

from atft_pipeline.jquants.client import Client
from atft_pipeline.jquants.decode import decode
from atft_pipeline.jquants.errors import NOTHING_STORED, ExchangeError, IncompleteError, SchemaError, scrub
from atft_pipeline.jquants.months import Month, MonthReport, source_of
from atft_pipeline.jquants.routes import SECTORS, Way, route_of
from atft_pipeline.jquants.rules import incomplete, require_calendar, require_unit, thin_days
from atft_pipeline.jquants.staging import Staging, assemble
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import CALENDAR, MASTER, partition_path
from atft_pipeline.jquants.units import (
    Coverage,
    Span,
    Unit,
    clamp,
    is_current,
    month_span,
    stored_coverage,
    units_to_fetch,
)
from atft_pipeline.lake.manifest import write_fetched
from atft_pipeline.lake.store import read_table

log = logging.getLogger(__name__)

WORKERS, LOOPBACK_WORKERS = 3, 1
"""Three hide the latency of one request behind the others (the limiter sets the pace); loopback has none to hide, and
there one thread is the fastest, as decoding holds the interpreter."""


def ingest_calendar(client: Client, lake: Path, start: date, end: date, *, refetch: bool = False) -> MonthReport:
    """Store the trading calendar from `start` to `end` (or to the last day that the service knows).

    One request (two when the plan does not reach that far); none when the stored calendar covers these dates. Stored
    days outside them are kept where they adjoin.
    """
    job = Month(client, lake, CALENDAR, "")
    stored = stored_coverage(job.path, client.origin)
    if stored and stored.first <= start and stored.last >= end and not refetch:
        return job.reused()
    before, wanted = client.requests_sent, (start, end)
    frame, start, end = _ask_inside(client, start, end)
    first, last = require_calendar(frame, start, end)
    if stored and first <= stored.last + timedelta(days=1) and last >= stored.first - timedelta(days=1):
        old = read_table(job.path)
        frame = pl.concat([old.filter(~pl.col("Date").is_between(first, last)), frame], how="diagonal").sort("Date")
        first, last = min(first, stored.first), max(last, stored.last)
    source = source_of(client, CALENDAR, Coverage(first, last, last, True))
    if end < wanted[1]:
        source["cut"] = "by the plan's window"
    if start > wanted[0]:
        source["begins"] = "with the plan's window"
    requests = client.requests_sent - before
    write_fetched(job.path, frame, keys=CALENDAR.keys, source=source, requests=requests)
    return replace(job.reused(), requests=requests, units=1, reused=False, route=str(Way.SPAN))


def _ask_inside(client: Client, start: date, end: date) -> tuple[pl.DataFrame, date, date]:
    """The calendar between two dates, or the part of it that the plan covers, with the dates asked for."""
    try:
        return fetch_unit(client, CALENDAR, Unit(start, end)), start, end
    except ExchangeError as error:
        window = client.window(CALENDAR.path)
        if error.covered is None or window is None:
            raise
        first, last = max(start, window[0]), min(end, window[1] or end)
        if first > last or (first, last) == (start, end):
            raise
        log.warning("%s: the plan covers %s to %s of %s to %s", CALENDAR.path, first, last, start, end)
        return fetch_unit(client, CALENDAR, Unit(first, last)), first, last


def ingest_month(
    client: Client,
    lake: Path,
    table: Table,
    month: str,
    *,
    last_date: date,
    refetch: bool = False,
    revisit_days: int | None = None,
    workers: int | None = None,
) -> MonthReport:
    """Store `month` ("YYYY-MM") of `table`, up to `last_date`, through the API; needs the calendar in the lake.

    A stored month that is complete and settled, or was already fetched up to `last_date`, costs no request. Otherwise
    only missing days are fetched, and the newest `revisit_days` stored ones (default: the table's route) again.
    `refetch` reads everything anew. Dates outside the plan's window, as the service itself names it, are left out: the
    partition says which dates it covers. Raises `ExchangeError` (`SchemaError`, `IncompleteError`); the stored
    partition is then unchanged.
    """
    require_plan(client, table)
    job = Month(client, lake, table, month, refetch=refetch)
    whole = month_span(lake, month, last_date)
    stored = job.stored()
    if stored and not refetch and is_current(stored, whole):
        staging_of(job, last_date).clear()  # a kill between the rename and this line left it
        return job.reused()
    if refetch:
        staging_of(job, last_date).clear()
    revisit = route_of(table).revisit if revisit_days is None else revisit_days

    def fetch(span: Span) -> MonthReport:
        units = units_to_fetch(table, span, None if refetch else stored, revisit)
        parts, requests, made = fetch_units(job, span, units, workers)
        floor = plan_floor(whole, span, stored)
        with forgetting_refused(job, last_date, parts):
            return job.store(span, stored, parts, requests=requests, units=made, route=Way.DAY, floor=floor)

    report = inside_window(job, whole, stored, fetch)
    staging_of(job, last_date).clear()
    return report


def inside_window(
    job: Month, whole: Span, stored: Coverage | None, fetch: Callable[[Span], MonthReport]
) -> MonthReport:
    """`fetch` on the part of the month that the plan covers; asked again with less when the service says so (400).

    A month without any such part is recorded as outside; stored rows of it stay.
    """
    while True:
        window = job.client.window(job.table.path)
        span = clamp(whole, window)
        if span is None:
            floor = window[0] if window and window[0] > date.min else None
            if stored and not stored.is_outside:
                return job.store(whole, stored, {}, requests=0, units=0, route="kept", floor=floor)
            return job.mark_outside(whole, floor)
        try:
            return fetch(span)
        except ExchangeError as error:
            if error.covered is None or clamp(whole, job.client.window(job.table.path)) == span:
                raise
            log.warning(
                "%s %s: the plan covers %s only; the rest is left out", job.table.path, job.month, error.covered
            )


def plan_floor(whole: Span, span: Span, stored: Coverage | None) -> date | None:
    """The plan's first date, where it cuts the month short."""
    return span.first if span.first > whole.first else stored.floor if stored else None


@contextmanager
def forgetting_refused(job: Month, last_date: date, parts: Mapping[Unit, pl.DataFrame]) -> Iterator[None]:
    """Staged days of a month that its rules refuse are not used again: the next run asks for them anew."""
    try:
        yield
    except IncompleteError:
        if not thin_days(job.table, assemble(job.table, parts)):  # else the thin days were forgotten already
            staging_of(job, last_date).clear()
        raise


def staging_of(job: Month, last_date: date) -> Staging:
    return Staging(job.path.parent / "_staging" / job.month, job.table, job.client.origin, last_date)


def fetch_units(
    job: Month, span: Span, units: Sequence[Unit], workers: int | None = None
) -> tuple[dict[Unit, pl.DataFrame], int, int]:
    """The rows of `units` from the API, staged ones first; also the requests made, and the units asked for.

    Each unit passes its rules. On failure what was fetched stays staged, apart from days that are too thin.
    """
    client, table = job.client, job.table
    staging = staging_of(job, span.last_date)
    parts = staging.load(units)
    missing = [unit for unit in units if unit not in parts]
    listed = listed_codes(job.lake, table, job.month)

    def stage(unit: Unit) -> int:
        before = client.requests_sent
        parts[unit] = fetch_unit(client, table, unit)
        require_unit(table, unit, parts[unit], span.due(table), listed)
        staging.add(unit, parts[unit])
        return client.requests_sent - before

    try:
        requests = _run_all(missing, stage, workers or (LOOPBACK_WORKERS if client.is_loopback else WORKERS))
        staging.discard([Unit(day, day) for day in thin_days(table, assemble(table, parts))])
    except BaseException:
        staging.flush()
        raise
    staging.flush()
    return parts, requests, len(missing)


def fetch_unit(client: Client, table: Table, unit: Unit) -> pl.DataFrame:
    """The rows of one unit, typed and sorted by key; rows repeated across pages are asked for once more.

    Raises `SchemaError` when columns, values or keys are not as declared.
    """
    return _read(client, table, unit.text, lambda: table.get(client, unit.first.isoformat(), unit.last.isoformat()))


def fetch_sectors(client: Client, table: Table, span: Unit) -> pl.DataFrame:
    """The rows of a span, one call per sector; the newest day, asked for by date too, shows that no sector is missing.

    Raises `IncompleteError` when it has rows that no sector gave.
    """
    ask = route_of(table).sector
    assert ask is not None
    first, last = span.first.isoformat(), span.last.isoformat()
    frames = [
        _read(client, table, f"s33={sector} {span.text}", partial(ask, client, sector, first, last))
        for sector in SECTORS
    ]
    rows = assemble(table, {}, *frames)
    if rows.height:
        newest = rows[table.date_column].max()
        assert isinstance(newest, date)
        by_date = fetch_unit(client, table, Unit(newest, newest))
        strange = by_date.join(rows, on=table.keys, how="anti")
        if strange.height:
            raise incomplete(
                table,
                span.text,
                f"{strange.height} rows of {newest} belong to no sector asked for, e.g. {strange.row(0)[:3]}",
                "the list of sectors may have grown: check for a newer jquants-api-client",
            )
    return rows


def _read(client: Client, table: Table, request: str, ask: Callable[[], pd.DataFrame]) -> pl.DataFrame:
    for _ in range(2):
        frame = decode(table, _ask(client, table, request, ask), request)
        repeated = frame.height - frame.n_unique(subset=table.keys) if frame.height else 0
        if not repeated:
            return frame.sort(table.keys)
    raise SchemaError(
        f"{table.path} {request}: {repeated} rows repeat the key {', '.join(table.keys)}, twice in a row; the pages "
        f"overlap on the server: run the same command again later; {NOTHING_STORED}",
        endpoint=table.path,
        request=request,
        status=200,
    )


def _ask(client: Client, table: Table, request: str, ask: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Call the official getter. When a column is missing it fails in its own ways, or puts an empty one there."""
    try:
        frame = ask()
        known = {*table.younger, *client.columns_delivered}
        absent = [name for name in frame.columns if name in table.schema and name not in known]
        if frame.empty or not absent:
            return frame
        what = f"column {', '.join(absent)} missing"
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        names = ", ".join(dict.fromkeys(re.findall(r"'([^']+)'", str(error))))
        missing = isinstance(error, KeyError) and names
        what = f"column {names} missing" if missing else f"{type(error).__name__}: {error}"
    raise SchemaError(
        f"{table.path} {request}: the official client cannot read the answer ({scrub(what, '')}); the API may have "
        f"changed: check for a newer jquants-api-client; {NOTHING_STORED}",
        endpoint=table.path,
        request=request,
        status=200,
    )


def _run_all(units: Sequence[Unit], work: Callable[[Unit], int], workers: int) -> int:
    """Run `work` on every unit; the first failure cancels what has not begun. Returns the requests made."""
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        futures = [pool.submit(work, unit) for unit in units]
        try:
            return sum(future.result() for future in as_completed(futures))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def listed_codes(lake: Path, table: Table, month: str) -> pl.DataFrame | None:
    """Date and Code of the listed issues that must have a row; None when the table needs none, or no list is stored
    yet."""
    path = lake / partition_path(MASTER, month)
    if table.covers != MASTER.name or not path.exists():
        return None
    listed = read_table(path, columns=["Date", "Code", *table.among])
    for column, values in table.among.items():
        listed = listed.filter(pl.col(column).is_in(values))
    return listed.select("Date", "Code")


def require_plan(client: Client, table: Table) -> None:
    if not client.plan.includes(table.plan):
        raise ExchangeError(
            f"{table.path}: {table.name} needs plan {table.plan}, JQUANTS_PLAN is {client.plan.name}; set the plan you "
            "have, or leave this table out",
            endpoint=table.path,
        )
