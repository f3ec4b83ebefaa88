"""Garbage collection removes what is dead and never what a living process or a later run needs."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from atft_pipeline.lake.__main__ import main
from atft_pipeline.lake.leftovers import GRAPH_AGE, UNKNOWN_WRITER_AGE, collect, find_leftovers
from atft_pipeline.lake.store import write_table


@pytest.fixture(scope="module")
def gone() -> int:
    """The id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.fixture
def living() -> Iterator[int]:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child.pid
    child.communicate(b"\n")


def _touch(path: Path, age: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_only_files_of_dead_writers_go(tmp_path: Path, gone: int, living: int) -> None:
    dead = [
        _touch(tmp_path / "raw" / "topix" / f".2024-01.parquet.{gone}.k3x_2a.part"),
        _touch(tmp_path / "runs" / "a" / f".scores.npy.{gone}.part"),
        _touch(tmp_path / f".warehouse.duckdb.{gone}.k3x_2a.part.wal"),
        _touch(tmp_path / "runs" / f".probe.{gone}"),
        _touch(tmp_path / f".training_panel.{gone}.building" / "x.npy").parent,
        _touch(tmp_path / ".old.json.abcdefgh.part", UNKNOWN_WRITER_AGE + 60),
    ]
    kept = [
        _touch(tmp_path / "raw" / "topix" / f".2024-01.parquet.{living}.k3x_2a.part"),
        _touch(tmp_path / "runs" / "a" / f".scores.npy.{os.getpid()}.part"),
        _touch(tmp_path / f".training_panel.{living}.building" / "x.npy"),
        _touch(tmp_path / ".new.json.abcdefgh.part"),
        _touch(tmp_path / "raw" / "topix" / "2024-01.parquet"),
    ]
    assert [leftover.path for leftover in find_leftovers(tmp_path)] == sorted(dead)
    assert all(path.exists() for path in dead)
    assert len(collect(tmp_path)) == len(dead)
    assert not any(path.exists() for path in dead) and all(path.exists() for path in kept)


def test_an_id_given_to_a_later_process_does_not_protect_a_dead_writers_file(tmp_path: Path, living: int) -> None:
    old = _touch(tmp_path / f".a.json.{living}.part", age=7200)
    assert [leftover.path for leftover in collect(tmp_path)] == [old]


def _days(path: Path, as_of: str) -> Path:
    write_table(path, pl.DataFrame({"Date": ["2024-05-14"]}), keys=["Date"], source={"as_of": as_of})
    return path


def test_staged_days_stay_while_they_are_news(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "topix"
    _days(raw / "2024-04.parquet", "2024-05-10")
    _days(raw / "2024-05.parquet", "2024-05-10")
    dead = _days(raw / "_staging" / "2024-04" / "a.parquet", "2024-05-10").parent  # killed after the rename
    newer = _days(raw / "_staging" / "2024-05" / "a.parquet", "2024-05-20")
    unfinished = _days(raw / "_staging" / "2024-06" / "a.parquet", "2024-05-20")
    foreign = _days(tmp_path / "raw" / "bonds" / "_staging" / "2024-06" / "a.parquet", "2024-05-20").parent
    removed = {leftover.path for leftover in collect(tmp_path, {"topix"})}
    assert removed == {dead, foreign}
    assert newer.exists() and unfinished.exists()


def test_stale_and_damaged_graphs_go_unless_a_training_runs(tmp_path: Path) -> None:
    graphs = tmp_path / "runs" / "graphs"
    graphs.mkdir(parents=True)
    for name in ("aa", "bb"):
        np.savez(graphs / f"{name}.npz", source=np.arange(3))
    os.utime(graphs / "aa.npz", (time.time() - GRAPH_AGE - 60,) * 2)
    damaged = _touch(graphs / "cc.npz")
    with (tmp_path / "runs" / "gpu.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert find_leftovers(tmp_path) == []
    assert [leftover.path for leftover in collect(tmp_path)] == [graphs / "aa.npz", damaged]
    assert [path.name for path in graphs.iterdir()] == ["bb.npz"]


def test_the_command_lists_before_it_removes(tmp_path: Path, gone: int, capsys: pytest.CaptureFixture[str]) -> None:
    path = _touch(tmp_path / f".a.json.{gone}.part")
    assert main(["gc", "--dry-run", "--lake", str(tmp_path)]) == 0 and path.exists()
    assert "1 leftovers would be removed, 4 bytes" in capsys.readouterr().out
    assert main(["gc", "--lake", str(tmp_path)]) == 0 and not path.exists()
    assert str(path) in capsys.readouterr().out
