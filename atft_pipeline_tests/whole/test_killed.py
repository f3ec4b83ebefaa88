"""kill -9 in the middle, then the same command: the job completes, nothing is half-written, nothing is asked twice."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from atft_pipeline.exchange.process import Exchange
from atft_pipeline.lake.store import verify_table
from atft_pipeline_tests.whole.conftest import KEY, TINY_TRAINING, Workplace, make_workplace

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("whole")]


def kill_when(place: Workplace, arguments: tuple[str, ...], ready: Callable[[], bool]) -> None:
    """Start the command in a group of its own, wait for the moment, and SIGKILL its process."""
    process = place.start(*arguments, log=place.folder / "killed.log")
    deadline = time.monotonic() + 300
    while not ready():
        assert process.poll() is None, (place.folder / "killed.log").read_text()[-3000:]
        assert time.monotonic() < deadline, "the moment to kill never came"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def asked(exchange: Exchange) -> dict[tuple[str, str], int]:
    """How often each (table, date) was asked for since the exchange started."""
    url = exchange.base_url.removesuffix("/v2") + "/_exchange/requests"
    counts = requests.get(url, headers={"x-api-key": KEY}, timeout=10).json()["counts"]
    found: dict[tuple[str, str], int] = {}
    for row in counts:
        key = (row["table"], str(row["date"]))
        found[key] = found.get(key, 0) + row["count"]
    return found


def test_ingestion_goes_on_where_it_was_killed(exchange: Exchange, tmp_path: Path) -> None:
    place = make_workplace(tmp_path / "place", exchange)
    command = ("job", "execute", "-j", "backfill_raw")
    months = place.lake / "raw" / "bars_daily"
    before = asked(exchange)
    kill_when(place, command, lambda: len([*months.glob("*.parquet")]) >= 7)
    stored = {path: path.stat().st_mtime_ns for path in (place.lake / "raw").glob("*/*.parquet")}
    for path in stored:
        verify_table(path)  # whole, or not there
    code, output = place.run(*command)
    assert code == 0, output[-3000:]
    assert {path: path.stat().st_mtime_ns for path in stored} == stored, "a stored month was written again"
    again = {key: count - before.get(key, 0) for key, count in asked(exchange).items()}
    twice = [key for key, count in again.items() if key[0] == "bars_daily" and count > 1]
    # Fetched days are flushed to disk once a second; what was in flight at the kill may be asked for again.
    assert len(twice) <= 80, twice
    assert not [*(place.lake / "raw").glob("*/_staging/*/*")], "staged days outlived their month"


def test_training_goes_on_in_the_middle_of_its_phase(finished: Workplace, tmp_path: Path) -> None:
    """Killed with its whole run in phase 1; the second start resumes there and ends with the same weights."""
    place = finished.copy(tmp_path / "place")
    runs = place.lake / "runs"
    reference = (runs / "last").resolve()
    place.environment["ATFT_CHECK_MIN_GRADIENT_NORM"] = "0"
    slow = {**TINY_TRAINING, "seed": "8", "dates_per_epoch": "0", "dates_per_step": "4"}
    config = place.folder / "run.yaml"
    config.write_text(json.dumps({"ops": {"model": {"config": {"overrides": slow}}}}))
    command = ("job", "execute", "-j", "retrain", "-c", str(config))

    def in_phase_1() -> bool:
        run = (runs / "last").resolve()
        beat = run / "heartbeat.json"
        if run == reference or not (run / "ckpt" / "phase1" / "last.pt").exists() or not beat.exists():
            return False
        return (run / "ckpt" / "phase1" / "last.pt").stat().st_size > 0

    kill_when(place, command, in_phase_1)
    run = (runs / "last").resolve()
    pid = json.loads((run / "heartbeat.json").read_text())["pid"]
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z":
        assert time.monotonic() < deadline, "the training process outlived its killed run"
        time.sleep(0.05)
    assert not (run / "ckpt" / "final.pt").exists()
    code, output = place.run(*command)
    assert code == 0, output[-4000:]
    assert (runs / "last").resolve() == run, "a new run was started instead of resuming"
    assert "resum" in output and "phase 0" not in _lines_after(output, "resum")
    assert json.loads((run / "metrics_summary.json").read_text())["complete"]


def _lines_after(output: str, mark: str) -> str:
    """Epoch lines after the first line that holds `mark`."""
    tail = output[output.index(mark) :]
    return "\n".join(line for line in tail.splitlines() if " epoch " in line and "val RankIC" in line)
