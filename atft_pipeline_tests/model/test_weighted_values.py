"""The hand-differentiated sum against plain autograd and against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from atft_pipeline.model.variable_selection import FeatureValues, SelectionWeights, VariableSelection
from atft_pipeline.model.weighted_values import Table, weighted_values


def naive(values: FeatureValues, x: Tensor, weights: Tensor, features: Tensor) -> Tensor:
    """The definition, feature by feature: x and weights [rows, f] -> [rows, width]."""
    total = x.new_zeros(x.shape[0], values.embed_weight.shape[1])
    for j, f in enumerate(features.tolist()):
        e = x[:, j : j + 1] * values.embed_weight[f] + values.embed_bias[f]
        inner = F.elu(F.linear(e, values.inner_weight[f], values.inner_bias[f]))
        gated = F.glu(F.linear(inner, values.gate_weight[f], values.gate_bias[f]), dim=-1)
        z = F.layer_norm(e + gated, e.shape[-1:], values.norm_weight[f], values.norm_bias[f])
        total = total + weights[:, j : j + 1] * z
    return total


def random_values(features: int, width: int) -> FeatureValues:
    values = FeatureValues(features, width).double()
    with torch.no_grad():
        for p in values.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return values


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_equals_the_definition_with_all_its_gradients(chunk: int) -> None:
    torch.manual_seed(0)
    values, chosen = random_values(6, 5), torch.tensor([4, 1, 2])
    x = torch.randn(30, 3, dtype=torch.double, requires_grad=True)
    weights = torch.rand(30, 3, dtype=torch.double, requires_grad=True)
    inputs = [x, weights, *values.parameters()]
    direction = torch.randn(30, 5, dtype=torch.double)

    want = naive(values, x, weights, chosen)
    want_grads = torch.autograd.grad(want, inputs, direction)
    got = weighted_values(x.t(), weights.t(), values.table(chosen), chunk).t()
    got_grads = torch.autograd.grad(got, inputs, direction)
    torch.testing.assert_close(got, want)
    for ours, theirs in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_passes_the_finite_difference_check() -> None:
    torch.manual_seed(0)
    table = Table(*(p.detach().requires_grad_() for p in random_values(3, 4).table(torch.arange(3))))
    x = torch.randn(3, 5, dtype=torch.double, requires_grad=True)
    weights = torch.rand(3, 5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w, *t: weighted_values(x, w, Table(*t), 2), (x, weights, *table))


def test_half_precision_products_leave_sums_and_accumulated_gradients_accurate() -> None:
    """Thousands of chunks: gradients gathered in bfloat16 would stand still after the first few hundred."""
    torch.manual_seed(0)
    values, x = FeatureValues(3, 5), torch.randn(3, 4000)
    weights = torch.rand(3, 4000, requires_grad=True)
    found = []
    for half in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            y = weighted_values(x, weights, values.table(torch.arange(3)), 4)
        assert y.dtype == torch.float32
        found.append([y, *torch.autograd.grad(y.square().sum(), [weights, *values.parameters()])])
    for full, low in zip(*found, strict=True):
        assert 0 < float((low - full).norm() / full.norm()) < 0.02


def test_selection_weights_are_a_distribution_near_the_average_at_the_start() -> None:
    weights = SelectionWeights(10, 16, 0.0)(torch.randn(50, 10))
    torch.testing.assert_close(weights.sum(-1), torch.ones(50))
    assert weights.min() > 0.05 and weights.max() < 0.2


def test_plain_and_spectral_parts_add_up_to_the_whole_selection() -> None:
    torch.manual_seed(0)
    selection = VariableSelection(10, (0, 2, 3), 6, 16, 0.0, row_chunk=8)
    x = torch.randn(40, 10)
    plain, weights = selection.row_sums(x)
    got = selection.codes(plain, weights, x[:, selection.spectral])
    whole = naive(selection.values, x, selection.weights(x), torch.arange(10))
    torch.testing.assert_close(got, selection.norm(selection.project(whole)), atol=1e-5, rtol=1e-5)
