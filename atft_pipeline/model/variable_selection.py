"""Variable selection: every scalar feature gets its own small curve, and a softmax says how much of each a row takes.

Nothing here looks across rows, so a row is encoded once however many windows contain it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atft_pipeline.model.weighted_values import Table, weighted_values


class SelectionWeights(nn.Module):
    """Softmax over the features of a gated residual network on the row itself."""

    def __init__(self, n_features: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(n_features, hidden)
        self.dropout = nn.Dropout(dropout)
        self.gate = nn.Linear(hidden, 2 * n_features)
        self.norm = nn.LayerNorm(n_features)
        # Starts near the plain average: with weight 1 the skip would favour whatever feature happens to be high.
        nn.init.constant_(self.norm.weight, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, F] -> [rows, F], each row sums to 1 (float32)."""
        gated = F.glu(self.gate(self.dropout(F.elu(self.inner(x)))), dim=-1)
        return torch.softmax(self.norm(x + gated).float(), dim=-1)


class FeatureValues(nn.Module):
    """One gated residual network per feature, on the feature's scalar; all features in one grouped product."""

    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        # The bias of the embedding must not be small: layer normalisation of x * w alone keeps only the sign of x.
        self.embed_weight = nn.Parameter(torch.randn(n_features, width))
        self.embed_bias = nn.Parameter(torch.randn(n_features, width))
        bound = width**-0.5
        self.inner_weight = nn.Parameter(torch.empty(n_features, width, width).uniform_(-bound, bound))
        self.inner_bias = nn.Parameter(torch.zeros(n_features, width))
        self.gate_weight = nn.Parameter(torch.empty(n_features, 2 * width, width).uniform_(-bound, bound))
        self.gate_bias = nn.Parameter(torch.zeros(n_features, 2 * width))
        self.norm_weight = nn.Parameter(torch.ones(n_features, width))
        self.norm_bias = nn.Parameter(torch.zeros(n_features, width))

    def table(self, features: Tensor) -> Table:
        """The parameters of `features` [f] as `weighted_values` takes them, in float32."""
        with torch.autocast(features.device.type, enabled=False):
            return self._table(features)

    def _table(self, features: Tensor) -> Table:
        embed, offset, inner = self.embed_weight[features], self.embed_bias[features], self.inner_weight[features]
        # A scalar's embedding is x w + b, so the inner layer is x (W w) + (W b + c): no product per row.
        slope = (inner @ embed[:, :, None])[:, :, 0]
        shift = (inner @ offset[:, :, None])[:, :, 0] + self.inner_bias[features]
        gate = torch.cat([self.gate_weight[features], self.gate_bias[features][:, :, None]], 2)
        return Table(embed, offset, slope, shift, gate, self.norm_weight[features], self.norm_bias[features])


class VariableSelection(nn.Module):
    """Selection weights, feature values, and the projection of their sum to the hidden width.

    The sum is split: `plain` features give one part per row, `spectral` features a part that a window may change.
    """

    def __init__(
        self, n_features: int, spectral: tuple[int, ...], width: int, hidden: int, dropout: float, row_chunk: int
    ) -> None:
        super().__init__()
        self.row_chunk = row_chunk
        self.weights = SelectionWeights(n_features, hidden, dropout)
        self.values = FeatureValues(n_features, width)
        self.project = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden)
        plain = sorted(set(range(n_features)) - set(spectral))
        self.spectral: Tensor
        self.plain: Tensor
        self.register_buffer("spectral", torch.tensor(spectral, dtype=torch.long), persistent=False)
        self.register_buffer("plain", torch.tensor(plain, dtype=torch.long), persistent=False)

    def row_sums(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [rows, F] -> the plain features' weighted sum [rows, width], the spectral features' weights [rows, f]."""
        weights = self.weights(x)
        return self._sum(x[:, self.plain], weights[:, self.plain], self.plain), weights[:, self.spectral]

    def codes(self, plain: Tensor, weights: Tensor, own: Tensor) -> Tensor:
        """Complete the sum with the spectral features' values `own` [rows, f], raw or normalised -> [rows, hidden]."""
        return self.norm(self.project(plain + self._sum(own, weights, self.spectral)))

    def _sum(self, x: Tensor, weights: Tensor, features: Tensor) -> Tensor:
        columns = x.t().contiguous(), weights.t().contiguous()
        # Fewer features leave room for more rows in the same cache.
        chunk = self.row_chunk * self.weights.inner.in_features // max(1, features.shape[0])
        return weighted_values(*columns, self.values.table(features), chunk).t()
