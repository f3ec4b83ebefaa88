"""The dataset has exactly the contract's columns, in spine order, or it is not written."""

from __future__ import annotations

import shutil
from datetime import date, time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from atft_pipeline.dataset.assemble import assemble_dataset, knowledge_time
from atft_pipeline.dataset.contract import Contract, DatasetColumn, check_dataset, check_names, verify_dataset
from atft_pipeline.dataset.feature_files import write_features
from atft_pipeline.lake.store import read_json, read_table, write_table
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.small_lake import CONTRACT, FEATURES, KEYS, fit, make_market, store_dataset, store_features


def test_the_files_hold_exactly_the_contract_in_spine_order(tmp_path: Path) -> None:
    market = make_market()
    store_dataset(tmp_path, market)
    frames = [read_table(p) for p in sorted((tmp_path / "dataset").glob("*.parquet"))]
    assert [p.stem for p in sorted((tmp_path / "dataset").glob("*.parquet"))] == ["2024", "2025"]
    whole = pl.concat(frames)
    assert tuple(whole.columns) == CONTRACT.names
    assert whole.schema == CONTRACT.schema
    assert whole.height == market.axes.listed.sum()
    assert whole.select("date", "code").equals(whole.select("date", "code").sort("date", "code"))
    t, n = np.nonzero(market.axes.listed)
    assert np.allclose(whole["ret_1d"].to_numpy(), market.returns[t, n].astype(np.float32), equal_nan=True)
    metadata = verify_dataset(tmp_path, CONTRACT, deep=True)
    assert metadata["rows"] == whole.height
    assert metadata["inputs"] == len(FEATURES)
    index = read_json(tmp_path / "dataset" / "feature_index.json")
    assert [entry["name"] for entry in index["inputs"]] == [c.name for c in FEATURES]


def test_a_missing_group_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    market = make_market()
    store_features(tmp_path, market)
    shutil.rmtree(tmp_path / "features" / "ret")
    with pytest.raises(ContractBroken, match=r"12 columns, plan 'test' wants 14\. missing groups: ret \(2 of 2"):
        assemble_dataset(tmp_path, CONTRACT, market.axes, market.labels)
    assert not (tmp_path / "dataset").exists()


def test_a_dataset_that_lost_a_group_is_refused_by_its_readers(tmp_path: Path) -> None:
    market = make_market()
    small = Contract("test", (*KEYS, *(c for c in FEATURES if c.group != "mkt")))
    store_dataset(tmp_path, market, small)
    verdict = check_dataset(tmp_path, CONTRACT)
    assert not verdict.passed
    assert (verdict.got, verdict.want) == (13, 14)
    assert "mkt (1 of 1 columns: mkt_ret_1d)" in verdict.message
    with pytest.raises(ContractBroken, match="mkt"):
        fit(tmp_path, market)


def test_a_file_exchanged_behind_the_metadata_is_refused(tmp_path: Path) -> None:
    market = make_market()
    store_dataset(tmp_path, market)
    path = tmp_path / "dataset" / "2025.parquet"
    frame = read_table(path).with_columns(pl.col("ret_1d") * 2)
    write_table(path, frame, keys=("code", "date"))
    with pytest.raises(ContractBroken, match="does not match metadata"):
        verify_dataset(tmp_path, CONTRACT)
    path.unlink()
    with pytest.raises(ContractBroken, match="assemble again"):
        verify_dataset(tmp_path, CONTRACT)


def test_shuffled_rows_in_one_group_are_refused(tmp_path: Path) -> None:
    market = make_market()
    store_features(tmp_path, market)
    path = tmp_path / "features" / "ret" / "2024.parquet"
    frame = read_table(path)
    write_table(path, frame.sample(frame.height, shuffle=True, seed=1), keys=("code", "date"))
    with pytest.raises(ContractBroken, match=r"not in \(date, code\) order"):
        assemble_dataset(tmp_path, CONTRACT, market.axes, market.labels)


