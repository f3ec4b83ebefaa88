"""A tiny training setting shared by the tests of this room: seconds for all four phases on one thread."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from atft_pipeline.training import monitor
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.engine import Trainer
from atft_pipeline.training.panel_data import load_panel
from atft_pipeline.training.runs import open_run
from atft_pipeline.training.supervisor import run_training
from atft_pipeline_tests.training.tiny_panel import write_tiny_panel

TINY: dict[str, Any] = {
    "hidden": 8, "value_width": 4, "attention_heads": 2, "sequence_length": 20, "threads": 1, "device": "cpu",
    "dates_per_step": 8, "dates_per_epoch": 0, "epochs": (1, 1, 1, 2, 1), "pair_chunk": 0, "warmup_min_steps": 1,
    "heartbeat_seconds": 0.2, "lock_wait_seconds": 20.0,
    "learning_rates": (5e-3, 1e-3, 5e-3, 2e-3, 1e-3), "min_delta": -1.0,
}  # fmt: skip
"""min_delta -1: every epoch counts as an improvement, so that each phase's own result goes on."""


def tiny_config(**changes: Any) -> TrainingConfig:
    return TrainingConfig.resolve("demo", env={}, overrides={**TINY, **changes})


class Lines:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.results: list[tuple[dict[str, Any], str]] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def result(self, metadata: dict[str, Any], version: str) -> None:
        self.results.append((metadata, version))


def make_trainer(panel_dir: Path, runs: Path, **changes: Any) -> Trainer:
    """A trainer without the supervisor around it."""
    config, panel = tiny_config(**changes), load_panel(panel_dir)
    folder = open_run(runs, panel.hash, config)
    heartbeat = monitor.Heartbeat(folder.path / "heartbeat.json", 60.0)
    return Trainer(config, panel, folder, Lines(), heartbeat, threading.Event())


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A panel with a linear signal: 5 steps per epoch, 14 validation dates."""
    folder = tmp_path_factory.mktemp("tiny") / "panel"
    return write_tiny_panel(folder, dates=130, stocks=30, linear=0.5)


@pytest.fixture(scope="session")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lines]:
    """A finished run of all phases and what it reported."""
    reporter = Lines()
    folder = run_training(tiny, tmp_path_factory.mktemp("runs"), tiny_config(), reporter)
    return folder.path, reporter
