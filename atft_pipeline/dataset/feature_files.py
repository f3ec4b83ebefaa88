"""The files of a feature group: Parquet by year in spine order, written as its columns come, read for the dataset.

One group is in memory at a time, and each column only as the rows of the spine; what a build holds does not grow with
the number of groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.dataset.contract import KEYS, digest
from atft_pipeline.dataset.spine import YearSlice, typed_column, years
from atft_pipeline.lake.store import (
    LakeError,
    Record,
    read_json,
    read_record,
    read_table,
    write_json,
    write_table_if_changed,
)
from atft_pipeline.panel.axes import Axes
from atft_pipeline.verdict import ContractBroken

WRITERS = 2
"""Years written at once: encoding is one thread's work per file."""

Columns = Mapping[str, NDArray[np.generic]] | Iterable[tuple[str, NDArray[np.generic]]]
Audit = Mapping[str, Any] | Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Stored:
    """What one write did: rows in all files, and how many files were new or changed."""

    rows: int
    written: int
    unchanged: int
    hash: str


def features_dir(lake: Path, group: str) -> Path:
    return lake / "features" / group


def write_features(
    group: str,
    dtypes: Mapping[str, str],
    columns: Columns,
    axes: Axes,
    lake: Path,
    *,
    source: Mapping[str, str] | None = None,
    audit: Audit | None = None,
) -> Stored:
    """Store a group's dense [T, N] columns by year under <lake>/features/<group>/; equal years are left alone.

    `dtypes` are the declared types in order (f32, i8, ...). `columns` may be computed while it is read. `source` names
    what the group was computed from (the panel's hash). `audit` is the as-of join's account (rows inspected, hit
    rate), or a function that gives it once the columns are computed; the dataset's audit check reads it.
    """
    slices = list(years(axes))
    rows_of_year = _typed_rows(group, dtypes, columns, slices)
    folder = features_dir(lake, group)

    def write(year: YearSlice) -> tuple[Record, bool]:
        frame = year.keys().hstack(rows_of_year.pop(year.year))
        return write_table_if_changed(folder / f"{year.year}.parquet", frame, keys=KEYS)

    with ThreadPoolExecutor(WRITERS) as writers:
        done = list(writers.map(write, slices))
    entries = {year.year: record.content_hash for year, (record, _) in zip(slices, done, strict=True)}
    remove_other_years(folder, entries)
    summary = {
        "group": group,
        "columns": dict(dtypes),
        "rows": sum(record.rows for record, _ in done),
        "years": entries,
        "spine": {year.year: year.spine_hash for year in slices},
        "hash": digest(entries.items()),
    }
    account = audit() if callable(audit) else audit
    write_json(folder / "group.json", {**summary, "source": dict(source or {}), "audit": dict(account or {})})
    written = sum(changed for _, changed in done)
    return Stored(int(str(summary["rows"])), written, len(entries) - written, str(summary["hash"]))


def _typed_rows(
    group: str, dtypes: Mapping[str, str], columns: Columns, slices: list[YearSlice]
) -> dict[str, list[pl.Series]]:
    """Year -> its columns as typed rows. One thread turns a column into rows while the next is computed."""
    rows: dict[str, list[pl.Series]] = {year.year: [] for year in slices}

    def keep(name: str, values: NDArray[np.generic]) -> None:
        for year in slices:
            rows[year.year].append(typed_column(name, dtypes[name], year.take(values)))

    names: list[str] = []
    with ThreadPoolExecutor(1) as converter:
        running = None
        for name, values in columns.items() if isinstance(columns, Mapping) else columns:
            names.append(name)
            if name not in dtypes:
                break
            if running is not None:
                running.result()
            running = converter.submit(keep, name, values)
        if running is not None:
            running.result()
    if names != list(dtypes):
        raise ContractBroken(f"group {group}: columns {names[:6]}..., declared are {list(dtypes)[:6]}...")
    return rows


def require_spine(lake: Path, group: str, year: YearSlice) -> None:
    """Raise `ContractBroken` unless the group's file of the year has exactly the spine's keys, in its order.

    A file that is as `group.json` says, written for this very spine, needs no reading; any other file is compared row
    by row.
    """
    path = features_dir(lake, group) / f"{year.year}.parquet"
    summary = read_json(features_dir(lake, group) / "group.json")
    as_written = read_record(path).content_hash == summary["years"].get(year.year)
    if not (as_written and summary.get("spine", {}).get(year.year) == year.spine_hash):
        year.require_aligned(path, read_table(path, list(KEYS)))


def feature_columns(lake: Path, group: str, year: YearSlice) -> pl.DataFrame:
    """The group's columns of one year in one piece each, without the keys, after `require_spine`."""
    require_spine(lake, group, year)
    path = features_dir(lake, group) / f"{year.year}.parquet"
    names = [name for name in read_record(path).columns if name not in KEYS]
    try:
        return read_table(path, names).rechunk()
    except LakeError as error:
        raise ContractBroken(f"{error}; materialise features/{group} again") from error


def remove_other_years(folder: Path, keep: Mapping[str, object]) -> None:
    """Files of years that the axes no longer have would be read as part of the whole."""
    for path in folder.glob("*.parquet"):
        if path.stem not in keep:
            path.unlink()
