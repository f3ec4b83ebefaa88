"""The fetch record stands beside the data, never contradicts it, and never changes its bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from atft_pipeline.lake.manifest import entries, fetched, write_fetched
from atft_pipeline.lake.store import LakeError, read_table
from atft_pipeline.lake.verify import verify_lake

ROWS = pl.DataFrame({"Date": ["2024-05-14", "2024-05-15"], "C": [1.0, 2.0]})
SOURCE = {"endpoint": "/x", "from": "2024-05-01"}


def _write(path: Path, rows: pl.DataFrame = ROWS, hour: int = 1, requests: int = 3) -> None:
    now = datetime(2024, 6, 1, hour, tzinfo=UTC)
    write_fetched(path, rows, keys=["Date"], source=SOURCE, requests=requests, now=now)


def test_a_fetch_is_recorded_and_leaves_the_bytes_alone(tmp_path: Path) -> None:
    path = tmp_path / "raw" / "x" / "2024-05.parquet"
    _write(path, hour=1)
    before = path.read_bytes()
    _write(path, hour=9, requests=5)
    assert path.read_bytes() == before
    entry = fetched(path)
    assert entry is not None
    assert (entry["fetched_at"], entry["requests"], entry["rows"]) == ("2024-06-01T09:00:00+00:00", 5, 2)


@pytest.mark.parametrize("moment", ["before the rename", "after the rename"])
@pytest.mark.parametrize("first", [True, False])
def test_a_kill_never_makes_record_and_file_contradict(tmp_path: Path, moment: str, first: bool) -> None:
    path = tmp_path / "raw" / "x" / "2024-05.parquet"
    if not first:
        _write(path, ROWS.head(1))
    script = (
        "import os, signal, sys, pathlib, polars as pl\n"
        "from atft_pipeline.lake import manifest, store\n"
        "path, moment = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
        "die = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "if moment == 'before the rename': pathlib.Path.replace = lambda self, to, _r=pathlib.Path.replace: "
        "die() if pathlib.Path(to) == path else _r(self, to)\n"
        "else: store._fsync_dir = lambda folder, _f=store._fsync_dir: die() if path.exists() and "
        "store.read_record(path).rows == 2 else _f(folder)\n"
        "rows = pl.DataFrame({'Date': ['2024-05-14', '2024-05-15'], 'C': [1.0, 2.0]})\n"
        "source = {'endpoint': '/x', 'from': '2024-05-01'}\n"
        "manifest.write_fetched(path, rows, keys=['Date'], source=source, requests=3)\n"
    )
    child = subprocess.run([sys.executable, "-c", script, str(path), moment], check=False)
    assert child.returncode == -signal.SIGKILL
    assert "next" in entries(path.parent)[path.name]
    report = verify_lake(tmp_path)
    assert report.faults == []
    if moment == "after the rename":
        assert (said := fetched(path)) is not None and said["requests"] == 3
    elif first:
        assert not path.exists()
    else:
        assert (said := fetched(path)) is not None and said["rows"] == 1
    _write(path)
    assert set(entries(path.parent)[path.name]) == {"current"} and read_table(path).height == 2


def test_writers_of_several_months_do_not_lose_each_others_entries(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, polars as pl\nfrom atft_pipeline.lake.manifest import write_fetched\n"
        "for n in range(6):\n"
        "    path = pathlib.Path(sys.argv[1]) / f'{sys.argv[2]}-0{n + 1}.parquet'\n"
        "    write_fetched(path, pl.DataFrame({'K': [n]}), keys=['K'], source={}, requests=n)\n"
    )
    folder = tmp_path / "raw" / "x"
    children = [subprocess.Popen([sys.executable, "-c", script, str(folder), year]) for year in ("2023", "2024")]
    assert [child.wait() for child in children] == [0, 0]
    assert len(entries(folder)) == 12 == len(list(folder.glob("*.parquet")))
    assert all(set(entry) == {"current"} for entry in entries(folder).values())


def test_a_damaged_manifest_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "2024-05.parquet"
    _write(path)
    (tmp_path / "manifest.json").write_text('{"version": 7}')
    with pytest.raises(LakeError, match=r"manifest\.json: not a manifest of version 1; remove it"):
        fetched(path)
    assert os.path.exists(path)
