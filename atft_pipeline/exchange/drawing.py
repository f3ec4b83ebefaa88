"""The draw of one simulated market: everything random that its tables have in common, as arrays in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.exchange.bars import Quotes, draw_quotes, draw_traded
from atft_pipeline.exchange.indices import IndexBars, draw_indices
from atft_pipeline.exchange.oracle import acting_dates, calibrate
from atft_pipeline.exchange.plants import PARTS, Planted, parse_plant
from atft_pipeline.exchange.prices import Closes, price_path
from atft_pipeline.exchange.returns import Noise, draw_noise, simulate
from atft_pipeline.exchange.signals import Effects, Groups, Hidden, draw_groups, draw_hidden
from atft_pipeline.exchange.tokyo_calendar import OUTAGES, business_days
from atft_pipeline.exchange.universe import Universe, draw_universe
from atft_pipeline.settings import MarketSize

FEWEST_STOCKS = 12
FEWEST_DAYS = 30


class MarketSizeError(ValueError):
    """The wanted market is too small to simulate; the message says what is needed."""


@dataclass(frozen=True)
class Market:
    """A market in memory. Arrays are [trading days, issues]; business days include those of an outage."""

    size: MarketSize
    universe: Universe
    business: list[date]
    trading: NDArray[np.bool_]
    """[business days]: the exchange traded."""
    hidden: Hidden
    groups: Groups
    noise: Noise
    effects: Effects
    closes: Closes
    quotes: Quotes
    planted: Mapping[str, Planted]
    scale: Mapping[str, float]
    schedule: Mapping[str, NDArray[np.float64]]

    @cached_property
    def trading_row(self) -> NDArray[np.int64]:
        """[business days]: row of the trading arrays, the last trading day up to each business day."""
        return np.maximum(np.cumsum(self.trading) - 1, 0).astype(np.int64)

    def business_range(self, first: date, last: date) -> range:
        """The business days in [first, last], by their number."""
        return range(bisect_left(self.business, first), bisect_right(self.business, last))

    @cached_property
    def index_bars(self) -> IndexBars:
        """The indices of the whole history; several tables show them."""
        return draw_indices(self.universe, self.quotes, self.closes, self.noise, self.size.seed)

    @property
    def trading_days(self) -> list[date]:
        return [day for day, trades in zip(self.business, self.trading, strict=True) if trades]

    @property
    def members(self) -> NDArray[np.bool_]:
        """Stocks that traded on the day: who counts in an information coefficient."""
        return self.quotes.traded & self.universe.common


def draw_market(size: MarketSize) -> Market:
    """Draw the market of `size` and fit the scales of its planted parts to their sizes on the written bars."""
    planted = parse_plant(size.plant)
    business = business_days(size.start, size.end)
    if size.stocks < FEWEST_STOCKS or len(business) < FEWEST_DAYS:
        raise MarketSizeError(
            f"a market of {size.stocks} stocks and {len(business)} business days ({size.start} to {size.end}) is too "
            f"small; it needs {FEWEST_STOCKS} stocks and {FEWEST_DAYS} business days"
        )
    trading = np.array([day not in OUTAGES for day in business])
    days = [day for day in business if day not in OUTAGES]
    universe = draw_universe(size.stocks, business, size.seed)
    listed = universe.listed(len(business))[trading]
    hidden = draw_hidden(universe, len(days), size.seed)
    groups = draw_groups(universe, size.seed)
    noise = draw_noise(universe, groups, len(days), size.seed)
    traded = draw_traded(universe, listed, size.seed)
    acting = acting_dates(days)
    schedule = {part: planted.get(part, Planted(0.0)).schedule(acting) for part in PARTS}

    def play(scale: Mapping[str, float]) -> tuple[Effects, Closes]:
        returns = simulate(noise, hidden, groups, listed, scale, schedule)
        return returns.effects, price_path(universe, returns.simple, listed, days, size.seed)

    def realise(scale: Mapping[str, float]) -> tuple[Effects, NDArray[np.float64]]:
        effects, closes = play(scale)
        return effects, closes.returns()

    scale = calibrate(planted, schedule, realise, traded & universe.common)
    effects, closes = play(scale)
    quotes = draw_quotes(universe, closes, hidden, noise.volatility, traded, size.seed)
    return Market(
        size, universe, business, trading, hidden, groups, noise, effects, closes, quotes, planted, scale, schedule
    )
