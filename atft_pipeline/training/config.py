"""One typed configuration per training run: presets, environment defaults, JSON in and out, and its hash.

The phase table itself is in `phases.py`; what is here may only adjust it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from atft_pipeline.settings import DELAYS
from atft_pipeline.training.faults import ConfigError

OPERATIONAL = {"operational": True}
"""Marks fields that cannot change the result; the config hash, and so the run's identity, leaves them out."""

FORBIDDEN = ("INVERT_PREDICTION_SIGN", "OUTPUT_NOISE_STD", "PRED_STD_", "DEGENERACY_", "ALLOW_UNSAFE_DATALOADER")
"""Environment names (or their prefixes) that hid a defect of an earlier system instead of curing it."""


PARTS = ("fan", "san", "lstm", "graph")
"""What `without` may leave out, to measure what it is worth."""

MODES = ("auto", "resident", "mapped", "workers", "safe")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that a training run depends on besides the panel and the code."""

    preset: str = "demo"
    seed: int = 7
    threads: int = 0
    """Torch threads on the CPU; 0 leaves the choice to torch. Part of the identity: sums depend on it in last bits."""
    device: str = "auto"
    """auto (cuda if there is one), cpu, or cuda."""
    precision: str = "auto"
    """auto (bf16 autocast on cuda, fp32 on cpu), fp32, or bf16."""

    hidden: int = 32
    value_width: int = 12
    attention_heads: int = 4
    sequence_length: int = 60
    dropout: float = 0.1
    row_chunk: int = 0
    """Rows of variable selection in work at once; 0: few enough for a processor's cache, many enough to fill a GPU."""
    pair_chunk: int = 0

    delay: int = 1
    """Label delay that training, early stopping and headlines use: 1 is tradable."""
    dates_per_step: int = 8
    """Consecutive dates in one optimiser step; at least 8, or the Sharpe term is reported as 0."""
    dates_per_eval_step: int = 16
    dates_per_epoch: int = 0
    """Training dates in one epoch, as whole blocks drawn anew each epoch; 0 takes every date once."""
    min_cross_section: int = 20
    min_window_share: float = 0.8
    """Share of the window's rows that must be observed (and the newest always)."""

    epochs: tuple[int, ...] = (5, 2, 10, 8, 6)
    """Most epochs of each stage of the phase table: baseline, statistics, adaptive norm, graph, tuning."""
    learning_rates: tuple[float, ...] = (5e-4, 1e-3, 5e-4, 1e-4, 5e-5)
    """Peak rates in the same order."""
    patience: int | None = None
    """Overrides every phase's patience (epochs without improvement)."""
    min_delta: float = 5e-4
    """Smallest gain of the validation RankIC that counts as an improvement."""
    weight_decay: float = 1e-4
    warmup_share: float = 0.05
    warmup_min_steps: int = 100
    warmup_max_share: float = 0.25
    """The warm-up's cap as a share of the phase: without it 100 steps would swallow a short phase whole."""
    final_rate_share: float = 0.05

    use_rankic: bool = True
    rankic_weight: float | None = None
    csic_weight: float | None = None
    sharpe_weight: float | None = None
    """Override the phase table's weight wherever the table uses the term; None keeps the table."""

    student_weight: float = 0.0
    """Weight of the likelihood of Student-t heads in every stage that trains the scores; 0 leaves the heads out."""

    book_horizon: int = 5
    """Horizon whose decile book gives the headline Sharpe: its sleeves trade a fifth of the book a day."""
    cost_one_way: float = 0.001

    without: tuple[str, ...] = ()
    """Parts of the model that are left out (`PARTS`). The checks refuse such a run's predictions where they ask for the
    part; it is there to be measured."""
    fit_highway: bool = True
    """Start the highway from an elastic net on the training dates; off: it is zero until the last phase."""
    average_decay: float = 0.0
    """Decay per step of an average of the weights that is judged beside the raw ones; 0 keeps none."""
    mc_samples: int = 20
    """Stochastic passes of Monte-Carlo dropout over the newest dates; 0 leaves the uncertainty out."""
    mc_dates: int = 1

    min_score_std: float = 1e-4
    graph_refresh: int = 5

    mode: str = field(default="auto", metadata=OPERATIONAL)
    """Data path: resident (the panel in the device's memory), mapped (memory-mapped, the next block prepared by one
    thread), workers (prepared by processes), safe (one process, one thread), or auto, which chooses and says why."""
    workers: int = field(default=2, metadata=OPERATIONAL)
    """Processes of the mode workers."""
    worker_timeout: float = field(default=60.0, metadata=OPERATIONAL)
    """Seconds without a batch after which a worker counts as hung."""
    retrain: bool = field(default=False, metadata=OPERATIONAL)
    """Train anew although a finished run of the same identity exists."""
    checkpoint_every: int = field(default=25, metadata=OPERATIONAL)
    """Optimiser steps between two resumable checkpoints."""
    heartbeat_seconds: float = field(default=10.0, metadata=OPERATIONAL)
    stall_seconds: float = field(default=300.0, metadata=OPERATIONAL)
    """Seconds without a move of training after which the stacks of all threads are written to `stacks.txt`."""
    rungs_down: int = field(default=0, metadata=OPERATIONAL)
    """Rungs of the memory ladder to go down before the first step: what the supervisor sets for a child that the kernel
    killed for its memory."""
    lock_wait_seconds: float = field(default=7200.0, metadata=OPERATIONAL)

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"device={self.device!r}: use auto, cpu or cuda")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ConfigError(f"precision={self.precision!r}: use auto, fp32 or bf16")
        if self.mode not in MODES:
            raise ConfigError(f"mode={self.mode!r}: use one of {', '.join(MODES)}")
        if self.delay not in DELAYS:
            raise ConfigError(f"delay={self.delay}: the panel carries labels at delays {DELAYS}")
        if unknown := set(self.without) - set(PARTS):
            raise ConfigError(f"without={sorted(unknown)}: parts that can be left out are {', '.join(PARTS)}")
        if len(self.epochs) != 5 or len(self.learning_rates) != 5:
            raise ConfigError("epochs and learning_rates need five values each, one per stage of the phase table")
        if min(self.dates_per_step, self.dates_per_eval_step, self.checkpoint_every) < 1:
            raise ConfigError("dates_per_step, dates_per_eval_step and checkpoint_every must be at least 1")

    def to_json(self) -> str:
        """All fields, as JSON with sorted keys."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """The inverse of `to_json`. Raises `ConfigError` for names that do not exist."""
        return cls(**_typed(json.loads(text)))

    @classmethod
    def resolve(
        cls, preset: str = "demo", env: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
    ) -> TrainingConfig:
        """Preset, then the environment's known names, then `overrides`. Raises `ConfigError` for forbidden names."""
        if preset not in PRESETS:
            raise ConfigError(f"training preset {preset!r} does not exist; use one of {', '.join(PRESETS)}")
        values: dict[str, Any] = {"preset": preset, **PRESETS[preset]}
        config = cls(**values)
        config = config.with_environment(os.environ if env is None else env)
        return replace(config, **_typed(dict(overrides or {})))

    def with_environment(self, env: Mapping[str, str]) -> TrainingConfig:
        """Apply the environment names of `ENVIRONMENT`; refuse those of `FORBIDDEN`."""
        refuse_forbidden(env)
        given: dict[str, Any] = {}
        for name, (target, read) in ENVIRONMENT.items():
            if env.get(name, "") != "":
                given[target] = _read(name, env[name], read)
        if "max_epochs" in given:
            limit = given.pop("max_epochs")
            given["epochs"] = tuple(min(e, limit) for e in self.epochs)
        if "workers" in given:
            given["mode"] = "workers" if given["workers"] > 0 else "safe"
            given["workers"] = max(1, given["workers"])
        if given.pop("single_process", False):
            given["mode"] = "safe"
        return replace(self, **given)

    def with_settings(self, pairs: Mapping[str, str]) -> TrainingConfig:
        """Apply `--set name=value` texts; values are read as JSON where they parse, else taken as text."""
        values: dict[str, Any] = {}
        for name, text in pairs.items():
            try:
                values[name] = json.loads(text)
            except json.JSONDecodeError:
                values[name] = text
        return replace(self, **_typed(values))

    def with_overrides(self, path: Path) -> TrainingConfig:
        """Apply the settings that a JSON file holds under `overrides`. Raises `ConfigError` when it cannot be taken:
        also when it names another preset, on whose sizes and rates its values were found."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            values = dict(found["overrides"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} holds no settings under `overrides` ({type(error).__name__}: {error})") from None
        if found.get("preset", self.preset) != self.preset:
            raise ConfigError(
                f"{path} was found with preset {found['preset']!r}, the present one is {self.preset!r}: use that preset"
            )
        return replace(self, **_typed(values))

    @property
    def identity(self) -> str:
        """SHA-256 over every field that can change the result."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if not f.metadata.get("operational")}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "hidden": 24,
        "value_width": 8,
        "sequence_length": 20,
        "dates_per_step": 8,
        "dates_per_eval_step": 32,
        "row_chunk": 256,
        "threads": 1,
        "epochs": (1, 1, 1, 1, 1),
        "learning_rates": (4e-3, 1e-3, 1e-3, 1e-3, 3e-4),
        "warmup_min_steps": 5,
    },
    "small": {"hidden": 64, "value_width": 34},
    "large": {"hidden": 256, "value_width": 34, "attention_heads": 8, "pair_chunk": 4096},
}
"""demo: minutes on two cores. A window of 20 costs a third of one of 60 while the features carry their own look-back.
One thread: two gain a quarter on a quiet machine and lose a factor of ten beside another busy process, and with one the
result is the same on any number of cores.
small: 1.5 million parameters at 306 features. large: 5.5 million, for a GPU."""


