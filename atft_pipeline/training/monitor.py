"""What a running training tells the outside: heartbeat, metrics per epoch, summary, failure report. All atomic."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from atft_pipeline.training.files import plain, write_bytes, write_json
from atft_pipeline.training.machine import Sampler, peak_memory_mb
from atft_pipeline.training.runs import RunFolder


class Heartbeat:
    """Writes `heartbeat.json` every `seconds` from a thread, in every stage, also when nothing else moves.

    `moves` counts what training itself reported. A watcher goes by it: the thread beats on when training hangs.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self._fields: dict[str, Any] = {"stage": "start"}
        self._beats = self._moves = 0
        self.sampler = Sampler(path.parent)
        self._write_lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._beat()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(timeout=self.seconds + 5)
        self.update(stage="end" if kind is None else f"stopped by {kind.__name__}")
        self._beat()

    def update(self, **fields: Any) -> None:
        """Say where training is (stage, phase, epoch, step, loss ...) or, without fields, that it moves."""
        self._moves += 1
        self._fields = {**self._fields, **fields}

    def _run(self) -> None:
        while not self._end.wait(self.seconds):
            self._beat()

    def _beat(self) -> None:
        with self._write_lock:
            self._beats += 1
            beat = {"time": time.time(), "pid": os.getpid(), "beat": self._beats, "moves": self._moves}
            beat |= {**self._fields, **self.sampler.sample()}
            try:
                write_json(self.path, beat)
            except OSError as error:  # a full disk must not kill a training that could still save its best weights
                print(f"heartbeat not written: {error}", file=sys.stderr, flush=True)


def write_epoch(folder: RunFolder, latest: dict[str, Any], history: list[dict[str, Any]]) -> None:
    """Rewrite `metrics.jsonl` (one line per epoch of all phases) and `latest_metrics.json`."""
    lines = "".join(json.dumps(plain(record), sort_keys=True) + "\n" for record in history)
    write_bytes(folder.path / "metrics.jsonl", lines.encode())
    write_json(folder.path / "latest_metrics.json", latest)


def write_failure(folder: RunFolder, error: BaseException, where: dict[str, Any]) -> Path:
    """`failure_report.json`: what happened, where in training, and on which inputs."""
    path = folder.path / "failure_report.json"
    report = {
        "run_id": folder.run_id,
        "type": type(error).__name__,
        "message": str(error),
        "traceback": traceback.format_exception(error),
        "where": where,
        "peak_memory_mb": peak_memory_mb(),
        "remedy": "fix the cause and run the same command: training resumes from the last checkpoint",
        **folder.hashes,
    }
    write_json(path, report)
    return path


def clear_failure(folder: RunFolder) -> None:
    """A success supersedes an earlier failure's report."""
    (folder.path / "failure_report.json").unlink(missing_ok=True)
