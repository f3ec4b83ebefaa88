"""The bulk files of a market: which there are, what is in them, and how old and large they are.

A past month is one file, a day of the running month one each; in the first days of a month the days of the month before
are still apart. The calendar is a single file. Content is the JSON pages' content (both come from `View`), as gzipped
CSV without a time stamp, so that the same rows give the same bytes. A file whose content is final is kept beside the
market, in `bulk/`; the others are made when asked for and kept in memory for a while.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

import polars as pl

from atft_pipeline.exchange.clock import MarketClock
from atft_pipeline.exchange.distortions import distort_answer, distort_page
from atft_pipeline.exchange.faults import Fault
from atft_pipeline.exchange.file_faults import FileFaults
from atft_pipeline.exchange.plans import Plan
from atft_pipeline.exchange.revisions import Revision
from atft_pipeline.exchange.storage import in_order, months
from atft_pipeline.exchange.tables import Query, ServedTable
from atft_pipeline.exchange.view import View

LATE_DAYS = 5
"""Up to this day of a month, the days of the month before are files of their own."""
FINAL_AFTER = timedelta(days=14)
"""Every row of a month is published this long after its end."""
WRITTEN_AT = time(20)
"""Tokyo time at which the simulated service writes the day's files."""

_TOKYO = timedelta(hours=9)
_KEPT_BYTES = 96 * 2**20
_GZIP_LEVEL = 1


@dataclass(frozen=True)
class BulkFile:
    """One file and the dates that it holds, both inclusive."""

    table: str
    key: str
    first: date
    last: date


@dataclass(frozen=True)
class Listed:
    """A row of /bulk/list."""

    key: str
    modified: datetime
    """UTC; it changes whenever the content does."""
    size: int
    """Bytes."""

    def row(self) -> dict[str, str | int]:
        stamp = self.modified.isoformat(timespec="microseconds") + "+00:00"
        return {"Key": self.key, "LastModified": stamp, "Size": self.size}


def listed(key: str, content: bytes, written: date, revised: datetime | None = None) -> Listed:
    """What the list says of a file with this content, first written after the day `written` (Tokyo), then `revised`.

    The microseconds come from the content's checksum: another content, another LastModified.
    """
    return _listed(key, content[-8:-4], len(content), written, revised)


def _listed(key: str, checksum: bytes, size: int, written: date, revised: datetime | None) -> Listed:
    moment = datetime.combine(written, WRITTEN_AT)
    moment = max(moment, revised) if revised else moment
    part = int.from_bytes(checksum, "little") % 1_000_000
    return Listed(key, (moment - _TOKYO).replace(microsecond=part), size)


def csv_gz(rows: pl.DataFrame) -> bytes:
    """`rows` as gzipped CSV: a header of field names, null and empty text both empty, nested values as JSON text."""
    nested = [name for name, kind in rows.schema.items() if kind.is_nested()]
    flat = rows.with_columns(
        pl.Series(name, [None if value is None else json.dumps(value) for value in rows[name]], pl.String)
        for name in nested
    ).with_columns(pl.col(pl.String).replace("", None))
    buffer = io.BytesIO()
    flat.write_csv(buffer, compression="gzip", compression_level=_GZIP_LEVEL)
    return buffer.getvalue()


