"""How a table lies on disk: `tables/<name>.parquet`, ordered by date, one row group per calendar month.

Written month by month, so that no table is ever whole in memory, and read month by month: a small cache keeps the
newest ones. Files of other row groups (a market written by other means) are read just the same: groups that share
dates count as one.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TypeVar

import polars as pl
import pyarrow.parquet as pq

CACHED_BYTES = 384 * 2**20
"""What all tables of a server together keep of the months that they read."""
_WORKERS = 2

T = TypeVar("T")
R = TypeVar("R")


def months(first: date, last: date) -> Iterator[tuple[date, date]]:
    """The calendar months that touch [first, last], each cut to it."""
    while first <= last:
        following = (first.replace(day=1) + timedelta(days=32)).replace(day=1)
        yield first, min(last, following - timedelta(days=1))
        first = following


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int = _WORKERS) -> Iterator[R]:
    """`work` of each item, in order, computed by threads that run at most `workers` items ahead."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[R]] = []
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()


def write_groups(path: Path, frames: Iterable[pl.DataFrame]) -> int:
    """Write each frame as a row group of `path`; returns the rows. Same frames, same bytes; empty ones leave no group.

    Raises `ValueError` naming the file when a frame has other columns or types than the first.
    """
    writer: pq.ParquetWriter | None = None
    rows = 0
    try:
        for frame in frames:
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=1)
            if table.schema != writer.schema:
                raise ValueError(f"{path.name}: columns change from {writer.schema.names} to {table.schema.names}")
            if frame.height:
                writer.write_table(table, row_group_size=frame.height)
            rows += frame.height
    finally:
        if writer is not None:
            writer.close()
    return rows


@dataclass(frozen=True)
class Block:
    """One row group in memory, ordered by date, with the row range of each of its dates."""

    frame: pl.DataFrame
    days: Sequence[date]
    starts: Sequence[int]
    """First row of each date, and the number of rows."""

    def between(self, first: date | None, last: date | None) -> pl.DataFrame:
        low = 0 if first is None else bisect_left(self.days, first)
        high = len(self.days) if last is None else bisect_right(self.days, last)
        return self.frame.slice(self.starts[low], max(0, self.starts[max(low, high)] - self.starts[low]))


