"""What is left of a stock's daily return after its market exposure: the series that several groups read."""

from __future__ import annotations

from atft_pipeline.features.topix import Topix
from atft_pipeline.panel.operators import Array, elementwise, ts_beta, ts_lag
from atft_pipeline.panel.panel import Panel


def market_beta(panel: Panel, topix: Topix, rows: int, min_obs: int) -> Array:
    """cov(r, m)/var(m) of ret_1d against TOPIX of the same day, [T, N]; null where var(m) <= 1e-12."""
    return ts_beta(panel.ret_1d, topix.simple_return(1), rows, min_obs)


def residual_return(panel: Panel, topix: Topix) -> Array:
    """e = r - beta[-1] m with the 60-row beta (at least 40 pairs) known one row earlier, [T, N]."""
    known_before = ts_lag(market_beta(panel, topix, 60, 40), 1)
    market = topix.simple_return(1)[:, None]
    return elementwise(lambda r, beta, market: r - beta * market, panel.ret_1d, known_before, market)
