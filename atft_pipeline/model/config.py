"""The model's declared sizes, and the rules that they must obey. Nothing here touches a tensor."""

from __future__ import annotations

from dataclasses import dataclass

from atft_pipeline.settings import HORIZONS


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes the parameter set; a checkpoint stores it beside the weights."""

    n_features: int
    """Width of a row. It is never inferred from the data: another width is an error."""
    spectral: tuple[int, ...]
    """Indices of the stock's own non-stationary series, the only ones that FAN and SAN may change."""
    return_channel: int
    """Index of the 1-day return, which the output-side forecasters read."""
    hidden: int = 64
    value_width: int = 34
    """Width of one feature's embedding inside variable selection; it does not scale with `hidden`."""
    sequence_length: int = 60
    lstm_layers: int = 2
    attention_heads: int = 4
    gat_heads: tuple[int, int] = (4, 2)
    sectors: int = 35
    """Size of the sector table: the 34 ids of the data and 0 for unknown."""
    horizons: tuple[int, ...] = HORIZONS
    quantiles: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9)
    dropout: float = 0.1
    edge_dropout: float = 0.1
    """Share of the edges (self-loops excepted) that one training step leaves out."""
    fan_k: int = 4
    """Frequency bins that FAN counts as the main part of a window."""
    fan_includes_dc: bool = False
    """Off: the inputs are already standardised, and for slow characteristics the level is the signal."""
    san_period: int = 5
    edge_dim: int = 3
    forecaster_width: int = 64
    fan: bool = True
    san: bool = True
    lstm: bool = True
    """Off: a model without that part, to measure what it is worth. There is nothing in its place."""
    student_t: bool = False
    """Whether each horizon has a Student-t head beside its score and quantiles."""
    highway_waves: int = 4
    """Periods T/1 .. T/waves that the highway reads in the window of each spectral feature."""
    highway_products: int = 8
    """Products of two sums of features that the highway has room for."""
    row_chunk: int = 256
    """Rows of variable selection in work at once: few enough to stay in a processor's cache; a GPU wants thousands."""
    pair_chunk: int = 0
    """Windows encoded at once, recomputed in the backward pass; 0 keeps all of them (fastest while they fit)."""

    def __post_init__(self) -> None:
        outside = [i for i in (*self.spectral, self.return_channel) if not 0 <= i < self.n_features]
        if outside:
            raise ValueError(f"feature indices {outside} lie outside the {self.n_features} features of a row")
        if len(set(self.spectral)) != len(self.spectral):
            raise ValueError(f"spectral names a feature twice: {self.spectral}")
        if self.hidden % self.attention_heads:
            raise ValueError(f"hidden={self.hidden} is not divisible by attention_heads={self.attention_heads}")
        if self.sequence_length < 2 * self.san_period:
            raise ValueError(f"sequence_length={self.sequence_length} holds fewer than two slices of {self.san_period}")
        if not 0 <= self.highway_waves < self.sequence_length / 2:
            raise ValueError(
                f"highway_waves={self.highway_waves}: a window of {self.sequence_length} holds fewer waves"
            )
        middle = len(self.quantiles) // 2
        if list(self.quantiles) != sorted(set(self.quantiles)) or self.quantiles[middle] != 0.5:
            raise ValueError(f"quantiles={self.quantiles} must rise and have 0.5 in the middle")
        if list(self.horizons) != sorted(set(self.horizons)) or self.horizons[0] < 1:
            raise ValueError(f"horizons={self.horizons} must be rising day counts")
