"""Feature files and labels become the dataset: Parquet by year in spine order, exactly the contract's columns.

Everything is verified before anything is replaced, and `metadata.json` is written last: a reader that compares files
with it never mistakes a half-assembled dataset for a whole one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.dataset.contract import KEY_GROUP, KEYS, Contract, check_names, dataset_dir, digest, require_columns
from atft_pipeline.dataset.feature_files import (
    WRITERS,
    encoded_keys,
    feature_columns,
    features_dir,
    remove_other_years,
    require_spine,
)
from atft_pipeline.dataset.spine import YearSlice, typed_column, years
from atft_pipeline.lake.columns import EncodedColumn, encode
from atft_pipeline.lake.store import LakeError, Record, read_json, read_record, write_columns_if_changed, write_json
from atft_pipeline.panel.axes import Axes
from atft_pipeline.parallel import in_order
from atft_pipeline.revision import git_revision
from atft_pipeline.verdict import ContractBroken

LATE_CLOSE_FROM = date(2024, 11, 5)
"""The cash market closes at 15:30 from this date, at 15:00 before (JPX, arrowhead 4.0)."""
CLOSE, LATE_CLOSE, HALF_DAY_CLOSE = time(15, 0), time(15, 30), time(11, 30)


def assemble_dataset(
    lake: Path,
    contract: Contract,
    axes: Axes,
    labels: Mapping[str, NDArray[np.generic]],
    *,
    half_days: Iterable[date] = (),
    source: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Join the groups by position, add keys, knowledge time and `labels` ([T, N] per target column); return metadata.

    Raises `ContractBroken` naming missing groups, a file out of spine order, or groups built from different panels;
    nothing is replaced then.
    """
    check_names(contract).require()
    _require_groups(lake, contract)
    if sorted(labels) != sorted(contract.labels):
        raise ContractBroken(f"labels {sorted(labels)} are not the contract's {sorted(contract.labels)}")
    half = frozenset(half_days)
    slices = list(years(axes))
    for group in _feature_groups(contract):
        for year in slices:
            require_spine(lake, group, year)

    def write(year: YearSlice) -> tuple[Record, bool]:
        columns = _year_columns(lake, contract, year, labels, half)
        return write_columns_if_changed(dataset_dir(lake) / f"{year.year}.parquet", columns, keys=KEYS)

    done = list(in_order(write, slices, workers=WRITERS, waiting=WRITERS))
    records = {year.year: record for year, (record, _) in zip(slices, done, strict=True)}
    entries = {name: {"rows": record.rows, "content_hash": record.content_hash} for name, record in records.items()}
    written = sum(changed for _, changed in done)
    remove_other_years(dataset_dir(lake), entries)
    return _write_metadata(lake, contract, axes, entries, written, dict(source or {}))


def knowledge_time(day: date, half_days: frozenset[date] = frozenset()) -> datetime:
    """When row `day` was known, Tokyo time: the close of the cash session (half days end at 11:30)."""
    if day in half_days:
        return datetime.combine(day, HALF_DAY_CLOSE)
    return datetime.combine(day, LATE_CLOSE if day >= LATE_CLOSE_FROM else CLOSE)


def raw_hashes(lake: Path) -> dict[str, str]:
    """One content hash per stored raw table, over its partitions in order: what the dataset was made of."""
    tables = sorted(path for path in (lake / "raw").glob("*") if path.is_dir())
    return {
        table.name: digest((part.name, read_record(part).content_hash) for part in sorted(table.glob("*.parquet")))
        for table in tables
    }


def _feature_groups(contract: Contract) -> list[str]:
    return [group for group in contract.groups if group != KEY_GROUP]


