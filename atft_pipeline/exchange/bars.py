"""The shape of a day around its close: open, high, low, volume and turnover, and the daily bars table.

Given the close, a bar has free degrees of freedom, and they show the hidden characteristics at the close of the day,
each behind noise: the overnight share and the VWAP show `linear`; volume shows `left`, the range `right`, and their
product is the interaction; the place of the close inside the range shows the cycle, very noisily.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.prices import Closes, on_tick
from atft_pipeline.exchange.sessions import draw_sessions, session_columns
from atft_pipeline.exchange.signals import Hidden
from atft_pipeline.exchange.universe import Universe

if TYPE_CHECKING:
    from atft_pipeline.exchange.drawing import Market
    from atft_pipeline.exchange.sources import SpanTable

HALT_DAYS = 8
"""Length of the one stretch in which a stock is halted."""

_LOT = 100.0
_OVERNIGHT_SHARE = 0.35

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Quotes:
    """Raw quotes [days, issues] in yen and shares; meaningful where `traded`."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    turnover: Floats
    traded: Bools

    def returns(self, closes: Closes) -> Floats:
        """Adjusted close-to-close returns, NaN unless the issue traded on both days."""
        returns = closes.returns()
        returns[1:][~(self.traded[1:] & self.traded[:-1])] = np.nan
        return returns


def draw_traded(universe: Universe, listed: Bools, seed: int) -> Bools:
    """[days, issues]: listed, not halted, and someone traded. One mid-sized stock is halted for HALT_DAYS."""
    rng = np.random.default_rng([seed, 6])
    traded = listed & (rng.random(listed.shape) >= universe.thin)
    days = len(listed)
    always = np.flatnonzero(universe.common & listed.all(axis=0))
    if len(always) and days > 3 * HALT_DAYS:
        start = int(days * rng.uniform(0.35, 0.6))
        traded[start : start + HALT_DAYS, rng.choice(always)] = False
    return traded


def draw_quotes(
    universe: Universe, closes: Closes, hidden: Hidden, volatility: Floats, traded: Bools, seed: int
) -> Quotes:
    """Build the day around each close. `volatility` [days, issues] multiplies the issues' own daily volatility."""
    rng = np.random.default_rng([seed, 7])
    days, issues = closes.close.shape
    scale = universe.total * volatility
    move = np.log1p(np.nan_to_num(closes.returns()))

    def noise() -> Floats:
        return rng.standard_normal((days, issues))

    overnight = _OVERNIGHT_SHARE * move + 0.5 * scale * (0.88 * hidden.linear + 0.47 * noise())
    body = move - overnight  # ln(close / open)
    span = scale * 1.5 * np.exp(0.42 * hidden.right + 0.10 * noise())
    span = np.maximum(span, np.abs(body) + 0.15 * scale * np.abs(noise()))
    clue = 0.55 * hidden.cycle(np.arange(days)) + 0.835 * noise()
    above = (span - np.abs(body)) * (0.5 - 0.5 * np.tanh(0.8 * clue))  # ln(high / the higher of open and close)
    top = np.maximum(-body, 0.0) + above  # ln(high / close)
    bottom = top - span  # ln(low / close)
    lean = 0.3 * (top + bottom - body) - scale * 0.2 * (0.6 * hidden.linear + 0.8 * noise())  # ln(vwap / close)
    lean = np.clip(lean, bottom + 0.03 * span, top - 0.03 * span)

    close = closes.close

    def price(log_ratio: Floats) -> Floats:
        return np.clip(on_tick(close * np.exp(log_ratio), closes.fine), closes.lower, closes.upper)

    opened, high, low = price(-body), price(top), price(bottom)
    low = np.minimum(np.maximum(low, 1.0), close)
    opened = np.clip(opened, low, high)
    volume = _volume(universe, closes, hidden, np.abs(move) / scale, rng)
    vwap = np.clip(close * np.exp(lean), low, high)
    return Quotes(opened, high, low, close, volume, np.round(vwap * volume), traded)


