"""The linear highway: nothing at the start, the newest row only, and quick to find a weak linear effect."""

from __future__ import annotations

from dataclasses import replace

import torch

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN, Block
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


def test_it_adds_nothing_before_training() -> None:
    model = make_model()
    assert not model.highway.weight.any()
    assert not highway_share(model, make_block()).any()


def test_it_reads_the_scored_days_own_row_and_no_other() -> None:
    model = make_model()
    torch.nn.init.normal_(model.highway.weight)
    block = make_block()
    before = highway_share(model, block)
    day, stock = block.pairs[0].tolist()
    row = day + model.config.sequence_length - 1
    for change, moved in ((row, True), (row - 1, False)):
        x = block.x.clone()
        x[change, stock] += 1.0
        after = highway_share(model, replace(block, x=x))
        assert bool((after[0] - before[0]).abs().max() > 1e-3) is moved


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
