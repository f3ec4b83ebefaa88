"""Who traded: each issue's turnover split into cash, short and margin trades, and the sectors' short selling from it.

Every trade has two sides, so the four sell legs and the three buy legs each add up to the turnover of the bar, in yen
and in shares. Short selling by sector is the same short sales added up, so that the two tables agree. The hidden slow
characteristic moves short selling and new margin buying, behind more noise than signal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.drawing import Market
from atft_pipeline.exchange.margin import LOANABLE, business_range, trading_row
from atft_pipeline.exchange.sectors import OTHER, SECTORS

if TYPE_CHECKING:
    from atft_pipeline.exchange.sources import SpanTable

SELLS = ("LongSell", "ShrtNoMrgn", "MrgnSellNew", "MrgnSellClose")
BUYS = ("LongBuy", "MrgnBuyNew", "MrgnBuyClose")
SHORTS = ("ShrtNoMrgn", "MrgnSellNew")
"""The sell legs that are short sales."""

_WITH_RESTRICTION = 0.82
"""Usual share of short sales under the price restriction."""
_LOT = 100

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Mix:
    """How trading divides, as logits against the cash leg; the noise of a day is drawn from the day's own seed."""

    market: Market
    sells: Floats
    """[3, issues]: usual logits of the sell legs after the first."""
    buys: Floats
    """[2, issues]"""
    mood: Floats
    """[days]: what the market's day adds to short selling; more on falling days."""
    sector_mood: Floats
    """[days, sectors + 1]"""

    def legs(self, row: int) -> tuple[Floats, Floats]:
        """Shares of the sell legs [4, issues] and of the buy legs [3, issues] on a trading day; each sums to 1."""
        market = self.market
        rng = np.random.default_rng([market.size.seed, 23, row])
        noise = rng.standard_normal((5, len(market.universe.codes)))
        hidden = market.hidden.linear[row]
        sells, buys = self.sells + 0.35 * noise[:3], self.buys + 0.35 * noise[3:]
        sells[0] += self.mood[row] + self.sector_mood[row][market.universe.sector] - 0.10 * hidden
        sells[1] += self.mood[row] - 0.08 * hidden
        buys[0] += -0.12 * hidden - 0.5 * self.mood[row]
        return _shares(sells), _shares(buys)


def draw_mix(market: Market) -> Mix:
    """Draw what stays from day to day: each issue's habits, and the moods of the market and of the sectors."""
    rng = np.random.default_rng([market.size.seed, 23])
    universe, days = market.universe, len(market.trading_days)
    issues = len(universe.codes)
    large = np.clip(np.log(universe.turnover / 3e8) / 3, -1, 1)
    loanable = np.array([kind == LOANABLE for kind in universe.margin])
    sells = np.stack([-0.54 + 0.45 * large, -2.9 + 0.9 * loanable - 0.2 * large, -1.3 - 0.5 * large])
    buys = np.stack([-1.35 - 0.5 * large, -3.0 + 0.9 * loanable - 0.2 * large])
    sells += rng.normal(0, 0.15, (3, issues))
    buys += rng.normal(0, 0.15, (2, issues))
    move = market.noise.market / np.std(market.noise.market)
    mood = _slow(rng, (days, 1), 0.06)[:, 0] - 0.08 * np.clip(move, -3, 3)
    return Mix(market, sells, buys, mood, _slow(rng, (days, len(SECTORS) + 1), 0.12))


def _slow(rng: np.random.Generator, shape: tuple[int, int], deviation: float) -> Floats:
    series = deviation * rng.standard_normal(shape)
    series[1:] *= np.sqrt(1 - 0.95**2)
    for t in range(1, len(series)):
        series[t] += 0.95 * series[t - 1]
    return series


def _shares(logits: Floats) -> Floats:
    """Softmax with a first leg of logit 0."""
    odds = np.vstack([np.ones((1, logits.shape[1])), np.exp(logits)])
    return np.asarray(odds / odds.sum(axis=0))


def _divided(whole: Floats, shares: Floats, unit: int) -> Ints:
    """[legs, n] whole amounts in multiples of `unit`; the first leg takes what rounding leaves."""
    parts = (np.floor(shares * whole / unit) * unit).astype(np.int64)
    parts[0] = whole.astype(np.int64) - parts[1:].sum(axis=0)
    return parts


