"""Where the graph joins the temporal code: a projection of both, with the graph's half tripled, and one gate."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRAPH_GAIN = 3.0


class Fusion(nn.Module):
    """c = LN(y + u), u = alpha P + (1 - alpha) g, P = W [y ; g] + b, alpha = sigmoid(gamma), 0.5 at the start.

    W is kept as its two halves, so that a phase without a graph neither moves nor decays the graph's half.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight_y = nn.Parameter(torch.empty(hidden, hidden))
        self.weight_g = nn.Parameter(torch.empty(hidden, hidden))
        self.bias = nn.Parameter(torch.empty(hidden))
        self.gamma = nn.Parameter(torch.empty(()))
        self.norm = nn.LayerNorm(hidden)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier over the whole of W, then the graph's columns three times larger: once, here and nowhere else."""
        hidden = self.bias.shape[0]
        weight = nn.init.xavier_uniform_(self.weight_y.new_empty(hidden, 2 * hidden))
        self.weight_y.copy_(weight[:, :hidden])
        self.weight_g.copy_(GRAPH_GAIN * weight[:, hidden:])
        self.bias.zero_()
        self.gamma.zero_()
        self.norm.reset_parameters()

    def forward(self, y: Tensor, g: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """y [m, hidden] and g [m, hidden], or None for the zero slot -> c [m, hidden] and what to log."""
        if g is None:
            # The same formula at g = 0; gamma is held, because without a graph its gate has nothing to weigh.
            alpha = torch.sigmoid(self.gamma.detach())
            projected = F.linear(y, self.weight_y, self.bias)
            u, norm_graph = alpha * projected, projected.new_zeros(())
        else:
            alpha = torch.sigmoid(self.gamma)
            projected = F.linear(y, self.weight_y, self.bias) + F.linear(g, self.weight_g)
            u, norm_graph = alpha * projected + (1 - alpha) * g, g.detach().norm()
        logged = {"alpha": alpha.detach(), "norm_projection": projected.detach().norm(), "norm_graph": norm_graph}
        return self.norm(y + u), logged
