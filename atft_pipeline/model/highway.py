"""The highway: simple terms of a stock's window straight to its scores, beside the network.

A deep network finds weak effects slowly, because every scalar first passes its own curve, a softmax over all features
and a recurrence. A linear component in parallel carries what is simple (Lai et al. 2018, "Modeling Long- and Short-Term
Temporal Patterns with Deep Neural Networks", section 3.5) and leaves the network the rest. Its terms:

- the newest row;
- the slow waves in the window of each spectral feature: its Fourier coefficients, which tell a level and where in a
  cycle a stock stands;
- a few products of two weighted sums of features: a factorised interaction (Rendle 2010, "Factorization Machines"), in
  which several noisy columns stand for each side;
- while the graph is on, the mean of the spectral features over the stock's neighbours, one step of a simplified graph
  convolution (Wu et al. 2019), that of their returns on the days before, and beside it the stock's own returns: what
  its neighbours did and it did not is what may follow.

`training/highway_start.py` finds the products and fits the weights; before that all are zero, so an untrained model is
the network alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LARGEST_PRODUCT = 6.0
"""Products of two sums of unit variance are clipped here: a product of two outliers is no evidence."""
RETURN_DAYS = 5
"""Days of returns that the neighbours' terms read."""
LEAST_LIKENESS = 0.1
"""Neighbours whose squared correlations add up to less do not count in full."""


class Highway(nn.Module):
    """[m, F] newest rows, [m, T, C] windows, [m, C + 2 RETURN_DAYS - 1] neighbours -> [m, H].

    Divided by sqrt(width), so that its output moves at the pace of a layer of that width when it is trained.
    """

    def __init__(
        self, n_features: int, spectral: tuple[int, ...], horizons: int, length: int, waves: int, products: int
    ) -> None:
        super().__init__()
        self.n_features, self.n_products = n_features, products
        self.basis_functions: Tensor
        self.factors: Tensor
        """[2, products, F]: the weights of the two sums of each product; zero where there is none."""
        self.register_buffer("basis_functions", slow_waves(length, waves), persistent=False)
        self.register_buffer("factors", torch.zeros(2, products, n_features))
        own = n_features + len(spectral) * (2 * waves + 1) + products
        self.width = own + len(spectral) + 2 * RETURN_DAYS - 1
        self.peers = slice(own, self.width)
        """The neighbours' terms among all."""
        self.weight = nn.Parameter(torch.zeros(horizons, self.width))

    @torch.no_grad()
    def terms(self, newest: Tensor, windows: Tensor, neighbours: Tensor) -> Tensor:
        """[m, width]: the newest row, the coefficients of each channel's waves (channel by channel), the products, the
        neighbours."""
        coefficients = (windows.transpose(1, 2) @ self.basis_functions).flatten(1)  # [m, C (2 waves + 1)]
        left, right = (newest @ side.T for side in self.factors)
        products = (left * right).clamp(-LARGEST_PRODUCT, LARGEST_PRODUCT)
        return torch.cat([newest, coefficients, products, neighbours], 1)

    def forward(self, terms: Tensor) -> Tensor:
        """terms [m, width] -> [m, H]."""
        return nn.functional.linear(terms, self.weight) / self.width**0.5


def neighbour_means(values: Tensor, edge_index: Tensor, correlation: Tensor) -> Tensor:
    """[m, C]: the mean of `values` [m, C] over each node's neighbours, weighed by the squares of the edges' positive
    `correlation` [E]: what moves together belongs together, and a high correlation is rarely chance.

    Self-loops are left out; a node without neighbours gets zero.
    """
    others = (edge_index[0] != edge_index[1]) & (correlation > 0)
    source, target, weight = edge_index[0][others], edge_index[1][others], correlation[others].square()
    total = torch.zeros_like(values).index_add_(0, target, values[source] * weight[:, None])
    size = values.new_zeros(len(values)).index_add_(0, target, weight)
    return total / size.clamp(min=LEAST_LIKENESS)[:, None]


def slow_waves(length: int, waves: int) -> Tensor:
    """[length, 2 waves + 1]: the mean and the cosine and sine of periods length/1 .. length/waves, each of norm 1.

    The phase is counted from the newest day, the last row: so a coefficient says the same on every date.
    """
    ago = torch.arange(length - 1, -1, -1, dtype=torch.float64)
    columns = [torch.full((length,), length**-0.5, dtype=torch.float64)]
    for k in range(1, waves + 1):
        angle = 2 * math.pi * k * ago / length
        columns += [torch.cos(angle) * (2 / length) ** 0.5, torch.sin(angle) * (2 / length) ** 0.5]
    return torch.stack(columns, 1).float()
