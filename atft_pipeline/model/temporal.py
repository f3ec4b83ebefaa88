"""One window to one vector: LSTM, static enrichment, and a single attention query from the newest day.

Causality is automatic: only the last step asks, and every key is of that day or earlier.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atft_pipeline.model.gated import GatedResidual, GatedSkip


class StaticContext(nn.Module):
    """The pair's sector, as a vector that is added to every step."""

    def __init__(self, sectors: int, hidden: int, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sectors, width)
        self.project = nn.Linear(width, hidden)

    def forward(self, sector: Tensor) -> Tensor:
        """[m] ids -> [m, hidden]."""
        return self.project(self.embedding(sector))


class LastStepAttention(nn.Module):
    """Multi-head attention with one query, the newest step, over the observed steps of the window.

    With one query, keys and values need not be formed: q . (K s) = (K^T q) . s, and a mean of values is the value of
    the mean. Both projections then act once per window and head instead of once per step.
    """

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(hidden, hidden)
        # No bias on the keys: it would add the same number to every score, and its gradient would be exactly zero.
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, steps: Tensor, observed: Tensor) -> Tensor:
        """steps [t, m, hidden], observed [t, m] -> [m, hidden]."""
        by_head = (self.heads, -1, steps.shape[-1])  # rows of a projection, split by head
        by_window = steps.transpose(0, 1)
        query = self.query(steps[-1]).unflatten(-1, (self.heads, -1))
        asking = torch.einsum("mhk,hkc->mhc", query, self.key.weight.view(by_head))
        scores = (asking @ by_window.transpose(1, 2)).float() * query.shape[-1] ** -0.5  # [m, heads, t]
        asked = observed.t().clone()
        asked[:, -1] = True  # the query's own step: a window with nothing else observed stays finite
        weights = torch.softmax(scores.masked_fill(~asked[:, None], float("-inf")), -1)
        mixed = F.dropout(weights, self.dropout, self.training).to(by_window.dtype) @ by_window  # [m, heads, hidden]
        value = torch.einsum("mhc,hkc->mhk", mixed, self.value.weight.view(by_head)).flatten(1) + self.value.bias
        return self.out(value)


class Temporal(nn.Module):
    """The encoder of one window, in the order of the temporal fusion transformer.

    With `layers` 0 there is no LSTM: the attention sees the rows' codes themselves, in no order.
    """

    def __init__(self, hidden: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(hidden, hidden, layers, dropout=dropout if layers > 1 else 0.0) if layers else None
        self.enrich = GatedResidual(hidden)
        self.attention = LastStepAttention(hidden, heads, dropout)
        self.attention_skip = GatedSkip(hidden, dropout)
        self.position_wise = GatedResidual(hidden, dropout)
        self.feed_forward = nn.Sequential(nn.Linear(hidden, 3 * hidden), nn.GELU(), nn.Linear(3 * hidden, hidden))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, z: Tensor, observed: Tensor) -> Tensor:
        """z [t, m, hidden] codes with static context, observed [t, m] -> y [m, hidden]."""
        h = self.enrich(z if self.lstm is None else self.lstm(z)[0] + z)
        y = self.attention_skip(self.attention(h, observed), h[-1])
        y = self.position_wise(y)
        return self.norm(y + self.feed_forward(y))