class BulkFiles:
    """The files of one exchange. Thread-safe."""

    def __init__(
        self,
        tables: Mapping[str, ServedTable],
        view: View,
        plan: Plan,
        clock: MarketClock,
        market_dir: Path,
        faults: FileFaults,
    ) -> None:
        self._tables = tables
        self._view = view
        self._clock = clock
        self._faults = faults
        self._folder = market_dir / "bulk" / ("premium" if plan.is_premium else "usual")
        self._mutex = threading.Lock()
        self._kept: OrderedDict[object, bytes] = OrderedDict()

    def files(self, table: str) -> list[BulkFile]:
        """The files that `table` may have, oldest first; one without rows is none."""
        path = self._tables[table].endpoint.path.strip("/")
        stem = path.replace("/", "_")
        begin, end = self._span(table)
        if begin is None or end is None:
            return []
        if table == "calendar":
            return [BulkFile(table, f"{path}/{stem}.csv.gz", begin, end)]
        found = []
        for first, last in months(begin, end):
            if first < self._running():
                key = f"{path}/historical/{first.year}/{stem}_{first:%Y%m}.csv.gz"
                found.append(BulkFile(table, key, first, last))
            else:
                days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
                found += [BulkFile(table, f"{path}/live/{stem}_{day:%Y%m%d}.csv.gz", day, day) for day in days]
        return found

    def listed(self, files: Sequence[BulkFile]) -> Iterator[Listed]:
        """What the list says of each of `files` that has rows, in order."""
        for found in in_order(self._entry, files):
            if found is not None:
                yield found

    def content(self, file: BulkFile) -> bytes | None:
        """The file, gzipped; None when it has no rows."""
        if not self._is_final(file):
            return self._made(file)
        path = self._folder / file.key
        with contextlib.suppress(FileNotFoundError):
            return path.read_bytes()
        content = self._rows(file)
        if content is not None:
            self._keep(path, content)
        return content

    def _entry(self, file: BulkFile) -> Listed | None:
        written = file.first if file.table == "calendar" else file.last
        revised = self._revised(file)
        path = self._folder / file.key
        if self._is_final(file) and path.is_file():
            with open(path, "rb") as stored:
                stored.seek(-8, os.SEEK_END)
                return _listed(file.key, stored.read(4), path.stat().st_size, written, revised)
        content = self.content(file)
        return None if content is None else listed(file.key, content, written, revised)

    def _span(self, table: str) -> tuple[date | None, date | None]:
        stored, window = self._tables[table].stored, self._view.window
        if stored.first is None or stored.last is None:
            return None, None
        begin = max(filter(None, (stored.first.replace(day=1), window.first)))
        ends = [window.last] if table == "calendar" else [window.last, self._clock.today]
        month = stored.last.replace(day=1) + timedelta(days=31)
        end = min(filter(None, (month.replace(day=1) - timedelta(days=1), *ends)))
        return begin, end

    def _running(self) -> date:
        """The first month whose days are files of their own."""
        month = self._clock.today.replace(day=1)
        return (month - timedelta(days=1)).replace(day=1) if self._clock.today.day <= LATE_DAYS else month

    def _is_final(self, file: BulkFile) -> bool:
        """Whether the file holds a whole month that will not change any more."""
        following = file.last + timedelta(days=1)
        now = self._clock.now
        is_past = now is None or file.last + FINAL_AFTER < now.date()
        is_whole = file.first.day == 1 and following.day == 1 and "/historical/" in file.key
        is_adjusted = file.table == "bars_daily" and now is not None
        return (
            is_past
            and is_whole
            and not is_adjusted
            and self._view.last_change(file.table, file.first, file.last) is None
            and not self._rewrites(file)
        )

    def _revised(self, file: BulkFile) -> datetime | None:
        """When the content last changed after it was written: by a revision, or by a split of prices before it."""
        changes = [self._view.last_change(file.table, file.first, file.last)]
        changes += [revision.since for revision in self._rewrites(file)]
        if file.table == "bars_daily":
            split = self._view.last_split(file.last)
            changes.append(datetime.combine(split, WRITTEN_AT) if split else None)
        return max((change for change in changes if change), default=None)

    def _made(self, file: BulkFile) -> bytes | None:
        changes = [*self._view.in_force(file.table), *self._rewrites(file), *self._of_day(file)]
        state = tuple(str(change) for change in changes)
        key = (file, self._clock.now, state)
        with self._mutex:
            if key in self._kept:
                return self._kept[key]
        content = self._rows(file)
        if content is not None:
            with self._mutex:
                self._kept[key] = content
                while sum(map(len, self._kept.values())) > _KEPT_BYTES:
                    self._kept.popitem(last=False)
        return content

    def _rows(self, file: BulkFile) -> bytes | None:
        rows = self._view.rows(file.table, Query(first=file.first, last=file.last), self._rewrites(file))
        endpoint, faults = self._tables[file.table].endpoint, self._of_day(file)
        rows = distort_page(distort_answer(rows, endpoint, faults), endpoint, faults)
        return csv_gz(rows) if rows.height else None

    def _of_day(self, file: BulkFile) -> list[Fault]:
        return self._faults.of_day(file.table, file.first) if file.first == file.last else []

    def _rewrites(self, file: BulkFile) -> list[Revision]:
        return self._faults.rewrites(file.table, file.first, file.last)

    def _keep(self, path: Path, content: bytes) -> None:
        """Put the file beside the market, whole or not at all; a folder that cannot be written is served as it is."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(name, path)
        except (PermissionError, FileNotFoundError):
            return
