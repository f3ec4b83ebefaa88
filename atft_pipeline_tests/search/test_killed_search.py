"""A search of 20 trials, killed by SIGKILL in the middle of one, as real processes; and the Dagster job around it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from optuna.trial import TrialState

from atft_pipeline.definitions import defs
from atft_pipeline.defs import search as search_defs
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.defs.search import HPO_STUDY, hpo
from atft_pipeline.defs.train_process import TrainingProcess
from atft_pipeline.lake.store import read_json
from atft_pipeline.lake.verify import verify_lake
from atft_pipeline.search.conduct import Crew
from atft_pipeline.search.space import start_point
from atft_pipeline.search.study import StudyFolder, outcome
from atft_pipeline_tests.search.tiny_study import TINY, tiny_lake, tiny_study
from atft_pipeline_tests.training.conftest import Lines

TRIALS = 20
SETTINGS = {**TINY, "epochs": "[1, 0, 0, 0, 0]"}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
PATIENCE_SECONDS = 180.0


def start(lake: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "atft_pipeline.search", "run", "--lake", str(lake), "--trials", str(TRIALS)]
    for name, value in SETTINGS.items():
        command += ["--set", f"{name}={value}"]
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def pipeline(data_dir: Path) -> Pipeline:
    return Pipeline(overrides={"ATFT_DATA_DIR": str(data_dir), "ATFT_MARKET": "simulated"})


def wait_for(condition: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert child.poll() is None and time.monotonic() < end, child.communicate()[0]
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


@pytest.mark.slow
def test_twenty_trials_survive_sigkill_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = tiny_lake(tmp_path / "simulated")
    folder = StudyFolder(lake / "hpo" / "last")
    child = start(lake)
    # In the middle of the fourth trial, which cannot be pruned yet: one fold is done, the other trains.
    wait_for(folder.fold(3, 0).exists, child)
    child.kill()
    child.communicate()
    study = folder.open()
    before = {t.number: t.value for t in study.get_trials() if t.state == TrialState.COMPLETE}
    running = [t for t in study.get_trials() if t.state == TrialState.RUNNING]
    worker = study.get_trials()[0].user_attrs["worker"]
    end = time.monotonic() + 10
    while not gone(worker) and time.monotonic() < end:
        time.sleep(0.02)
    assert gone(worker), "the worker outlived the search that started it"
    assert len(running) == 1 and len(before) == 3
    measured = folder.fold(3, 0).stat().st_mtime_ns

    assert not [fault for fault in verify_lake(lake).faults if "hpo" in fault.path.parts]

    # It goes on as the Dagster job. The tiny panel has no dataset behind it, so the gate before is left out here.
    monkeypatch.setattr(search_defs, "require_trainable", lambda *_: None)
    monkeypatch.setattr(search_defs, "die_with_parent", lambda: None)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    done = hpo.execute_in_process(
        run_config={
            "ops": {"search_hyperparameters": {"config": {"trials": TRIALS, "overrides": SETTINGS, "preset": "demo"}}}
        },
        resources={"pipeline": pipeline(tmp_path), "training_process": TrainingProcess()},
    )
    assert folder.fold(3, 0).stat().st_mtime_ns == measured  # a finished fold is not trained again
    trials = folder.open().get_trials()
    assert not [t for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    assert {number: trials[number].value for number in before} == before
    results = read_json(folder.results)
    rows = results["trials"]
    assert sorted(row["trial"] for row in rows) == list(range(TRIALS))
    assert {row["outcome"] for row in rows} == {"complete", "pruned"}
    resumed = next(t for t in trials if t.user_attrs.get("retry_of") == running[0].number)
    assert outcome(resumed) in ("complete", "pruned") and resumed.params == running[0].params
    assert results["attempts"] == TRIALS + 1
    assert results["deflated"]["trials"] == TRIALS and folder.page.exists() and folder.best.exists()
    assert not [fault for fault in verify_lake(lake).faults if "hpo" in fault.path.parts] and not folder.runs.exists()
    metadata = done.asset_materializations_for_node("search_hyperparameters")[0].metadata
    assert metadata["trials"].value == TRIALS and metadata["best_objective"].value == results["best"]["value"]
    assert "data:image/png" in str(metadata["History"].value)


@pytest.mark.slow
def test_a_trial_whose_worker_died_unsigned_is_not_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    folder, lines = tiny_study(tiny_lake(tmp_path), trials=1), Lines()
    study = folder.open()
    study.ask()  # what a worker does first; killed here, it has not said yet that the trial is its own
    Crew(folder, 1, study, lines, threading.Event()).run()
    first, second = study.get_trials()
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert second.user_attrs["first"] == 0 and second.params == start_point()
    assert "trials [0] were left open" in lines.lines[0]


def test_the_search_is_in_no_other_job_and_in_no_selection_of_everything() -> None:
    repository = defs.get_repository_def()
    for job in ("full_rebuild", "nightly", "retrain"):
        assert not [node.name for node in repository.get_job(job).nodes if "search" in node.name or "hpo" in node.name]
    everything = dg.AssetSelection.from_string("*").resolve(repository.asset_graph)
    assert HPO_STUDY.key in repository.asset_graph.get_all_asset_keys() and HPO_STUDY.key not in everything
    assert "hpo" in repository.job_names


def test_a_search_without_a_dataset_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_defs, "die_with_parent", lambda: None)
    resources = {"pipeline": pipeline(tmp_path), "training_process": TrainingProcess()}
    result = hpo.execute_in_process(resources=resources, raise_on_error=False)
    assert not result.success and not (tmp_path / "simulated" / "hpo").exists()
