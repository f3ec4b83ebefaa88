"""What goes into the model and what comes out: a block of consecutive dates, and scores for its (day, stock) pairs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass
class Block:
    """D consecutive scored dates of n stocks, preceded by the look-back that the first one needs.

    A pair (d, i) is stock i on day d; its window is the rows d .. d + T - 1 of x[:, i], so the newest row of the window
    is row d + T - 1 and nothing later is read. Nodes of the graph are pairs, in the order of `pairs`; edges join pairs
    of one day only.
    """

    x: Tensor
    """[S, n, F] scaled features, S = T + D - 1; a missing row is 0."""
    observed: Tensor
    """[S, n] bool: a usable row; the attention looks at no other."""
    pairs: Tensor
    """[M, 2] int64: day d in 0 .. D - 1, stock i in 0 .. n - 1."""
    sector: Tensor
    """[M] int64: the pair's sector id as known on its own date, 0 = unknown."""
    edge_index: Tensor = field(default_factory=lambda: torch.zeros(2, 0, dtype=torch.long))
    """[2, E] int64: source and target node; self-loops are the graph builder's."""
    edge_attr: Tensor = field(default_factory=lambda: torch.zeros(0, 3))
    """[E, edge_dim]: signed correlation, same sector, same market."""

    def on_date(self, day: int) -> Block:
        """The pairs of one day alone, over the same rows."""
        mine = self.pairs[:, 0] == day
        edges = mine[self.edge_index[0]]
        place = mine.cumsum(0) - 1
        return replace(
            self,
            pairs=self.pairs[mine],
            sector=self.sector[mine],
            edge_index=place[self.edge_index[:, edges]],
            edge_attr=self.edge_attr[edges],
        )

    def days(self, first: int, count: int, window: int) -> Block:
        """Days `first` .. `first + count - 1` as a block of their own, with the rows of their windows of `window`."""
        mine = (self.pairs[:, 0] >= first) & (self.pairs[:, 0] < first + count)
        edges = mine[self.edge_index[0]]
        place = mine.cumsum(0) - 1
        last = first + count + window - 1
        return Block(
            x=self.x[first:last],
            observed=self.observed[first:last],
            pairs=self.pairs[mine] - torch.tensor([first, 0], device=self.pairs.device),
            sector=self.sector[mine],
            edge_index=place[self.edge_index[:, edges]],
            edge_attr=self.edge_attr[edges],
        )

    def to(self, device: torch.device | str) -> Block:
        """The same block on another device."""
        return Block(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))


@dataclass
class Forecast:
    """What the output-side forecasters say of the pair's return, in units of the per-date standardised return."""

    main: Tensor
    """[M, H] the oscillating part (FAN)."""
    mean: Tensor
    """[M, H] the level of the rest (SAN)."""
    scale: Tensor
    """[M, H] the spread of the rest (SAN), positive."""


@dataclass
class Output:
    """One forward pass. The score is the only thing that is ranked, traded and correlated."""

    score: Tensor
    """[M, H]"""
    quantiles: Tensor
    """[M, H, Q], rising along the last axis."""
    forecast: Forecast
    student: Tensor | None = None
    """[M, H, 3] location, scale and degrees of freedom of the standardised return, where the model has such heads."""
    diagnostics: dict[str, Tensor] = field(default_factory=dict)
    """Detached scalars for the log: alpha, norm_projection, norm_graph, edges."""

    def point_forecast(self) -> Tensor:
        """[M, H] expected standardised return: mean + main + scale * score."""
        return self.forecast.mean + self.forecast.main + self.forecast.scale * self.score
