"""The processes of a walk-forward: one step of a fold at a time, so many folds side by side as the settings say.

Each step is a process of its own that writes atomically and knows what is done already. A killed one is begun again
and goes on from what it left: a kill costs the part of a fold since its last checkpoint, never a finished fold.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from atft_pipeline.dataset.training_panel import panel_dir
from atft_pipeline.lake.store import write_json
from atft_pipeline.training.faults import Stopped, TrainingFault
from atft_pipeline.training.report import Reporter
from atft_pipeline.walk_forward.fold import discard_panel
from atft_pipeline.walk_forward.spec import FoldFolder, WalkSpec

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0
HANG_SECONDS = 540.0
"""Without a line of its log or a move of its training for so long, a step's process is killed and begun again. A little
less than the Dagster layer gives the walk-forward as a whole (600)."""
MAX_ATTEMPTS = 3
STOPPED = 130
TAIL_LINES = 12
QUIET = ("DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES")
"""Left out of the environment of a step: only the walk-forward itself speaks to Dagster."""


@dataclass(frozen=True)
class Step:
    """One process of a fold, and how to tell that it is done."""

    name: str
    command: list[str]
    done: Callable[[], bool]


@dataclass
class Running:
    """A fold at work."""

    fold: int
    folder: FoldFolder
    steps: Iterator[Step]
    step: Step
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    moved: float
    sign: str = ""
    read: int = 0
    attempts: int = 1


def steps(spec: WalkSpec, k: int) -> Iterator[Step]:
    """Prepare, train each seed, score: each skipped when it comes to its turn and is done."""
    folder, place = spec.fold(k), str(spec.path / "spec.json")
    own = [sys.executable, "-m", "atft_pipeline.walk_forward"]
    prepared = panel_dir(folder.path) / "manifest.json"
    yield Step("prepare", [*own, "prepare", place, str(k)], lambda: prepared.exists() and folder.manifest.exists())
    for seed in spec.seeds:
        train = [sys.executable, "-m", "atft_pipeline.training", "--panel", str(panel_dir(folder.path))]
        train += ["--runs", str(folder.runs), "--config", str(folder.config(seed))]
        yield Step(f"seed {seed}", train, lambda seed=seed: spec.run(k, seed).complete)  # type: ignore[misc]
    yield Step("score", [*own, "score", place, str(k)], lambda: folder.finished(spec.seeds))


class Course:
    """Takes every fold that is not finished through its steps."""

    def __init__(
        self, spec: WalkSpec, reporter: Reporter, stop: threading.Event, hang_seconds: float = HANG_SECONDS
    ) -> None:
        self.spec, self.reporter, self.stop, self.hang_seconds = spec, reporter, stop, hang_seconds
        self.active: list[Running] = []
        self.moves = 0

    def run(self) -> None:
        """Until all folds are finished. Raises `Stopped`, or `TrainingFault` when a step fails."""
        self._beat()
        waiting = []
        for k in range(len(self.spec.folds)):
            if self.spec.fold(k).finished(self.spec.seeds):
                discard_panel(self.spec.fold(k))
                self.reporter.line(f"{self._name(k)} is finished already: same data, split, settings and code")
            else:
                waiting.append(k)
        try:
            while waiting or self.active:
                if self.stop.is_set():
                    raise Stopped("stopped on request; the same command goes on")
                while waiting and len(self.active) < int(self.spec.walk["workers"]):
                    self._begin(waiting.pop(0))
                for running in list(self.active):
                    self._tend(running)
                time.sleep(POLL_SECONDS)
        finally:
            self._end()

    def _begin(self, k: int) -> None:
        """Start the fold's first step that is not done."""
        folder, todo = self.spec.fold(k), steps(self.spec, k)
        folder.path.mkdir(parents=True, exist_ok=True)
        split = self.spec.folds[k]["split"]
        self.reporter.line(
            f"{self._name(k)}: train {' to '.join(split['train'])}, validation {' to '.join(split['valid'])}, "
            f"test {' to '.join(split['test'])}"
        )
        step = next(step for step in todo if not step.done())
        log = folder.log.open("ab")
        process = self._start(step, log)
        self.active.append(Running(k, folder, todo, step, process, log, time.monotonic(), read=log.tell()))

    def _start(self, step: Step, log: IO[bytes]) -> subprocess.Popen[bytes]:
        threads = self.spec.base.threads
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS") if threads else ()
        environment = {name: value for name, value in os.environ.items() if name not in QUIET}
        environment |= dict.fromkeys(names, str(threads))
        return subprocess.Popen(step.command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def _tend(self, running: Running) -> None:
        """Look at a fold's process and, where it ended, do what follows from how."""
        code = self._look(running)
        if code is None:
            return
        where = f"{self._name(running.fold)}, {running.step.name}"
        if code == 0:
            self._next(running)
        elif code == STOPPED:
            raise Stopped("a training was stopped on request; the same command goes on")
        elif code > 0:
            tail = "\n".join(running.folder.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
            raise TrainingFault(f"{where} failed with exit code {code}:\n{tail}")
        elif running.attempts >= MAX_ATTEMPTS:
            raise TrainingFault(f"{where} was killed {running.attempts} times; the machine lacks memory?")
        else:
            self.reporter.line(f"{where} was killed by {signal.Signals(-code).name}; it is begun again and resumes")
            running.attempts += 1
            running.process, running.moved = self._start(running.step, running.log), time.monotonic()

    def _next(self, running: Running) -> None:
        """The fold's next step; a fold without one is finished."""
        step = next((step for step in running.steps if not step.done()), None)
        if step is None:
            running.log.close()
            self.active.remove(running)
            if not running.folder.finished(self.spec.seeds):
                raise TrainingFault(f"{self._name(running.fold)} ended without its record; see {running.folder.log}")
            self.reporter.line(f"{self._name(running.fold)} is finished")
            return
        running.step, running.attempts = step, 1
        running.process, running.moved = self._start(step, running.log), time.monotonic()

    def _look(self, running: Running) -> int | None:
        """The exit code of the fold's process, None while it lives. Passes its lines on; kills it when it hangs."""
        code = running.process.poll()  # before reading: what it wrote before it ended is then there
        self._pass_on(running)
        path = running.folder.runs / "last" / "heartbeat.json"
        beat = json.loads(path.read_text()) if path.exists() else {}
        sign = f"{running.read} {beat.get('pid')} {beat.get('moves')} {beat.get('stage')}"
        now = time.monotonic()
        if sign != running.sign:
            running.sign, running.moved = sign, now
            self._beat()
        elif code is None and now - running.moved > self.hang_seconds:
            where = f"{self._name(running.fold)}, {running.step.name}"
            self.reporter.line(f"{where} did not move for {self.hang_seconds:.0f} s; killing it")
            running.process.kill()
            self._beat()
            return running.process.wait()
        return code

    def _pass_on(self, running: Running) -> None:
        """Tell the new whole lines of the fold's log, except the numbers at the end of a training."""
        with running.folder.log.open("rb") as stream:
            stream.seek(running.read)
            new = stream.read()
        whole = new[: new.rfind(b"\n") + 1]
        running.read += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            if line.strip() and not line.split(" ", 1)[0].endswith(":"):
                self.reporter.line(f"{self._name(running.fold)}, {running.step.name}: {line}")

    def _beat(self) -> None:
        self.moves += 1
        write_json(self.spec.path / "heartbeat.json", {"pid": os.getpid(), "moves": self.moves, "time": time.time()})

    def _name(self, k: int) -> str:
        return f"fold {k + 1} of {len(self.spec.folds)}"

    def _end(self) -> None:
        """Ask the living processes to save and stop, then kill those that did not."""
        for running in self.active:
            if running.process.poll() is None:
                running.process.terminate()
        for running in self.active:
            try:
                running.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
            running.log.close()


def point_last(path: Path) -> None:
    """Make `last` beside the walk-forward's folder a relative link to it, in one rename."""
    link, temporary = path.parent / "last", path.parent / f".last.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(path.name, target_is_directory=True)
    os.replace(temporary, link)
