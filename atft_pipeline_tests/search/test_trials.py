"""Trials train for real: failures, stops and values as the files tell them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from atft_pipeline.evaluation.drawing import MAX_BYTES
from atft_pipeline.lake.verify import verify_lake
from atft_pipeline.search import trial as trial_module
from atft_pipeline.search.pictures import search_pictures
from atft_pipeline.search.results import collect, write_results
from atft_pipeline.search.study import StudyFolder, counted, first_number, requeue
from atft_pipeline.search.worker import STOPPED, work
from atft_pipeline.training.__main__ import main as train
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.engine import Trainer
from atft_pipeline.training.faults import ConfigError, TrainingFault
from atft_pipeline_tests.search.tiny_study import plain, tiny_lake, tiny_study


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A worker takes the process's signals; give them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def by_place(folder: StudyFolder) -> dict[int, optuna.trial.FrozenTrial]:
    trials = folder.open().get_trials()
    return {first_number(t, trials): t for t in counted(trials)}


def test_t41_a_failing_trial_is_not_ranked_above_an_honest_negative_and_values_are_those_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_study(tiny_lake(tmp_path, turned=True), trials=3, prune=False)

    class FailsSecond(Trainer):
        def train(self, *given: Any, **named: Any) -> dict[str, Any]:
            if self.config.seed == folder.read_spec().seed + 1:
                raise TrainingFault("the loss is nan")
            return super().train(*given, **named)

    monkeypatch.setattr(trial_module, "Trainer", FailsSecond)
    assert work(folder.path, 0) == 0  # the failure did not end the study
    study = folder.open()
    results = write_results(folder, study)
    rows = results["trials"]
    assert [row["outcome"] for row in rows] == ["complete", "complete", "failed"]
    assert rows[0]["value"] == study.best_value < 0 and rows[1]["value"] < 0
    assert rows[2]["value"] is None and rows[2]["reason"] == "TrainingFault: the loss is nan"
    assert by_place(folder)[1].value is None
    assert results["deflated"]["trials"] == 3
    assert "the loss is nan" in folder.page.read_text() and not list(folder.runs.glob("*/ckpt"))

    assert not [fault for fault in verify_lake(tmp_path).faults if "hpo" in fault.path.parts]
    damaged = shutil.copytree(
        tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("training_panel"), symlinks=True
    )
    database = next(damaged.glob("hpo/*/trials.sqlite"))
    database.write_bytes(b"\0" * 64 + database.read_bytes()[64:])
    assert [(fault.kind, fault.path) for fault in verify_lake(damaged).faults] == [("damaged", database)]

    path = folder.fold(rows[0]["trial"], 1)
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "rank_ic": 0.9}))
    with pytest.raises(ValueError, match="its files"):
        collect(folder, folder.read_spec(), study)
    path.write_text(json.dumps({**found, "trial": 1}))
    with pytest.raises(ValueError, match="is of trial 1"):
        collect(folder, folder.read_spec(), study)


def test_a_stopped_study_goes_on_as_if_nothing_had_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = (tiny_study(tiny_lake(tmp_path / name), trials=5, prune=False) for name in ("whole", "cut"))
    assert work(whole.path, 0) == 0

    write, written = trial_module.write_json, []

    def write_and_stop(path: Path, value: Any) -> None:
        write(path, value)
        written.append(path)
        if len(written) == 3:  # the first fold of the second trial is done
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "write_json", write_and_stop)
        assert work(cut.path, 0) == STOPPED
    assert requeue(cut.open()) == [1]
    modified = cut.fold(1, 0).stat().st_mtime_ns
    assert work(cut.path, 0) == 0
    assert cut.fold(1, 0).stat().st_mtime_ns == modified  # not trained again
    expected, found = by_place(whole), by_place(cut)
    assert {k: plain(t) for k, t in found.items()} == {k: plain(t) for k, t in expected.items()}
    assert len(cut.open().get_trials()) == 6

    results = write_results(whole, whole.open())
    assert set(results["importance"]) == set(results["best"]["params"])
    drawn = search_pictures(results)
    assert len(drawn) == 4 and all(len(png) <= MAX_BYTES for png in drawn.values())
    assert 'src="http' not in whole.page.read_text() and whole.page.read_text().count("data:image/png") == 4
    best_settings_are_taken_only_when_named(tmp_path, whole)


def best_settings_are_taken_only_when_named(tmp_path: Path, folder: StudyFolder) -> None:
    best = json.loads(folder.best.read_text())
    config = TrainingConfig.resolve("demo", env={})
    taken = config.with_overrides(folder.best)
    for name, value in best["overrides"].items():
        assert getattr(taken, name) == (tuple(value) if isinstance(value, list) else value) != getattr(config, name)
    assert "seed" not in best["overrides"] and taken.seed == config.seed
    command = ["--panel", str(tmp_path / "none"), "--runs", str(tmp_path / "runs")]
    assert train([*command, "--preset", "small", "--overrides", str(folder.best)]) == 2
    with pytest.raises(ConfigError, match="use that preset"):
        TrainingConfig.resolve("small", env={}).with_overrides(folder.best)
    with pytest.raises(ConfigError, match="no settings under `overrides`"):
        config.with_overrides(folder.results)