def _flag(text: str) -> bool:
    return {"1": True, "true": True, "on": True, "yes": True, "0": False, "false": False, "off": False, "no": False}[
        text.strip().lower()
    ]


ENVIRONMENT: dict[str, tuple[str, Any]] = {
    "USE_RANKIC": ("use_rankic", _flag),
    "RANKIC_WEIGHT": ("rankic_weight", float),
    "CS_IC_WEIGHT": ("csic_weight", float),
    "SHARPE_WEIGHT": ("sharpe_weight", float),
    "PHASE_MAX_EPOCHS": ("max_epochs", int),
    "EARLY_STOP_PATIENCE": ("patience", int),
    "NUM_WORKERS": ("workers", int),
    "FORCE_SINGLE_PROCESS": ("single_process", _flag),
}
"""Names that users of earlier systems know -> (field, reader). NUM_WORKERS=n asks for the mode workers with n processes
(0: safe), FORCE_SINGLE_PROCESS=1 for the mode safe. Neither is faster than auto: a batch is an index into one array."""


def refuse_forbidden(env: Mapping[str, str]) -> None:
    """Raise `ConfigError` if the environment sets a name that used to mask a defect."""
    found = sorted(name for name in env if any(name.startswith(f) for f in FORBIDDEN))
    if found:
        raise ConfigError(
            f"{', '.join(found)} is set: these switches once hid a defect (inverted signs, injected noise, forced "
            "variance, loosened guards) and have no meaning here; unset them and fix what they covered"
        )


def _read(name: str, text: str, read: Any) -> Any:
    try:
        return read(text)
    except (ValueError, KeyError):
        raise ConfigError(f"{name} is {text!r}, which cannot be read; see ENVIRONMENT in training/config.py") from None


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    """Lists back to tuples; unknown names refused."""
    known = {f.name for f in fields(TrainingConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"unknown training settings {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
