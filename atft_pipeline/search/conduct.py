"""The search: prepares the study, keeps its worker processes alive, finds what killed ones left, writes the results."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import optuna

from atft_pipeline.dataset.splits import validation_folds
from atft_pipeline.search.results import write_results
from atft_pipeline.search.study import MAX_ATTEMPTS, StudyFolder, StudySpec, requeue
from atft_pipeline.search.worker import STOPPED
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.faults import ConfigError, Stopped, TrainingFault
from atft_pipeline.training.files import write_json
from atft_pipeline.training.panel_data import load_panel
from atft_pipeline.training.report import Reporter
from atft_pipeline.training.runs import exclusive

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0
HANG_SECONDS = 600.0
"""Without a move of its training for so long, a worker is killed; its trial is begun again."""
MIN_FOLDS = 2


@dataclass(frozen=True)
class SearchSettings:
    """One search. `trials` may be raised later: the study goes on."""

    trials: int = 20
    workers: int = 1
    """Processes side by side; each computes with the base configuration's threads (1 if that leaves it to torch)."""
    folds: int = 2
    seed: int = 7
    prune: bool = True
    preset: str = "demo"
    overrides: dict[str, str] = field(default_factory=dict)
    """Changes of single settings of the preset, as `--set` takes them: where the search starts from."""

    def __post_init__(self) -> None:
        if self.folds < MIN_FOLDS:
            raise ConfigError(f"folds={self.folds}: the objective needs at least {MIN_FOLDS}, for its standard error")
        if min(self.trials, self.workers) < 1:
            raise ConfigError("trials and workers must be at least 1")


def search(
    panel: Path, studies: Path, runs: Path, settings: SearchSettings, reporter: Reporter,
    stop: threading.Event | None = None,
) -> StudyFolder:  # fmt: skip
    """Run or resume the study of these inputs under `studies`; returns its folder with results, page and best settings.

    It holds the training lock of `runs`, so no training runs beside it. Raises `Stopped` after a request to stop (the
    same call resumes), `Busy` when the lock stays taken, `TrainingFault` when no trial gave a value.
    """
    stop = stop or threading.Event()
    spec = specify(panel, settings)
    folder = StudyFolder(studies / spec.id)
    folder.path.mkdir(parents=True, exist_ok=True)
    with exclusive(runs, spec.base.lock_wait_seconds, reporter.line):
        folder.write_spec(spec)
        _point_last(studies, spec.id)
        with folder.locked("workers"):  # waits until the last worker of a killed search is gone
            study = folder.open()
            queued = requeue(study)
        if queued:
            reporter.line(f"study {spec.id}: trials {queued} were cut off and go on")
        reporter.line(f"study {spec.id}: {len(spec.folds)} folds, {spec.trials} trials, {settings.workers} workers")
        Crew(folder, settings.workers, study, reporter, stop).run()
        shutil.rmtree(folder.runs, ignore_errors=True)  # what failed trainings left, and cached graphs
        results = write_results(folder, study)
        reporter.line(f"{results['counts']}, results in {folder.page}")
        if not results["best"]:
            reasons = {row["reason"] for row in results["trials"] if row["reason"]}
            raise TrainingFault(f"no trial of {spec.trials} gave a value; reasons: {'; '.join(sorted(reasons)[:3])}")
    return folder


def specify(panel_dir: Path, settings: SearchSettings) -> StudySpec:
    """The study that the settings mean on the verified panel."""
    panel = load_panel(panel_dir)
    base = TrainingConfig.resolve(settings.preset).with_settings(settings.overrides)
    base = replace(base, threads=base.threads or 1)
    if base.mode == "workers":
        raise ConfigError("mode=workers inside a search would start processes of processes; use auto")
    train, valid = (panel.part(name) for name in ("train", "valid"))
    folds = validation_folds((train.start, train.stop), (valid.start, valid.stop), settings.folds)
    return StudySpec(
        panel=str(panel_dir.resolve()), panel_hash=panel.hash, config=base.to_json(),
        folds=tuple((fold.train, fold.valid) for fold in folds), seed=settings.seed, trials=settings.trials,
        prune=settings.prune,
    )  # fmt: skip


