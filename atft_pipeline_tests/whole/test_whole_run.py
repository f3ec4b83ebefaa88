"""The whole job through Dagster's command line: what it leaves behind, and that it can be repeated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest

from atft_pipeline.features import catalog
from atft_pipeline.lake.store import verify_table
from atft_pipeline_tests.whole.conftest import KEY, Workplace

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("whole")]


def test_every_room_left_its_result(finished: Workplace) -> None:
    lake = finished.lake
    run = (lake / "runs" / "last").resolve()
    for path in (
        lake / "dataset" / "metadata.json",
        lake / "normalization_stats" / "stats.json",
        lake / "training_panel" / "manifest.json",
        run / "latest_metrics.json",
        run / "metrics_summary.json",
        run / "heartbeat.json",
        lake / "evaluation" / run.name / "report.html",
        lake / "warehouse.duckdb",
    ):
        assert path.exists(), path
    predictions = [*(lake / "predictions").glob("*.parquet")]
    assert [path.stem for path in predictions] == ["2024-01-31"]
    assert all(verify_table(path).rows for path in [*predictions, *(lake / "raw").glob("*/*.parquet")])


def test_the_dataset_has_exactly_the_catalogues_columns(finished: Workplace) -> None:
    for path in (finished.lake / "dataset").glob("*.parquet"):
        assert pl.read_parquet_schema(path).keys() == {entry.name: 0 for entry in catalog.columns("standard")}.keys()
        assert list(pl.read_parquet_schema(path)) == [entry.name for entry in catalog.columns("standard")]


def test_the_api_key_is_nowhere(finished: Workplace) -> None:
    """Everything written during the run: lake, event log, compute logs, console."""
    searched = [path for path in finished.folder.rglob("*") if path.is_file()]
    assert len(searched) > 200
    assert [path for path in searched if KEY.encode() in path.read_bytes()] == []


def test_a_second_run_asks_for_nothing_and_changes_nothing(finished: Workplace, tmp_path: Path) -> None:
    place = finished.copy(tmp_path / "again")
    before = _contents(place.lake)
    code, output = place.full_rebuild("again")
    assert code == 0, output[-4000:]
    assert _contents(place.lake) == before
    months = len(list((place.lake / "raw" / "master").glob("*.parquet")))
    for table in ("master", "bars_daily", "fin_summary", "investor_types"):
        assert re.search(rf"{table}: (\d+)/\1 months \({months} stored already\), .* 0 requests,", output), table


def test_the_summary_carries_the_names_that_consumers_read(finished: Workplace) -> None:
    summary = json.loads((finished.lake / "runs" / "last" / "metrics_summary.json").read_text())
    assert {"Sharpe", "IC", "RankIC", "HitRate"} <= summary.keys()
    assert [row["name"] for row in summary["phases"]] == ["baseline", "adaptive_norm", "graph", "fine_tune"]


def _contents(lake: Path) -> dict[str, bytes]:
    folders = ("raw", "features", "dataset", "normalization_stats", "predictions")
    files = [path for folder in folders for path in (lake / folder).rglob("*.parquet")]
    return {str(path.relative_to(lake)): path.read_bytes() for path in files}
