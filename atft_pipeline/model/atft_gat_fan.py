"""ATFT-GAT-FAN: adaptive normalisation, variable selection, temporal fusion, graph attention, fusion, heads.

The public face of the model: training and inference use `ModelConfig`, `Block`, `Output` and `ATFTGATFAN` from here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from atft_pipeline.model.block import Block, Forecast, Output
from atft_pipeline.model.config import ModelConfig
from atft_pipeline.model.forecasters import ReturnForecasters
from atft_pipeline.model.fusion import Fusion
from atft_pipeline.model.graph_attention import GraphAttention
from atft_pipeline.model.heads import Heads
from atft_pipeline.model.highway import RETURN_DAYS, Highway, neighbour_means
from atft_pipeline.model.norm import AdaptiveNorm
from atft_pipeline.model.student import StudentHeads
from atft_pipeline.model.temporal import StaticContext, Temporal
from atft_pipeline.model.variable_selection import VariableSelection

__all__ = ["ATFTGATFAN", "Block", "Forecast", "ModelConfig", "Output"]


class ATFTGATFAN(nn.Module):
    """Scores for the (day, stock) pairs of a block.

    Variable selection is a map of one row, so it is computed once per row and shared by all windows. What adaptive
    normalisation changes, the values of the spectral features, depends on the window and is computed per window.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = self.config = config
        self.adaptive_norm = AdaptiveNorm(len(c.spectral), c.fan_k, c.fan_includes_dc, c.san_period, c.fan, c.san)
        self.forecasters = ReturnForecasters(c)
        self.selection = VariableSelection(c.n_features, c.spectral, c.value_width, c.hidden, c.dropout, c.row_chunk)
        self.static = StaticContext(c.sectors, c.hidden)
        self.temporal = Temporal(c.hidden, c.lstm_layers if c.lstm else 0, c.attention_heads, c.dropout)
        self.graph = GraphAttention(c.hidden, c.gat_heads, c.edge_dim, c.dropout, c.edge_dropout)
        self.fusion = Fusion(c.hidden)
        self.heads = Heads(c.hidden, len(c.horizons), len(c.quantiles), c.dropout)
        self.highway = Highway(
            c.n_features, c.spectral, len(c.horizons), c.sequence_length, c.highway_waves, c.highway_products
        )
        self.student = StudentHeads(c.hidden, len(c.horizons)) if c.student_t else None
        self.pair_chunk = c.pair_chunk
        """Windows encoded at once while training; 0: all. It changes no number, and may change while training."""
        self.uses_adaptive_norm = False
        self.uses_graph = False

    def set_switches(self, *, adaptive_norm: bool, graph: bool) -> None:
        """Turn block A (FAN, SAN and their forecasters) and block E (graph attention) on or off."""
        self.uses_adaptive_norm, self.uses_graph = adaptive_norm, graph

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Every parameter exactly once, by the names of the phase table.

        `graph` holds the fusion's graph columns and gamma too: they learn when the graph is on, and only then.
        """
        slot = [self.fusion.weight_g, self.fusion.gamma]
        return {
            "forecasters": list(self.forecasters.parameters()),
            "gates": list(self.adaptive_norm.parameters()),
            "selection": list(self.selection.parameters()),
            "static": list(self.static.parameters()),
            "temporal": list(self.temporal.parameters()),
            "graph": [*self.graph.parameters(), *slot],
            "fusion": [p for p in self.fusion.parameters() if all(p is not s for s in slot)],
            "heads": [p for m in (self.heads, self.student) if m is not None for p in m.parameters()],
            "highway": list(self.highway.parameters()),
        }

    def forward(self, block: Block) -> Output:
        """Encode the rows once, every window from them, then the graph, the fusion and the heads."""
        self._check(block)
        return self._score(block, self._row_codes(block.x.flatten(0, 1).float()))

    @torch.no_grad()
    def score_each_date(self, block: Block) -> Output:
        """The same scores as `forward`, each date by itself: for evaluation and prediction.

        A row is encoded among the observed rows of its own date, and a date's windows, edges and heads are computed
        alone. So the shapes of all products, and with them every bit of a score, depend on nothing later than its date.
        The block must hold every stock that is observed on any of its rows, whether it is scored or not.
        """
        self._check(block)
        by_row = []
        for x, seen in zip(block.x.float(), block.observed, strict=True):
            codes = self._row_codes(torch.cat([x[seen], x.new_zeros(1, x.shape[1])]))  # the last one: a missing row's
            spread = tuple(code[-1].expand(len(seen), -1).clone() for code in codes)
            for whole, code in zip(spread, codes, strict=True):
                whole[seen] = code[:-1]
            by_row.append(spread)
        rows = tuple(torch.cat(parts) for parts in zip(*by_row, strict=True))  # each [S n, width]
        dates = [block.on_date(day) for day in block.pairs[:, 0].unique().tolist()]
        outputs = [self._score(date, rows) for date in dates]
        return Output(
            torch.cat([o.score for o in outputs]),
            torch.cat([o.quantiles for o in outputs]),
            Forecast(*(torch.cat([getattr(o.forecast, n) for o in outputs]) for n in ("main", "mean", "scale"))),
            torch.cat([o.student for o in outputs if o.student is not None]) if self.student is not None else None,
            {name: torch.stack([o.diagnostics[name] for o in outputs]).mean() for name in outputs[0].diagnostics},
        )

    def _score(self, block: Block, rows: tuple[Tensor, ...]) -> Output:
        y = self._encode(block, rows)  # [m, hidden]
        has_graph = self.uses_graph and block.edge_index.shape[1] > 0
        g = self.graph(y, block.edge_index, block.edge_attr) if has_graph else None
        c, diagnostics = self.fusion(y, g)
        score, quantiles = self.heads(c)  # [m, H], [m, H, Q]
        direct = self.highway(self.highway_terms(block))  # [m, H]
        score, quantiles = score + direct, quantiles + direct[..., None]
        diagnostics["edges"] = torch.tensor(float(block.edge_index.shape[1] if has_graph else 0))
        student = None if self.student is None else self.student(c)  # [m, H, 3]
        return Output(score, quantiles, self.forecast(block), student, diagnostics)

    def forecast(self, block: Block) -> Forecast:
        """The forecasters alone (all that their own training stage needs); neutral while block A is off."""
        if not self.uses_adaptive_norm:
            neutral = block.x.new_zeros(block.pairs.shape[0], len(self.config.horizons), dtype=torch.float32)
            return Forecast(main=neutral, mean=neutral, scale=torch.ones_like(neutral))
        returns = block.x[..., self.config.return_channel].flatten()
        return self.forecasters(returns[self._window_rows(block)].t())

    def auxiliary_loss(self, output: Output | Forecast, y_std: Tensor, mask: Tensor) -> Tensor:
        """L_FAN + L_SAN of the forecasters against the per-date standardised returns y_std [m, H], mask [m, H]."""
        forecast = output.forecast if isinstance(output, Output) else output
        return self.forecasters.loss(forecast, y_std, mask)

    def _check(self, block: Block) -> None:
        c = self.config
        rows, stocks, width = block.x.shape
        if width != c.n_features:
            raise ValueError(f"the model was built for {c.n_features} features, the block has {width}")
        if rows < c.sequence_length:
            raise ValueError(f"a block of {rows} rows is shorter than the window of {c.sequence_length}")
        if block.pairs.shape[0] == 0:
            raise ValueError("the block has no (day, stock) pair to score; leave such dates out")
        if block.observed.shape != (rows, stocks):
            raise ValueError(f"observed is {tuple(block.observed.shape)}, the block's rows are {(rows, stocks)}")
        if block.sector.shape != block.pairs.shape[:1]:
            raise ValueError(f"sector is {tuple(block.sector.shape)}; give one id per pair ({block.pairs.shape[0]})")
        if block.edge_attr.shape != (block.edge_index.shape[1], c.edge_dim):
            want = (block.edge_index.shape[1], c.edge_dim)
            raise ValueError(f"edge_attr is {tuple(block.edge_attr.shape)}, the edges need {want}")

    def _window_rows(self, block: Block) -> Tensor:
        """[T, m]: for every pair the rows of its window, oldest first, in the block flattened to [S * n]."""
        day, stock = block.pairs[:, 0], block.pairs[:, 1]
        steps = torch.arange(self.config.sequence_length, device=block.pairs.device)
        return (day + steps[:, None]) * block.x.shape[1] + stock

    def highway_terms(self, block: Block) -> Tensor:
        """[m, width]: what the highway weighs. The neighbours' terms are zero while the graph is off."""
        newest, windows = self._newest(block), self._spectral_windows(block)
        if self.uses_graph and block.edge_index.shape[1] > 0:
            days = self.config.sequence_length - 1 - torch.arange(RETURN_DAYS, device=block.x.device)
            rows = self._window_rows(block)[days].t()  # [m, RETURN_DAYS], the newest first
            returns = block.x[..., self.config.return_channel].flatten().float()[rows]
            shown = torch.cat([newest[:, self.selection.spectral], returns[:, 1:]], 1)
            means = neighbour_means(shown, block.edge_index, block.edge_attr[:, 0])
            neighbours = torch.cat([means, returns], 1)
        else:
            neighbours = newest.new_zeros(len(newest), self.highway.peers.stop - self.highway.peers.start)
        return self.highway.terms(newest, windows, neighbours)

    def _spectral_windows(self, block: Block) -> Tensor:
        """[m, T, channels]: every pair's window of the spectral features."""
        own = block.x[..., self.selection.spectral].flatten(0, 1).float()
        return own[self._window_rows(block).t()]

    def _newest(self, block: Block) -> Tensor:
        """[m, F]: every pair's own row on its own day."""
        day, stock = block.pairs[:, 0] + self.config.sequence_length - 1, block.pairs[:, 1]
        return block.x[day, stock].float()

    def _row_codes(self, x: Tensor) -> tuple[Tensor, ...]:
        """x [rows, F] -> what windows share of a row: its finished code, or the three parts that they complete."""
        plain, weights = self.selection.row_sums(x)
        own = x[:, self.selection.spectral]
        # Shut gates make the windows share these values too. A training step still goes the long way: the gates
        # need their gradient.
        if not self.uses_adaptive_norm or (not torch.is_grad_enabled() and self.adaptive_norm.closed()):
            return (self.selection.codes(plain, weights, own),)
        return plain, weights, own

    def _encode(self, block: Block, shared: tuple[Tensor, ...]) -> Tensor:
        """Every pair's window as one vector [m, hidden], from the codes of the block's rows."""
        observed = block.observed.flatten()
        rows, size = self._window_rows(block), self.pair_chunk or block.pairs.shape[0]
        parts = []
        for start in range(0, block.pairs.shape[0], max(size, 1)):
            piece = (rows[:, start : start + size], block.sector[start : start + size], observed, *shared)
            if torch.is_grad_enabled() and self.pair_chunk:
                parts.append(checkpoint(self._encode_windows, *piece, use_reentrant=False))
            else:
                parts.append(self._encode_windows(*piece))
        return torch.cat(parts)

    def _encode_windows(self, rows: Tensor, sector: Tensor, observed: Tensor, *shared: Tensor) -> Tensor:
        """rows [T, m] -> [m, hidden], from finished row codes or from the three parts that windows complete."""
        if len(shared) == 1:
            codes = F.embedding(rows, shared[0])  # [T, m, hidden]
        else:
            plain, weights, own = shared
            normalised = self.adaptive_norm(own[rows.t()].transpose(1, 2))  # [m, channels, T]
            codes = self.selection.codes(
                F.embedding(rows.flatten(), plain),
                F.embedding(rows.flatten(), weights),
                normalised.permute(2, 0, 1).flatten(0, 1),
            ).unflatten(0, rows.shape)
        return self.temporal(codes + self.static(sector), observed[rows])
