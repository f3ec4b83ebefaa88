"""A stored file is whole or absent, says what it holds, and cannot lie about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from atft_pipeline.lake import store
from atft_pipeline.lake.leftovers import collect
from atft_pipeline.verdict import ContractBroken


@pytest.fixture
def frame() -> pl.DataFrame:
    days = pl.date_range(date(2024, 1, 1), date(2024, 1, 5), eager=True)
    return pl.DataFrame(
        {"Date": days, "Code": ["130A0", "13010", None, "", "é"], "C": [1.0, None, float("nan"), 4.0, 5.0]}
    )


def test_what_was_written_is_read_back_with_its_record(tmp_path: Path, frame: pl.DataFrame) -> None:
    record = store.write_table(tmp_path / "a.parquet", frame, keys=["Date"], source={"endpoint": "/x"})
    back = store.read_table(tmp_path / "a.parquet")
    assert back.equals(frame) and back.schema == frame.schema
    assert store.verify_table(tmp_path / "a.parquet") == record
    assert record.rows == 5 and record.keys == ("Date",) and record.source == {"endpoint": "/x"}


def test_the_same_content_gives_the_same_bytes(tmp_path: Path, frame: pl.DataFrame) -> None:
    store.write_table(tmp_path / "a.parquet", frame, keys=["Date"])
    store.write_table(tmp_path / "b.parquet", frame.clone(), keys=["Date"])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize("change", ["value", "null", "name", "order", "text"])
def test_any_difference_changes_the_hash(frame: pl.DataFrame, change: str) -> None:
    other = {
        "value": frame.with_columns(C=pl.col("C") + 1),
        "null": frame.with_columns(C=pl.col("C").fill_null(0.0)),
        "name": frame.rename({"C": "O"}),
        "order": frame.reverse(),
        "text": frame.with_columns(Code=pl.col("Code").fill_null("")),
    }[change]
    assert store.content_hash(other) != store.content_hash(frame)


@pytest.mark.parametrize("fault", ["duplicate", "null", "missing"])
def test_broken_keys_are_refused_and_the_old_file_stays(tmp_path: Path, frame: pl.DataFrame, fault: str) -> None:
    path = tmp_path / "a.parquet"
    store.write_table(path, frame, keys=["Date"])
    before = path.read_bytes()
    bad, keys = {
        "duplicate": (pl.concat([frame, frame]), ["Date"]),
        "null": (frame, ["Code"]),
        "missing": (frame, ["Nope"]),
    }[fault]
    with pytest.raises(ContractBroken, match=r"a\.parquet"):
        store.write_table(path, bad, keys=keys)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.parquet"]


def test_a_flipped_byte_is_noticed(tmp_path: Path, frame: pl.DataFrame) -> None:
    path = tmp_path / "a.parquet"
    store.write_table(path, frame, keys=["Date"])
    assert store.read_table(path).equals(frame)  # a file found sound once is looked at again when it changes
    damaged = bytearray(path.read_bytes())
    damaged[40] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(store.LakeError, match=r"a\.parquet.*damaged"):
        store.read_table(path)


def test_missing_truncated_and_foreign_files_are_named(tmp_path: Path, frame: pl.DataFrame) -> None:
    with pytest.raises(store.LakeError, match="missing"):
        store.read_table(tmp_path / "none.parquet")
    store.write_table(tmp_path / "cut.parquet", frame, keys=["Date"])
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "cut.parquet").read_bytes()[:-20])
    with pytest.raises(store.LakeError, match="cut.*damaged"):
        store.read_record(tmp_path / "cut.parquet")
    frame.write_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(store.LakeError, match="foreign.*not written by this project"):
        store.is_stored(tmp_path / "foreign.parquet")


def test_an_unchanged_table_is_not_rewritten(tmp_path: Path, frame: pl.DataFrame) -> None:
    path = tmp_path / "a.parquet"
    assert store.write_table_if_changed(path, frame, keys=["Date"])[1]
    inode = path.stat().st_ino
    assert not store.write_table_if_changed(path, frame, keys=["Date"])[1]
    assert path.stat().st_ino == inode
    assert store.write_table_if_changed(path, frame.head(2), keys=["Date"])[1]


def test_a_failing_writer_leaves_the_old_file_and_no_leftover(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    store.write_json(path, {"x": float("nan"), "y": [np.float32(1.5)]})
    with pytest.raises(RuntimeError), store.replacing(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert store.read_json(path) == {"x": None, "y": [1.5]}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_killed_writer_leaves_only_a_leftover_that_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    store.write_json(path, {"old": True})
    script = (
        "import os, signal, sys, pathlib\nfrom atft_pipeline.lake import store\n"
        "with store.replacing(pathlib.Path(sys.argv[1])) as part:\n"
        "    part.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    child = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert store.read_json(path) == {"old": True}
    assert len(collect(tmp_path)) == 1 and os.listdir(tmp_path) == ["a.json"]


def test_arrays_are_stored_and_mapped(tmp_path: Path) -> None:
    store.write_array(tmp_path / "x.npy", np.arange(6).reshape(2, 3))
    mapped = store.read_array(tmp_path / "x.npy")
    assert isinstance(mapped, np.memmap) and mapped.sum() == 15 and not mapped.flags.writeable
