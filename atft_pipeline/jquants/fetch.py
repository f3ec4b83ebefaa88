"""Ingestion: one month of one raw table from the API into the lake, or nothing.

Each fetched unit is staged beside the partition, so an interrupted month goes on where it stopped; the partition is
replaced in one rename when every unit is there and the month passes its rules. Any failure is one `ExchangeError`, and
what was stored before stays as it was.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import polars as pl

from atft_pipeline.jquants.client import Client
from atft_pipeline.jquants.decode import decode
from atft_pipeline.jquants.errors import NOTHING_STORED, ExchangeError, SchemaError, scrub
from atft_pipeline.jquants.rules import require_calendar, require_even_days, require_unit, thin_days
from atft_pipeline.jquants.staging import Staging, assemble
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import CALENDAR, MASTER, partition_path
from atft_pipeline.jquants.units import (
    Coverage,
    Unit,
    is_current,
    month_span,
    stored_coverage,
    units_to_fetch,
)
from atft_pipeline.lake.store import Record, read_record, read_table, write_table

WORKERS, LOOPBACK_WORKERS = 3, 1
"""Three hide the latency of one request behind the others (the limiter sets the pace); loopback has none to hide, and
there one thread is the fastest, as decoding holds the interpreter."""


@dataclass(frozen=True)
class MonthReport:
    """What one ingestion did. `days`: dates with rows in the stored partition; `units`: request chains just made."""

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


def ingest_calendar(client: Client, lake: Path, start: date, end: date, *, refetch: bool = False) -> MonthReport:
    """Store the trading calendar from `start` to `end` (or to the last day that the service knows).

    One request; none when the stored calendar covers these dates. Stored days outside them are kept where they adjoin.
    """
    began = time.monotonic()
    path = lake / partition_path(CALENDAR)
    stored = stored_coverage(path, client.origin)
    if stored and stored.first <= start and stored.last >= end and not refetch:
        return _reused(path, CALENDAR, "all", began)
    before = client.requests_sent
    frame = fetch_unit(client, CALENDAR, Unit(start, end))
    first, last = require_calendar(frame, start, end)
    if stored and first <= stored.last + timedelta(days=1) and last >= stored.first - timedelta(days=1):
        old = read_table(path)
        frame = pl.concat([old.filter(~pl.col("Date").is_between(first, last)), frame], how="diagonal").sort("Date")
        first, last = min(first, stored.first), max(last, stored.last)
    source = _source(client, CALENDAR, Coverage(first, last, last, True))
    record = write_table(path, frame, keys=CALENDAR.keys, source=source)
    return _report(CALENDAR, "all", record, frame, client.requests_sent - before, 1, began)


def ingest_month(
    client: Client,
    lake: Path,
    table: Table,
    month: str,
    *,
    last_date: date,
    refetch: bool = False,
    revisit_days: int = 5,
    workers: int | None = None,
) -> MonthReport:
    """Store `month` ("YYYY-MM") of `table`, up to `last_date`; needs the calendar in the lake.

    A stored month that is complete and settled, or was already fetched up to `last_date`, costs no request. Otherwise
    only missing days are fetched, and the newest `revisit_days` stored ones again. `refetch` reads everything anew.
    Raises `ExchangeError` (`SchemaError`, `IncompleteError`); the stored partition is then unchanged.
    """
    began = time.monotonic()
    _require_plan(client, table)
    span = month_span(lake, month, last_date)
    path = lake / partition_path(table, month)
    staging = Staging(path.parent / "_staging" / month, table, client.origin, last_date)
    stored = None if refetch else stored_coverage(path, client.origin)
    if stored and is_current(stored, span):
        staging.clear()  # a kill between the rename and this line left it
        return _reused(path, table, month, began)
    if refetch:
        staging.clear()
    units = units_to_fetch(table, span, stored, revisit_days)
    parts = staging.load(units)
    missing = [unit for unit in units if unit not in parts]
    listed = _listed_codes(lake, table, month)

    def stage(unit: Unit) -> int:
        before = client.requests_sent
        parts[unit] = fetch_unit(client, table, unit)
        require_unit(table, unit, parts[unit], span.business, listed)
        staging.add(unit, parts[unit])
        return client.requests_sent - before

    try:
        requests = _run_all(missing, stage, workers or (LOOPBACK_WORKERS if client.is_loopback else WORKERS))
        frame = assemble(table, parts, *_kept(table, units, path if stored else None))
        staging.discard([Unit(day, day) for day in thin_days(table, frame)])
        require_even_days(table, month, frame)
    except BaseException:
        staging.flush()
        raise
    covered = Coverage(min(span.first, stored.first) if stored else span.first, span.last, last_date, span.is_whole)
    record = write_table(path, frame, keys=table.keys, source=_source(client, table, covered))
    staging.clear()
    return _report(table, month, record, frame, requests, len(missing), began)


def fetch_unit(client: Client, table: Table, unit: Unit) -> pl.DataFrame:
    """The rows of one unit, typed and sorted by key; rows repeated across pages are asked for once more.

    Raises `SchemaError` when columns, values or keys are not as declared.
    """
    for _ in range(2):
        frame = decode(table, _ask(client, table, unit), unit.text)
        repeated = frame.height - frame.n_unique(subset=table.keys) if frame.height else 0
        if not repeated:
            return frame.sort(table.keys)
    raise SchemaError(
        f"{table.path} {unit.text}: {repeated} rows repeat the key {', '.join(table.keys)}, twice in a row; the pages "
        f"overlap on the server: run the same command again later; {NOTHING_STORED}",
        endpoint=table.path,
        request=unit.text,
        status=200,
    )


def _ask(client: Client, table: Table, unit: Unit) -> pd.DataFrame:
    """Call the official getter. It fails in its own ways when a column that it selects is missing."""
    try:
        return table.get(client, unit.first.isoformat(), unit.last.isoformat())
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        names = ", ".join(dict.fromkeys(re.findall(r"'([^']+)'", str(error))))
        missing = isinstance(error, KeyError) and names
        what = f"column {names} missing" if missing else f"{type(error).__name__}: {error}"
    raise SchemaError(
        f"{table.path} {unit.text}: the official client cannot read the answer ({scrub(what, '')}); the API may have "
        f"changed: check for a newer jquants-api-client; {NOTHING_STORED}",
        endpoint=table.path,
        request=unit.text,
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


def _kept(table: Table, units: Sequence[Unit], path: Path | None) -> list[pl.DataFrame]:
    """Stored rows of the dates that no unit covers."""
    if path is None:
        return []
    old = read_table(path)
    days = [day for day in old[table.date_column].unique() if not any(unit.covers(day) for unit in units)]
    return [old.filter(pl.col(table.date_column).is_in(days))]


def _listed_codes(lake: Path, table: Table, month: str) -> Mapping[date, frozenset[str]]:
    """Listed codes by day from the stored list of issues; empty when the table needs none or none is stored yet."""
    path = lake / partition_path(MASTER, month)
    if table.covers != MASTER.name or not path.exists():
        return {}
    by_day = read_table(path, columns=["Date", "Code"]).group_by("Date").agg("Code")
    return {day: frozenset(codes) for day, codes in by_day.iter_rows()}


def _require_plan(client: Client, table: Table) -> None:
    if not client.plan.includes(table.plan):
        raise ExchangeError(
            f"{table.path}: {table.name} needs plan {table.plan}, JQUANTS_PLAN is {client.plan.name}; set the plan you "
            "have, or leave this table out",
            endpoint=table.path,
        )


def _source(client: Client, table: Table, covered: Coverage) -> dict[str, str]:
    return {
        "endpoint": table.path,
        "origin": client.origin,
        "from": covered.first.isoformat(),
        "to": covered.last.isoformat(),
        "as_of": covered.as_of.isoformat(),
        "complete": "true" if covered.complete else "false",
    }


def _reused(path: Path, table: Table, month: str, began: float) -> MonthReport:
    frame = read_table(path, columns=[table.date_column])
    return _report(table, month, read_record(path), frame, 0, 0, began, reused=True)


def _report(
    table: Table,
    month: str,
    record: Record,
    frame: pl.DataFrame,
    requests: int,
    units: int,
    began: float,
    reused: bool = False,
) -> MonthReport:
    return MonthReport(
        table=table.name,
        month=month,
        rows=record.rows,
        requests=requests,
        days=frame[table.date_column].n_unique(),
        reused=reused,
        seconds=time.monotonic() - began,
        units=units,
        complete=record.source["complete"] == "true",
        content_hash=record.content_hash,
    )
