"""A DuckDB file with one view per stored table, for people who want to ask questions in SQL.

Views only: the Parquet files stay the one copy, so the warehouse is always current and cheap to rebuild.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from atft_pipeline.lake.store import replacing

WAREHOUSE = "warehouse.duckdb"


def view_sources(lake: Path) -> dict[str, str]:
    """View name -> glob of the Parquet files behind it, for every table that exists under `lake`."""
    sources = {f"raw_{folder.name}": folder for folder in sorted((lake / "raw").glob("*"))}
    sources |= {f"features_{folder.name}": folder for folder in sorted((lake / "features").glob("*"))}
    sources |= {name: lake / name for name in ("dataset", "predictions")}
    return {name: f"{folder}/*.parquet" for name, folder in sources.items() if any(folder.glob("*.parquet"))}


def build_warehouse(lake: Path) -> tuple[Path, list[str]]:
    """Write `<lake>/warehouse.duckdb` with a view per table; returns its path and the names of the views."""
    sources = view_sources(lake)
    path = lake / WAREHOUSE
    with replacing(path) as part:
        part.unlink()  # DuckDB refuses to open an empty file
        with duckdb.connect(str(part)) as connection:
            for name, pattern in sources.items():
                quoted = pattern.replace("'", "''")
                connection.execute(f"create view {name} as select * from read_parquet('{quoted}')")
    return path, list(sources)


def open_warehouse(lake: Path) -> duckdb.DuckDBPyConnection:
    """Open the warehouse read-only; safe beside a running pipeline."""
    return duckdb.connect(str(lake / WAREHOUSE), read_only=True)
