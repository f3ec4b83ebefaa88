"""Planted faults in a finished workplace: the gate closes, and what lies behind it does not run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from atft_pipeline.dataset.contract import contract_of
from atft_pipeline.dataset.scaling import fit_statistics
from atft_pipeline.evaluation.judge import judge_run, store_verdict
from atft_pipeline.evaluation.scorecard import evaluate_run
from atft_pipeline.settings import Settings
from atft_pipeline.steps import last_run, load_panel, split_of
from atft_pipeline_tests.whole.conftest import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("whole")]


def events(output: str, step: str) -> bool:
    return f"- {step} - STEP_START" in output


def test_a_missing_feature_group_stops_the_dataset_and_training(finished: Workplace, tmp_path: Path) -> None:
    place = finished.copy(tmp_path / "place")
    shutil.rmtree(place.lake / "features" / "flow")
    before = (place.lake / "dataset" / "metadata.json").read_bytes()
    selection = "dataset,normalization_stats,training_panel,model"
    code, output = place.run("asset", "materialize", "--select", selection)
    assert code == 1 and "flow" in output and not events(output, "model")
    assert (place.lake / "dataset" / "metadata.json").read_bytes() == before


def test_a_dataset_without_a_group_fails_its_check_and_names_it(finished: Workplace, tmp_path: Path) -> None:
    """The files themselves are cut, as a broken writer would leave them; training alone is asked for."""
    place = finished.copy(tmp_path / "place")
    for path in (place.lake / "dataset").glob("*.parquet"):
        from atft_pipeline.lake.store import read_table, write_table

        frame = read_table(path)
        write_table(path, frame.select([c for c in frame.columns if not c.startswith("flow_")]), keys=("code", "date"))
    code, output = place.run("asset", "materialize", "--select", "model")
    assert code == 1 and "flow" in output
    code, output = place.run("asset", "materialize", "--select", "training_panel,model")
    assert code == 1 and not events(output, "model")


def test_statistics_of_five_rows_stop_training(finished: Workplace, tmp_path: Path) -> None:
    place = finished.copy(tmp_path / "place")
    panel = load_panel(place.lake)
    split = split_of(panel)
    five = np.zeros_like(panel.universe)
    five[split.train[0], np.flatnonzero(panel.universe[split.train[0]])[:5]] = True
    fit_statistics(place.lake, contract_of("standard"), panel.axes, panel.universe, split, sample=five)
    code, output = place.run("asset", "materialize", "--select", "training_panel,model")
    assert code == 1 and "statistics rest on too little" in output and not events(output, "model")


def test_constant_scores_block_the_predictions(finished: Workplace, tmp_path: Path) -> None:
    place = finished.copy(tmp_path / "place")
    run = last_run(place.lake)
    scores = np.load(place.lake / "runs" / run / "scores.npy")
    np.save(place.lake / "runs" / run / "scores.npy", np.where(np.isfinite(scores), np.float32(0.1), np.nan))
    shutil.rmtree(place.lake / "predictions")
    code, output = place.run("asset", "materialize", "--select", "evaluation,predictions")
    assert code == 1 and "degeneracy" in output and not events(output, "predictions")
    code, output = place.run("asset", "materialize", "--select", "predictions", name="alone")
    assert code == 1 and "may not give predictions" in output
    assert not (place.lake / "predictions").exists()


def test_a_model_without_edges_is_not_promoted(finished: Workplace, tmp_path: Path) -> None:
    place = finished.copy(tmp_path / "place")
    summary = place.lake / "runs" / last_run(place.lake) / "metrics_summary.json"
    record = json.loads(summary.read_text())
    record["liveness"]["edges_per_date"] = 0.0
    summary.write_text(json.dumps(record))
    card = evaluate_run(place.lake, last_run(place.lake))
    verdicts = judge_run(card, Settings.from_env(place.environment).thresholds)
    assert not verdicts["liveness"].passed and "edges" in verdicts["liveness"].message
    assert not store_verdict(place.lake, last_run(place.lake), verdicts, card["panel_hash"])
