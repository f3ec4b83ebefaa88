"""Encoding every row once gives what encoding every window on its own gives, in every phase."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN, Block
from atft_pipeline_tests.model.blocks import LENGTH, make_block, make_model, open_gates, training_loss, without_edges
from atft_pipeline_tests.model.test_weighted_values import naive


def naive_window(model: ATFTGATFAN, block: Block, pair: int) -> Tensor:
    """One pair's code from its own window alone, every feature of every step embedded afresh."""
    day, stock = block.pairs[pair].tolist()
    raw, seen = block.x[day : day + LENGTH, stock], block.observed[day : day + LENGTH, stock]
    x = raw.clone()
    if model.uses_adaptive_norm:
        chosen = model.selection.spectral
        x[:, chosen] = model.adaptive_norm(raw[:, chosen].t()[None])[0].t()
    selection = model.selection
    total = naive(selection.values, x, selection.weights(raw), torch.arange(x.shape[1]))
    z = selection.norm(selection.project(total)) + model.static(block.sector[pair])
    return model.temporal(z[:, None], seen[:, None])[0]


@pytest.mark.parametrize("adaptive_norm", [False, True])
@pytest.mark.parametrize("pair_chunk", [0, 7])
def test_a_block_equals_naive_evaluation_window_by_window(adaptive_norm: bool, pair_chunk: int) -> None:
    model = open_gates(make_model(adaptive_norm=adaptive_norm, pair_chunk=pair_chunk)).eval()
    block = make_block()
    y = torch.stack([naive_window(model, block, pair) for pair in range(len(block.pairs))])
    c, _ = model.fusion(y, model.graph(y, block.edge_index, block.edge_attr))
    score, _ = model.heads(c)
    torch.testing.assert_close(model(block).score, score, atol=1e-5, rtol=1e-4)


def test_chunks_change_neither_scores_nor_gradients() -> None:
    grads = []
    for chunks in ({"row_chunk": 1000}, {"row_chunk": 3, "pair_chunk": 5}):
        model = open_gates(make_model(dropout=0.0, edge_dropout=0.0, **chunks))
        training_loss(model, make_block()).backward()
        grads.append([p.grad for p in model.parameters()])
    for one, other in zip(*grads, strict=True):
        assert one is not None and other is not None
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3)


def test_t07_turning_adaptive_norm_on_at_the_start_is_bit_identical() -> None:
    block = without_edges(make_block())
    model = make_model(adaptive_norm=False, graph=False).eval()
    with torch.no_grad():
        before = model(block)
        model.set_switches(adaptive_norm=True, graph=False)
        after = model(block)
    assert torch.equal(before.score, after.score) and torch.equal(before.quantiles, after.quantiles)


def test_t07_the_window_path_itself_is_the_identity_while_the_gates_are_shut() -> None:
    block = without_edges(make_block())
    model = make_model(adaptive_norm=False, graph=False).eval()
    before = model(block).score
    model.set_switches(adaptive_norm=True, graph=False)
    torch.testing.assert_close(model(block).score, before, atol=1e-6, rtol=0)


def test_open_gates_change_the_scores() -> None:
    block, model = make_block(), make_model().eval()
    before = model(block).score
    assert float((open_gates(model)(block).score - before).detach().abs().max()) > 1e-4


def test_t07_turning_the_graph_on_changes_the_scores_only_through_graph_and_fusion() -> None:
    block = make_block()
    model = make_model(adaptive_norm=True, graph=False).eval()
    off = model(block).score
    model.set_switches(adaptive_norm=True, graph=True)
    on = model(block).score
    assert not torch.equal(off, on)
    with torch.no_grad():
        model.graph.second_norm.weight.zero_()
        model.graph.second_norm.bias.zero_()
    torch.testing.assert_close(model(block).score, off, atol=1e-6, rtol=0)
