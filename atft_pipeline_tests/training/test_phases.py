"""The phase table is obeyed: who trains, at which rate, for how long, and from where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from atft_pipeline.training import checkpoint
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.engine import Trainer
from atft_pipeline.training.faults import TrainingFault
from atft_pipeline.training.optimiser import StageOptimiser
from atft_pipeline.training.phases import GROUPS, PHASES, freeze, resolve_phases
from atft_pipeline_tests.training.conftest import Lines, make_trainer, tiny_config

STAGES = [(phase, stage) for phase in PHASES for stage in phase.stages]


@pytest.fixture(scope="module")
def trainer(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return make_trainer(tiny, tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize(("phase", "stage"), STAGES, ids=lambda x: x.name)
def test_t09_the_optimiser_holds_each_trainable_parameter_once(trainer: Trainer, phase: Any, stage: Any) -> None:
    groups = freeze(trainer.model, stage, stage.thaw_after)
    held = [id(p) for part in StageOptimiser(trainer.model, groups, stage, 10, trainer.config).optimiser.param_groups
            for p in part["params"]]  # fmt: skip
    trainable = {id(p) for p in trainer.model.parameters() if p.requires_grad}
    assert len(held) == len(set(held)) and set(held) == trainable


def test_every_group_trains_somewhere_and_thawing_groups_wait() -> None:
    assert {g for _, stage in STAGES for g in stage.trainable} == set(GROUPS)
    graph = PHASES[2].stages[0]
    assert graph.frozen("temporal", 0) and not graph.frozen("temporal", 1) and not graph.frozen("graph", 0)
    assert graph.trainable["temporal"] * graph.peak_rate == pytest.approx(1e-5)
    assert graph.frozen("forecasters", 5)


def run_to_peak(trainer: Trainer, stage: Any, spoil: Any = lambda optimiser: None) -> dict[str, float]:
    """Drive a stage's optimiser through its warm-up; returns the rates that the step at the peak used."""
    groups = freeze(trainer.model, stage, stage.thaw_after)
    optimiser = StageOptimiser(trainer.model, groups, stage, 20, TrainingConfig.resolve("small", env={}))
    spoil(optimiser)
    rates: dict[str, float] = {}
    for _ in range(optimiser.warmup + 1):
        rates = optimiser.rates()
        optimiser.step()
    return rates


@pytest.mark.parametrize(("phase", "stage"), STAGES, ids=lambda x: x.name)
def test_t32_the_declared_peak_rate_is_applied_to_every_group(trainer: Trainer, phase: Any, stage: Any) -> None:
    rates = run_to_peak(trainer, stage)
    assert rates == pytest.approx({g: stage.peak_rate * m for g, m in stage.trainable.items()})


def test_t32_a_rate_that_was_not_applied_is_noticed(trainer: Trainer) -> None:
    """The planted fault: the scheduler keeps the rates of an earlier optimiser (`initial_lr`)."""

    def stale(optimiser: StageOptimiser) -> None:
        for part in optimiser.optimiser.param_groups:
            part["initial_lr"] = 1e-6
        optimiser.scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimiser.optimiser, optimiser.scheduler.lr_lambdas[0], last_epoch=0
        )

    with pytest.raises(TrainingFault, match="peak"):
        run_to_peak(trainer, PHASES[3].stages[0], stale)


def test_t32_a_rate_changed_behind_the_scheduler_is_noticed(trainer: Trainer) -> None:
    with pytest.raises(TrainingFault, match="runs at"):
        groups = freeze(trainer.model, PHASES[0].stages[0], 0)
        optimiser = StageOptimiser(trainer.model, groups, PHASES[0].stages[0], 20, TrainingConfig())
        while optimiser.steps_done <= optimiser.warmup:
            optimiser.optimiser.param_groups[-1]["lr"] = 1e-6
            optimiser.step()


def test_matrices_decay_and_biases_norms_and_gates_do_not(trainer: Trainer) -> None:
    groups = freeze(trainer.model, PHASES[3].stages[0], 0)
    optimiser = StageOptimiser(trainer.model, groups, PHASES[3].stages[0], 10, trainer.config)
    names = {id(p): n for n, p in trainer.model.named_parameters()}
    without = {names[id(p)] for part in optimiser.optimiser.param_groups if part["weight_decay"] == 0
               for p in part["params"]}  # fmt: skip
    assert {"fusion.gamma", "fusion.bias", "adaptive_norm.fan_gate", "adaptive_norm.san_gate"} <= without
    assert "fusion.weight_y" not in without and not any(n.endswith("weight_hh_l0") for n in without)
    assert all(n in without for n in names.values() if "norm" in n or "bias" in n)


