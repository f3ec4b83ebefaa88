"""Record a real service into a market folder that `serve` serves again: `python -m atft_pipeline.exchange record`.

Rows are kept as delivered: the bodies are tapped behind the client's pacing, retries and checks, before anything is
typed. For private use only: the vendor's terms forbid redistribution and ask for deletion after cancelling.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

from atft_pipeline.exchange.recorded import Kinds, frame_of, is_stored_as_json, kinds_of, merged
from atft_pipeline.exchange.storage import months, write_groups
from atft_pipeline.exchange.tables import MarketError
from atft_pipeline.jquants.client import Client
from atft_pipeline.jquants.errors import ExchangeError
from atft_pipeline.jquants.fetch import fetch_unit
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import BUSINESS, CALENDAR, OUTAGE_DAYS, TABLES
from atft_pipeline.jquants.units import Unit

VERSION = 1
TERMS = (
    "Recorded from a real service for the recorder's own use. Do not redistribute; delete it when the subscription "
    "ends, and the part of a higher plan after a downgrade."
)
_RESUME = "what was recorded before stays, and the same command goes on from there"
Rows = list[dict[str, Any]]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What to record: `tables` by name, the dates [start, end]. The calendar is always among them."""

    tables: Sequence[str]
    start: date
    end: date

    def __post_init__(self) -> None:
        unknown = sorted(set(self.tables) - set(TABLES))
        if unknown:
            raise MarketError(f"unknown table {', '.join(unknown)}; known: {', '.join(TABLES)}")
        if self.start > self.end:
            raise MarketError(f"nothing to record from {self.start} to {self.end}")

    def months(self) -> Iterator[Unit]:
        """The calendar months, cut to [start, end]."""
        return (Unit(first, last) for first, last in months(self.start, self.end))


def record(client: Client, out: Path, order: Order, log: Log | None = None) -> dict[str, Any]:
    """Write the market folder `out` and return its market.json; a call that was cut off goes on where it stopped.

    Raises `MarketError` when `out` holds a simulated market or another service's recording, and `ExchangeError` when
    the service refuses; what was fetched by then stays in `out/recording`.
    """
    tell = log or (lambda text: None)
    about = _recorded(out)
    if about is not None and about["origin"] != client.origin:
        raise MarketError(f"{out} holds a recording of {about['origin']}; name another folder with --out")
    work = out / "recording"
    parts = {CALENDAR.name: [_part(work, CALENDAR, Unit(order.start, order.end))]}
    days = _fetched(client, CALENDAR, [Unit(order.start, order.end)], parts[CALENDAR.name][0])
    business = {date.fromisoformat(row["Date"]) for row in days if row["HolDiv"] in BUSINESS}
    for table in (TABLES[name] for name in dict.fromkeys(order.tables) if name != CALENDAR.name):
        parts[table.name] = [_part(work, table, month) for month in order.months()]
        for month, part in zip(order.months(), parts[table.name], strict=True):
            rows = _fetched(client, table, _units(table, month, business), part)
            tell(f"{table.name} {month.text}: {len(rows):,} rows")
    shutil.rmtree(out / "bulk", ignore_errors=True)  # the server keeps files there that were made of the old rows
    written, objects = {}, {}
    for name, paths in parts.items():
        written[name], objects[name] = _assemble(out, name, paths)
    about = {
        "version": VERSION,
        "recorded": True,
        "origin": client.origin,
        "plan": client.plan.name,
        "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "start": order.start.isoformat(),
        "end": order.end.isoformat(),
        "window": [order.start.isoformat(), order.end.isoformat()],
        "oracle": None,
        "terms": TERMS,
        "objects": {name: columns for name, columns in objects.items() if columns},
        "tables": written,
    }
    with _whole(out / "market.json") as path:
        path.write_text(json.dumps(about, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return about


def _recorded(out: Path) -> dict[str, Any] | None:
    """market.json of an earlier recording in `out`; None where there is none."""
    path = out / "market.json"
    if not path.is_file():
        return None
    about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if not about.get("recorded"):
        raise MarketError(f"{out} holds a simulated market; name another folder with --out")
    return about


def _part(work: Path, table: Table, span: Unit) -> Path:
    return work / table.name / f"{span.first}_{span.last}.jsonl.gz"


def _units(table: Table, month: Unit, business: set[date]) -> list[Unit]:
    """The requests of one month: the whole of it, or its business or calendar days."""
    if table.unit != "day":
        return [month]
    days = [month.first + timedelta(days=n) for n in range((month.last - month.first).days + 1)]
    return [Unit(day, day) for day in days if table.days == "calendar" or day in business]


def _fetched(client: Client, table: Table, units: Sequence[Unit], path: Path) -> Rows:
    """The rows of `units`, from `path` when it is there; each unit lies beside it until all are."""
    if path.is_file():
        return _read(path)
    staging = path.with_name(f".{path.name}.parts")
    parts = [staging / f"{unit.name}.gz" for unit in units]
    for unit, part in zip(units, parts, strict=True):
        if part.is_file():
            continue
        rows = _tapped(client, table, unit)
        if not rows and table.dense and table.unit == "day" and unit.first not in OUTAGE_DAYS:
            raise MarketError(f"{table.path} {unit.text}: no rows for a business day; is it published? {_RESUME}")
        _write(part, rows)
    with _whole(path) as target, target.open("wb") as whole:
        for part in parts:  # gzip members put together are one gzip file
            whole.write(part.read_bytes())
    shutil.rmtree(staging, ignore_errors=True)
    return _read(path)


def _tapped(client: Client, table: Table, unit: Unit) -> Rows:
    """The rows of one unit as delivered. The ordinary fetch runs over the same bodies and refuses what is not sound."""
    rows: Rows = []
    paced = client._get

    def tap(url: str, params: dict[str, Any] | None = None) -> requests.Response:
        page = paced(url, params)
        if not (params or {}).get("pagination_key"):
            rows.clear()  # the first page, or the first page again
        rows.extend(page.json()["data"])
        return page

    client._get = tap  # type: ignore[method-assign]
    try:
        fetch_unit(client, table, unit)
    except ExchangeError as error:
        raise ExchangeError(
            f"{error}; {_RESUME}",
            endpoint=error.endpoint,
            request=error.request,
            status=error.status,
        ) from None
    finally:
        del client._get
    return rows


def _assemble(out: Path, name: str, paths: Sequence[Path]) -> tuple[dict[str, Any], list[str]]:
    """Write table `name` from its recorded months; returns its entry in market.json and its columns of JSON text."""
    kinds: Kinds = {}
    for path in paths:
        kinds = merged(kinds, kinds_of(_read(path)))
    kinds = kinds or {column: {"text"} for column in TABLES[name].schema}  # without a row there are columns at least
    path = out / "tables" / f"{name}.parquet"
    with _whole(path) as target:
        rows = write_groups(target, (frame_of(_read(part), kinds) for part in paths))
    entry = {"rows": rows, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return entry, sorted(column for column, seen in kinds.items() if is_stored_as_json(seen))


def _write(path: Path, rows: Rows) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with _whole(path) as target:
        target.write_bytes(gzip.compress(lines.encode(), 6, mtime=0))


def _read(path: Path) -> Rows:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary file that takes the name `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
