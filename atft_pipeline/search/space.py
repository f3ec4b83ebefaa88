"""What the hyperparameter search may change: one table, and how a row becomes a training setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna

from atft_pipeline.training.config import TrainingConfig


@dataclass(frozen=True)
class Parameter:
    """One dimension of the search."""

    name: str
    scale: Literal["log", "linear", "choice"]
    bounds: tuple[float, ...]
    """Lowest and highest value, or the choices."""
    start: float
    """Value of the first trial: the preset's own."""
    what: str

    def suggest(self, trial: optuna.Trial) -> float:
        """The sampler's value for this trial."""
        if self.scale == "choice":
            return float(trial.suggest_categorical(self.name, self.bounds))
        low, high = self.bounds
        return trial.suggest_float(self.name, low, high, log=self.scale == "log")


SPACE: tuple[Parameter, ...] = (
    Parameter("rate", "log", (0.25, 4.0), 1.0, "times the preset's peak rates of baseline, statistics, adaptive norm"),
    Parameter("late_rate", "log", (0.25, 4.0), 1.0, "times the preset's peak rates of graph and fine-tune"),
    Parameter("dropout", "linear", (0.0, 0.4), 0.1, "dropout everywhere"),
    Parameter("weight_decay", "log", (1e-6, 1e-2), 1e-4, "AdamW weight decay"),
    Parameter("width", "choice", (0.5, 1.0, 2.0), 1.0, "times the preset's hidden size"),
    Parameter("rankic_weight", "log", (0.1, 2.0), 0.5, "weight of the RankIC loss in every phase that uses it"),
    Parameter("csic_weight", "log", (0.03, 1.0), 0.3, "weight of the cross-sectional IC loss, likewise"),
    Parameter("sharpe_weight", "log", (0.01, 0.5), 0.1, "weight of the Sharpe loss, likewise"),
)


def suggest(trial: optuna.Trial) -> dict[str, float]:
    """A value for every row of the table."""
    return {parameter.name: parameter.suggest(trial) for parameter in SPACE}


def start_point() -> dict[str, float]:
    """The first trial: the preset's rates, dropout, decay and size, and the loss weights of its joint phases."""
    return {parameter.name: parameter.start for parameter in SPACE}


def overrides_of(values: Mapping[str, float], base: TrainingConfig) -> dict[str, Any]:
    """The settings of `TrainingConfig` that a trial's values mean on top of `base`."""
    factors = (values["rate"],) * 3 + (values["late_rate"],) * 2
    heads = base.attention_heads
    return {
        "learning_rates": [rate * factor for rate, factor in zip(base.learning_rates, factors, strict=True)],
        "hidden": heads * max(1, round(base.hidden * values["width"] / heads)),
        **{n: values[n] for n in ("dropout", "weight_decay", "rankic_weight", "csic_weight", "sharpe_weight")},
    }
