"""From returns to raw closing prices: ticks, daily limits, splits and reverse splits.

The unrounded path is carried along, so that rounding to ticks never accumulates; what a price limit cuts off is lost,
so that no limit day announces the next day's return.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.exchange.universe import Universe

TICK_CHANGE = date(2023, 6, 5)
"""From here on the fine tick table covers TOPIX Mid400 too, not only TOPIX 100."""

_TICKS = (
    (3_000, 1), (5_000, 5), (30_000, 10), (50_000, 50), (300_000, 100), (500_000, 500), (3_000_000, 1_000),
    (5_000_000, 5_000), (np.inf, 10_000),
)  # fmt: skip
_FINE_TICKS = (
    (1_000, 0.1), (3_000, 0.5), (10_000, 1), (30_000, 5), (100_000, 10), (300_000, 50), (1_000_000, 100),
    (3_000_000, 500), (np.inf, 1_000),
)  # fmt: skip
_LIMITS = (
    (100, 30), (200, 50), (500, 80), (700, 100), (1_000, 150), (1_500, 300), (2_000, 400), (3_000, 500), (5_000, 700),
    (7_000, 1_000), (10_000, 1_500), (15_000, 3_000), (20_000, 4_000), (30_000, 5_000), (50_000, 7_000),
    (70_000, 10_000), (100_000, 15_000), (150_000, 30_000), (200_000, 40_000), (300_000, 50_000), (np.inf, 70_000),
)  # fmt: skip
_SPLITS = np.array([1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 10])
_SPLIT_ODDS = np.cumsum([0.55, 0.20, 0.12, 0.09, 0.04])
_SPLIT_PRICE = 2_500.0
_SPLIT_CHANCE = 0.05
_REVERSE_PRICE = 450.0
_REVERSE_CHANCE = 0.04
_REVERSE = 10.0
_REST = 5
"""Quarters that pass between two changes of one issue's share count."""
_LOWEST = 20.0
"""Price below which nothing trades in the simulation: one tick would be a large return."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def tick_size(price: Floats, fine: Bools) -> Floats:
    """Tick in yen at `price`; `fine` marks the issues of the finer table."""
    bounds, ticks = (np.array(column, dtype=float) for column in zip(*_TICKS, strict=True))
    fine_bounds, fine_ticks = (np.array(column, dtype=float) for column in zip(*_FINE_TICKS, strict=True))
    usual = ticks[np.searchsorted(bounds, price)]
    return np.where(fine, fine_ticks[np.searchsorted(fine_bounds, price)], usual)


def on_tick(price: Floats, fine: Bools) -> Floats:
    """`price` rounded to the nearest tick; keeps the order of prices, since each bound is a multiple of both ticks."""
    tick = tick_size(price, fine)
    return np.round(np.round(price / tick) * tick, 1)


def limit_width(base: Floats) -> Floats:
    """How far a price may move in a day from `base`, yen."""
    bounds, widths = (np.array(column, dtype=float) for column in zip(*_LIMITS, strict=True))
    return widths[np.searchsorted(bounds, base, side="right")]


@dataclass(frozen=True)
class Closes:
    """Raw closes and what governs them; arrays are [days, issues]."""

    close: Floats
    """Raw close in yen, on a tick."""
    factor: Floats
    """Adjustment factor: 1, or the ratio of a split on its ex-date."""
    upper: Floats
    """Highest price of the day; infinite on the day of a listing."""
    lower: Floats
    fine: Bools
    """Issues of the fine tick table."""

    def returns(self) -> Floats:
        """Adjusted close-to-close returns [days, issues]; NaN on the first day."""
        returns = np.full_like(self.close, np.nan)
        returns[1:] = self.close[1:] / (self.close[:-1] * self.factor[1:]) - 1
        return returns


def fine_ticks(universe: Universe, days: list[date]) -> Bools:
    """[days, issues]: which table of ticks applies."""
    early = np.array([scale in ("TOPIX Core30", "TOPIX Large70") for scale in universe.scale])
    late = early | np.array([scale == "TOPIX Mid400" for scale in universe.scale])
    changed = np.array([day >= TICK_CHANGE for day in days])
    return np.where(changed[:, None], late, early)


def ex_dates(days: list[date]) -> list[int]:
    """Days on which splits go ex: one business day before the last of March, June, September and December."""
    ends = [i for i in range(1, len(days) - 1) if days[i].month != days[i + 1].month and days[i].month in (3, 6, 9, 12)]
    return [i - 1 for i in ends if i >= 1]


def price_path(universe: Universe, returns: Floats, listed: Bools, days: list[date], seed: int) -> Closes:
    """Turn returns [days, issues] into raw closes; at least one split and one reverse split where dates allow."""
    rng = np.random.default_rng([seed, 5])
    shape = returns.shape
    fine = fine_ticks(universe, days)
    close, factor = np.zeros(shape), np.ones(shape)
    upper, lower = np.full(shape, np.inf), np.zeros(shape)
    events = ex_dates(days)
    luck = {day: rng.random((2, shape[1])) for day in events}
    exact = universe.price.copy()
    rested = np.zeros(shape[1], dtype=np.int64)  # first event at which an issue may change its share count again
    close[0] = on_tick(exact, fine[0])
    for t in range(1, len(days)):
        known = listed[t] & listed[t - 1]
        if t in luck:
            event = events.index(t)
            factor[t] = _split_factors(close[t - 1], known & universe.common & (rested <= event), luck[t], event)
            rested[factor[t] != 1] = event + _REST
        base = close[t - 1] * factor[t]
        tick = tick_size(base, fine[t])
        width = limit_width(base)
        upper[t] = np.where(known, np.floor((base + width) / tick + 1e-9) * tick, np.inf)
        lower[t] = np.where(known, np.maximum(np.ceil((base - width) / tick - 1e-9) * tick, tick), 0.0)
        exact = np.clip(exact * factor[t] * (1 + returns[t]), np.maximum(lower[t], _LOWEST), upper[t])
        close[t] = np.clip(on_tick(exact, fine[t]), lower[t], upper[t])
    return Closes(close, factor, upper, lower, fine)


def _split_factors(close: Floats, allowed: Bools, luck: Floats, event: int) -> Floats:
    """Factors of one ex-date; the first splits at least one issue, the first two merge at least one."""
    factor = np.ones(len(close))
    splits = allowed & (close >= _SPLIT_PRICE) & (luck[0] < _SPLIT_CHANCE)
    reverses = allowed & (close < _REVERSE_PRICE) & (luck[0] < _REVERSE_CHANCE)
    reverses |= allowed & (close < 100) & (luck[0] < 0.5)
    if allowed.any() and event == 0 and not splits.any():
        splits[np.argmax(np.where(allowed, close, -np.inf))] = True
    if allowed.any() and event <= 1 and not reverses.any():
        reverses[np.argmin(np.where(allowed, close, np.inf))] = True
    ratio = _SPLITS[np.searchsorted(_SPLIT_ODDS, luck[1] * _SPLIT_ODDS[-1])]
    ratio = np.where(close * ratio < 800, 1 / 2, ratio)
    factor[splits] = np.round(ratio[splits], 6)
    factor[reverses] = _REVERSE
    return factor
