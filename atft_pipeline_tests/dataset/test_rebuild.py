"""Rebuilding: the same raw tables give the same bytes, and a new day rewrites the current year's files only."""

from __future__ import annotations

from pathlib import Path

import pytest

from atft_pipeline import steps
from atft_pipeline.features import catalog
from atft_pipeline.lake.store import write_table
from atft_pipeline_tests.synthetic import Frames, market

PLAN = "free"
RAW = {"calendar": "calendar", "master": "master", "bars_daily": "bars", "fin_summary": "fin_summary"}


def build(lake: Path, frames: Frames) -> dict[str, object]:
    for table, field in RAW.items():
        frame = getattr(frames, field)
        keys = [name for name in ("Date", "DiscDate", "Code", "DiscNo") if name in frame.columns]
        write_table(lake / "raw" / table / "all.parquet", frame, keys=keys)
    steps.build_market_panel(lake)
    for group in catalog.groups(PLAN):
        steps.build_features(lake, group.name)
    return steps.build_dataset(lake, PLAN, "synthetic")


def contents(lake: Path) -> dict[str, bytes]:
    """Every file of features and dataset by its path."""
    files = [path for room in ("features", "dataset") for path in (lake / room).rglob("*") if path.is_file()]
    return {str(path.relative_to(lake)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def frames() -> Frames:
    return market(codes=30, days=290)


@pytest.fixture(scope="module")
def lake(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("rebuild")
    build(lake, frames.until(frames.dates[-2]))
    return lake


def test_two_builds_of_the_same_raw_tables_are_byte_identical(lake: Path, frames: Frames, tmp_path: Path) -> None:
    build(tmp_path, frames.until(frames.dates[-2]))
    first, second = contents(lake), contents(tmp_path)
    assert len(first) > 20
    assert {name for name in first if first[name] != second.get(name)} == set()
    assert set(first) == set(second)


def test_one_new_day_changes_the_current_years_files_only(lake: Path, frames: Frames) -> None:
    before = contents(lake)
    inodes = {path: path.stat().st_ino for path in lake.rglob("2022.parquet")}
    metadata = build(lake, frames)
    after = contents(lake)
    changed = {name for name in before if before[name] != after[name]}
    parquet = {name for name in changed if name.endswith(".parquet")}
    groups = [group.name for group in catalog.groups(PLAN)]
    assert parquet == {"dataset/2023.parquet", *(f"features/{group}/2023.parquet" for group in groups)}
    assert metadata["files_written"] == 1
    assert len(inodes) == len(groups) + 1
    assert {path: path.stat().st_ino for path in inodes} == inodes


def test_groups_of_one_build_share_their_series_and_a_new_panel_replaces_them(lake: Path, frames: Frames) -> None:
    first = steps._building(lake, steps.panel_hash(lake))
    assert steps._building(lake, steps.panel_hash(lake)).ret(5) is first.ret(5)
    assert steps._building(lake, "another panel") is not first
    steps._building.cache_clear()
