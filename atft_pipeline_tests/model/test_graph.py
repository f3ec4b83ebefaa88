"""The graph is alive: edges arrive, weights learn, dates stay apart; and an empty graph is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN, Block
from atft_pipeline_tests.model.blocks import STOCKS, make_block, make_model, training_loss, without_edges

LIVE = 1e-6


def graph_gradients(model: ATFTGATFAN, block: Block) -> dict[str, float]:
    """Gradient norms of the gate and of every graph weight after one backward pass; a missing gradient is 0."""
    model.zero_grad()
    training_loss(model, block).backward()
    named = {"gamma": model.fusion.gamma, "weight_g": model.fusion.weight_g}
    named |= {n: p for n, p in model.graph.named_parameters() if n.endswith(("weight", "att"))}
    return {name: 0.0 if p.grad is None else float(p.grad.norm()) for name, p in named.items()}


def test_t04_gate_and_graph_weights_learn_at_the_first_step_and_later() -> None:
    model, block = make_model(), make_block()
    assert min(graph_gradients(model, block).values()) > LIVE
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(15):
        graph_gradients(model, make_block(seed=step))
        optimiser.step()
    assert min(graph_gradients(model, block).values()) > LIVE


def test_t04_fires_on_a_graph_without_edges() -> None:
    model, block = make_model(), make_block()
    empty = graph_gradients(model, without_edges(block))
    assert max(empty.values()) == 0.0


def test_t04_an_empty_graph_keeps_shapes_and_parameters() -> None:
    model, block = make_model().eval(), make_block()
    full, names = model(block), [n for n, _ in model.named_parameters()]
    empty = model(without_edges(block))
    assert empty.score.shape == full.score.shape and empty.quantiles.shape == full.quantiles.shape
    assert [n for n, _ in model.named_parameters()] == names
    model.set_switches(adaptive_norm=True, graph=False)
    assert torch.equal(model(block).score, empty.score)


@pytest.mark.parametrize("training", [True, False])
def test_t06_edges_reach_the_layers_in_training_and_in_inference(training: bool) -> None:
    model, block = make_model().train(training), make_block()
    output = model(block)
    assert model.graph.edges_seen == block.edge_index.shape[1]
    assert float(output.diagnostics["edges"]) == block.edge_index.shape[1]
    model(without_edges(block))
    assert model.graph.edges_seen == block.edge_index.shape[1]


def test_t06_scores_depend_on_the_edges() -> None:
    model, block = make_model().eval(), make_block()
    source, target = block.edge_index
    other = replace(block, edge_index=torch.stack([source // STOCKS * STOCKS + (source + 5) % STOCKS, target]))
    assert float((model(block).score - model(other).score).abs().max()) > 1e-5
    signs = replace(block, edge_attr=-block.edge_attr)
    assert float((model(block).score - model(signs).score).abs().max()) > 1e-6


def test_one_dates_edges_do_not_touch_another_date() -> None:
    model, block = make_model().eval(), make_block()
    first = block.pairs[:, 0] == 0
    on_first = first[block.edge_index[1]]
    fewer = replace(block, edge_index=block.edge_index[:, ~on_first], edge_attr=block.edge_attr[~on_first])
    full, cut = model(block).score, model(fewer).score
    torch.testing.assert_close(full[~first], cut[~first], atol=1e-6, rtol=0)
    assert float((full[first] - cut[first]).abs().max()) > 1e-5


def test_an_isolated_node_is_finite() -> None:
    model, block = make_model().eval(), make_block()
    kept = block.edge_index[1] != 3
    lonely = replace(block, edge_index=block.edge_index[:, kept], edge_attr=block.edge_attr[kept])
    assert torch.isfinite(model(lonely).score).all()


def test_without_edges_a_stocks_score_ignores_the_other_stocks() -> None:
    model, block = make_model().eval(), without_edges(make_block())
    x = block.x.clone()
    x[:, 1:] = torch.randn_like(x[:, 1:])
    own = block.pairs[:, 1] == 0
    torch.testing.assert_close(model(replace(block, x=x)).score[own], model(block).score[own], atol=1e-6, rtol=0)


def test_permuting_the_nodes_permutes_the_scores() -> None:
    model, block = make_model().eval(), make_block()
    order = torch.randperm(len(block.pairs), generator=torch.Generator().manual_seed(0))
    place = torch.argsort(order)
    moved = replace(block, pairs=block.pairs[order], sector=block.sector[order], edge_index=place[block.edge_index])
    torch.testing.assert_close(model(moved).score, model(block).score[order], atol=1e-5, rtol=1e-4)


def test_edge_dropout_spares_self_loops_and_inference() -> None:
    model = make_model(edge_dropout=0.5)
    index = torch.stack([torch.arange(400), torch.cat([torch.arange(200), torch.arange(200) + 201])])
    kept, attributes = model.graph._drop_edges(index, torch.zeros(400, 3))
    assert int((kept[0] == kept[1]).sum()) == 200
    assert 250 < kept.shape[1] < 350 and attributes.shape == (kept.shape[1], 3)
