"""Optional heads beside the quantiles: a Student-t distribution of each horizon's standardised return.

Returns have heavy tails; a likelihood that knows them pulls the trunk less towards single days than a square would.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import StudentT
from torch.nn import functional as F

SMALLEST_SCALE = 1e-3
"""In units of the per-date standardised return."""
FEWEST_FREEDOM, MOST_FREEDOM = 2.5, 30.0
"""Above 2 the variance exists; beyond 30 the distribution is a Gaussian for every purpose here."""


class StudentHeads(nn.Module):
    """[m, hidden] -> location, scale and degrees of freedom [m, H, 3], in float32."""

    def __init__(self, hidden: int, horizons: int) -> None:
        super().__init__()
        self.horizons = horizons
        self.out = nn.Linear(hidden, 3 * horizons)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)

    def forward(self, c: Tensor) -> Tensor:
        """The same parameters in training and in evaluation: nothing here is random."""
        location, scale, freedom = self.out(c).float().unflatten(-1, (self.horizons, 3)).unbind(-1)
        scale = F.softplus(scale) + SMALLEST_SCALE
        return torch.stack([location, scale, (FEWEST_FREEDOM + F.softplus(freedom)).clamp(max=MOST_FREEDOM)], -1)


def student_nll(parameters: Tensor, y: Tensor) -> Tensor:
    """Negative log-likelihood [m, H] of standardised returns y [m, H] under parameters [m, H, 3], in float32."""
    with torch.autocast(y.device.type, enabled=False):
        location, scale, freedom = parameters.float().unbind(-1)
        return -StudentT(freedom, location, scale, validate_args=False).log_prob(y.float())
