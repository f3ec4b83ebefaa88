"""A study: its folder, what it searches, its trials in SQLite, and how they are claimed, counted and ranked.

The study's id is a hash of its inputs (panel, settings, folds, space, code), so trials of different inputs never meet.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from atft_pipeline.search.space import SPACE, overrides_of, start_point, suggest
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.files import write_json
from atft_pipeline.training.runs import ID_LENGTH, source_hash

MAX_ATTEMPTS = 3
"""Times a trial is begun whose process was killed; then it has failed, because it may be what kills it."""
STARTUP_TRIALS = 5
"""Complete trials before one may be pruned, and before the sampler learns from them."""
SE_PENALTY = 0.5
LOCK_SECONDS = 60
"""How long a process waits for SQLite."""


@dataclass(frozen=True)
class StudySpec:
    """What is searched. `trials` may grow later; everything else names the study."""

    panel: str
    panel_hash: str
    config: str
    """The resolved base configuration as JSON."""
    folds: tuple[tuple[tuple[int, int], tuple[int, int]], ...]
    """Half-open date positions of (train, valid) of each fold."""
    seed: int
    trials: int
    prune: bool = True

    @property
    def base(self) -> TrainingConfig:
        return TrainingConfig.from_json(self.config)

    def config_of(self, values: Mapping[str, float], number: int) -> TrainingConfig:
        """The base with a trial's values and its own seed, which follows from the trial's number alone."""
        changed = {**json.loads(self.config), **overrides_of(values, self.base), "seed": self.seed + number}
        return TrainingConfig.from_json(json.dumps(changed))

    @property
    def id(self) -> str:
        """SHA-256 over all inputs, shortened."""
        inputs = [self.panel_hash, self.base.identity, self.folds, self.seed, self.prune, source_hash()]
        text = json.dumps([*inputs, [asdict(p) for p in SPACE]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


@dataclass(frozen=True)
class StudyFolder:
    """The paths of one study."""

    path: Path

    @property
    def spec(self) -> Path:
        return self.path / "study.json"

    @property
    def runs(self) -> Path:
        """Unfinished trainings of folds, resumable; removed as they finish."""
        return self.path / "runs"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def best(self) -> Path:
        """The best trial's training settings: what `--overrides` takes."""
        return self.path / "best.json"

    @property
    def page(self) -> Path:
        return self.path / "page.html"

    def fold(self, number: int, fold: int) -> Path:
        """What a finished fold of a trial measured."""
        return self.path / "trials" / f"{number:04d}" / f"fold{fold}.json"

    def heartbeat(self, worker: int | None = None) -> Path:
        """Of one worker, or of the whole search."""
        return self.path / ("heartbeat.json" if worker is None else f"heartbeat{worker}.json")

    def read_spec(self) -> StudySpec:
        values = json.loads(self.spec.read_text())
        folds = tuple((tuple(train), tuple(valid)) for train, valid in values.pop("folds"))
        return StudySpec(folds=folds, **values)  # type: ignore[arg-type]

    def write_spec(self, spec: StudySpec) -> None:
        write_json(self.spec, asdict(spec))

    def open(self) -> optuna.Study:
        """The stored study, created with its first trial waiting. One process at a time may create it."""
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{self.path / 'trials.sqlite'}", engine_kwargs={"connect_args": {"timeout": LOCK_SECONDS}}
        )
        pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS) if self.read_spec().prune else None
        study = optuna.create_study(
            study_name="hpo", direction="maximize", storage=storage, load_if_exists=True,
            pruner=pruner or optuna.pruners.NopPruner(),
        )  # fmt: skip
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(start_point())
        return study

    @contextmanager
    def locked(self, name: str, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
        """A kernel lock on `<name>.lock`: it dies with its holder. Raises BlockingIOError when not to wait."""
        with (self.path / f"{name}.lock").open("a") as stream:
            fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            yield


def objective(rank_ics: Sequence[float]) -> float:
    """Mean validation RankIC over the folds minus half its standard error (ddof=1) over them.

    With one fold there is no error to subtract. NaN in, ValueError out: an undefined fold must never become a number.
    """
    x = np.asarray(rank_ics, np.float64)
    if not len(x) or not np.isfinite(x).all():
        raise ValueError(f"validation RankIC by fold is {x.tolist()}: undefined, so the trial has no value")
    error = float(x.std(ddof=1)) / math.sqrt(len(x)) if len(x) > 1 else 0.0
    return float(x.mean()) - SE_PENALTY * error


def trial_value(folder: StudyFolder, number: int, folds: int) -> float:
    """The objective from the trial's own files. Raises ValueError where a fold is missing or belongs to another."""
    return objective([read_fold(folder, number, k)["rank_ic"] for k in range(folds)])


def read_fold(folder: StudyFolder, number: int, fold: int) -> dict[str, Any]:
    """What a fold measured. Raises ValueError when it is not there, undefined, or another trial's."""
    path = folder.fold(number, fold)
    if not path.exists():
        raise ValueError(f"{path} is missing: fold {fold} of trial {number} was not finished")
    found: dict[str, Any] = json.loads(path.read_text())
    if (found["trial"], found["fold"]) != (number, fold) or found["rank_ic"] is None:
        raise ValueError(f"{path} is of trial {found['trial']}, fold {found['fold']}, RankIC {found['rank_ic']}")
    return found


def retried(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of trials that were killed and stand in the queue, or in the study, a second time."""
    return {t.user_attrs["retry_of"] for t in trials if "retry_of" in t.user_attrs}


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Each trial once: of one that was begun again, the last attempt."""
    again = retried(trials)
    return [t for t in trials if t.number not in again]


def claim(folder: StudyFolder, study: optuna.Study, worker: int) -> optuna.Trial | None:
    """The next trial for this worker process, its values set; None when as many exist as are wanted.

    The sampler's seed follows the trial's number, so a resumed study of one worker goes on as if nothing had happened.
    """
    spec = folder.read_spec()
    with folder.locked("claim"):
        trials = study.get_trials(deepcopy=False)
        waiting = [t for t in trials if t.state == TrialState.WAITING]
        if not waiting and len(counted(trials)) >= spec.trials:
            return None
        place = first_number(waiting[0], trials) if waiting else len(counted(trials))
        # Running trials count as poor ones, so that workers do not try the same place at once.
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=STARTUP_TRIALS, seed=spec.seed + place, constant_liar=True
        )
        trial = study.ask()
        trial.set_user_attr("first", place)
        trial.set_user_attr("worker", worker)
        suggest(trial)
        return trial


def first_number(trial: optuna.Trial | FrozenTrial, trials: Sequence[FrozenTrial] = ()) -> int:
    """The trial's place in the study, from 0: it names its files and its seed, and a trial begun again keeps it.

    Claimed trials carry it; for others it is their number less the second attempts among `trials` before them.
    """
    if "first" in trial.user_attrs:
        return int(trial.user_attrs["first"])
    return trial.number - sum(1 for t in trials if "retry_of" in t.user_attrs and t.number < trial.number)


def requeue(study: optuna.Study, worker: int | None = None) -> list[int]:
    """Close the running trials of a dead worker (default: of all) and queue them again, at most `MAX_ATTEMPTS` times.

    Call it only when the process is known to be dead. Returns the places of the queued trials.
    """
    queued = []
    trials = study.get_trials(deepcopy=False)
    again = retried(trials)
    for trial in trials:
        if trial.state != TrialState.RUNNING or worker not in (None, trial.user_attrs.get("worker")):
            continue
        attempt, place = int(trial.user_attrs.get("attempt", 1)), first_number(trial, trials)
        if trial.number not in again and attempt < MAX_ATTEMPTS:
            # A kill between two values leaves some: the sampler's seed gives the same ones again.
            whole = len(trial.params) == len(SPACE)
            values = dict(trial.params) if whole else trial.system_attrs.get("fixed_params", {})
            study.enqueue_trial(values, user_attrs={"retry_of": trial.number, "first": place, "attempt": attempt + 1})
            queued.append(place)
        study.tell(trial.number, state=TrialState.FAIL)
    return queued


def outcome(trial: FrozenTrial) -> str:
    """complete, pruned, failed, running or waiting."""
    if trial.state == TrialState.PRUNED:
        return "failed" if "reason" in trial.user_attrs else "pruned"
    return {TrialState.COMPLETE: "complete", TrialState.FAIL: "failed", TrialState.RUNNING: "running"}.get(
        trial.state, "waiting"
    )


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Best first: complete trials by value, however negative; then pruned ones by what they last showed; then failed
    ones, which have no value at all."""
    order = {"complete": 0, "pruned": 1, "failed": 2, "running": 3, "waiting": 4}

    def key(trial: FrozenTrial) -> tuple[int, float, int]:
        kind, shown = outcome(trial), trial.intermediate_values
        value = trial.value if kind == "complete" else shown[max(shown)] if kind == "pruned" and shown else -math.inf
        return order[kind], -float(value if value is not None else -math.inf), trial.number

    return sorted(counted(trials), key=key)
