"""A DuckDB file over the whole lake, for people who want to ask questions in SQL.

Views over the Parquet files, which stay the one copy, and a few small tables read from JSON when it is built. Paths in
the views are relative to the lake, so the file survives moving it; `open_warehouse` says where the lake is now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from atft_pipeline.lake.manifest import NAME, entries
from atft_pipeline.lake.store import LakeError, read_json, replacing

WAREHOUSE = "warehouse.duckdb"

PER_RUN = {"evaluation_daily": "daily", "validation_predictions": "predictions_val"}
"""View -> file of each run's evaluation; the view adds `run_id`."""

_TABLES: dict[str, dict[str, Any]] = {
    "fetches": {
        "table": pl.String, "partition": pl.String, "rows": pl.Int64, "fetched_at": pl.String, "requests": pl.Int64
    },
    "columns": {"name": pl.String, "dtype": pl.String, "role": pl.String, "group": pl.String},
    "runs": {
        "run_id": pl.String, "state": pl.String, "preset": pl.String, "seed": pl.Int64, "phase": pl.Int64,
        "epoch": pl.Int64, "RankIC": pl.Float64, "RankIC_SE": pl.Float64, "IC": pl.Float64, "Sharpe": pl.Float64,
        "n_features": pl.Int64, "n_params": pl.Int64, "seconds": pl.Float64, "passed": pl.Boolean,
    },
    "verdicts": {
        "run_id": pl.String, "rule": pl.String, "passed": pl.Boolean, "got": pl.Float64, "want": pl.Float64,
        "message": pl.String,
    },
    "promotions": {
        "at": pl.String, "run_id": pl.String, "before": pl.String, "reason": pl.String, "difference": pl.Float64,
        "low": pl.Float64, "high": pl.Float64, "n_dates": pl.Int64,
    },
}  # fmt: skip
"""The small tables and their columns."""


def view_sources(lake: Path) -> dict[str, str]:
    """View name -> glob of the Parquet files behind it, relative to the lake, for every table that has files."""
    folders = {f"raw_{folder.name}": folder for folder in sorted((lake / "raw").glob("*"))}
    folders |= {f"features_{folder.name}": folder for folder in sorted((lake / "features").glob("*"))}
    folders |= {name: lake / name for name in ("dataset", "predictions")}
    sources = {
        name: f"{folder.relative_to(lake)}/*.parquet"
        for name, folder in folders.items()
        if any(folder.glob("*.parquet"))
    }
    runs = {name: f"evaluation/*/{file}.parquet" for name, file in PER_RUN.items()}
    return sources | {name: pattern for name, pattern in runs.items() if any(lake.glob(pattern))}


def build_warehouse(lake: Path) -> tuple[Path, list[str]]:
    """Write `<lake>/warehouse.duckdb`; returns its path and the names of its views and tables.

    Built beside the old one and renamed over it: who has the old one open goes on reading it.
    """
    sources = view_sources(lake)
    path = lake / WAREHOUSE
    with replacing(path) as part:
        part.unlink()  # DuckDB refuses to open an empty file
        with duckdb.connect(str(part), config={"file_search_path": str(lake.resolve())}) as connection:
            for name, pattern in sources.items():
                connection.execute(_view(name, pattern))
            for name, columns in _TABLES.items():
                rows = pl.DataFrame(list(_rows(name, lake)), schema=columns, orient="row")
                connection.register("incoming", rows)
                connection.execute(f"create table {_quoted(name)} as select * from incoming")
                connection.unregister("incoming")
    return path, [*sources, *_TABLES]


def open_warehouse(lake: Path) -> duckdb.DuckDBPyConnection:
    """Open the warehouse read-only, wherever the lake lies now; safe beside a running pipeline.

    Raises `LakeError` when there is none.
    """
    path = lake / WAREHOUSE
    if not path.exists():
        raise LakeError(f"{path}: missing; materialise warehouse first")
    return duckdb.connect(str(path), read_only=True, config={"file_search_path": str(lake.resolve())})


def _view(name: str, pattern: str) -> str:
    """Months may differ in their columns (a plan's, or the API's of that time): absent ones are null."""
    files = pattern.replace("'", "''")
    if name not in PER_RUN:
        return f"create view {_quoted(name)} as select * from read_parquet('{files}', union_by_name=true)"
    return (
        f"create view {_quoted(name)} as select regexp_extract(filename, '([0-9a-f]+)/[^/]+$', 1) as run_id, "
        f"* exclude (filename) from read_parquet('{files}', union_by_name=true, filename=true)"
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _rows(table: str, lake: Path) -> Iterator[Sequence[Any]]:
    readers = {
        "fetches": _fetches, "columns": _columns, "runs": _runs, "verdicts": _verdicts, "promotions": _promotions
    }  # fmt: skip
    yield from readers[table](lake)


def _fetches(lake: Path) -> Iterator[Sequence[Any]]:
    for manifest in sorted(lake.glob(f"raw/*/{NAME}")):
        for name, entry in entries(manifest.parent).items():
            said = entry.get("current") or entry["next"]
            yield manifest.parent.name, Path(name).stem, said["rows"], said["fetched_at"], said["requests"]


def _columns(lake: Path) -> Iterator[Sequence[Any]]:
    path = lake / "dataset" / "metadata.json"
    if not path.exists():
        return
    stored = read_json(path)
    group_of = {column: group for group, columns in stored["groups"].items() for column in columns}
    for name, dtype in stored["columns"].items():
        yield name, dtype, stored["roles"].get(name), group_of.get(name)


def _runs(lake: Path) -> Iterator[Sequence[Any]]:
    for path in sorted(lake.glob("runs/*/status.json")):
        if path.parent.is_symlink():
            continue
        summary, verdict = (
            path.with_name("metrics_summary.json"),
            lake / "evaluation" / path.parent.name / "verdict.json",
        )
        known = (read_json(summary) if summary.exists() else {}) | {
            "run_id": path.parent.name,
            "state": read_json(path)["state"],
            "passed": read_json(verdict)["passed"] if verdict.exists() else None,
        }
        yield [known.get(column) for column in _TABLES["runs"]]


def _verdicts(lake: Path) -> Iterator[Sequence[Any]]:
    for path in sorted(lake.glob("evaluation/*/verdict.json")):
        for name, rule in read_json(path)["rules"].items():
            yield path.parent.name, name, rule["passed"], rule["got"], rule["want"], rule["message"]


def _promotions(lake: Path) -> Iterator[Sequence[Any]]:
    path = lake / "champion" / "champion.json"
    for entry in read_json(path)["history"] if path.exists() else []:
        found = entry.get("comparison") or {}
        told = [entry.get(name) for name in ("at", "run_id", "before", "reason")]
        yield *told, *(found.get(name) for name in ("mean", "low", "high", "n_dates"))
