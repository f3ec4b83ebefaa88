"""Where a run lives, which run it is, and the lock that lets one training run at a time.

The run's id is a hash of its inputs: panel, config and code. The same inputs lead to the same folder, so a killed run
is resumed and a finished one is recognised.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atft_pipeline
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.faults import Busy
from atft_pipeline.training.files import write_json

ID_LENGTH = 12
LOCK_NAME = "gpu.lock"
POLL_SECONDS = 0.5
REMIND_SECONDS = 30.0


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    path: Path
    run_id: str
    hashes: dict[str, str]
    """panel, config and source: what the id was made of."""

    def checkpoint(self, phase: int, kind: str) -> Path:
        """`kind` is best or last."""
        return self.path / "ckpt" / f"phase{phase}" / f"{kind}.pt"

    @property
    def final(self) -> Path:
        return self.path / "ckpt" / "final.pt"

    @property
    def scores(self) -> Path:
        return self.path / "scores.npy"

    @property
    def quantiles(self) -> Path:
        return self.path / "quantiles.npy"

    @property
    def uncertainty(self) -> Path:
        """[2, dates, N, H] mean and standard deviation of Monte-Carlo dropout over the newest dates."""
        return self.path / "uncertainty.npy"

    @property
    def highway(self) -> Path:
        """What the highway's start found: terms, products, penalties."""
        return self.path / "highway.json"

    @property
    def summary(self) -> Path:
        return self.path / "metrics_summary.json"

    @property
    def complete(self) -> bool:
        """True when the run finished and its outputs are there."""
        return self.state() == "complete" and self.summary.exists() and self.scores.exists() and self.final.exists()

    def state(self) -> str:
        """running, complete, stopped or failed; empty for a folder that has none yet."""
        path = self.path / "status.json"
        return json.loads(path.read_text())["state"] if path.exists() else ""

    def set_state(self, state: str) -> None:
        write_json(self.path / "status.json", {"run_id": self.run_id, "state": state, **self.hashes})

    def read_highway(self) -> dict[str, Any]:
        """What `highway.json` holds; nothing before the start."""
        return json.loads(self.highway.read_text()) if self.highway.exists() else {}

    def read_summary(self) -> dict[str, Any]:
        """The run's summary; refuses one that belongs to another run."""
        found = json.loads(self.summary.read_text())
        if found.get("run_id") != self.run_id:
            raise ValueError(f"{self.summary} belongs to run {found.get('run_id')}, not {self.run_id}: remove it")
        return found


def source_hash() -> str:
    """SHA-256 over the code that decides the result: model, training, and the metrics that pick the best epoch."""
    root = Path(atft_pipeline.__file__).parent
    files = [*root.glob("model/*.py"), *root.glob("training/*.py"), root / "evaluation" / "metrics.py"]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def open_run(runs: Path, panel_hash: str, config: TrainingConfig) -> RunFolder:
    """The folder for these inputs, created if new; with `config.retrain` a finished run is removed first."""
    hashes = {"panel_hash": panel_hash, "config_hash": config.identity, "source_hash": source_hash()}
    run_id = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()[:ID_LENGTH]
    folder = RunFolder(runs / run_id, run_id, hashes)
    if config.retrain and folder.complete:
        shutil.rmtree(folder.path)
    folder.path.mkdir(parents=True, exist_ok=True)
    point_last(runs, run_id)
    return folder


def point_last(runs: Path, run_id: str) -> None:
    """Make `runs/last` a relative link to the run, in one rename."""
    link, temporary = runs / "last", runs / f".last.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(run_id, target_is_directory=True)
    os.replace(temporary, link)


@contextmanager
def exclusive(runs: Path, wait_seconds: float, say: Callable[[str], None]) -> Iterator[None]:
    """Hold `runs/gpu.lock`. The kernel frees it when the holder dies, however it dies. Raises `Busy` after the wait."""
    runs.mkdir(parents=True, exist_ok=True)
    started, said = time.monotonic(), float("-inf")
    with (runs / LOCK_NAME).open("a") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited = time.monotonic() - started
                if waited >= wait_seconds:
                    raise Busy(
                        f"another training holds {runs / LOCK_NAME} for more than {wait_seconds:.0f} s; stop it, or "
                        "raise lock_wait_seconds"
                    ) from None
                if waited - said >= REMIND_SECONDS:
                    say(f"waiting for another training to finish ({runs / LOCK_NAME} is held)")
                    said = waited
                time.sleep(min(POLL_SECONDS, wait_seconds))
        try:
            yield
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)