class BlockCache:
    """The newest blocks read, up to `limit` bytes together and always the last one. Thread-safe."""

    def __init__(self, limit: int = CACHED_BYTES) -> None:
        self._limit = limit
        self._mutex = threading.Lock()
        self._blocks: OrderedDict[tuple[Path, int], tuple[Block, int]] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes kept."""
        return sum(size for _, size in self._blocks.values())

    def get(self, key: tuple[Path, int], read: Callable[[], Block]) -> Block:
        with self._mutex:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key][0]
        block = read()
        with self._mutex:
            self._blocks[key] = block, int(block.frame.estimated_size())
            while len(self._blocks) > 1 and self.size > self._limit:
                self._blocks.popitem(last=False)
        return block


class StoredTable:
    """One table on disk, read by row groups.

    `order` sorts the rows of a date (a stable sort: equal rows keep their stored order); columns that are `hidden` are
    not served.
    """

    def __init__(
        self,
        path: Path,
        date_column: str,
        order: Sequence[str] = (),
        hidden: Callable[[str], bool] = lambda name: False,
        cache: BlockCache | None = None,
    ) -> None:
        self.path = path
        self.date_column = date_column
        self._file = pq.ParquetFile(path, memory_map=True)
        self._order = (date_column, *order)
        schema = self._file.schema_arrow
        self.columns = [name for name in schema.names if not hidden(name)]
        self._empty = pl.DataFrame(schema.empty_table().select(self.columns))
        self._cache = cache or BlockCache()
        self._firsts: list[date] = []
        self._lasts: list[date] = []
        self._members: list[list[int]] = []
        self._reading = threading.Lock()
        for low, high, group in self._ranges() if date_column in schema.names else ():
            if self._lasts and low <= self._lasts[-1]:
                self._lasts[-1] = max(high, self._lasts[-1])
                self._members[-1].append(group)
            else:
                self._firsts.append(low)
                self._lasts.append(high)
                self._members.append([group])
        self._codes = _Recent()

    def _ranges(self) -> list[tuple[date, date, int]]:
        """First date, last date and number of every row group with rows, by date."""
        counts = [self._file.metadata.row_group(group).num_rows for group in range(self._file.metadata.num_row_groups)]
        return sorted((*self._bounds(group), group) for group, rows in enumerate(counts) if rows)

    def _bounds(self, group: int) -> tuple[date, date]:
        about = self._file.metadata.row_group(group)
        column = next(
            about.column(n) for n in range(about.num_columns) if about.column(n).path_in_schema == self.date_column
        )
        if column.is_stats_set and column.statistics.has_min_max:
            return date.fromisoformat(column.statistics.min), date.fromisoformat(column.statistics.max)
        days = pl.Series(self._file.read_row_group(group, columns=[self.date_column]).column(0))
        return date.fromisoformat(str(days.min())), date.fromisoformat(str(days.max()))

    @property
    def height(self) -> int:
        return int(self._file.metadata.num_rows)

    @property
    def first(self) -> date | None:
        return self._firsts[0] if self._firsts else None

    @property
    def last(self) -> date | None:
        return self._lasts[-1] if self._lasts else None

    def between(self, first: date | None, last: date | None) -> pl.DataFrame:
        """Rows of [first, last], ordered; None is open."""
        parts = [self._block(group).between(first, last) for group in self._groups(first, last)]
        return pl.concat(parts) if parts else self._empty

    def matching(
        self, condition: pl.Expr, columns: Sequence[str], first: date | None = None, last: date | None = None
    ) -> pl.DataFrame:
        """`columns` of the rows of [first, last] that fulfil `condition` on them, read past the cache."""
        parts = [
            self._read(group, list(columns)).filter(condition, *_limits(self.date_column, first, last))
            for group in self._groups(first, last)
        ]
        return pl.concat(parts) if parts else self._empty.select(columns)

    def of_code(self, code: str, first: date | None, last: date | None) -> pl.DataFrame:
        """Rows of [first, last] with this Code: the groups are searched one by one, the newest answers are kept."""
        key = (code, first, last)
        found = self._codes.get(key)
        if found is None:
            wanted = pl.col("Code") == code
            inside = self._groups(first, last)
            is_small = len(inside) * 2 < len(self._firsts)
            if is_small:
                found = self.between(first, last).filter(wanted)
            else:
                lazy = pl.scan_parquet(self.path).select(self.columns)
                found = lazy.filter(wanted, *_limits(self.date_column, first, last)).collect()
                found = found.sort(self._order, maintain_order=True)
            self._codes.put(key, found)
        return found

    def day_from(self, day: date) -> date | None:
        """The first date with rows on or after `day`."""
        group = bisect_left(self._lasts, day)
        if group == len(self._lasts):
            return None
        days = self._block(group).days
        return days[bisect_left(days, day)]

    def day_until(self, day: date | None) -> date | None:
        """The last date with rows on or before `day`; None means the last of all."""
        group = len(self._firsts) if day is None else bisect_right(self._firsts, day)
        if group == 0:
            return None
        days = self._block(group - 1).days
        return days[-1] if day is None else days[bisect_right(days, day) - 1]

    def _groups(self, first: date | None, last: date | None) -> range:
        low = 0 if first is None else bisect_left(self._lasts, first)
        high = len(self._firsts) if last is None else bisect_right(self._firsts, last)
        return range(low, max(low, high))

    def _block(self, group: int) -> Block:
        return self._cache.get((self.path, group), lambda: self._load(group))

    def _load(self, group: int) -> Block:
        ordered = self._read(group, self.columns).sort(self._order, maintain_order=True)
        sizes = ordered.group_by(self.date_column, maintain_order=True).len()
        days = [date.fromisoformat(text) for text in sizes[self.date_column]]
        return Block(ordered, days, [0, *sizes["len"].cum_sum().to_list()])

    def _read(self, group: int, columns: list[str]) -> pl.DataFrame:
        members = sorted(self._members[group])
        with self._reading:
            table = self._file.read_row_groups(members, columns=columns, use_threads=True)
        return pl.DataFrame(table).select(columns)


class _Recent:
    """The last few answers of one table."""

    _KEPT = 8

    def __init__(self) -> None:
        self._answers: OrderedDict[object, pl.DataFrame] = OrderedDict()
        self._mutex = threading.Lock()

    def get(self, key: object) -> pl.DataFrame | None:
        with self._mutex:
            return self._answers.get(key)

    def put(self, key: object, frame: pl.DataFrame) -> None:
        with self._mutex:
            self._answers[key] = frame
            if len(self._answers) > self._KEPT:
                self._answers.popitem(last=False)


def _limits(column: str, first: date | None, last: date | None) -> list[pl.Expr]:
    limits = []
    if first is not None:
        limits.append(pl.col(column) >= first.isoformat())
    if last is not None:
        limits.append(pl.col(column) <= last.isoformat())
    return limits