@dataclass(frozen=True)
class Day:
    """Traded issues of one trading day and their legs, [legs, traded]."""

    issue: Ints
    sell_shares: Ints
    buy_shares: Ints
    sell_yen: Ints
    buy_yen: Ints


def trades(mix: Mix, row: int) -> Day:
    """The day's legs: whole lots, and yen in proportion."""
    quotes = mix.market.quotes
    issue = np.flatnonzero(quotes.traded[row])
    volume, value = quotes.volume[row, issue], quotes.turnover[row, issue]
    sells, buys = mix.legs(row)
    shares = [_divided(volume, part[:, issue], _LOT) for part in (sells, buys)]
    yen = [_divided(value, part / volume, 1) for part in shares]
    return Day(issue, *shares, *yen)


def breakdown(market: Market) -> SpanTable:
    """Source of /markets/breakdown: one row per traded issue and trading day."""
    mix, row = draw_mix(market), trading_row(market)

    def rows(first: date, last: date) -> pl.DataFrame:
        numbers = [n for n in business_range(market, first, last) if market.trading[n]]
        days = [trades(mix, int(row[n])) for n in numbers]
        sizes = [len(day.issue) for day in days]
        dates = pl.Series([market.business[n].isoformat() for n in numbers], dtype=pl.String)
        columns = {
            "Date": dates[np.repeat(np.arange(len(days)), sizes)],
            "Code": pl.Series(market.universe.codes)[_joined([day.issue for day in days])],
        }
        for end, sells, buys in (("Va", "sell_yen", "buy_yen"), ("Vo", "sell_shares", "buy_shares")):
            for names, field in ((SELLS, sells), (BUYS, buys)):
                for leg, name in enumerate(names):
                    columns[f"{name}{end}"] = pl.Series(_joined([getattr(day, field)[leg] for day in days]))
        return pl.DataFrame(columns)

    return rows


def _joined(parts: list[Ints]) -> Ints:
    return np.concatenate([np.empty(0, np.int64), *parts])


def short_ratio(market: Market) -> SpanTable:
    """Source of /markets/short-ratio: yen sold per sector and trading day, without and with borrowed shares."""
    mix, row = draw_mix(market), trading_row(market)
    rng = np.random.default_rng([market.size.seed, 24])
    terms = np.log(_WITH_RESTRICTION / (1 - _WITH_RESTRICTION)) + _slow(rng, mix.sector_mood.shape, 0.15)
    restricted = 1 / (1 + np.exp(-terms))
    names = pl.Series([*(sector.s33 for sector in SECTORS), OTHER.s33])

    def rows(first: date, last: date) -> pl.DataFrame:
        numbers = [n for n in business_range(market, first, last) if market.trading[n]]
        sums = list(_sector_sums(mix, [int(row[n]) for n in numbers]))
        sold, short = (np.array([pair[side] for pair in sums]).reshape(-1, len(names)) for side in (0, 1))
        with_limit = np.round(short * restricted[row[numbers]]) if numbers else short
        dates = pl.Series([market.business[n].isoformat() for n in numbers], dtype=pl.String)
        return pl.DataFrame(
            {
                "Date": dates[np.repeat(np.arange(len(numbers)), len(names))],
                "S33": names[np.tile(np.arange(len(names)), len(numbers))],
                "SellExShortVa": (sold - short).ravel(),
                "ShrtWithResVa": with_limit.ravel(),
                "ShrtNoResVa": (short - with_limit).ravel(),
            }
        )

    return rows


def _sector_sums(mix: Mix, rows: list[int]) -> Iterator[tuple[Floats, Floats]]:
    """Yen sold and yen sold short per sector, [sectors + 1], for each trading day."""
    sector = mix.market.universe.sector
    for row in rows:
        day = trades(mix, row)
        legs = dict(zip(SELLS, day.sell_yen, strict=True))
        short = np.sum([legs[name] for name in SHORTS], axis=0)
        yield tuple(  # type: ignore[misc]
            np.bincount(sector[day.issue], weights=amount, minlength=len(SECTORS) + 1)
            for amount in (day.sell_yen.sum(axis=0), short)
        )