def _require_groups(lake: Path, contract: Contract) -> None:
    """Every group is stored, whole, and from one panel; the complaint lists all that are not."""
    have = [c.name for c in contract.group(KEY_GROUP)]
    panels: dict[str, str] = {}
    for group in _feature_groups(contract):
        path = features_dir(lake, group) / "group.json"
        if not path.exists():
            continue
        summary = read_json(path)
        have += list(summary["columns"])
        panels[group] = str(summary["source"].get("panel", ""))
    require_columns(have, contract).require()
    if len(set(panels.values())) > 1:
        newest = max(set(panels.values()), key=list(panels.values()).count)
        stale = [group for group, panel in panels.items() if panel != newest]
        raise ContractBroken(f"groups {', '.join(stale)} were computed from another panel; materialise them again")


def _year_columns(
    lake: Path,
    contract: Contract,
    year: YearSlice,
    labels: Mapping[str, NDArray[np.generic]],
    half_days: frozenset[date],
) -> list[EncodedColumn]:
    """The dataset's columns of one year in contract order; those of the groups as their files hold them."""
    types = {c.name: c.dtype for c in contract.columns}
    columns = [*encoded_keys(year), encode(_knowledge_times(year, half_days))]
    columns += [encode(typed_column(name, types[name], year.take(values))) for name, values in labels.items()]
    for group in _feature_groups(contract):
        columns += feature_columns(lake, group, year)
    by_name = {column.name: column for column in columns}
    lost = [name for name in contract.names if name not in by_name]
    if lost:
        raise ContractBroken(f"{year.year}: the feature files lack {', '.join(lost[:8])}; materialise them again")
    return [by_name[name] for name in contract.names]


def _knowledge_times(year: YearSlice, half_days: frozenset[date]) -> pl.Series:
    """Column asof_ts: the knowledge time of each of the year's rows."""
    days = year.axes.dates[year.first : year.end].astype("datetime64[D]").tolist()
    known = pl.Series("asof_ts", [knowledge_time(day, half_days) for day in days], dtype=pl.Datetime("us"))
    return known.dt.replace_time_zone("Asia/Tokyo").gather(np.repeat(np.arange(len(days)), year.listed.sum(axis=1)))


def _write_metadata(
    lake: Path, contract: Contract, axes: Axes, entries: dict[str, Any], written: int, source: dict[str, str]
) -> dict[str, Any]:
    content = digest([contract.hash, *((year, entry["content_hash"]) for year, entry in sorted(entries.items()))])
    metadata: dict[str, Any] = {
        "version": 1,
        "plan": contract.plan,
        "hash": content,
        "contract_hash": contract.hash,
        "columns": {c.name: c.dtype for c in contract.columns},
        "n_columns": len(contract.columns),
        "roles": {c.name: c.role for c in contract.columns},
        "groups": {group: [c.name for c in contract.group(group)] for group in contract.groups},
        "inputs": len(contract.features),
        "rows": sum(entry["rows"] for entry in entries.values()),
        "codes": len(axes.codes),
        "dates": [str(axes.dates[0]), str(axes.dates[-1])],
        "n_dates": len(axes.dates),
        "years": entries,
        "source": source,
        "raw": raw_hashes(lake),
        "code_revision": git_revision(),
    }
    index = {
        "hash": contract.hash,
        "inputs": [
            {"index": i, "name": c.name, "group": c.group, "kind": c.kind, "dtype": c.dtype, "spectral": c.spectral}
            for i, c in enumerate(contract.features)
        ],
        "not_inputs": [{"name": c.name, "role": c.role} for c in contract.columns if c.role != "feature"],
    }
    write_json(dataset_dir(lake) / "feature_index.json", index)
    write_json(dataset_dir(lake) / "metadata.json", metadata)
    return {**metadata, "files_written": written}


def audits(lake: Path, contract: Contract) -> dict[str, dict[str, Any]]:
    """Group -> the audit of its as-of joins, for the groups that stored one."""
    found: dict[str, dict[str, Any]] = {}
    for group in _feature_groups(contract):
        try:
            audit = read_json(features_dir(lake, group) / "group.json")["audit"]
        except LakeError:
            continue
        if audit:
            found[group] = audit
    return found
