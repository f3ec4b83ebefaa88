"""One small head per horizon on a shared layer: a point score, and quantiles that cannot cross."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Heads(nn.Module):
    """[m, hidden] -> score [m, H] and quantiles [m, H, Q]."""

    def __init__(self, hidden: int, horizons: int, quantiles: int, dropout: float) -> None:
        super().__init__()
        half = hidden // 2
        self.shared = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, half), nn.GELU(), nn.LayerNorm(half))
        self.per_horizon = nn.ModuleList(_one_head(half, 1 + quantiles, dropout) for _ in range(horizons))

    @torch.no_grad()
    def quieten(self, share: float) -> None:
        """Scale what the untrained heads add to the scores, once, beside a highway that is fitted already."""
        for head in self.per_horizon:
            last = cast(nn.Linear, list(head.children())[-1])
            last.weight[0] *= share

    def forward(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """c [m, hidden] -> (score, quantiles), in float32."""
        shared = self.shared(c)
        raw = torch.stack([head(shared) for head in self.per_horizon], 1).float()  # [m, H, 1 + Q]
        return raw[..., 0], ordered_quantiles(raw[..., 1:])


def _one_head(width: int, outputs: int, dropout: float) -> nn.Sequential:
    last = nn.Linear(width, outputs)
    nn.init.normal_(last.weight, std=0.02)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), last)


def ordered_quantiles(raw: Tensor) -> Tensor:
    """The middle output is the median; the others add positive steps outwards. [..., Q] -> [..., Q], rising."""
    middle = raw.shape[-1] // 2
    median = raw[..., middle : middle + 1]
    below = F.softplus(raw[..., :middle]).flip(-1).cumsum(-1).flip(-1)
    above = F.softplus(raw[..., middle + 1 :]).cumsum(-1)
    return torch.cat([median - below, median, median + above], -1)
