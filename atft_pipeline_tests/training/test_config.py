"""The configuration: presets, environment names, refusals, identity."""

from __future__ import annotations

import pytest

from atft_pipeline.training.config import PRESETS, TrainingConfig
from atft_pipeline.training.faults import ConfigError
from atft_pipeline.training.phases import resolve_phases


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_survive_json(preset: str) -> None:
    config = TrainingConfig.resolve(preset, env={})
    assert TrainingConfig.from_json(config.to_json()) == config


def test_the_named_sizes_keep_the_phase_table_of_the_specification() -> None:
    phases = resolve_phases(TrainingConfig.resolve("small", env={}))
    stages = [s for p in phases for s in p.stages]
    assert [s.epochs for s in stages] == [5, 2, 10, 8, 6]
    assert [s.peak_rate for s in stages] == [5e-4, 1e-3, 5e-4, 1e-4, 5e-5]
    assert [p.patience for p in phases] == [None, 5, 5, 4]
    assert [p.clip for p in phases] == [1.0, 1.0, 1.0, 0.5]


def test_t16_rank_ic_and_sharpe_terms_are_on_by_default_in_every_preset() -> None:
    for preset in PRESETS:
        phases = resolve_phases(TrainingConfig.resolve(preset, env={}))
        joint = [s.weights for p in phases for s in p.stages if s.monitored]
        assert all(w.rank > 0 and w.csic > 0 for w in joint) and all(w.sharpe > 0 for w in joint[1:])


def test_t16_environment_values_reach_the_phase_table() -> None:
    env = {"RANKIC_WEIGHT": "0.7", "CS_IC_WEIGHT": "0.4", "SHARPE_WEIGHT": "0.2", "PHASE_MAX_EPOCHS": "2",
           "EARLY_STOP_PATIENCE": "3", "NUM_WORKERS": "2"}  # fmt: skip
    config = TrainingConfig.resolve("small", env=env)
    phases = resolve_phases(config)
    last = phases[-1].stages[-1]
    assert (last.weights.rank, last.weights.csic, last.weights.sharpe) == (0.7, 0.4, 0.2)
    assert all(s.epochs <= 2 for p in phases for s in p.stages) and all(p.patience == 3 for p in phases)
    assert (config.mode, config.workers) == ("workers", 2)
    assert TrainingConfig.resolve("small", env={**env, "FORCE_SINGLE_PROCESS": "1"}).mode == "safe"
    assert TrainingConfig.resolve("small", env={"NUM_WORKERS": "0"}).mode == "safe"
    off = resolve_phases(TrainingConfig.resolve("small", env={"USE_RANKIC": "0"}))
    assert all(s.weights.rank == 0 for p in off for s in p.stages)


@pytest.mark.parametrize(
    "name",
    ["INVERT_PREDICTION_SIGN", "OUTPUT_NOISE_STD", "PRED_STD_MIN", "DEGENERACY_GUARD", "ALLOW_UNSAFE_DATALOADER"],
)
def test_switches_that_hid_defects_stop_the_run(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        TrainingConfig.resolve("demo", env={name: "1"})


def test_unknown_and_malformed_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="hiden"):
        TrainingConfig.resolve("demo", env={}, overrides={"hiden": 32})
    with pytest.raises(ConfigError, match="RANKIC_WEIGHT"):
        TrainingConfig.resolve("demo", env={"RANKIC_WEIGHT": "much"})
    with pytest.raises(ConfigError, match="preset"):
        TrainingConfig.resolve("huge", env={})


def test_only_fields_that_can_change_the_result_change_the_identity() -> None:
    config = TrainingConfig.resolve("demo", env={})
    assert config.with_settings({"checkpoint_every": "3", "retrain": "true"}).identity == config.identity
    assert config.with_settings({"seed": "8"}).identity != config.identity
    assert config.with_settings({"epochs": "[1,1,1,1,1]"}).epochs == (1, 1, 1, 1, 1)
