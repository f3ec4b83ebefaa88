"""Every stored table can be asked in SQL under a predictable name."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl
import pytest

from atft_pipeline.lake.store import write_table
from atft_pipeline.lake.warehouse import build_warehouse, open_warehouse


def test_each_table_has_a_current_read_only_view(tmp_path: Path) -> None:
    rows = pl.DataFrame({"Code": ["13010"], "C": [1.5]})
    write_table(tmp_path / "raw" / "bars_daily" / "2024-01.parquet", rows, keys=["Code"])
    write_table(tmp_path / "dataset" / "2024.parquet", rows, keys=["Code"])
    _, views = build_warehouse(tmp_path)
    assert views == ["raw_bars_daily", "dataset"]
    write_table(tmp_path / "raw" / "bars_daily" / "2024-02.parquet", rows, keys=["Code"])
    with open_warehouse(tmp_path) as connection:
        assert connection.execute("select count(*), sum(C) from raw_bars_daily").fetchone() == (2, 3.0)
        with pytest.raises(duckdb.Error):
            connection.execute("create table t (x int)")
