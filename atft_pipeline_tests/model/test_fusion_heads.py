"""The residual bypass with its tripled graph columns, and the shape and order of the outputs."""

from __future__ import annotations

import torch

from atft_pipeline.model.fusion import Fusion
from atft_pipeline.model.heads import ordered_quantiles
from atft_pipeline_tests.model.blocks import make_block, make_model


def graph_gain(fusion: Fusion) -> float:
    """Spread of the graph's columns over what Xavier gives a [H, 2H] matrix."""
    hidden = fusion.bias.shape[0]
    return float(fusion.weight_g.detach().std()) / (2.0 / (3 * hidden)) ** 0.5


def test_t05_graph_columns_are_tripled_once_also_after_reset_and_load() -> None:
    torch.manual_seed(0)
    fusion = Fusion(64)
    assert 2.8 < graph_gain(fusion) < 3.2
    fusion.reset_parameters()
    fusion.reset_parameters()
    assert 2.8 < graph_gain(fusion) < 3.2
    loaded = Fusion(64)
    loaded.load_state_dict(fusion.state_dict())
    assert torch.equal(loaded.weight_g, fusion.weight_g)
    assert abs(float(fusion.weight_y.detach().std()) * (3 * 64 / 2) ** 0.5 - 1) < 0.1


def test_t05_fires_on_a_second_tripling() -> None:
    fusion = Fusion(64)
    with torch.no_grad():
        fusion.weight_g.mul_(3)
    assert graph_gain(fusion) > 8


def test_fusion_follows_its_formula_and_none_is_the_zero_slot() -> None:
    torch.manual_seed(0)
    fusion, y, g = Fusion(8), torch.randn(5, 8), torch.randn(5, 8)
    with torch.no_grad():
        fusion.gamma.fill_(0.7)
    alpha = torch.sigmoid(torch.tensor(0.7))
    projected = torch.cat([y, g], 1) @ torch.cat([fusion.weight_y, fusion.weight_g], 1).t() + fusion.bias
    want = fusion.norm(y + alpha * projected + (1 - alpha) * g)
    torch.testing.assert_close(fusion(y, g)[0], want)
    torch.testing.assert_close(fusion(y, None)[0], fusion(y, torch.zeros_like(g))[0])


def test_alpha_starts_at_one_half_and_is_reported() -> None:
    diagnostics = make_model()(make_block()).diagnostics
    assert float(diagnostics["alpha"]) == 0.5
    assert float(diagnostics["norm_projection"]) > 0 and float(diagnostics["norm_graph"]) > 0
    assert not any(value.requires_grad for value in diagnostics.values())


def test_t10_output_shapes_and_rising_quantiles() -> None:
    block = make_block()
    output = make_model()(block)
    m = len(block.pairs)
    assert output.score.shape == (m, 6) and output.quantiles.shape == (m, 6, 5)
    assert (output.quantiles.diff(dim=-1) > 0).all()
    assert (output.forecast.scale > 0).all()
    assert output.point_forecast().shape == (m, 6)


def test_t10_the_middle_output_is_the_median() -> None:
    raw = torch.randn(4, 6, 5)
    torch.testing.assert_close(ordered_quantiles(raw)[..., 2], raw[..., 2])


def test_t11_each_horizon_gets_its_own_gradient() -> None:
    model = make_model()
    for h in range(6):
        model.zero_grad()
        model(make_block()).score[:, h].square().sum().backward()
        learned = [any(p.grad is not None and p.grad.any() for p in m.parameters()) for m in model.heads.per_horizon]
        assert learned == [i == h for i in range(6)]
