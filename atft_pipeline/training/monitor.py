"""What a running training tells the outside: heartbeat, metrics per epoch, summary, failure report. All atomic."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from atft_pipeline.training.files import plain, write_bytes, write_json
from atft_pipeline.training.machine import Sampler, peak_memory_mb
from atft_pipeline.training.runs import RunFolder


class Heartbeat:
    """Writes `heartbeat.json` every `seconds` from a thread, in every stage, also when nothing else moves.

    `moves` counts what training itself reported. A watcher goes by it: the thread beats on when training hangs. After
    `stall_seconds` without a move the stacks of all threads are written to `stacks.txt` beside the heartbeat, by a
    timer that needs neither Python nor its lock.
    """

    def __init__(self, path: Path, seconds: float, stall_seconds: float = 300.0) -> None:
        self.path, self.seconds, self.stall_seconds = path, seconds, stall_seconds
        self._stacks: TextIO | None = None
        self._fields: dict[str, Any] = {"stage": "start"}
        self._beats = self._moves = 0
        self.sampler = Sampler(path.parent)
        self._write_lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._beat()
        self._thread.start()
        self._stacks = self.stacks.open("w")
        self._watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(timeout=self.seconds + 5)
        if self._stacks is not None:
            faulthandler.cancel_dump_traceback_later()
            self._stacks.close()
            self._stacks = None
            if not self.stacks.stat().st_size:
                self.stacks.unlink()
        self.update(stage="end" if kind is None else f"stopped by {kind.__name__}")
        self._beat()

    @property
    def stacks(self) -> Path:
        return self.path.with_name("stacks.txt")

    def update(self, **fields: Any) -> None:
        """Say where training is (stage, phase, epoch, step, loss ...) or, without fields, that it moves."""
        self._moves += 1
        self._fields = {**self._fields, **fields}
        self._watch()

    def _watch(self) -> None:
        """Begin the wait for the next move anew."""
        if self._stacks is not None:
            faulthandler.dump_traceback_later(self.stall_seconds, file=self._stacks)

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
