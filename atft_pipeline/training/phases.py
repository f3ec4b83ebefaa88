"""The four phases, as data: switches, trainable groups with their share of the rate, rates, epochs, loss weights.

One loop (`engine.py`) reads this table. A phase is a pure function of its row and of the checkpoint it starts from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.faults import ConfigError

GROUPS = ("forecasters", "gates", "selection", "static", "temporal", "graph", "fusion", "heads", "highway")


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms; the resolved values are printed and stored with the run."""

    huber: float
    rank: float
    csic: float
    sharpe: float
    pinball: float
    aux: float
    student: float = 0.0

    @classmethod
    def from_mapping(cls, weights: Mapping[str, float]) -> LossWeights:
        """Every term must be named: a missing key is an error, never a silent zero."""
        names = set(cls.__dataclass_fields__)
        if set(weights) != names:
            raise ConfigError(f"loss weights name {sorted(weights)}; exactly {sorted(names)} are needed")
        return cls(**{k: float(v) for k, v in weights.items()})

    def as_dict(self) -> dict[str, float]:
        """Term -> weight."""
        return {name: float(getattr(self, name)) for name in self.__dataclass_fields__}

    @property
    def only_aux(self) -> bool:
        """True for the stage that trains the forecasters alone."""
        return self.aux > 0 and not any(v for k, v in self.as_dict().items() if k != "aux")


@dataclass(frozen=True)
class Stage:
    """One optimiser's life: fresh AdamW and scheduler, one set of trainable groups and weights."""

    name: str
    trainable: Mapping[str, float]
    """Group -> multiplier of the peak rate. Groups left out are frozen."""
    weights: LossWeights
    peak_rate: float
    epochs: int
    thaw_after: int = 0
    """Epochs during which the groups with a multiplier below 1 stay frozen."""
    monitored: bool = True
    """Whether validation RankIC picks the best epoch; the forecasters' own stage does not touch the score."""

    def frozen(self, group: str, epoch: int) -> bool:
        """Whether `group` is frozen in this stage's `epoch` (from 0)."""
        if group not in self.trainable:
            return True
        return self.trainable[group] < 1 and epoch < self.thaw_after


@dataclass(frozen=True)
class Phase:
    """One row of the table."""

    number: int
    name: str
    adaptive_norm: bool
    graph: bool
    stages: tuple[Stage, ...]
    patience: int | None
    clip: float


_TRUNK = ("selection", "static", "temporal")
_JOINT = LossWeights(huber=1, rank=0.5, csic=0.3, sharpe=0.1, pinball=0.3, aux=0)


def _equal(*groups: str) -> dict[str, float]:
    return dict.fromkeys(groups, 1.0)


PHASES: tuple[Phase, ...] = (
    Phase(
        0, "baseline", adaptive_norm=False, graph=False, patience=None, clip=1.0,
        stages=(
            Stage(
                "baseline", _equal(*_TRUNK, "fusion", "heads"), peak_rate=5e-4, epochs=5,
                weights=LossWeights(huber=1, rank=0.3, csic=0.2, sharpe=0, pinball=0.3, aux=0),
            ),
        ),
    ),
    Phase(
        1, "adaptive_norm", adaptive_norm=True, graph=False, patience=5, clip=1.0,
        stages=(
            Stage(
                "statistics", _equal("forecasters"), peak_rate=1e-3, epochs=2, monitored=False,
                weights=LossWeights(huber=0, rank=0, csic=0, sharpe=0, pinball=0, aux=1),
            ),
            Stage("joint", _equal("gates", *_TRUNK, "fusion", "heads"), peak_rate=5e-4, epochs=10, weights=_JOINT),
        ),
    ),
    Phase(
        2, "graph", adaptive_norm=True, graph=True, patience=5, clip=1.0,
        stages=(
            # The forecasters stay frozen: no term of this phase reaches them.
            Stage(
                "graph", {**_equal("graph", "fusion", "heads"), **dict.fromkeys(("gates", *_TRUNK), 0.1)},
                peak_rate=1e-4, epochs=8, weights=_JOINT, thaw_after=1,
            ),
        ),
    ),
    Phase(
        3, "fine_tune", adaptive_norm=True, graph=True, patience=4, clip=0.5,
        stages=(
            Stage(
                "fine_tune", _equal(*GROUPS), peak_rate=5e-5, epochs=6,
                weights=LossWeights(huber=0.5, rank=0.5, csic=0.3, sharpe=0.15, pinball=0.2, aux=0.05),
            ),
        ),
    ),
)  # fmt: skip


def resolve_phases(config: TrainingConfig, phases: tuple[Phase, ...] = PHASES) -> tuple[Phase, ...]:
    """The table with the config's epochs, rates, patience and weights put in; a stage of 0 epochs is left out.

    Without the graph its phase is left out too, and the last one trains without it.
    """
    resolved, index = [], 0
    for phase in phases:
        stages = []
        for stage in phase.stages:
            epochs, rate = config.epochs[index], config.learning_rates[index]
            index += 1
            if epochs > 0:
                weights = _adjusted(stage.weights, config)
                stages.append(replace(stage, epochs=epochs, peak_rate=rate, weights=weights))
        patience = phase.patience if config.patience is None else config.patience
        left_out = phase.graph and "graph" in config.without
        if any(stage.monitored for stage in stages) and not (left_out and phase.name == "graph"):
            graph = phase.graph and not left_out
            resolved.append(replace(phase, graph=graph, stages=tuple(stages), patience=patience))
    if not resolved:
        raise ConfigError("epochs leaves no phase to train; give at least one stage an epoch")
    return tuple(resolved)


def _adjusted(weights: LossWeights, config: TrainingConfig) -> LossWeights:
    """Overrides apply where the table uses the term; USE_RANKIC=0 removes the rank term."""
    given = {"rank": config.rankic_weight, "csic": config.csic_weight, "sharpe": config.sharpe_weight}
    values = weights.as_dict()
    for term, value in given.items():
        if value is not None and values[term] > 0:
            values[term] = value
    if not weights.only_aux:
        values["student"] = config.student_weight
    if not config.use_rankic:
        values["rank"] = 0.0
    return LossWeights.from_mapping(values)


def freeze(model: ATFTGATFAN, stage: Stage, epoch: int) -> dict[str, list[nn.Parameter]]:
    """Set `requires_grad` by the table for this epoch, and return the stage's trainable groups (thawing ones too)."""
    groups = model.parameter_groups()
    if set(groups) != set(GROUPS):
        raise ConfigError(f"the model's groups {sorted(groups)} are not those of the phase table {sorted(GROUPS)}")
    for name, parameters in groups.items():
        for p in parameters:
            p.requires_grad_(not stage.frozen(name, epoch))
            if not p.requires_grad:
                p.grad = None
    return {name: groups[name] for name in stage.trainable}
