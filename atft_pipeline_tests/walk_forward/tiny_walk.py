"""A walk-forward over a small lake: three folds, seconds each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from atft_pipeline.dataset.training_panel import panel_dir
from atft_pipeline.settings import Settings, Thresholds, WalkForward
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.supervisor import run_training
from atft_pipeline.walk_forward.fold import prepare_fold, score_fold
from atft_pipeline.walk_forward.spec import WalkSpec, specify
from atft_pipeline_tests.evaluation.fake_run import store_oracle
from atft_pipeline_tests.small_lake import CONTRACT, make_market, store_panel
from atft_pipeline_tests.training.conftest import Lines

SMALL = WalkForward(folds=3, test_days=30, valid_days=30, min_train_days=60, seeds=(7,))
LIMITS = Thresholds(too_good_model_ic=0.9)
"""The planted signal is far stronger than an honest one."""
TINY: dict[str, Any] = {
    "hidden": 8, "value_width": 4, "attention_heads": 2, "sequence_length": 10, "device": "cpu", "threads": 1,
    "epochs": (1, 0, 0, 0, 0), "learning_rates": (5e-3, 1e-3, 5e-3, 2e-3, 1e-3), "warmup_min_steps": 1,
    "mc_samples": 0, "heartbeat_seconds": 0.2,
}  # fmt: skip


def tiny_config(**changes: Any) -> TrainingConfig:
    return TrainingConfig.resolve("demo", env={}, overrides={**TINY, **changes})


def tiny_lake(data_dir: Path) -> Path:
    """<data_dir>/simulated with dataset, training panel and oracle, as the settings of `tiny_settings` find it."""
    lake, market = data_dir / "simulated", make_market(dates=320, stocks=25)
    store_panel(lake, market)
    store_oracle(lake / "market", market)
    return lake


def tiny_settings(data_dir: Path, plan: WalkForward = SMALL, thresholds: Thresholds = LIMITS) -> Settings:
    return Settings(data_dir=data_dir, contract=CONTRACT.name, walk_forward=plan, thresholds=thresholds)


def tiny_spec(data_dir: Path, config: TrainingConfig | None = None, **settings: Any) -> WalkSpec:
    """What the walk-forward over `tiny_lake` is, saved but not begun."""
    lake = data_dir / "simulated"
    spec = specify(lake, tiny_settings(data_dir, **settings), config or tiny_config(), contract=CONTRACT, market="tiny")
    spec.save()
    return spec


def walk_fold(spec: WalkSpec, k: int) -> None:
    """All steps of a fold in this process: what its processes do, without their start."""
    folder = spec.fold(k)
    prepare_fold(spec, k)
    for seed in spec.seeds:
        run_training(panel_dir(folder.path), folder.runs, spec.run_config(seed), Lines())
    score_fold(spec, k)


def copied(spec: WalkSpec, data_dir: Path) -> WalkSpec:
    """The same walk-forward in a copy of its lake."""
    shutil.copytree(Path(spec.lake), data_dir / "simulated", symlinks=True)
    return tiny_spec(data_dir)