def test_t33_each_phase_starts_from_the_best_of_the_one_before(finished: tuple[Path, Lines]) -> None:
    folder, _ = finished
    for number in (1, 2, 3):
        before = checkpoint.load(folder / "ckpt" / f"phase{number - 1}" / "best.pt")
        progress = checkpoint.load(folder / "ckpt" / f"phase{number}" / "last.pt")["progress"]
        assert progress["start_hash"] == checkpoint.weights_hash(before["model"])
        assert progress["start_value"] == pytest.approx(before["rank_ic"])


def scripted(trainer: Trainer, values: list[float]) -> None:
    """Let validation answer with `values` in turn."""
    answers = iter(values)
    means = {"ic": {"mean": 0.0}, "rankic": {"mean": 0.0, "se": 0.0}, "hit_rate": {"mean": 0.5}}
    val = {"portfolio": {"sharpe_net_ann": 0.0}, "delay": 1, "mean": means}

    def measure(*_: object) -> dict[str, Any]:
        return {"rank_ic": next(answers), "rank_ic_se": 0.01, "val": val}

    trainer.validator.measure = measure  # type: ignore[method-assign]
    trainer.validator.guard = lambda scores, value, progress: None  # type: ignore[method-assign]


def test_t33_a_phase_without_improvement_hands_its_start_on(tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, tmp_path, epochs=(2, 0, 2, 0, 0), min_delta=5e-4)
    scripted(trainer, [0.01, 0.03, 0.0304, 0.02])
    result = trainer.train()
    paths = [trainer.folder.checkpoint(k, "best") for k in (0, 1)]
    hashes = [checkpoint.weights_hash(checkpoint.load(p)["model"]) for p in paths]
    assert hashes[0] == hashes[1] == checkpoint.weights_hash(result["model"])
    assert result["phase"] == 0 and not result["adaptive_norm"] and result["rank_ic"] == 0.03
    assert any("no epoch improved on the start" in line for line in trainer.reporter.lines)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("values", "epochs", "best"),
    [
        ([0.0, 0.02, 0.0204, 0.0203, 0.5], 4, 2),  # +0.0004 is below min_delta: patience 2 ends it after epoch 4
        ([0.0, 0.02, 0.01, 0.021, 0.0, 0.0, 0.5], 6, 4),  # a gain in time starts the count anew
        ([0.3, 0.2, 0.1, 0.5], 3, 1),  # it maximises
    ],
)
def test_t34_early_stopping_follows_patience_and_min_delta(
    tiny: Path, tmp_path: Path, values: list[float], epochs: int, best: int
) -> None:
    trainer = make_trainer(tiny, tmp_path, epochs=(8, 0, 0, 0, 0), min_delta=5e-4, patience=2, dates_per_epoch=8)
    scripted(trainer, values)
    result = trainer.train()
    assert [r["rank_ic"] for r in trainer.history] == values[:epochs]
    assert result["epoch"] == best and result["rank_ic"] == values[best - 1]
    assert [r["epoch"] for r in trainer.history if r["improved"]][-1] == best


def test_a_stage_of_no_epochs_is_left_out_of_the_table() -> None:
    phases = resolve_phases(tiny_config(epochs=(1, 0, 1, 0, 1)))
    assert [p.number for p in phases] == [0, 1, 3] and [s.name for s in phases[1].stages] == ["joint"]
    assert replace(phases[0], stages=PHASES[0].stages).name == "baseline"


def test_student_t_heads_train_where_the_scores_do_and_their_share_of_the_loss_is_logged(
    tiny: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny, tmp_path, epochs=(1, 1, 1, 0, 0), student_weight=0.2, mc_samples=0)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if name.startswith("student")}
    trainer.train()
    assert len(before) == 2
    assert all(float((dict(trainer.model.named_parameters())[n] - p).abs().max()) > 0 for n, p in before.items())
    by_stage = {record["stage"]: record["train"] for record in trainer.history}
    assert "student" not in by_stage["statistics"]["contributions"]
    for stage in ("baseline", "joint"):
        found = by_stage[stage]
        assert found["contributions"]["student"] == pytest.approx(0.2 * found["terms"]["student"], rel=1e-5)
        assert found["terms"]["student"] > 0