def test_groups_of_different_panels_are_not_joined(tmp_path: Path) -> None:
    market = make_market()
    store_features(tmp_path, market)
    columns = {"px_volume": market.values["px_volume"]}
    write_features("px", {"px_volume": "f32"}, columns, market.axes, tmp_path, source={"panel": "p2"})
    with pytest.raises(ContractBroken, match="groups px were computed from another panel"):
        assemble_dataset(tmp_path, CONTRACT, market.axes, market.labels)


def test_unchanged_years_are_not_rewritten(tmp_path: Path) -> None:
    market = make_market()
    columns = {"px_volume": market.values["px_volume"].copy()}
    first = write_features("px", {"px_volume": "f32"}, columns, market.axes, tmp_path)
    assert (first.written, first.unchanged) == (2, 0)
    inode = (tmp_path / "features/px/2024.parquet").stat().st_ino
    columns["px_volume"][-1, 0] += 1
    second = write_features("px", {"px_volume": "f32"}, columns, market.axes, tmp_path)
    assert (second.written, second.unchanged) == (1, 1)
    assert (tmp_path / "features/px/2024.parquet").stat().st_ino == inode
    assert second.hash != first.hash


def test_files_of_years_that_left_the_panel_disappear(tmp_path: Path) -> None:
    store_dataset(tmp_path, make_market())
    store_dataset(tmp_path, make_market(dates=150))
    assert [p.stem for p in (tmp_path / "dataset").glob("*.parquet")] == ["2024"]
    assert verify_dataset(tmp_path, CONTRACT)["n_dates"] == 150


@pytest.mark.parametrize(
    "column",
    [
        DatasetColumn("target_ret_5d", "ret", "feature", "f32", "cross_section"),
        DatasetColumn("feat_ret_1d", "ret", "feature", "f32", "cross_section"),
        DatasetColumn("ret_1d_right", "ret", "feature", "f32", "cross_section"),
        DatasetColumn("date_published", "fs", "feature", "f32", "time"),
        DatasetColumn("fs_published", "fs", "feature", "date", "time"),
    ],
)
def test_labels_and_leftovers_of_joins_are_no_inputs(column: DatasetColumn) -> None:
    verdict = check_names(Contract("test", (*CONTRACT.columns, column)))
    assert not verdict.passed
    assert column.name in verdict.message


@pytest.mark.parametrize("value", [0.5, 300.0])
def test_an_integer_column_that_cannot_hold_its_values_is_refused(tmp_path: Path, value: float) -> None:
    market = make_market()
    broken = np.full(market.returns.shape, value)
    with pytest.raises(ContractBroken, match=rf"cal_dow is declared i8, but its values run from {value:g}"):
        write_features("cal", {"cal_dow": "i8"}, {"cal_dow": broken}, market.axes, tmp_path)


def test_infinities_are_refused(tmp_path: Path) -> None:
    market = make_market()
    broken = np.where(np.arange(market.returns.shape[1]) == 0, np.inf, 1.0) * np.ones_like(market.returns)
    with pytest.raises(ContractBroken, match="px_volume contains infinities"):
        write_features("px", {"px_volume": "f32"}, {"px_volume": broken}, market.axes, tmp_path)


@pytest.mark.parametrize(
    ("day", "clock"),
    [
        (date(2024, 11, 1), time(15, 0)),
        (date(2024, 11, 5), time(15, 30)),
        (date(2009, 1, 5), time(11, 30)),
    ],
)
def test_rows_are_known_at_the_close_of_their_day(day: date, clock: time) -> None:
    assert knowledge_time(day, frozenset({date(2009, 1, 5)})).time() == clock


def test_knowledge_time_carries_tokyo_time(tmp_path: Path) -> None:
    store_dataset(tmp_path, make_market())
    frame = read_table(tmp_path / "dataset" / "2024.parquet", ["date", "asof_ts"])
    late = frame.filter(pl.col("date") == date(2024, 11, 5))["asof_ts"][0]
    assert late.isoformat() == "2024-11-05T15:30:00+09:00"
