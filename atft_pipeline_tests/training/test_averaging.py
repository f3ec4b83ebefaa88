"""The averaged weights: what they are, that they are judged, and that a resumed run has the same ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from atft_pipeline.training import checkpoint
from atft_pipeline.training.averaging import WeightAverage
from atft_pipeline.training.faults import Stopped
from atft_pipeline.training.supervisor import run_training
from atft_pipeline_tests.training.conftest import Lines, make_trainer, tiny_config


def test_the_average_follows_its_formula_and_leaves_the_weights_alone() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average, expected = WeightAverage(model, 0.9), 0.0
    for step in range(1, 200):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update(model)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.shadow["weight"].item() == pytest.approx(expected, rel=1e-5)
    with average.in_place_of_the_weights(model):
        assert model.weight.item() == pytest.approx(expected, rel=1e-5)
    assert model.weight.item() == 199.0


def test_the_better_of_raw_and_averaged_weights_is_kept(tiny: Path, tmp_path: Path) -> None:
    folder = run_training(tiny, tmp_path, tiny_config(average_decay=0.9, mc_samples=0, fit_highway=False), Lines())
    records = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    judged = [r for r in records if r["monitored"]]
    assert {r["weights"] for r in judged} == {"raw", "average"}
    for record in judged:
        by_weights = record["rank_ic_by_weights"]
        better = max(by_weights, key=lambda name: by_weights[name])
        assert (record["rank_ic"], record["weights"]) == (by_weights[better], better)
    kept = next(r for r in judged if r["weights"] == "average")
    best = checkpoint.load(folder.checkpoint(kept["phase"], "best"))
    last = checkpoint.load(folder.checkpoint(kept["phase"], "last"))
    name = next(n for n in best["model"] if n.startswith("heads") and n.endswith("weight"))
    if best["epoch"] == kept["epoch"]:
        assert not torch.equal(best["model"][name], last["model"][name])


def test_a_stopped_run_resumes_with_its_average(tiny: Path, tmp_path: Path) -> None:
    config = {"average_decay": 0.9, "epochs": (2, 0, 0, 0, 0), "mc_samples": 0}
    whole = make_trainer(tiny, tmp_path / "whole", **config)
    whole.train()
    half = make_trainer(tiny, tmp_path / "half", **config)
    update, seen = half.heartbeat.update, []

    def stop_at_the_seventh(**fields: object) -> None:
        update(**fields)
        seen.append(fields)
        if sum("loss" in f for f in seen) == 7:
            half.stop.set()

    half.heartbeat.update = stop_at_the_seventh  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        half.train()
    again = make_trainer(tiny, tmp_path / "half", **config)
    again.train()
    one, other = (checkpoint.load(t.folder.checkpoint(0, "last"))["average"]["shadow"] for t in (whole, again))
    for name, value in one.items():
        np.testing.assert_array_equal(value.numpy(), other[name].numpy(), err_msg=name)
