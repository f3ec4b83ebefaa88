"""Verification reads everything, and each planted fault is named with its file and a remedy."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from atft_pipeline.lake.__main__ import main
from atft_pipeline.lake.manifest import write_fetched
from atft_pipeline.lake.seal import is_intact
from atft_pipeline.lake.store import LakeError, verify_table, write_array, write_json, write_table
from atft_pipeline.lake.verify import Report, verify_lake
from atft_pipeline.panel.axes import Axes
from atft_pipeline_tests.small_lake import make_market, store_panel

RUN = "0123456789ab"
ENDPOINTS = {"topix": "/indices/bars/daily/topix", "master": "/equities/master"}


def _raw(lake: Path, table: str, month: str, rows: int = 20) -> None:
    days = pl.date_range(date.fromisoformat(f"{month}-01"), date.fromisoformat(f"{month}-{rows:02}"), eager=True)
    frame = pl.DataFrame({"Date": days, "C": np.arange(float(rows))})
    source = {"endpoint": ENDPOINTS[table], "from": f"{month}-01", "to": f"{month}-{rows}", "as_of": f"{month}-28"}
    write_fetched(lake / "raw" / table / f"{month}.parquet", frame, keys=["Date"], source=source, requests=2)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with something in every room."""
    lake = tmp_path_factory.mktemp("lake")
    market = make_market(dates=240, stocks=30)
    store_panel(lake, market)
    for month in ("2024-01", "2024-02", "2024-03"):
        _raw(lake, "topix", month)
    _raw(lake, "master", "2024-01")
    _store_market_panel(lake, market.axes)
    run = lake / "runs" / RUN
    write_array(run / "scores.npy", np.ones((4, 3)))
    write_array(run / "quantiles.npy", np.ones((4, 3)))
    write_array(run / "uncertainty.npy", np.ones((2, 4, 3)))
    write_json(run / "metrics_summary.json", {"IC": 0.1})
    write_json(run / "status.json", {"state": "complete"})
    (run / "ckpt").mkdir()
    np.savez(run / "ckpt" / "final.npz", w=np.ones(100))
    (run / "ckpt" / "final.npz").rename(run / "ckpt" / "final.pt")
    (run / "metrics.jsonl").write_text('{"loss": 1}\n{"loss": 0.5}\n')
    (lake / "runs" / "last").symlink_to(RUN)
    write_table(lake / "predictions" / "2024-06-28.parquet", pl.DataFrame({"code": ["1"]}), keys=["code"])
    write_json(lake / "evaluation" / RUN / "verdict.json", {"passed": True})
    for name in ("plan.json", "requests.json", "runs/memory.json"):
        write_json(lake / name, {})
    (lake / "nights").mkdir()
    (lake / "nights" / "some-run.md").write_text("# nightly\n")
    for room in ("revisions", "alerts"):
        (lake / room).mkdir()
    (lake / "alerts" / "alerts.jsonl").write_text('{"kind": "run_failed"}\n')
    (lake / "revisions" / "topix.jsonl").write_text('{"month": "2024-01"}\n')
    return lake


def _store_market_panel(lake: Path, axes: Axes) -> None:
    import hashlib

    arrays = {"listed": axes.listed, "close": np.ones(axes.listed.shape, np.float32)}
    hashes = {}
    for name, array in arrays.items():
        write_array(lake / "market_panel" / f"{name}.npy", array)
        hashes[name] = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()
    whole = hashlib.sha256("".join(f"{name}{digest}" for name, digest in hashes.items()).encode()).hexdigest()
    write_json(lake / "market_panel" / "panel.json", {"version": 1, "hash": whole, "arrays": hashes})


@pytest.fixture
def lake(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "lake", symlinks=True)


def verify(lake: Path) -> Report:
    return verify_lake(lake, ENDPOINTS)


