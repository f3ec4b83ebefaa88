"""The whole loop on a tiny panel: it learns what is there, not what is not, and it fails loudly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atft_pipeline.evaluation import metrics
from atft_pipeline.model.atft_gat_fan import Block, Output
from atft_pipeline.settings import HORIZONS
from atft_pipeline.training import checkpoint
from atft_pipeline.training.batches import BlockSource
from atft_pipeline.training.faults import TrainingFault
from atft_pipeline.training.graph import GraphStore
from atft_pipeline.training.panel_data import load_panel
from atft_pipeline.training.scoring import monitored_series, score_dates
from atft_pipeline.training.summary import liveness
from atft_pipeline.training.supervisor import run_training
from atft_pipeline_tests.training.conftest import Lines, make_trainer, tiny_config
from atft_pipeline_tests.training.tiny_panel import write_tiny_panel


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics_summary.json").read_text())


def test_t11_model_data_loss_and_metrics_agree_on_the_horizons(finished: tuple[Path, Lines], tiny: Path) -> None:
    summary = summary_of(finished[0])
    assert tuple(summary["horizons"]) == load_panel(tiny).horizons == HORIZONS
    assert sorted(summary["val"]["per_horizon"], key=int) == [str(h) for h in HORIZONS]


def test_t11_every_horizon_gets_gradient(tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, tmp_path)
    trainer.config = tiny_config(epochs=(1, 0, 0, 0, 0))
    heads = trainer.model.heads.per_horizon
    before = [head[-1].weight.detach().clone() for head in heads]  # type: ignore[index,union-attr]
    trainer.phases = trainer.phases[:1]
    trainer.train()
    assert all(not torch.equal(a, head[-1].weight) for a, head in zip(before, heads, strict=True))  # type: ignore[index,union-attr]


def test_t29_the_documents_belong_to_this_run_and_carry_the_schema(finished: tuple[Path, Lines]) -> None:
    folder, reporter = finished
    summary, latest = summary_of(folder), json.loads((folder / "latest_metrics.json").read_text())
    wanted = {"run_id", "git_rev", "seed", "config_hash", "feature_hash", "n_features", "n_params", "split", "phase",
              "epoch", "lr", "train", "val", "model", "throughput", "precision", "oom_events",
              "Sharpe", "IC", "RankIC", "HitRate"}  # fmt: skip
    assert wanted <= set(summary) and wanted - {"degeneracy"} <= set(latest)
    assert summary["run_id"] == latest["run_id"] == folder.name == reporter.results[0][1]
    assert "NaN" not in (folder / "metrics_summary.json").read_text()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(r["phase"], r["stage"]) for r in lines] == [
        (0, "baseline"), (1, "statistics"), (1, "joint"), (2, "graph"), (2, "graph"), (3, "fine_tune"),
    ]  # fmt: skip
    assert (folder.parent / "last").resolve() == folder and json.loads((folder / "status.json").read_text())[
        "state"
    ] == "complete"


def test_t29_a_summary_of_another_run_is_refused(tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, tmp_path)
    trainer.folder.summary.write_text(json.dumps({"run_id": "somebody else"}))
    with pytest.raises(ValueError, match="somebody else"):
        trainer.folder.read_summary()


def test_scores_cover_every_date_from_the_first_full_window_to_the_newest(
    finished: tuple[Path, Lines], tiny: Path
) -> None:
    panel, scores = load_panel(tiny), np.load(finished[0] / "scores.npy")
    quantiles = np.load(finished[0] / "quantiles.npy")
    valid = panel.windows(20, 0.8)
    valid[valid.sum(axis=1) < 20] = False
    assert scores.shape == (130, 30, 6) and scores.dtype == np.float32 and quantiles.shape == (130, 30, 6, 5)
    np.testing.assert_array_equal(np.isfinite(scores).all(axis=2), valid)
    assert (np.diff(quantiles[valid], axis=-1) >= 0).all()
    dates = panel.part("valid")
    y = np.where(panel.tradable[..., None], panel.labels(1), np.nan)[dates.start : dates.stop]
    shown = summary_of(finished[0])["val"]["per_horizon"]["1"]["rankic"]
    own = metrics.rank_ic(scores[dates.start : dates.stop, :, 0], y[..., 0])
    assert shown == pytest.approx(np.nanmean(own), abs=1e-9)


def test_t27_scores_do_not_depend_on_the_block_size_and_are_repeatable(
    finished: tuple[Path, Lines], tiny: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny, tmp_path)
    trainer.load_result(checkpoint.load(finished[0] / "ckpt" / "final.pt"))
    dates = trainer.panel.part("valid")
    by_size = [score_dates(trainer.model, trainer.source, dates, dates_per_block=n)[0] for n in (1, 3, 14, 14)]
    assert np.isfinite(by_size[0]).any()
    for scores in by_size[1:]:
        np.testing.assert_array_equal(by_size[0], scores)


@pytest.mark.parametrize("gates_open", [False, True])
def test_t12_every_score_up_to_any_date_keeps_every_bit_when_all_later_dates_are_replaced(
    finished: tuple[Path, Lines], tiny: Path, tmp_path: Path, gates_open: bool
) -> None:
    """Values, masks and returns after s, for s at every place of a block; graph and adaptive normalisation included."""
    result, trainer = checkpoint.load(finished[0] / "ckpt" / "final.pt"), make_trainer(tiny, tmp_path)
    trainer.load_result(result)
    if gates_open:
        with torch.no_grad():
            for gate in trainer.model.parameter_groups()["gates"]:
                gate.add_(0.3)
    dates = range(80, 104)
    before, quantiles = score_dates(trainer.model, trainer.source, dates, dates_per_block=8)
    assert np.isfinite(before).any(axis=(1, 2)).all()
    for s in (81, 88, 90, 91, 92, 97):
        later = make_trainer(tiny, tmp_path / str(s))
        later.load_result(result)
        later.model.load_state_dict(trainer.model.state_dict())
        panel, rng = later.panel, np.random.default_rng(s)
        for array in (panel.x, panel.returns, panel.y):
            array[s + 1 :] = rng.normal(size=array[s + 1 :].shape) * 3  # mapped copy-on-write: the file stays as it is
        for mask in (panel.row_ok, panel.tradable):
            mask[s + 1 :] = rng.random(mask[s + 1 :].shape) > 0.05
        graphs = GraphStore(panel)
        source = BlockSource(
            panel, graphs, length=20, min_window_share=0.8, min_cross_section=20, device=torch.device("cpu")
        )
        after, after_quantiles = score_dates(later.model, source, dates, dates_per_block=8)
        known = s + 1 - dates.start
        np.testing.assert_array_equal(before[:known], after[:known])
        np.testing.assert_array_equal(quantiles[:known], after_quantiles[:known])
        assert not np.array_equal(before[known:], after[known:], equal_nan=True)


def test_liveness_numbers_prove_that_graph_and_gates_learnt(finished: tuple[Path, Lines]) -> None:
    alive = summary_of(finished[0])["liveness"]
    assert alive["graph_grad_norm"] > 1e-6 and alive["gates_grad_norm"] > 1e-6 and alive["edges_per_date"] > 1
    baseline = set(alive["stages"]["phase0/baseline"]["grad_norm"])
    assert baseline == {"selection", "static", "temporal", "fusion", "heads"}


def test_a_dead_block_shows_in_the_liveness_numbers_and_a_frozen_one_does_not(finished: tuple[Path, Lines]) -> None:
    history = [json.loads(line) for line in (finished[0] / "metrics.jsonl").read_text().splitlines()]
    graph = [r for r in history if r["phase"] == 2]
    assert "temporal" not in graph[0]["model"]["grad_norm"] and graph[1]["model"]["grad_norm"]["temporal"] > 0
    graph[1]["model"]["grad_norm"]["graph"] = 0.0
    assert liveness(history)["graph_grad_norm"] == 0.0 and liveness(history[:4])["graph_grad_norm"] > 1e-6
    assert liveness(history[:4])["gates_grad_norm"] > 1e-6


def test_t52_a_graph_without_edges_stops_the_graph_phase(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loops_only(self: GraphStore, day: int, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nodes = np.arange(len(columns))
        return np.stack([nodes, nodes]), np.ones((len(columns), 3), np.float32)

    monkeypatch.setattr(GraphStore, "edges", loops_only)
    trainer = make_trainer(tiny, tmp_path, epochs=(1, 0, 0, 1, 0))
    with pytest.raises(TrainingFault, match="no edge beside self-loops"):
        trainer.train()


def test_constant_scores_stop_the_run(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(tiny, tmp_path, epochs=(3, 0, 0, 0, 0))
    score = trainer.model.score_each_date

    def constant(block: Block) -> Output:
        output = score(block)
        return replace(output, score=output.score * 1e-7)

    monkeypatch.setattr(trainer.model, "score_each_date", constant)
    with pytest.raises(TrainingFault, match="collapsed"):
        trainer.train()


def test_a_non_finite_loss_stops_the_run_and_leaves_a_report(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atft_pipeline.training import losses

    monkeypatch.setattr(losses, "huber", lambda score, targets: score.mean(dim=1) * float("nan"))
    reporter = Lines()
    with pytest.raises(TrainingFault, match="huber=nan"):
        run_training(tiny, tmp_path, tiny_config(epochs=(1, 0, 0, 0, 0)), reporter)
    report = json.loads((tmp_path / "last" / "failure_report.json").read_text())
    assert report["type"] == "TrainingFault" and report["where"]["phase"] == 0 and report["where"]["step"] == 1
    assert report["traceback"] and json.loads((tmp_path / "last" / "status.json").read_text())["state"] == "failed"
    monkeypatch.undo()
    folder = run_training(tiny, tmp_path, tiny_config(epochs=(1, 0, 0, 0, 0)), reporter)
    assert folder.complete and not (folder.path / "failure_report.json").exists()


def learn(tmp_path: Path, steps: int, **panel: Any) -> tuple[np.ndarray, np.ndarray]:
    """Train the baseline for about `steps` steps; returns validation scores and labels of the 1-day horizon."""
    write_tiny_panel(tmp_path / "panel", dates=150, stocks=40, **panel)
    trainer = make_trainer(
        tmp_path / "panel", tmp_path / "runs", epochs=(steps // 6, 0, 0, 0, 0), hidden=16, min_delta=5e-4,
        learning_rates=(2e-2, 1e-3, 1e-3, 1e-3, 1e-3), warmup_min_steps=5,
    )  # fmt: skip
    trainer.train()
    dates = trainer.panel.part("valid")
    scores, _ = score_dates(trainer.model, trainer.source, dates, dates_per_block=8)
    return scores[..., 0], trainer.panel.labels(1)[dates.start : dates.stop, :, 0]


def test_t30_a_leaked_label_is_learnt_at_once(tmp_path: Path) -> None:
    scores, y = learn(tmp_path, 96, leak=True)
    assert np.nanmean(metrics.rank_ic(scores, y)) > 0.9


def test_t30_noise_is_not_learnt(tmp_path: Path) -> None:
    scores, y = learn(tmp_path, 48)
    found = metrics.summarise(scores, y, 1)["rank_ic"]
    assert abs(found["mean"]) < 3 * max(found["se"], 1 / np.sqrt(39 * found["n_dates"]))


def test_t31_a_planted_linear_signal_is_recovered(tmp_path: Path) -> None:
    scores, y = learn(tmp_path, 72, linear=0.8)
    ceiling = 0.8 / np.sqrt(1 + 0.8**2)
    assert np.nanmean(metrics.ic(scores, y)) > 0.6 * ceiling


def test_t31_what_only_the_neighbours_show_is_learnt_when_the_graph_comes_on(tmp_path: Path) -> None:
    write_tiny_panel(tmp_path / "panel", dates=260, stocks=60, linear=0.8, lagged_peers=2.0, cluster=6, curved=True)
    trainer = make_trainer(
        tmp_path / "panel", tmp_path / "runs", epochs=(3, 0, 0, 4, 0), hidden=16, min_delta=5e-4, warmup_min_steps=5,
        learning_rates=(2e-2, 1e-3, 1e-3, 1e-2, 1e-3), fit_highway=False,  # the network alone
    )  # fmt: skip
    final = trainer.train()
    dates, series = trainer.panel.part("valid"), []
    for result in (checkpoint.load(trainer.folder.checkpoint(0, "best")), final):
        trainer.load_result(result)
        scores, _ = score_dates(trainer.model, trainer.source, dates, dates_per_block=8)
        series.append(monitored_series(scores, trainer.panel, dates, 1, 20))
    gain = metrics.summarise_series(series[1] - series[0], max(HORIZONS) - 1)
    assert final["graph"] and gain["mean"] > 0.05 and gain["mean"] > 3 * gain["se"]