@dataclass
class Watched:
    """A worker process and when its training last moved."""

    process: subprocess.Popen[bytes]
    index: int
    moved: float
    sign: str = ""


class Crew:
    """The worker processes of one search."""

    def __init__(
        self, folder: StudyFolder, workers: int, study: optuna.Study, reporter: Reporter, stop: threading.Event,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:  # fmt: skip
        self.folder, self.workers, self.study, self.reporter, self.stop = folder, workers, study, reporter, stop
        self.hang_seconds, self.moves = hang_seconds, 0

    def run(self) -> None:
        """Until enough trials ended. Raises `Stopped`, or `TrainingFault` when a worker cannot work at all."""
        self._work()
        while queued := requeue(self.study):  # of workers that were killed before they had signed their trial
            self.reporter.line(f"trials {queued} were left open; they are begun again")
            self._work()

    def _work(self) -> None:
        """Start the workers, and again those that are killed, until no trial is left to claim."""
        crew = [self._start(i) for i in range(self.workers)]
        deaths, most = 0, MAX_ATTEMPTS * self.folder.read_spec().trials
        try:
            while crew:
                if self.stop.is_set():
                    raise Stopped("stopped on request; the same command resumes the study")
                for worker in list(crew):
                    code = self._look(worker)
                    if code is None:
                        continue
                    crew.remove(worker)
                    if code == STOPPED:  # a Ctrl-C reaches the whole group; the worker may be first to act on it
                        raise Stopped("a worker was stopped on request; the same command resumes the study")
                    if code > 0:
                        raise TrainingFault(f"a worker of the search failed with exit code {code}; see its log above")
                    if code < 0:  # killed: its trial goes on in a new process
                        deaths += 1
                        queued = requeue(self.study, worker.process.pid)
                        name = signal.Signals(-code).name
                        self.reporter.line(f"a worker was killed by {name}; queued again: {queued or 'nothing'}")
                        if deaths > most:
                            raise TrainingFault(f"workers were killed {deaths} times; the machine lacks memory?")
                        crew.append(self._start(worker.index))
                time.sleep(POLL_SECONDS)
        finally:
            self._end(crew)

    def _start(self, index: int) -> Watched:
        threads = str(self.folder.read_spec().base.threads)
        limits = {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        command = [sys.executable, "-m", "atft_pipeline.search", "worker", str(self.folder.path), str(index)]
        process = subprocess.Popen(command, env={**os.environ, **limits})
        return Watched(process, index, time.monotonic())

    def _look(self, worker: Watched) -> int | None:
        """The worker's exit code, None while it lives; kills one that hangs, and passes signs of life on."""
        path = self.folder.heartbeat(worker.index)
        beat = json.loads(path.read_text()) if path.exists() else {}
        sign = f"{beat.get('pid')} {beat.get('moves')} {beat.get('stage')}"
        now = time.monotonic()
        if sign != worker.sign:
            worker.sign, worker.moved = sign, now
            self.moves += 1
            write_json(self.folder.heartbeat(), {"pid": os.getpid(), "moves": self.moves, "time": time.time()})
        elif now - worker.moved > self.hang_seconds:
            self.reporter.line(f"worker {worker.index} did not move for {self.hang_seconds:.0f} s; killing it")
            worker.process.kill()
            return worker.process.wait()
        return worker.process.poll()

    def _end(self, crew: list[Watched]) -> None:
        """Ask the living workers to save and stop, then kill those that did not."""
        for worker in crew:
            if worker.process.poll() is None:
                worker.process.terminate()
        for worker in crew:
            try:
                worker.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()


def _point_last(studies: Path, study_id: str) -> None:
    """Make `studies/last` a relative link to the study, in one rename."""
    link, temporary = studies / "last", studies / f".last.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(study_id, target_is_directory=True)
    os.replace(temporary, link)
