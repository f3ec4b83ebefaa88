"""The Nikkei-like index of the simulated market and how it moves: what options and futures are written on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.exchange.drawing import Market

MEMBERS = 225
TRADING_DAYS = 245

_LEVEL = 28_000.0
_DECAY = 0.94
_LONG_RUN = 0.19
"""Volatility to which the market expects to return."""
_FIRST_VARIANCE = 0.011**2
_EMERGENCY_MOVE = 0.06
"""A day that moves the index by this much calls an emergency margin; the day of the largest move always does."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Underlying:
    """The index on every business day; a day on which the stocks did not trade repeats the last close."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    short_volatility: Floats
    """Annual volatility expected over the next weeks, from the moves up to the day."""
    skew: Floats
    """How much steeper (1) or flatter (-1) than usual the smile is."""
    emergency: NDArray[np.bool_]
    """Days with an emergency margin call."""

    def at_the_money(self, day: NDArray[np.int64] | int, years: Floats) -> Floats:
        """Annual volatility expected on `day` over the next `years`: the short one fades into the long-run one."""
        fading = (1 - np.exp(-4.0 * years)) / (4.0 * years)
        variance = _LONG_RUN**2 + (self.short_volatility[day] ** 2 - _LONG_RUN**2) * fading
        return np.asarray(np.sqrt(variance), dtype=np.float64)


def draw_underlying(market: Market) -> Underlying:
    """A price-weighted index of the largest stocks that are listed throughout."""
    rng = np.random.default_rng([market.size.seed, 54])
    universe = market.universe
    always = universe.common & (universe.first == 0) & (universe.last == len(market.business))
    pool = np.flatnonzero(always if always.any() else universe.common)
    members = pool[np.argsort(-(universe.shares * universe.price)[pool], kind="stable")[:MEMBERS]]
    returns = np.nan_to_num(market.closes.returns()[:, members])
    price = universe.price[members] * np.cumprod(1 + returns, axis=0)
    quotes = market.quotes
    at_open = np.where(
        quotes.traded[:, members], quotes.open[:, members] / np.maximum(quotes.close[:, members], 1e-9), 1.0
    )
    scale = _LEVEL / price[0].sum()
    close, opened = scale * price.sum(axis=1), scale * (price * at_open).sum(axis=1)
    days = len(close)
    reach = 0.004 * np.abs(rng.standard_normal((2, days)))
    high, low = np.maximum(opened, close) * (1 + reach[0]), np.minimum(opened, close) * (1 - reach[1])

    moves = np.diff(np.log(close), prepend=np.log(close[0]))
    variance, surprise, lean = np.empty(days), np.empty(days), np.empty(days)
    noise = rng.standard_normal((2, days))
    state = [_FIRST_VARIANCE, 0.0, 0.0]
    for t in range(days):
        state[0] = _DECAY * state[0] + (1 - _DECAY) * moves[t] ** 2
        state[1] = 0.9 * state[1] + 0.03 * noise[0, t]
        state[2] = 0.95 * state[2] + 0.3 * noise[1, t]
        variance[t], surprise[t], lean[t] = state
    volatility = np.clip((0.03 + np.sqrt(TRADING_DAYS * variance)) * np.exp(surprise), 0.08, 0.9)
    largest = np.argmax(np.abs(moves))
    emergency = (np.abs(moves) >= _EMERGENCY_MOVE) | (np.arange(days) == largest)

    row = np.maximum(np.cumsum(market.trading) - 1, 0)
    still = ~market.trading
    rounded = {
        name: np.round(np.where(still, close[row], values[row]), 2)
        for name, values in {"open": opened, "high": high, "low": low, "close": close}.items()
    }
    return Underlying(**rounded, short_volatility=volatility[row], skew=lean[row], emergency=emergency[row] & ~still)
