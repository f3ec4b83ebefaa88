"""Small models and random blocks for the model's tests."""

from __future__ import annotations

from typing import Any

import torch

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN, Block, ModelConfig

FEATURES, STOCKS, DAYS, LENGTH = 10, 24, 3, 20


def make_config(**changes: Any) -> ModelConfig:
    sizes: dict[str, Any] = {
        "n_features": FEATURES,
        "spectral": (0, 2, 3),
        "return_channel": 0,
        "hidden": 16,
        "value_width": 6,
        "sequence_length": LENGTH,
        "forecaster_width": 8,
        "san_period": 5,
        "row_chunk": 64,
    }
    return ModelConfig(**{**sizes, **changes})


def make_model(seed: int = 0, *, adaptive_norm: bool = True, graph: bool = True, **changes: Any) -> ATFTGATFAN:
    torch.manual_seed(seed)
    model = ATFTGATFAN(make_config(**changes))
    model.set_switches(adaptive_norm=adaptive_norm, graph=graph)
    return model


def open_gates(model: ATFTGATFAN, size: float = 0.4) -> ATFTGATFAN:
    with torch.no_grad():
        model.adaptive_norm.fan_gate.uniform_(0.2, size)
        model.adaptive_norm.san_gate.uniform_(0.2, size)
    return model


def make_block(
    seed: int = 1, *, stocks: int = STOCKS, days: int = DAYS, length: int = LENGTH, edges_per_node: int = 4
) -> Block:
    """Every stock on every day; `edges_per_node` incoming edges from random stocks of the same day."""
    draw = torch.Generator().manual_seed(seed)
    rows = length + days - 1
    pairs = torch.cartesian_prod(torch.arange(days), torch.arange(stocks))
    target = torch.arange(len(pairs)).repeat_interleave(edges_per_node)
    source = target // stocks * stocks + torch.randint(0, stocks, target.shape, generator=draw)
    observed = torch.rand(rows, stocks, generator=draw) > 0.1
    observed[length - 1 :] = True
    x = torch.randn(rows, stocks, FEATURES, generator=draw).clamp(-5, 5)
    return Block(
        x=torch.where(observed[..., None], x, 0.0),
        observed=observed,
        pairs=pairs,
        sector=torch.randint(0, 35, (len(pairs),), generator=draw),
        edge_index=torch.stack([source, target]),
        edge_attr=torch.rand(len(target), 3, generator=draw),
    )


def without_edges(block: Block) -> Block:
    return Block(block.x, block.observed, block.pairs, block.sector)


def training_loss(model: ATFTGATFAN, block: Block, seed: int = 2) -> torch.Tensor:
    """A loss that reads everything the model gives: scores, quantiles and forecasts."""
    output = model(block)
    y = torch.randn(output.score.shape, generator=torch.Generator().manual_seed(seed))
    auxiliary = model.auxiliary_loss(output, y, torch.ones_like(y, dtype=torch.bool))
    return (output.score - y).square().mean() + (output.quantiles - y[..., None]).abs().mean() + auxiliary
