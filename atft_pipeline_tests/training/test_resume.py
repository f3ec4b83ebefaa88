"""Killed, stopped, waiting and finished runs, each as a real process."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atft_pipeline.training import checkpoint
from atft_pipeline.training.__main__ import main
from atft_pipeline.training.faults import Busy
from atft_pipeline.training.monitor import Heartbeat
from atft_pipeline.training.phases import Phase
from atft_pipeline.training.runs import LOCK_NAME, exclusive
from atft_pipeline.training.supervisor import run_training
from atft_pipeline_tests.training.conftest import Lines, make_trainer, tiny_config
from atft_pipeline_tests.training.kills import differences

SETTINGS = {"dates_per_step": 2, "checkpoint_every": 3, "epochs": (1, 1, 4, 1, 1), "dropout": 0.2, "mode": "resident"}
"""Twenty steps an epoch and a checkpoint every three, so that a kill falls between two checkpoints; four epochs in the
phase that is killed, so that a slow test process cannot miss it."""
PATIENCE_SECONDS = 60.0


def start(tiny: Path, runs: Path, config_file: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "atft_pipeline.training", "--panel", str(tiny), "--runs", str(runs),
               "--config", str(config_file)]  # fmt: skip
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def wait_for(condition: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert child.poll() is None and time.monotonic() < end, child.communicate()[0]
        time.sleep(0.02)


def position(runs: Path) -> tuple[int, int, int]:
    """(phase, epoch, step) of the newest resumable checkpoint."""
    found = (-1, -1, -1)
    for number in range(4):
        path = runs / "last" / "ckpt" / f"phase{number}" / "last.pt"
        if path.exists():
            progress = checkpoint.load(path)["progress"]
            found = (number, progress["stage"] * 100 + progress["epoch"], progress["step"])
    return found


def in_the_middle_of(phase: int, place: tuple[int, int, int]) -> bool:
    return place[0] == phase and place[2] > 0


def test_t35_kill_9_twice_and_resume_give_the_same_run_bit_for_bit(tiny: Path, tmp_path: Path) -> None:
    """First in the middle of phase 1, then wherever a random moment falls."""
    config_file = tmp_path / "config.json"
    config_file.write_text(tiny_config(**SETTINGS).to_json())
    whole = run_training(tiny, tmp_path / "whole", tiny_config(**SETTINGS), Lines())
    runs = tmp_path / "killed"
    child = start(tiny, runs, config_file)
    wait_for(lambda: in_the_middle_of(1, position(runs)), child)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert position(runs)[0] == 1
    child = start(tiny, runs, config_file)
    wait_for(lambda: pid_of_heartbeat(runs) == child.pid, child)
    time.sleep(random.Random().uniform(0, 1))
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child = start(tiny, runs, config_file)
    output = child.communicate(timeout=PATIENCE_SECONDS)[0]
    assert child.returncode == 0 and "resuming at stage" in output, output
    resumed = runs / "last"
    assert resumed.resolve().name == whole.run_id
    assert differences(whole.path, resumed) == []


def pid_of_heartbeat(runs: Path) -> int:
    return int(json.loads((runs / "last" / "heartbeat.json").read_text())["pid"])


def test_t35_a_run_that_died_between_two_phases_goes_on_bit_for_bit(
    tiny: Path, tmp_path: Path, finished: tuple[Path, Lines]
) -> None:
    """The next phase has no checkpoint yet: its weights and its random numbers come from the one before."""

    def die(phase: Phase, progress: checkpoint.Progress) -> None:
        if phase.number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(tiny, tmp_path).train(after_phase=die)
    folder = run_training(tiny, tmp_path, tiny_config(), Lines())
    assert differences(finished[0], folder.path) == []


def test_t35_a_run_that_died_after_its_last_patient_epoch_trains_no_further(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"epochs": (1, 0, 6, 0, 0), "patience": 2, "min_delta": 10.0, "mc_samples": 0}
    first = make_trainer(tiny, tmp_path, **settings)
    publish = first._publish

    def die(record: dict[str, Any], progress: checkpoint.Progress) -> None:
        publish(record, progress)
        if progress.epochs_without_gain == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(first, "_publish", die)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    resumed = make_trainer(tiny, tmp_path, **settings)
    resumed.train()
    assert [(r["phase"], r["epoch"]) for r in resumed.history] == [(0, 1), (1, 1), (1, 2)]


def test_sigint_saves_a_checkpoint_and_exits_130(tiny: Path, tmp_path: Path) -> None:
    config_file = tmp_path / "config.json"
    config_file.write_text(tiny_config(epochs=(30, 0, 0, 0, 0), checkpoint_every=10_000).to_json())
    child = start(tiny, tmp_path / "runs", config_file)
    wait_for(lambda: (tmp_path / "runs" / "last" / "latest_metrics.json").exists(), child)
    child.send_signal(signal.SIGINT)
    output = child.communicate(timeout=PATIENCE_SECONDS)[0]
    assert child.returncode == 130 and "the same command resumes" in output, output
    status = json.loads((tmp_path / "runs" / "last" / "status.json").read_text())
    assert status["state"] == "stopped" and position(tmp_path / "runs")[0] == 0
    assert not (tmp_path / "runs" / "last" / "failure_report.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
def test_the_training_process_dies_with_its_parent() -> None:
    child = (
        "import time; from atft_pipeline.training.__main__ import die_with_parent; die_with_parent(); "
        "print('up', flush=True); time.sleep(600)"
    )
    parent = (
        f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {child!r}]); "
        "print(c.pid, flush=True); c.wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert process.stdout.readline() == "up\n"
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    """Alive and not a zombie that nobody has reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_wrong_setting_or_panel_exits_2_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # the test runner keeps its own
    arguments = ["--panel", str(tmp_path / "nowhere"), "--runs", str(tmp_path / "runs")]
    assert main([*arguments, "--set", "hiden=3"]) == 2
    assert "unknown training settings hiden" in capsys.readouterr().err
    monkeypatch.setenv("INVERT_PREDICTION_SIGN", "1")
    assert main(arguments) == 2 and "INVERT_PREDICTION_SIGN" in capsys.readouterr().err
    monkeypatch.delenv("INVERT_PREDICTION_SIGN")
    assert main(arguments) == 2 and "materialise the training_panel asset first" in capsys.readouterr().out


