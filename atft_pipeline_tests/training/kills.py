"""A small four-phase run under SIGKILL: start it, kill it at a moment of its life, resume it, compare what it left.

Shared by the test and by `benchmarks/kills.py`. Every run is a process of its own, as a user starts it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atft_pipeline.training import checkpoint
from atft_pipeline.training.runs import RunFolder
from atft_pipeline_tests.training.conftest import tiny_config

SETTINGS: dict[str, Any] = {
    "dates_per_step": 2, "checkpoint_every": 3, "epochs": (2, 1, 2, 2, 2), "dropout": 0.2, "average_decay": 0.9,
    "heartbeat_seconds": 0.05, "mode": "resident",
}  # fmt: skip
"""Twenty steps an epoch and a checkpoint every three, so that most kills fall between two checkpoints. Dropout and the
average of the weights draw on state that a resumed run must find again."""
CLOCKS = frozenset({"throughput", "seconds", "windows_per_s", "graphs_built", "graphs_reused", "reason"})
"""What a document says of this machine: its time, its free memory, its graph cache. The rest is the result."""
ARRAYS = ("scores.npy", "quantiles.npy", "uncertainty.npy")
POLL_SECONDS = 0.01


@dataclass
class Life:
    """One run through its kills."""

    folder: Path
    seconds: float
    """From the first heartbeat to the end of the last process; start-up is not counted."""
    killed_at: list[dict[str, Any]] = field(default_factory=list)
    """Where training was at each kill, by its heartbeat; `after` is in seconds."""


def command(panel: Path, runs: Path, config: Path) -> list[str]:
    return [sys.executable, "-m", "atft_pipeline.training", "--panel", str(panel), "--runs", str(runs),
            "--config", str(config)]  # fmt: skip


def live(panel: Path, runs: Path, moments: Sequence[float] = ()) -> Life:
    """Run to the end; the n-th process is killed `moments[n]` seconds after its first heartbeat, then comes the next.

    A process that ends before its moment has simply finished; the moments after it are not used.
    """
    runs.mkdir(parents=True, exist_ok=True)
    config = runs / "config.json"
    config.write_text(tiny_config(**SETTINGS).to_json())
    life = Life(runs, 0.0)
    for moment in (*moments, None):
        process = _start(panel, runs, config)
        began = _first_beat(runs, process)
        if moment is not None and _lives_for(process, moment):
            process.send_signal(signal.SIGKILL)
            process.communicate()
            beat = _beat(runs)
            life.killed_at.append({"after": round(moment, 2), **{k: beat.get(k) for k in ("stage", "phase", "step")}})
            continue
        output = process.communicate()[0]
        if process.returncode != 0:
            raise RuntimeError(f"the run in {runs} ended with {process.returncode}:\n{output}")
        life.folder, life.seconds = (runs / "last").resolve(), time.monotonic() - began
        return life
    raise AssertionError("the last process is never killed")


def differences(one: Path, other: Path) -> list[str]:
    """Names of everything in which two finished run folders differ, apart from `CLOCKS`; empty: the same run."""
    found = []
    for name in ("final.pt", *(f"phase{k}/{kind}.pt" for k in range(4) for kind in ("best", "last"))):
        a, b = (checkpoint.load(folder / "ckpt" / name) for folder in (one, other))
        if not equal(without_clocks(a), without_clocks(b)):
            found.append(f"ckpt/{name}")
    for name in ARRAYS:
        if not np.array_equal(np.load(one / name), np.load(other / name), equal_nan=True):
            found.append(name)
    for name in ("metrics.jsonl", "metrics_summary.json"):
        a, b = (_lines(folder / name) for folder in (one, other))
        if a != b:
            found.append(name)
    return found


def equal(a: Any, b: Any) -> bool:
    """Bit-equal tensors, equal values; not a number equals itself."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) or (a != a and b != b)


def without_clocks(value: Any) -> Any:
    """The value without the keys of `CLOCKS`, at any depth."""
    if isinstance(value, dict):
        return {k: without_clocks(v) for k, v in value.items() if k not in CLOCKS}
    if isinstance(value, list | tuple):
        return [without_clocks(v) for v in value]
    return value


def finished(folder: Path) -> bool:
    """Whether the run says itself that it is complete, without a failure report beside it."""
    state = RunFolder(folder, folder.name, {}).complete
    return state and not (folder / "failure_report.json").exists()


def _lines(path: Path) -> Any:
    text = path.read_text()
    documents = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]
    return [without_clocks(document) for document in documents]


def _start(panel: Path, runs: Path, config: Path) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    return subprocess.Popen(
        command(panel, runs, config), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def _beat(runs: Path) -> dict[str, Any]:
    try:
        return json.loads((runs / "last" / "heartbeat.json").read_text())
    except FileNotFoundError:
        return {}


def _first_beat(runs: Path, process: subprocess.Popen[str]) -> float:
    """Wait until the process itself, not one before it, has written its heartbeat; when that was."""
    while process.poll() is None and _beat(runs).get("pid") != process.pid:
        time.sleep(POLL_SECONDS)
    return time.monotonic()


def _lives_for(process: subprocess.Popen[str], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    return process.poll() is None
