"""The highway: nothing before its start, what it reads of a window, and quantiles that move with the score."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN, Block
from atft_pipeline.model.highway import RETURN_DAYS, neighbour_means, slow_waves
from atft_pipeline_tests.model.blocks import make_block, make_model


def highway_share(model: ATFTGATFAN, block: Block) -> torch.Tensor:
    """[m, H]: what the highway adds to the scores."""
    weight = model.highway.weight.detach().clone()
    with torch.no_grad():
        whole = model.eval()(block).score
        model.highway.weight.zero_()
        without = model(block).score
        model.highway.weight.copy_(weight)
    return whole - without


def test_it_adds_nothing_before_its_start() -> None:
    model = make_model()
    assert not model.highway.weight.any()
    assert not highway_share(model, make_block()).any()


def test_of_a_spectral_feature_it_reads_the_window_of_any_other_the_newest_row() -> None:
    model = make_model(graph=False)
    torch.nn.init.normal_(model.highway.weight)
    block = make_block()
    day, stock = block.pairs[0].tolist()
    newest = day + model.config.sequence_length - 1
    spectral, plain = model.config.spectral[0], 1
    assert plain not in model.config.spectral
    before = model.highway(model.highway_terms(block))
    for row, feature, moved in (
        (newest, plain, True), (newest - 1, plain, False),
        (newest, spectral, True), (newest - 1, spectral, True), (day, spectral, True),
    ):  # fmt: skip
        x = block.x.clone()
        x[row, stock, feature] += 1.0
        changed = replace(block, x=x)
        after = model.highway(model.highway_terms(changed))
        assert bool((after[0] - before[0]).abs().max() > 1e-3) is moved, (row, feature)
    x = block.x.clone()
    x[newest + 1 :, stock] += 1.0  # later than the pair's day
    after = model.highway(model.highway_terms(replace(block, x=x)))
    assert torch.equal(after[0], before[0])


def test_a_product_is_that_of_its_two_sums_and_clipped() -> None:
    model = make_model()
    highway = model.highway
    highway.factors[0, 0, 4], highway.factors[0, 0, 5], highway.factors[1, 0, 7] = 1.0, -0.5, 1.0
    with torch.no_grad():
        highway.weight[:, highway.peers.start - highway.n_products] = 1.0
    newest = torch.zeros(3, model.config.n_features)
    newest[0, 4], newest[0, 5], newest[0, 7] = 2.0, 1.0, -1.0
    newest[1, 4], newest[1, 7] = 5.0, 5.0
    newest[2, 4] = 5.0
    windows = torch.zeros(3, model.config.sequence_length, len(model.config.spectral))
    nobody = torch.zeros(3, highway.peers.stop - highway.peers.start)
    found = highway(highway.terms(newest, windows, nobody))[:, 0] * highway.width**0.5
    torch.testing.assert_close(found, torch.tensor([-1.5, 6.0, 0.0]))


def test_with_the_graph_it_reads_the_returns_of_a_week_of_the_neighbours_and_of_the_stock() -> None:
    model, block = make_model(), make_block()
    target = 0
    day, stock = block.pairs[target].tolist()
    into = (block.edge_index[1] == target) & (block.edge_index[0] != target) & (block.edge_attr[:, 0] > 0)
    neighbour = int(block.edge_index[0][into][0])
    assert int(block.pairs[neighbour, 0]) == day
    newest = day + model.config.sequence_length - 1
    before = model.highway_terms(block)[target, model.highway.peers]
    spectral = len(model.config.spectral)
    for whose, offset in ((int(block.pairs[neighbour, 1]), spectral - 1), (stock, spectral + RETURN_DAYS - 1)):
        for ago in range(1, RETURN_DAYS + 1):
            x = block.x.clone()
            x[newest - ago, whose, model.config.return_channel] += 1.0
            after = model.highway_terms(replace(block, x=x))[target, model.highway.peers]
            moved = (after - before).abs().nonzero().flatten().tolist()
            assert moved == ([offset + ago] if ago < RETURN_DAYS else []), (whose == stock, ago)


def test_neighbours_count_by_how_alike_they_move_and_a_stock_is_not_its_own() -> None:
    values = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    edges = torch.tensor([[1, 2, 3, 0, 0, 3], [0, 0, 0, 0, 1, 3]])  # into 0: 1, 2, 3, itself; into 1: 0; 3 alone
    found = neighbour_means(values, edges, torch.tensor([0.6, 0.3, -0.9, 1.0, 0.1, 1.0]))
    torch.testing.assert_close(found[:, 0], torch.tensor([(0.36 * 2 + 0.09 * 4) / 0.45, 0.01 / 0.1, 0.0, 0.0]))


def test_without_the_graph_the_neighbours_add_nothing() -> None:
    model, block = make_model(), make_block()
    assert model.highway_terms(block)[:, model.highway.peers].any()
    model.set_switches(adaptive_norm=True, graph=False)
    assert not model.highway_terms(block)[:, model.highway.peers].any()


def test_the_waves_are_orthonormal_and_tell_where_in_its_cycle_a_stock_stands() -> None:
    basis = slow_waves(60, 6)
    assert basis.shape == (60, 13)
    torch.testing.assert_close(basis.T @ basis, torch.eye(13), atol=1e-5, rtol=0)
    ago = torch.arange(59, -1, -1)
    for phase in (0.0, 1.0, 2.5):
        series = torch.cos(2 * math.pi * ago / 20 + phase)  # three periods in the window
        found = series @ basis
        want = torch.zeros(13)
        want[5], want[6] = math.cos(phase) * 30**0.5, -math.sin(phase) * 30**0.5
        torch.testing.assert_close(found, want, atol=1e-4, rtol=0)


def test_quantiles_move_with_the_score_and_stay_in_order() -> None:
    model = make_model().eval()
    block = make_block()
    with torch.no_grad():
        before = model(block)
        torch.nn.init.normal_(model.highway.weight)
        after = model(block)
    shift = (after.score - before.score)[..., None]
    assert torch.allclose(after.quantiles - before.quantiles, shift.expand_as(after.quantiles), atol=1e-5)
    assert bool((after.quantiles.diff(dim=-1) > 0).all())