def flip(path: Path, place: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 4
    path.write_bytes(bytes(data))


def only_fault(lake: Path) -> str:
    faults = verify(lake).faults
    assert len(faults) == 1, [str(fault) for fault in faults]
    return str(faults[0])


def test_a_sound_lake_is_read_whole(lake: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = verify_lake(lake, ENDPOINTS, progress=lambda done, total: seen.append((done, total)))
    assert report.faults == [] and report.leftovers == 0
    files = [path for path in lake.rglob("*") if path.is_file() and not path.is_symlink()]
    assert report.files == len(files) + 1 == len(seen) == seen[-1][1]  # and the link runs/last
    assert report.rows > 80


@pytest.mark.parametrize(
    "name",
    [
        "raw/topix/2024-02.parquet",
        "features/ret/2024.parquet",
        "dataset/2024.parquet",
        "market_panel/close.npy",
        "training_panel/x.npy",
        "predictions/2024-06-28.parquet",
        f"runs/{RUN}/ckpt/final.pt",
    ],
)
@pytest.mark.parametrize("place", [0.3, 0.7])
def test_a_flipped_byte_is_named(lake: Path, name: str, place: float) -> None:
    flip(lake / name, place)
    assert only_fault(lake).startswith(f"damaged: {lake / name}: ")


def test_every_byte_of_a_table_counts(tmp_path: Path) -> None:
    """Also those of the footer: statistics, lengths, names, the record, the seal itself."""
    path = tmp_path / "a.parquet"
    frame = pl.DataFrame({"Date": [date(2024, 1, 1), date(2024, 1, 2)], "Code": ["130A0", None], "C": [1.0, None]})
    write_table(path, frame, keys=["Date"], source={"endpoint": "/x"})
    whole = path.read_bytes()
    unseen = []
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(whole):
            os.pwrite(file.fileno(), bytes([byte ^ 1]), place)
            if is_intact(path):
                unseen.append(place)
            os.pwrite(file.fileno(), bytes([byte]), place)
    assert unseen == [] and verify_table(path).rows == 2
    flip(path, 0.99)
    with pytest.raises(LakeError, match="no sound seal"):
        verify_table(path)


@pytest.mark.parametrize(
    "name",
    [
        "raw/topix/2024-02.parquet",
        "features/ret/2024.parquet",
        "features/ret/group.json",
        "dataset/2024.parquet",
        "dataset/metadata.json",
        "dataset/feature_index.json",
        "market_panel/listed.npy",
        "training_panel/y.npy",
        f"runs/{RUN}/scores.npy",
    ],
)
def test_a_missing_file_is_named(lake: Path, name: str) -> None:
    path = lake / name
    path.unlink()
    fault = only_fault(lake)
    assert fault.startswith(f"missing: {path}: ") and fault.split(": ", 2)[2]


PLANTED: dict[str, Callable[[Path], Path]] = {
    "a file of somebody else": lambda lake: _text(lake / "raw" / "topix" / "notes.txt"),
    "a table of somebody else": lambda lake: _parquet(lake / "predictions.parquet"),
    "a table that nobody declared": lambda lake: _written(lake / "raw" / "bonds" / "2024-01.parquet"),
    "a year that no record lists": lambda lake: _written(lake / "dataset" / "1999.parquet"),
    "an array that no record lists": lambda lake: _array(lake / "training_panel" / "extra.npy"),
}


def _text(path: Path) -> Path:
    path.write_text("remember the milk")
    return path


def _parquet(path: Path) -> Path:
    pl.DataFrame({"a": [1]}).write_parquet(path)
    return path


def _written(path: Path) -> Path:
    write_table(path, pl.DataFrame({"a": [1]}), keys=["a"])
    return path


def _array(path: Path) -> Path:
    np.save(path, np.ones(3))
    return path


@pytest.mark.parametrize("plant", PLANTED)
def test_a_foreign_file_is_named(lake: Path, plant: str) -> None:
    path = PLANTED[plant](lake)
    fault = only_fault(lake)
    assert fault.startswith(f"foreign: {path}: ") and "move it out of the lake" in fault


def test_a_table_in_the_wrong_place_is_named(lake: Path) -> None:
    shutil.copy(lake / "raw" / "topix" / "2024-01.parquet", lake / "raw" / "topix" / "2024-02.parquet")
    assert "not the file that manifest.json lists" in only_fault(lake)


def test_a_table_under_another_tables_name_is_named(lake: Path) -> None:
    (lake / "raw" / "master" / "manifest.json").unlink()
    shutil.copy(lake / "raw" / "topix" / "2024-01.parquet", lake / "raw" / "master" / "2024-01.parquet")
    assert "its rows are of /indices/bars/daily/topix, not /equities/master" in only_fault(lake)
    shutil.copy(lake / "raw" / "master" / "2024-01.parquet", lake / "raw" / "master" / "2024-02.parquet")
    assert len(verify(lake).faults) == 2


@pytest.mark.parametrize("name", ["market_panel/panel.json", "training_panel/manifest.json", "features/ret/group.json"])
def test_a_record_that_was_edited_is_named(lake: Path, name: str) -> None:
    stored = json.loads((lake / name).read_text())
    stored["hash"] = "0" * 64
    write_json(lake / name, stored)
    faults = [str(fault) for fault in verify(lake).faults]
    assert any(fault.startswith(f"damaged: {lake / name}: does not match its own hash") for fault in faults)


def test_statistics_that_were_edited_are_named(lake: Path) -> None:
    path = lake / "normalization_stats" / "stats.json"
    stored = json.loads(path.read_text())
    write_json(path, stored | {"dataset_hash": "another"})
    assert "does not match its own hash" in only_fault(lake)


def test_the_command_prints_one_line_each_and_fails(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (lake / "raw" / "master").iterdir():
        path.unlink()
    assert main(["verify", "--lake", str(lake)]) == 0
    assert "0 faults" in capsys.readouterr().out
    flip(lake / "raw" / "topix" / "2024-03.parquet")
    (lake / "raw" / "topix" / "2024-01.parquet").unlink()
    assert main(["verify", "--lake", str(lake)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "2 faults" in lines[2]
    assert "materialise raw/topix for 2024-03 again" in lines[0] and lines[1].startswith("missing")
    assert main(["verify", "--json", "--lake", str(lake)]) == 1
    assert [fault["kind"] for fault in json.loads(capsys.readouterr().out)["faults"]] == ["damaged", "missing"]


def test_no_lake_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--lake", str(tmp_path / "none")]) == 1
    assert "no lake here" in capsys.readouterr().err
