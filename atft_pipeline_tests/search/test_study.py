"""Trials are counted once, ranked without invented numbers, and come back after their process died."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from atft_pipeline.dataset.splits import embargo_days
from atft_pipeline.evaluation.drawing import MAX_BYTES
from atft_pipeline.search import space
from atft_pipeline.search.conduct import SearchSettings
from atft_pipeline.search.pictures import search_pictures
from atft_pipeline.search.study import (
    MAX_ATTEMPTS,
    StudyFolder,
    claim,
    counted,
    first_number,
    objective,
    ranked,
    requeue,
)
from atft_pipeline.training.config import PRESETS, TrainingConfig
from atft_pipeline.training.faults import ConfigError
from atft_pipeline.training.phases import resolve_phases
from atft_pipeline_tests.search.tiny_study import tiny_lake, tiny_study


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return tiny_study(tiny_lake(tmp_path), trials=4)


def places(study: optuna.Study) -> list[int]:
    trials = study.get_trials(deepcopy=False)
    return [first_number(t, trials) for t in counted(trials)]


def test_the_objective_is_the_mean_less_half_its_error_over_folds() -> None:
    # mean 0.03, deviation sqrt(((.02-.03)^2 + (.04-.03)^2) / 1), error / sqrt(2) = 0.01
    assert objective([0.02, 0.04]) == pytest.approx(0.03 - 0.5 * 0.01)
    assert objective([0.05]) == 0.05


@pytest.mark.parametrize("values", [[0.1, math.nan], [-math.inf, 0.1], []])
def test_an_undefined_fold_never_becomes_a_number(values: list[float]) -> None:
    with pytest.raises(ValueError, match="undefined"):
        objective(values)


def test_t41_a_failed_or_pruned_trial_ranks_below_every_honest_negative(folder: StudyFolder) -> None:
    study = folder.open()
    for worker, value in enumerate((-0.9, None, "pruned", -0.01)):
        trial = claim(folder, study, worker)
        assert trial is not None
        if value is None:
            trial.set_user_attr("reason", "TrainingFault: the loss is nan")
            study.tell(trial, state=TrialState.PRUNED)
        elif value == "pruned":
            trial.report(0.3, 0)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value)
    order = ranked(study.get_trials())
    assert [t.value for t in order][:2] == [-0.01, -0.9]
    assert [t.number for t in order] == [3, 0, 2, 1]
    assert study.best_value == -0.01


def test_no_more_trials_than_wanted_exist_and_a_longer_study_goes_on(folder: StudyFolder) -> None:
    one, two = folder.open(), folder.open()
    claimed = [claim(folder, study, 1) for study in (one, two, one, two, one)]
    assert claimed[4] is None and places(one) == [0, 1, 2, 3]
    assert claimed[0] is not None and claimed[0].params == space.start_point()
    longer = folder.read_spec().__class__(**{**folder.read_spec().__dict__, "trials": 5})
    assert longer.id == folder.read_spec().id
    folder.write_spec(longer)
    assert claim(folder, one, 1) is not None


def test_the_trial_of_a_dead_worker_comes_back_with_its_values_and_its_place(folder: StudyFolder) -> None:
    study = folder.open()
    alive, dead = claim(folder, study, 11), claim(folder, study, 12)
    assert alive is not None and dead is not None
    assert requeue(study, 12) == [1]
    again = claim(folder, study, 13)
    assert again is not None and again.params == dead.params and first_number(again) == 1
    assert requeue(study, 12) == []
    assert [t.state for t in study.get_trials()] == [TrialState.RUNNING, TrialState.FAIL, TrialState.RUNNING]
    assert first_number(claim(folder, study, 13)) == 2  # type: ignore[arg-type]
    assert places(study) == [0, 1, 2]


def test_a_trial_killed_between_two_values_gets_the_same_ones(folder: StudyFolder) -> None:
    study = folder.open()
    claim(folder, study, 1)
    whole = claim(folder, study, 1)
    other = tiny_study_again(folder)
    claim(other, other.open(), 1)
    half = other.open().ask()  # as if killed before the table was gone through
    half.suggest_float("rate", 0.25, 4.0, log=True)
    requeue(other.open())
    found = [t for t in (claim(other, other.open(), 2), claim(other, other.open(), 2)) if t is not None]
    assert whole is not None and found[1].params == whole.params and first_number(found[1]) == 1


def tiny_study_again(folder: StudyFolder) -> StudyFolder:
    other = StudyFolder(folder.path.with_name("other"))
    other.path.mkdir()
    other.write_spec(folder.read_spec())
    return other


def test_a_trial_that_kills_its_process_is_given_up(folder: StudyFolder) -> None:
    study = folder.open()
    for attempt in range(MAX_ATTEMPTS):
        trial = claim(folder, study, attempt)
        assert trial is not None and first_number(trial) == 0
        assert requeue(study) == ([0] if attempt + 1 < MAX_ATTEMPTS else [])
    assert first_number(claim(folder, study, 9)) == 1  # type: ignore[arg-type]


def test_folds_are_purged_and_end_before_the_test_part(folder: StudyFolder) -> None:
    spec = folder.read_spec()
    assert len(spec.folds) == 2
    for train, valid in spec.folds:
        assert valid[0] - train[1] >= embargo_days()
    with pytest.raises(ConfigError, match="at least 2"):
        SearchSettings(folds=1)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_corner_of_the_space_is_a_sound_configuration(preset: str, folder: StudyFolder) -> None:
    base = TrainingConfig.resolve(preset, env={})
    spec = folder.read_spec().__class__(**{**folder.read_spec().__dict__, "config": base.to_json()})
    for corner in (0, -1):
        config = spec.config_of({p.name: p.bounds[corner] for p in space.SPACE}, 3)
        assert config.hidden % config.attention_heads == 0 and config.seed == spec.seed + 3
        assert resolve_phases(config)[1].stages[-1].weights.rank == space.SPACE[5].bounds[corner]
    start = spec.config_of(space.start_point(), 0)
    assert (start.learning_rates, start.hidden, start.dropout) == (base.learning_rates, base.hidden, base.dropout)


@pytest.mark.parametrize("trials", [1, 20, 1000])
def test_pictures_of_any_study_fit_into_metadata(trials: int) -> None:
    rng = np.random.default_rng(0)
    kinds = ["complete", *rng.choice(["complete", "pruned", "failed"], trials - 1)]
    rows = [
        {
            "trial": i,
            "outcome": kind,
            "value": float(rng.normal()) if kind == "complete" else None,
            "phases": rng.normal(size=3).tolist(),
            "params": {p.name: float(rng.choice(p.bounds) if i % 3 else p.start) for p in space.SPACE},
        }
        for i, kind in enumerate(kinds)
    ]
    importance = {p.name: 1 / len(space.SPACE) for p in space.SPACE}
    drawn = search_pictures({"trials": rows, "best": rows[0], "importance": importance})
    assert len(drawn) == 4 and max(map(len, drawn.values())) <= MAX_BYTES
