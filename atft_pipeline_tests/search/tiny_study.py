"""A study on a tiny panel: half a second a trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from atft_pipeline.search.conduct import SearchSettings, specify
from atft_pipeline.search.study import StudyFolder
from atft_pipeline_tests.training.tiny_panel import write_panel, write_tiny_panel

WINDOW = 10
TINY: dict[str, str] = {
    "hidden": "8", "value_width": "4", "attention_heads": "2", "sequence_length": str(WINDOW), "device": "cpu",
    "epochs": "[1, 0, 1, 0, 0]", "learning_rates": "[5e-3, 1e-3, 5e-3, 2e-3, 1e-3]", "warmup_min_steps": "1",
    "mc_samples": "0", "heartbeat_seconds": "0.2",
}  # fmt: skip


def tiny_lake(lake: Path, *, turned: bool = False) -> Path:
    """A lake with a training panel. `turned`: what the first half teaches is wrong in the second, where both folds
    validate, so that an honest trial scores below zero."""
    panel = write_tiny_panel(lake / "training_panel", dates=110, stocks=24, features=9, window=WINDOW, linear=1.0)
    if turned:
        manifest = json.loads((panel / "manifest.json").read_text())
        arrays = {name[:-4]: np.load(panel / name) for name in manifest["files"]}
        arrays["y"][manifest["split_index"]["train"][1] :] *= -1
        write_panel(panel, arrays, [feature["name"] for feature in manifest["features"]], WINDOW)
    return lake


def tiny_study(lake: Path, **settings: Any) -> StudyFolder:
    """The folder of a study that nobody has begun."""
    spec = specify(lake / "training_panel", SearchSettings(overrides=TINY, **settings))
    folder = StudyFolder(lake / "hpo" / spec.id)
    folder.path.mkdir(parents=True)
    folder.write_spec(spec)
    return folder


def plain(trial: optuna.trial.FrozenTrial) -> tuple[Any, ...]:
    """What must not depend on kills: values, parameters, outcome."""
    return trial.state, trial.value, trial.params, trial.intermediate_values
