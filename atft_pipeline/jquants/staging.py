"""Units of a month that is not complete yet, kept on disk so that an interrupted run goes on where it stopped.

Files are written at most once a second, each with the units fetched since the last one: a slow service (120 requests
a minute) has nearly every unit on disk at once, a fast one does not spend its time on small files. A kill loses at
most that second.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path

import polars as pl

from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.units import Unit, is_settled
from atft_pipeline.lake.store import LakeError, read_record, read_table, write_table

FLUSH_SECONDS = 1.0


class Staging:
    """The staged units of one month: `<table>/_staging/<month>/*.parquet`. `add` may be called from several threads."""

    def __init__(self, folder: Path, table: Table, origin: str, last_date: date) -> None:
        self._folder = folder
        self._table = table
        self._origin = origin
        self._last_date = last_date
        self._lock = threading.Lock()
        self._flushed = time.monotonic()
        self._pending: dict[Unit, pl.DataFrame] = {}
        self._files: dict[Unit, Path] = {}

    def load(self, wanted: Iterable[Unit]) -> dict[Unit, pl.DataFrame]:
        """What an earlier run staged of `wanted`, from the same market and recent enough; a damaged file is ignored."""
        found: dict[Unit, pl.DataFrame] = {}
        for path in sorted(self._folder.glob("*.parquet")):
            units = [unit for unit in wanted if unit in self._usable(path)]
            if not units:
                continue
            frame = read_table(path)
            for unit in units:
                found[unit] = frame.filter(pl.col(self._table.date_column).is_between(unit.first, unit.last))
                self._files[unit] = path
        return found

    def add(self, unit: Unit, frame: pl.DataFrame) -> None:
        """Keep one fetched unit, and write what is pending when the last write is a second ago."""
        with self._lock:
            self._pending[unit] = frame
            if time.monotonic() - self._flushed >= FLUSH_SECONDS:
                self._write()

    def flush(self) -> None:
        """Write what is pending: call it before giving up."""
        with self._lock:
            self._write()

    def discard(self, units: Sequence[Unit]) -> None:
        """Forget units that turned out to be wrong, with the files that hold them: they must be fetched again."""
        with self._lock:
            for unit in units:
                self._pending.pop(unit, None)
                if unit in self._files:
                    self._files.pop(unit).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything staged for this month."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self) -> None:
        if self._pending:
            units = sorted(self._pending)
            path = self._folder / f"{units[0].name}.parquet"
            source = {
                "origin": self._origin,
                "as_of": self._last_date.isoformat(),
                "units": " ".join(unit.name for unit in units),
            }
            rows = assemble(self._table, self._pending)
            write_table(path, rows, keys=self._table.keys, source=source)
            self._files |= dict.fromkeys(units, path)
            self._pending.clear()
        self._flushed = time.monotonic()

    def _usable(self, path: Path) -> set[Unit]:
        try:
            source: Mapping[str, str] = read_record(path).source
        except LakeError:
            return set()
        if source["origin"] != self._origin:
            return set()
        units = {Unit.from_name(name) for name in source["units"].split()}
        as_of = date.fromisoformat(source["as_of"])
        return {unit for unit in units if is_settled(unit, as_of, self._last_date)}


def assemble(table: Table, parts: Mapping[Unit, pl.DataFrame], *others: pl.DataFrame) -> pl.DataFrame:
    """All rows in one frame, sorted by key; a column that some parts lack is null there."""
    frames = [frame for _, frame in sorted(parts.items()) if frame.height]
    frames += [frame for frame in others if frame.height]
    if not frames:
        return pl.DataFrame(schema=dict(table.schema))
    return pl.concat(frames, how="diagonal").sort(table.keys)
