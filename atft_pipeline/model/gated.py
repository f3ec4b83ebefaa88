"""The gated residual network that the temporal and selection parts share (Lim et al. 2021, section 4.1)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class GatedSkip(nn.Module):
    """LN(skip + GLU(x)): the block can be closed, and then the skip passes alone."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.gate = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x and skip [..., width] -> [..., width]."""
        return self.norm(skip + F.glu(self.gate(self.dropout(x)), dim=-1))


class GatedResidual(nn.Module):
    """GRN: width -> width -> 2 width with ELU, gated, on a residual path."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.skip = GatedSkip(width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        return self.skip(F.elu(self.inner(x)), x)
