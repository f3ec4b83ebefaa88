"""The highway's start: it finds what is planted, by the rule it states, from training dates alone."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atft_pipeline.evaluation import metrics
from atft_pipeline.training import highway_start
from atft_pipeline.training.batches import Days
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.elastic_net import FOLDS
from atft_pipeline.training.engine import Trainer
from atft_pipeline.training.highway_start import fold_numbers
from atft_pipeline.training.monitor import Heartbeat
from atft_pipeline.training.panel_data import load_panel
from atft_pipeline.training.runs import open_run
from atft_pipeline_tests.training.conftest import Lines
from atft_pipeline_tests.training.tiny_panel import write_tiny_panel

SIZES = {"hidden": "8", "value_width": "4", "sequence_length": "20", "threads": "1", "mc_samples": "0"}


def started(folder: Path, panel: Path) -> tuple[Trainer, dict[str, Any]]:
    """A trainer whose highway has been fitted, and the record of the fit."""
    data = load_panel(panel)
    config = TrainingConfig.resolve("demo", env={}).with_settings(SIZES)
    run = open_run(folder, data.hash, config)
    trainer = Trainer(config, data, run, Lines(), Heartbeat(run.path / "heartbeat.json", 60), threading.Event())
    trainer._start_highway(trainer.phases[0])
    return trainer, json.loads(run.highway.read_text())["own"]


def strongest(record: dict[str, Any], count: int) -> set[str]:
    """The terms with the largest weights at the 1-day horizon."""
    return {name for name, _ in sorted(record["terms"], key=lambda term: -abs(term[1][0]))[:count]}


def test_no_fold_judges_a_date_whose_label_another_fold_has_seen() -> None:
    blocks = [Days(first, 8) for first in range(59, 659, 8)]
    reach = 21
    numbers = fold_numbers(blocks, reach)
    assert set(numbers) == set(range(2 * FOLDS))
    for fold in range(FOLDS):
        judged = [b for b, n in zip(blocks, numbers, strict=True) if n == fold]
        others = [b for b, n in zip(blocks, numbers, strict=True) if n % FOLDS != fold]
        for a in judged:
            for b in others:
                apart = b.first - (a.first + a.count - 1) if b.first > a.first else a.first - (b.first + b.count - 1)
                assert apart > reach - 1


def test_a_linear_signal_and_its_carriers_are_found(tmp_path: Path) -> None:
    panel = write_tiny_panel(tmp_path / "panel", dates=400, stocks=60, linear=0.3)
    trainer, record = started(tmp_path / "runs", panel)
    assert strongest(record, 3) == {"feature_5", "feature_6", "feature_7"}
    scores = trainer.score_validation()[..., 0]
    y = trainer.panel.y[trainer.validator.dates.start : trainer.validator.dates.stop, :, 1, 0]
    assert np.nanmean(metrics.rank_ic(scores, y)) > 0.2  # planted: 0.3 / sqrt(1 + 0.3^2) = 0.29
    assert record["left_out_correlation"]["1"] == pytest.approx(0.29, abs=0.06)


def test_products_without_an_effect_of_either_factor_are_found(tmp_path: Path) -> None:
    panel = write_tiny_panel(tmp_path / "panel", dates=400, stocks=60, linear=0.4, curved=True)
    _, record = started(tmp_path / "runs", panel)
    assert strongest(record, 3) == set(record["products"][:3])
    leading = [[side.split()[1].strip(")") for side in product.split(") x (")] for product in record["products"][:3]]
    assert sorted(leading) == [[f"feature_{i}"] * 2 for i in (5, 6, 7)]


@pytest.mark.parametrize("masked", [True, False])
def test_what_is_the_same_for_all_stocks_of_a_date_is_no_part_of_a_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masked: bool
) -> None:
    """Labels follow feature 5 x (feature 7 + a regime in feature 3); without the mask the regime is found as well."""
    if not masked:
        monkeypatch.setattr(highway_start, "LEAST_SPREAD", -1.0)
    trainer, _ = started(tmp_path / "runs", write_tiny_panel(tmp_path / "panel", dates=400, stocks=60))
    rng = np.random.default_rng(3)
    x = trainer.source._x = trainer.source._x.clone()
    x[:, :, 3] = torch.from_numpy(rng.choice([-1.0, 1.0], size=(len(x), 1)))
    span = slice(trainer.targets.dates.start, trainer.targets.dates.stop)
    planted = 0.3 * x[span, :, 5].float() * (x[span, :, 7].float() + x[span, :, 3].float())
    known = trainer.targets.mask
    labels = planted.numpy() + rng.normal(size=planted.shape)
    trainer.targets.standardised[:] = np.where(known, labels[:, :, None], 0)
    trainer._start_highway(trainer.phases[0])
    products = json.loads(trainer.folder.highway.read_text())["own"]["products"]
    assert any("feature_5" in product and "feature_7" in product for product in products)
    assert any("feature_3" in product for product in products) is not masked


def test_in_noise_next_to_nothing_is_found(tmp_path: Path) -> None:
    panel = write_tiny_panel(tmp_path / "panel", dates=400, stocks=60)
    trainer, record = started(tmp_path / "runs", panel)
    assert record["left_out_correlation"]["1"] < 3 / record["rows"] ** 0.5 * FOLDS**0.5
    scores = trainer.score_validation()[..., 0]
    y = trainer.panel.y[trainer.validator.dates.start : trainer.validator.dates.stop, :, 1, 0]
    series = metrics.rank_ic(scores, y)
    assert abs(np.nanmean(series)) < 3 * np.nanstd(series) / np.isfinite(series).sum() ** 0.5


def test_what_only_the_neighbours_show_is_found_when_the_graph_comes_on_and_not_on_other_edges(tmp_path: Path) -> None:
    panel = write_tiny_panel(tmp_path / "panel", dates=700, stocks=64, lagged_peers=0.5, carriers=(1, 2))
    trainer, _ = started(tmp_path / "runs", panel)
    graph_phase = next(phase for phase in trainer.phases if phase.graph)

    def neighbours() -> dict[str, Any]:
        trainer._start_highway(graph_phase)
        return dict(trainer.folder.read_highway()["neighbours"])

    found = neighbours()
    assert {"neighbours' feature_1", "neighbours' feature_2"} == strongest(found, 2)
    assert found["left_out_correlation"]["1"] > 0.1
    drawn = trainer.graphs.graph

    def elsewhere(day: int) -> Any:
        graph = drawn(day)
        nodes = np.unique(graph.source)
        moved = np.zeros(len(trainer.panel.codes), graph.source.dtype)
        moved[nodes] = np.roll(nodes, len(nodes) // 2)
        return replace(graph, target=moved[graph.target])

    trainer.graphs.graph = elsewhere  # type: ignore[method-assign]
    assert neighbours()["left_out_correlation"]["1"] < 0.03


def test_beside_it_the_untrained_network_is_quiet_and_not_silent(tmp_path: Path) -> None:
    panel = write_tiny_panel(tmp_path / "panel", dates=300, linear=0.3)
    trainer, _ = started(tmp_path / "runs", panel)
    both = trainer.score_validation()
    with torch.no_grad():
        trainer.model.highway.weight.zero_()
    network = trainer.score_validation()
    assert np.nanstd(network) > 1e-4
    assert np.nanstd(network) < 0.1 * np.nanstd(both)


def test_nothing_after_the_training_dates_is_read(tmp_path: Path) -> None:
    kept = write_tiny_panel(tmp_path / "panel", dates=300, linear=0.3)
    trainer, _ = started(tmp_path / "a", kept)
    end = trainer.panel.part("train").stop
    other = Trainer(
        trainer.config, trainer.panel, trainer.folder, Lines(), trainer.heartbeat, threading.Event()
    )  # its mapped copy is its own
    other.source._x = other.source._x.clone()
    other.source._x[end:] = 7.0
    other.targets.standardised[len(other.targets.dates) :] = 9.0
    other._start_highway(other.phases[0])
    assert torch.equal(other.model.highway.weight, trainer.model.highway.weight)
    other.source._x[end - 1] = 7.0  # the last training date is read
    other._start_highway(other.phases[0])
    assert not torch.equal(other.model.highway.weight, trainer.model.highway.weight)


def test_a_span_too_short_for_folds_takes_the_universal_threshold(tmp_path: Path) -> None:
    panel = write_tiny_panel(tmp_path / "panel", dates=150, linear=0.4)
    _, record = started(tmp_path / "runs", panel)
    assert set(record["left_out_correlation"].values()) == {None}
    assert strongest(record, 3) == {"feature_5", "feature_6", "feature_7"}


def test_the_rows_are_thinned_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = write_tiny_panel(tmp_path / "panel", dates=300, linear=0.3)
    _, whole = started(tmp_path / "a", panel)
    monkeypatch.setattr(highway_start, "MAX_ROWS", whole["rows"] // 3)
    _, thinned = started(tmp_path / "b", panel)
    assert thinned["rows"] <= whole["rows"] / 3 * 1.1


@pytest.mark.parametrize("agrees", [True, False])
def test_the_graph_phase_keeps_the_neighbours_terms_although_no_epoch_improves(tmp_path: Path, agrees: bool) -> None:
    panel = load_panel(write_tiny_panel(tmp_path / "panel", dates=500, stocks=64, lagged_peers=0.5, carriers=(1, 2)))
    settings = {**SIZES, "epochs": "[1,0,0,1,0]", "min_delta": "1.0"}  # nothing gains as much as that
    config = TrainingConfig.resolve("demo", env={}).with_settings(settings)
    run = open_run(tmp_path / "runs", panel.hash, config)
    trainer = Trainer(config, panel, run, Lines(), Heartbeat(run.path / "heartbeat.json", 60), threading.Event())
    if not agrees:
        trainer.validator.rank_ic = lambda scores: -1.0  # type: ignore[method-assign]
    phases = []
    result = trainer.train(after_phase=lambda phase, progress: phases.append((phase.number, progress.best_epoch)))
    assert phases == [(0, 1), (2, 0 if agrees else None)]
    assert result["graph"] is agrees
    assert bool(trainer.model.highway.weight[:, trainer.model.highway.peers].any()) is agrees
    assert (result["rank_ic"] > 0.1) is agrees
