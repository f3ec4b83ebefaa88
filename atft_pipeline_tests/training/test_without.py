"""Training without a part of the model: it is really gone, the rest trains, and a run without the graph is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atft_pipeline.evaluation.judge import judge_liveness
from atft_pipeline.evaluation.run_checks import check_phases
from atft_pipeline.settings import Thresholds
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.engine import Trainer
from atft_pipeline.training.faults import ConfigError
from atft_pipeline.training.supervisor import run_training
from atft_pipeline_tests.training.conftest import Lines, make_trainer, tiny_config


@pytest.fixture
def whole(tiny: Path, tmp_path: Path) -> Trainer:
    return make_trainer(tiny, tmp_path)


@pytest.mark.parametrize(
    ("part", "beginnings"),
    [("fan", ("adaptive_norm.fan_gate",)), ("san", ("adaptive_norm.san_gate",)), ("lstm", ("temporal.lstm.",))],
)
def test_the_part_and_nothing_else_is_gone(
    part: str, beginnings: tuple[str, ...], whole: Trainer, tiny: Path, tmp_path: Path
) -> None:
    before = {name for name, _ in whole.model.named_parameters()}
    after = {name for name, _ in make_trainer(tiny, tmp_path, without=(part,)).model.named_parameters()}
    assert before - after == {name for name in before if name.startswith(beginnings)} != set()
    assert after < before


def test_it_trains_without_fan_san_and_lstm_at_once(tiny: Path, tmp_path: Path) -> None:
    config = tiny_config(without=("fan", "san", "lstm"), epochs=(1, 1, 1, 1, 1))
    folder = run_training(tiny, tmp_path, config, Lines()).path
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["phase_name"] for r in records if r["monitored"]] == ["baseline", "adaptive_norm", "graph", "fine_tune"]
    assert all(r["model"]["fan_gate_abs_mean"] is r["model"]["san_gate_abs_mean"] is None for r in records)


def test_without_the_graph_its_phase_is_left_out_and_the_checks_say_so(tiny: Path, tmp_path: Path) -> None:
    folder = run_training(tiny, tmp_path, tiny_config(without=("graph",)), Lines()).path
    summary = json.loads((folder / "metrics_summary.json").read_text())
    assert [row["name"] for row in summary["phases"]] == ["baseline", "adaptive_norm", "fine_tune"]
    phases = check_phases(folder)
    assert not phases.passed and "phases not run: graph" in phases.message
    alive = judge_liveness({"liveness": summary["liveness"]}, Thresholds())
    assert not alive.passed and "graph" in alive.message and "edges" in alive.message


def test_a_part_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"without=\['gat'\].*fan, san, lstm, graph"):
        TrainingConfig.resolve("demo", env={}, overrides={"without": ("gat",)})
