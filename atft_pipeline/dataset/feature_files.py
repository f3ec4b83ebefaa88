"""The files of a feature group: Parquet by year in spine order, encoded as its columns come, read for the dataset.

A column is turned into encoded rows of the spine while the next ones are computed; what a build holds does not grow
with the number of groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.dataset.contract import KEYS, digest
from atft_pipeline.dataset.spine import YearSlice, typed_column, years
from atft_pipeline.lake.columns import EncodedColumn, encode
from atft_pipeline.lake.store import (
    LakeError,
    Record,
    read_columns,
    read_json,
    read_record,
    read_table,
    write_columns_if_changed,
    write_json,
)
from atft_pipeline.panel.axes import Axes
from atft_pipeline.parallel import in_order
from atft_pipeline.verdict import ContractBroken

WRITERS = 2
"""Columns encoded, or years written, at once."""
WAITING = 4
"""Dense columns that wait to be encoded or are, at most; one of a full market and ten years is 43 MB."""
KEPT_YEARS = 32
"""Years whose encoded keys are kept; one of a full market is 1 MB."""

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
    folder = features_dir(lake, group)

    def write(year: YearSlice) -> tuple[Record, bool]:
        columns = [*encoded_keys(year), *columns_of_year[year.year]]
        return write_columns_if_changed(folder / f"{year.year}.parquet", columns, keys=KEYS)

    columns_of_year = _encoded(group, dtypes, columns, slices)
    done = list(in_order(write, slices, workers=WRITERS, waiting=WRITERS))
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


def _encoded(
    group: str, dtypes: Mapping[str, str], columns: Columns, slices: list[YearSlice]
) -> dict[str, list[EncodedColumn]]:
    """Year -> its columns, encoded while the next are computed."""
    names: list[str] = []

    def declared() -> Iterator[tuple[str, NDArray[np.generic]]]:
        for name, values in columns.items() if isinstance(columns, Mapping) else columns:
            names.append(name)
            if name not in dtypes:
                return
            yield name, values

    def encode_years(column: tuple[str, NDArray[np.generic]]) -> list[EncodedColumn]:
        name, values = column
        return [encode(typed_column(name, dtypes[name], year.take(values))) for year in slices]

    done = list(in_order(encode_years, declared(), workers=WRITERS, waiting=WAITING))
    if names != list(dtypes):
        raise ContractBroken(f"group {group}: columns {names[:6]}..., declared are {list(dtypes)[:6]}...")
    return {year.year: list(of_year) for year, of_year in zip(slices, zip(*done, strict=True), strict=True)}


def encoded_keys(year: YearSlice) -> tuple[EncodedColumn, ...]:
    """The spine's keys of one year; every group and the dataset begin with the same."""
    if year.spine_hash not in _keys:
        while len(_keys) >= KEPT_YEARS:
            _keys.pop(next(iter(_keys)), None)
        _keys[year.spine_hash] = tuple(encode(column) for column in year.keys().iter_columns())
    return _keys[year.spine_hash]


_keys: dict[str, tuple[EncodedColumn, ...]] = {}


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


def feature_columns(lake: Path, group: str, year: YearSlice) -> list[EncodedColumn]:
    """The group's columns of one year as they are stored, without the keys, after `require_spine`."""
    require_spine(lake, group, year)
    path = features_dir(lake, group) / f"{year.year}.parquet"
    try:
        return read_columns(path, [name for name in read_record(path).columns if name not in KEYS])
    except LakeError as error:
        raise ContractBroken(f"{error}; materialise features/{group} again") from error


def remove_other_years(folder: Path, keep: Mapping[str, object]) -> None:
    """Files of years that the axes no longer have would be read as part of the whole."""
    for path in folder.glob("*.parquet"):
        if path.stem not in keep:
            path.unlink()
