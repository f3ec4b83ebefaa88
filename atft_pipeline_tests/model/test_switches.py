"""Which parameters learn under which switches, and that the groups of the phase table cover them all."""

from __future__ import annotations

import pytest
import torch

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN, ModelConfig
from atft_pipeline_tests.model.blocks import FEATURES, make_block, make_config, make_model, open_gates, training_loss

TRUNK = {"selection", "static", "temporal", "fusion", "heads", "highway"}
ADAPTIVE = {"forecasters", "gates"}


def dead_parameters(model: ATFTGATFAN, groups: set[str]) -> list[str]:
    """Names of parameters of `groups` whose gradient is missing, not finite or exactly zero."""
    wanted = {id(p) for name in groups for p in model.parameter_groups()[name]}
    dead = []
    for name, p in model.named_parameters():
        if id(p) in wanted and (p.grad is None or not torch.isfinite(p.grad).all() or not p.grad.any()):
            dead.append(name)
    return dead


@pytest.mark.parametrize(
    ("adaptive_norm", "graph", "alive"),
    [(False, False, TRUNK), (True, False, TRUNK | ADAPTIVE), (True, True, TRUNK | ADAPTIVE | {"graph"})],
)
def test_t03_exactly_the_groups_in_use_get_gradients(adaptive_norm: bool, graph: bool, alive: set[str]) -> None:
    model = make_model(adaptive_norm=adaptive_norm, graph=graph)
    training_loss(model, make_block()).backward()
    assert dead_parameters(model, alive) == []
    for name in set(model.parameter_groups()) - alive:
        assert all(p.grad is None or not p.grad.any() for p in model.parameter_groups()[name]), name


def test_t03_holds_with_open_gates() -> None:
    model = open_gates(make_model())
    training_loss(model, make_block()).backward()
    assert dead_parameters(model, set(model.parameter_groups())) == []


def test_t03_fires_on_a_disconnected_part() -> None:
    model = make_model()
    model.static.project.weight.requires_grad_(False)
    training_loss(model, make_block()).backward()
    assert dead_parameters(model, {"static"}) == ["static.project.weight"]


def test_t09_groups_partition_the_parameters() -> None:
    model = make_model()
    grouped = [id(p) for group in model.parameter_groups().values() for p in group]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_forecasting_alone_trains_only_the_forecasters() -> None:
    model, block = make_model(), make_block()
    y = torch.randn(len(block.pairs), 6)
    model.auxiliary_loss(model.forecast(block), y, torch.ones_like(y)).backward()
    assert dead_parameters(model, {"forecasters"}) == []
    rest = set(model.parameter_groups()) - {"forecasters"}
    assert all(p.grad is None for name in rest for p in model.parameter_groups()[name])


@pytest.mark.parametrize(("hidden", "low", "high"), [(64, 1.45e6, 1.60e6), (256, 5.4e6, 5.8e6)])
def test_t08_parameter_count(hidden: int, low: float, high: float) -> None:
    model = ATFTGATFAN(ModelConfig(n_features=306, spectral=tuple(range(16)), return_channel=0, hidden=hidden))
    assert low <= sum(p.numel() for p in model.parameters()) <= high


def test_t08_another_width_is_refused_by_name_and_never_rebuilt() -> None:
    model = make_model(n_features=FEATURES + 3)
    with pytest.raises(ValueError, match=f"built for {FEATURES + 3} features, the block has {FEATURES}"):
        model(make_block())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spectral": (0, 10)}, "outside"),
        ({"spectral": (1, 1)}, "twice"),
        ({"hidden": 18}, "divisible"),
        ({"quantiles": (0.1, 0.4, 0.9)}, "middle"),
        ({"sequence_length": 7}, "two slices"),
        ({"horizons": (2, 1)}, "rising"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_config(**change)