def test_a_finished_run_is_recognised_and_retrain_trains_it_anew(tiny: Path, tmp_path: Path) -> None:
    config = tiny_config(epochs=(1, 0, 0, 0, 0))
    first = run_training(tiny, tmp_path, config, Lines())
    written = first.final.stat().st_mtime_ns
    again = Lines()
    assert run_training(tiny, tmp_path, config, again).path == first.path
    assert first.final.stat().st_mtime_ns == written and again.results[0][0]["reused"] is True
    anew = Lines()
    folder = run_training(tiny, tmp_path, config.with_settings({"retrain": "true"}), anew)
    assert folder.run_id == first.run_id and first.final.stat().st_mtime_ns > written
    assert anew.results[0][0]["reused"] is False


def test_one_training_at_a_time_and_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl,sys,time; f=open(sys.argv[1],'a'); fcntl.flock(f, fcntl.LOCK_EX); "
         "print('held', flush=True); time.sleep(600)", str(tmp_path / LOCK_NAME)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        said: list[str] = []
        with pytest.raises(Busy, match=LOCK_NAME), exclusive(tmp_path, 0.2, said.append):
            raise AssertionError("entered a held lock")
        assert any("waiting for another training" in text for text in said)
    finally:
        holder.kill()
        holder.wait()
    refused = pytest.raises(BlockingIOError)
    with exclusive(tmp_path, 5.0, said.append), (tmp_path / LOCK_NAME).open("a") as stream, refused:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_t42_the_heartbeat_goes_on_while_the_work_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat.json"
    with Heartbeat(path, 0.05) as heartbeat:
        heartbeat.update(stage="validation", phase=2)
        seen = set()
        end = time.monotonic() + 10
        while len(seen) < 4 and time.monotonic() < end:
            seen.add(json.loads(path.read_text())["beat"])
            time.sleep(0.01)
        beat = json.loads(path.read_text())
    assert len(seen) >= 4 and beat["stage"] == "validation" and beat["rss_mb"] > 0 and beat["disk_free_gb"] > 0
    assert json.loads(path.read_text())["stage"] == "end"
    assert tiny_config(heartbeat_seconds=10.0).heartbeat_seconds < 30 / 2


def test_t39_a_training_that_stands_still_leaves_its_stacks(tmp_path: Path) -> None:
    def stand_still(until: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not until() and time.monotonic() < end:
            time.sleep(0.02)

    with Heartbeat(tmp_path / "heartbeat.json", 5.0, stall_seconds=0.2) as heartbeat:
        heartbeat.update(stage="training")
        stand_still(lambda: heartbeat.stacks.stat().st_size > 0)
    assert "stand_still" in heartbeat.stacks.read_text()
    with Heartbeat(tmp_path / "heartbeat.json", 5.0, stall_seconds=60.0) as heartbeat:
        heartbeat.update(stage="training")
    assert not heartbeat.stacks.exists()  # a training that moves leaves none


def test_a_checkpoint_restores_every_random_generator() -> None:
    checkpoint.seed_everything(3)
    state = checkpoint.random_state()
    drawn = random.random(), np.random.normal(size=3).tolist(), torch.rand(3).tolist()
    random.random(), np.random.normal(), torch.rand(5)
    checkpoint.restore_random_state(state)
    assert drawn == (random.random(), np.random.normal(size=3).tolist(), torch.rand(3).tolist())
