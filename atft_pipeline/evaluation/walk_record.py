"""What a walk-forward says about the dataset of now, for whoever decides on a run. Reads results, computes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atft_pipeline.dataset.training_panel import panel_dir, read_manifest
from atft_pipeline.lake.store import LakeError, read_json
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.faults import ConfigError

SHOWN_RIVALS = ("ridge", "lightgbm")
HEADLINE = ("delay_1", "1")


@dataclass(frozen=True)
class WalkFinding:
    """The walk-forward of a dataset in a few numbers: daily 1-day RankIC at delay 1 over all test dates."""

    walk: str
    recipe: str
    """Hash of its training settings, whatever the seed."""
    source_hash: str
    passed: bool
    """Whether its own checks hold."""
    folds: int
    n_dates: int
    rank_ic: float | None
    se: float | None
    differences: Mapping[str, tuple[float | None, float | None]]
    """Rival -> mean of the daily differences and its standard error."""

    @property
    def told(self) -> str:
        """In a sentence."""
        gaps = ", ".join(f"minus {rival} {_pm(*gap)}" for rival, gap in self.differences.items())
        held = "" if self.passed else "; its checks do not hold, so do not go by it"
        return (
            f"walk-forward {self.walk}, {self.folds} folds, {self.n_dates} test dates: 1-day RankIC at delay 1 "
            f"{_pm(self.rank_ic, self.se)}, {gaps}{held}"
        )


def walks_dir(lake: Path) -> Path:
    return lake / "walk_forward"


def recipe_of(config: TrainingConfig) -> str:
    """Hash of training settings whatever the seed: what a run and a walk-forward may have in common."""
    return replace(config, seed=0).identity


def find_walk_forward(lake: Path) -> WalkFinding | None:
    """The newest finished walk-forward of the dataset that the training panel was made of; None where there is none.

    Raises `LakeError` when it cannot be read.
    """
    if not (panel_dir(lake) / "manifest.json").exists():
        return None
    dataset = read_manifest(lake)["dataset_hash"]
    paths = [path for path in walks_dir(lake).glob("*/results.json") if not path.parent.is_symlink()]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        results = read_json(path)
        try:
            if results["dataset_hash"] == dataset:
                return _finding(results)
        except (KeyError, TypeError) as error:
            raise LakeError(f"{path}: not a walk-forward of this version ({error!r}); start it again") from error
    return None


def told_of_walk_forward(lake: Path, run_id: str) -> str:
    """What the walk-forward of the present dataset says, and whether it is of the run's settings and code; empty where
    there is none."""
    try:
        found = find_walk_forward(lake)
    except LakeError as error:
        return f"cannot be read: {error}"
    if found is None:
        return ""
    same = (found.recipe, found.source_hash) == _recipe_and_code(lake, run_id)
    return f"{found.told}. Settings and code are {'the same as' if same else 'not'} this run's"


def _recipe_and_code(lake: Path, run_id: str) -> tuple[str, str]:
    """Of a run; empty texts where it does not say."""
    path = lake / "runs" / run_id / "config.json"
    if not path.exists():
        return "", ""
    body = read_json(path)
    try:
        return recipe_of(TrainingConfig.from_json(body["config"])), str(body["source_hash"])
    except (ConfigError, KeyError, TypeError, json.JSONDecodeError):  # of a version with other settings
        return "", ""


def _finding(results: Mapping[str, Any]) -> WalkFinding:
    delay, horizon = HEADLINE
    own = results["models"]["model"][delay][horizon]["rank_ic"]["all"]
    gaps = {rival: results["differences"][rival][delay][horizon]["all"] for rival in SHOWN_RIVALS}
    return WalkFinding(
        walk=str(results["walk"]),
        recipe=str(results["recipe"]),
        source_hash=str(results["source_hash"]),
        passed=all(rule["passed"] for rule in results["verdicts"].values()),
        folds=len(results["folds"]),
        n_dates=int(own["n_dates"]),
        rank_ic=own["mean"],
        se=own["se"],
        differences={rival: (gap["mean"], gap["se"]) for rival, gap in gaps.items()},
    )


def _pm(mean: float | None, se: float | None) -> str:
    return "undefined" if mean is None or se is None else f"{mean:+.4f} +- {se:.4f}"
