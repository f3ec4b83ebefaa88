"""One trial: the training of `training/engine.py` on every fold, pruned between phases, measured into JSON files.

The value of a trial is read back from those files, so a file and the study can never tell two stories.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from atft_pipeline.evaluation import metrics
from atft_pipeline.search.study import StudyFolder, StudySpec, first_number, objective, read_fold, trial_value
from atft_pipeline.training.checkpoint import Progress
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.engine import Trainer
from atft_pipeline.training.files import write_json
from atft_pipeline.training.monitor import Heartbeat
from atft_pipeline.training.panel_data import PanelData
from atft_pipeline.training.phases import Phase
from atft_pipeline.training.report import Reporter
from atft_pipeline.training.runs import ID_LENGTH, RunFolder, source_hash


class PhaseReports:
    """Tells the study what a trial shows after each phase of each fold, and ends it when the pruner says so."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial, self.step, self.finished = trial, 0, list[float]()

    def after_phase(self, best: float) -> None:
        """`best` is the present fold's best RankIC so far. Raises `TrialPruned`."""
        self.trial.report(objective([*self.finished, best]), self.step)
        self.step += 1
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"below the median of the earlier trials after {self.step} phases")


def run_trial(
    folder: StudyFolder, spec: StudySpec, trial: optuna.Trial, panel: PanelData, beat: Path, say: Reporter,
    stop: threading.Event,
) -> float:  # fmt: skip
    """Train all folds with the trial's values and return its objective. Raises what training raises, and `TrialPruned`.

    A fold that finished before a kill is not trained again, and an unfinished one resumes from its checkpoint.
    """
    number, reports = first_number(trial), PhaseReports(trial)
    config = spec.config_of(trial.params, number)
    for k in range(len(spec.folds)):
        run, path = fold_run(folder, spec, config, k), folder.fold(number, k)
        if path.exists() and read_fold(folder, number, k)["run_id"] == run.run_id:
            for best in read_fold(folder, number, k)["phases"]:
                reports.after_phase(best)
        else:
            try:
                measured = _train_fold(config, fold_panel(panel, spec, k), run, beat, say, stop, reports.after_phase)
            except optuna.TrialPruned:
                shutil.rmtree(run.path)
                raise
            write_json(path, {"run_id": run.run_id, "trial": number, "fold": k, **measured})
            shutil.rmtree(run.path)
        reports.finished.append(read_fold(folder, number, k)["rank_ic"])
    return trial_value(folder, number, len(spec.folds))


def fold_panel(panel: PanelData, spec: StudySpec, fold: int) -> PanelData:
    """The panel cut at the fold's dates; its hash says so. The test part is the panel's own and nothing reads it."""
    train, valid = spec.folds[fold]
    index = {**panel.manifest["split_index"], "train": list(train), "valid": list(valid)}
    names = {part: [str(panel.dates[a]), str(panel.dates[b - 1])] for part, (a, b) in index.items()}
    digest = hashlib.sha256(f"{panel.hash} {train} {valid}".encode()).hexdigest()
    split = {**panel.manifest["split"], **names}
    return replace(panel, manifest={**panel.manifest, "split": split, "split_index": index, "hash": digest})


def fold_run(folder: StudyFolder, spec: StudySpec, config: TrainingConfig, fold: int) -> RunFolder:
    """Where the fold trains: named by its inputs, as every run is."""
    hashes = {
        "panel_hash": hashlib.sha256(f"{spec.panel_hash} {spec.folds[fold]}".encode()).hexdigest(),
        "config_hash": config.identity,
        "source_hash": source_hash(),
    }
    run_id = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()[:ID_LENGTH]
    return RunFolder(folder.runs / run_id, run_id, hashes)


def _train_fold(
    config: TrainingConfig, panel: PanelData, run: RunFolder, beat: Path, say: Reporter, stop: threading.Event,
    tell: Callable[[float], None],
) -> dict[str, Any]:  # fmt: skip
    run.path.mkdir(parents=True, exist_ok=True)
    phases: list[float] = []

    def after_phase(phase: Phase, progress: Progress) -> None:
        phases.append(float(progress.best))
        tell(phases[-1])

    with Heartbeat(beat, config.heartbeat_seconds) as heartbeat:
        trainer = Trainer(config, panel, run, say, heartbeat, stop)
        result = trainer.train(after_phase)
        scores = trainer.score_validation()
    return {
        "rank_ic": float(result["rank_ic"]),
        "phases": phases,
        "phase": result["phase"],
        "epoch": result["epoch"],
        "dates": [str(panel.dates[i]) for i in (panel.part("valid")[0], panel.part("valid")[-1])],
        "net_returns": book_returns(scores, panel, config).tolist(),
    }


def book_returns(scores: NDArray[np.float32], panel: PanelData, config: TrainingConfig) -> NDArray[np.floating]:
    """[D] daily net returns of the headline decile book on the validation dates."""
    dates = panel.part("valid")
    span = slice(dates.start, dates.stop)
    tradable = panel.tradable[span]
    day = np.where(tradable, panel.labels(config.delay)[span][..., panel.horizons.index(1)], np.nan)
    held = np.where(tradable, scores[..., panel.horizons.index(config.book_horizon)], np.nan)
    return metrics.decile_book(held, day, horizon=config.book_horizon, cost=config.cost_one_way).net
