"""The linear highway: each stock's newest row straight to its scores, beside the network.

A deep network finds a weak linear effect slowly, because every scalar first passes its own curve, a softmax over all
features and a recurrence. A linear component in parallel carries that part from the first steps on and leaves the
network the rest (Lai et al. 2018, "Modeling Long- and Short-Term Temporal Patterns with Deep Neural Networks",
section 3.5). It starts at zero, so an untrained model is the network alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearHighway(nn.Module):
    """[m, F] -> [m, H]. Divided by sqrt(F), so that its output moves at the pace of a layer of that width."""

    def __init__(self, n_features: int, horizons: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(horizons, n_features))

    def forward(self, newest: Tensor) -> Tensor:
        """newest [m, F]: the row of the scored day; missing values are zero and carry nothing."""
        return nn.functional.linear(newest, self.weight) / newest.shape[1] ** 0.5