def _volume(universe: Universe, closes: Closes, hidden: Hidden, surprise: Floats, rng: np.random.Generator) -> Floats:
    """Shares traded, in lots: a level per issue, a slow tide, the size of the move, and the characteristic `left`."""
    days, issues = closes.close.shape
    tide = rng.normal(0, 0.3, (days, issues))
    tide[1:] *= np.sqrt(1 - 0.99**2)
    whole = rng.normal(0, 0.12, (days, 1))
    whole[1:] *= np.sqrt(1 - 0.9**2)
    for t in range(1, days):
        tide[t] += 0.99 * tide[t - 1]
        whole[t] += 0.9 * whole[t - 1]
    fleeting = 0.22 * np.minimum(surprise, 5.0) + 0.60 * hidden.left + 0.15 * rng.standard_normal((days, issues))
    shares = universe.turnover / universe.price / np.cumprod(closes.factor, axis=0)
    lots: Floats = np.round(shares * np.exp(tide + whole + fleeting - 0.3) / _LOT)
    return np.maximum(lots, 1.0) * _LOT


def shares_issued(universe: Universe, closes: Closes) -> Floats:
    """Shares issued on each day [days, issues], splits applied."""
    return np.asarray(np.round(universe.shares / np.cumprod(closes.factor, axis=0)), dtype=np.float64)


def daily_bars(market: Market) -> SpanTable:
    """Source of /equities/bars/daily: one row per listed issue and business day, sorted by (Date, Code).

    18 fields, and 26 of the two sessions.
    """
    universe, quotes, closes = market.universe, market.quotes, market.closes
    later_factors = _later_factors(closes.factor)
    split = np.cumprod(closes.factor, axis=0)
    is_fund = np.array([product == "014" for product in universe.product])
    codes = pl.Series("Code", universe.codes)

    def rows(first: date, last: date) -> pl.DataFrame:
        span = market.business_range(first, last)
        days = market.business[span.start : span.stop]
        day, issue = np.nonzero(universe.listed_on(span))
        row = market.trading_row[span.start : span.stop][day]
        open_day = market.trading[span.start : span.stop][day]
        traded = quotes.traded[row, issue] & open_day
        later = later_factors[row, issue]
        factor = np.where(open_day, closes.factor[row, issue], 1.0)
        shares = np.round(universe.shares[issue] / split[row, issue])

        def values(name: str, array: Floats, where: Bools = traded) -> pl.Series:
            return pl.Series(name, np.where(where, array, np.nan)).fill_nan(None)

        raw = {
            name: getattr(quotes, field)[row, issue]
            for name, field in {
                "O": "open",
                "H": "high",
                "L": "low",
                "C": "close",
                "Vo": "volume",
                "Va": "turnover",
            }.items()
        }
        flag = {
            "UL": traded & (raw["H"] >= closes.upper[row, issue] - 1e-6),
            "LL": traded & (raw["L"] <= closes.lower[row, issue] + 1e-6),
        }
        right = np.where(factor < 1, "1", np.where(factor > 1, "2", ""))
        columns = [
            pl.Series("Date", [d.isoformat() for d in days], dtype=pl.String).gather(day).alias("Date"),
            codes.gather(issue).alias("Code"),
            *(values(name, raw[name]) for name in "OHLC"),
            *(pl.Series(name, np.where(hit, "1", "0"), dtype=pl.String) for name, hit in flag.items()),
            values("Vo", raw["Vo"]),
            values("Va", raw["Va"]),
            pl.Series("AdjFactor", factor),
            *(values(f"Adj{name}", half_up(raw[name] * later)) for name in "OHLC"),
            values("AdjVo", half_up(raw["Vo"] / later)),
            values("MktCap", half_up(raw["C"] * shares / 1e6), traded & ~is_fund[issue]),
            pl.Series("ExRT", right, dtype=pl.String).replace("", None),
        ]
        table = pl.DataFrame(columns)
        limits = closes.upper[row, issue], closes.lower[row, issue]
        luck = draw_sessions(market.size.seed, market.business, day + span.start, issue)
        return table.hstack(session_columns(table, luck, limits, later, closes.fine[row, issue]))

    return rows


def _later_factors(factor: Floats) -> Floats:
    """Product of the factors of all later days."""
    later = np.ones_like(factor)
    later[:-1] = np.cumprod(factor[:0:-1], axis=0)[::-1]
    return later


def half_up(values: Floats) -> Floats:
    """Rounded half up to one decimal, as the vendor does."""
    return np.floor(values * 10 + 0.5 + 1e-9) / 10
