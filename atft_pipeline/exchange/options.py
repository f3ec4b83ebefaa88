"""Nikkei 225 options: which series are listed, their smile, prices and open interest, as the 30 columns of the API.

A day's rows depend on the day alone (its noise is drawn under a seed of the day), so any span can be written by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.drawing import Market
from atft_pipeline.exchange.nikkei import Underlying, draw_underlying
from atft_pipeline.exchange.tokyo_calendar import business_day_before, sq_day

if TYPE_CHECKING:
    from atft_pipeline.exchange.sources import SpanTable

NORMAL, EMERGENCY = "002", "001"
PUT, CALL = "1", "2"

_SESSION_COLUMNS = ("O", "H", "L", "C", "AO", "AH", "AL", "AC")
_NIGHT_COLUMNS = ("EO", "EH", "EL", "EC")
COLUMNS = (
    "Date", "Code", "O", "H", "L", "C", *_NIGHT_COLUMNS, "AO", "AH", "AL", "AC", "Vo", "OI", "Va", "CM", "Strike",
    "VoOA", "EmMrgnTrgDiv", "PCDiv", "LTD", "SQD", "Settle", "Theo", "BaseVol", "UnderPx", "IV", "IR",
)  # fmt: skip

_NEAR_MONTHS = 4
_BANDS = ((250.0, 0.06), (500.0, 0.12), (1000.0, 0.20))
"""Strikes: multiples of the step as far from the index as the share says; once listed, a series stays."""
_FAR_BANDS = _BANDS[2:]
_RATE = 0.001
_MULTIPLIER = 1000.0
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Expiry:
    """One contract month. Places count business days of the market and may lie outside of them."""

    month: str
    last_trading: date
    sq: date
    begin: int
    """Place of the first trading day."""
    near: int
    """Place from which it is one of the nearest months and has all its strikes."""
    end: int
    """Place of the last trading day."""
    lowest: Floats
    """[begin or 0 .. end]: lowest and highest index so far."""
    highest: Floats


def options_225(market: Market) -> SpanTable:
    """Every series of every business day, sorted by (Date, Code, EmMrgnTrgDiv)."""
    underlying = draw_underlying(market)
    expiries = _expiries(market.business, underlying)
    place = {day: i for i, day in enumerate(market.business)}

    def rows(begin: date, end: date) -> pl.DataFrame:
        inside = [day for day in market.business if begin <= day <= end]
        parts = [_day(market.size.seed, day, place[day], underlying, expiries) for day in inside]
        if not parts:
            return _day(market.size.seed, market.business[0], 0, underlying, expiries).head(0)
        return pl.concat(parts)

    return rows


def _expiries(business: list[date], underlying: Underlying) -> list[Expiry]:
    """Every contract month that trades within the history."""
    days = np.array(business, dtype="datetime64[D]")
    first = business[0].year * 12 + business[0].month - 1
    last = business[-1].year * 12 + business[-1].month - 1
    ends = {m: business_day_before(sq_day(m // 12, m % 12 + 1)) for m in range(first - 13, last + 14)}
    found = []
    for month in range(first, last + 13):
        quarterly = (month + 1) % 3 == 0
        near = int(np.searchsorted(days, np.datetime64(ends[month - _NEAR_MONTHS], "D"), side="right"))
        begin = int(np.searchsorted(days, np.datetime64(ends[month - 12], "D"), side="right")) if quarterly else near
        end = int(np.searchsorted(days, np.datetime64(ends[month], "D"), side="right")) - 1
        if ends[month - (12 if quarterly else _NEAR_MONTHS)] < business[0]:
            begin = -1  # listed before the history began
        if end < 0 or begin >= len(business):
            continue
        level = underlying.close[max(begin, 0) : end + 1]
        found.append(
            Expiry(
                f"{month // 12}-{month % 12 + 1:02d}",
                ends[month],
                sq_day(month // 12, month % 12 + 1),
                begin,
                near,
                len(business) if ends[month] > business[-1] else end,
                np.minimum.accumulate(level),
                np.maximum.accumulate(level),
            )
        )
    return found


def _strikes(expiry: Expiry, place: int) -> Floats:
    """Strikes listed on the business day `place`; empty before the first trading day."""
    if place < expiry.begin or place < 0:
        return np.empty(0)
    at = place - max(expiry.begin, 0)
    low, high = expiry.lowest[at], expiry.highest[at]
    bands = _BANDS if place >= expiry.near else _FAR_BANDS
    grids = [
        np.arange(np.ceil(low * (1 - reach) / step), np.floor(high * (1 + reach) / step) + 1) * step
        for step, reach in bands
    ]
    return np.unique(np.concatenate(grids))


def _day(seed: int, day: date, place: int, underlying: Underlying, expiries: list[Expiry]) -> pl.DataFrame:
    """All rows of one business day."""
    rng = np.random.default_rng([seed, 55, day.toordinal()])
    live = [expiry for expiry in expiries if expiry.begin <= place <= expiry.end]
    listed = [_strikes(expiry, place) for expiry in live]
    before = [_strikes(expiry, place - 1) if place else strikes for expiry, strikes in zip(live, listed, strict=True)]
    sizes = [len(strikes) for strikes in listed]
    which = np.repeat(np.arange(len(live)), sizes)
    strike = np.concatenate(listed)
    fresh = np.concatenate([~np.isin(now, old) for now, old in zip(listed, before, strict=True)])
    both = len(strike)
    which, strike, fresh = np.tile(which, 2), np.tile(strike, 2), np.tile(fresh, 2)
    is_call = np.arange(2 * both) >= both
    years = np.array([max((expiry.sq - day).days, 1) / 365 for expiry in live])[which]
    level = underlying.close[place]

    money = np.log(strike / level)
    smile = money / np.sqrt(years)
    at_the_money = underlying.at_the_money(place, years)
    steep = 0.45 * (1 + 0.25 * np.clip(underlying.skew[place], -2, 2))
    sigma = at_the_money * np.clip(1 - steep * smile + 0.8 * smile**2, 0.6, 3.0)
    sigma *= 1 + 0.003 * rng.standard_normal(2 * both)
    implied = np.round(100 * sigma, 4)

    theory = black(level, strike, years, implied / 100, is_call)
    settle = np.maximum(option_tick(theory), 1.0)
    outside = np.where(is_call, money, -money)
    busy = 400 * np.exp(-0.5 * ((outside - 0.01) / 0.05) ** 2) * np.exp(-years / 0.12)
    volume = rng.poisson(busy * np.exp(0.5 * rng.standard_normal(2 * both))).astype(np.float64)
    age = np.array([place - expiry.begin + 1 for expiry in live])[which]
    held = 3000 * np.exp(-0.5 * ((outside - 0.03) / 0.09) ** 2) * (1 - np.exp(-age / 25.0))
    interest = np.round(held * np.where(strike % 1000 == 0, 2.0, 1.0) * np.exp(0.05 * rng.standard_normal(2 * both)))

    prices = _prices(rng, settle, volume, fresh)
    code = _codes(live, which, strike, is_call)
    table = pl.DataFrame(
        {
            "Date": np.full(2 * both, day.isoformat()),
            "Code": code,
            **{name: prices[name] for name in _SESSION_COLUMNS},
            **{name: _night(prices[name], fresh) for name in _NIGHT_COLUMNS},
            "Vo": volume,
            "OI": interest,
            "Va": np.round(volume * prices["C"] * _MULTIPLIER),
            "CM": np.array([expiry.month for expiry in live])[which],
            "Strike": strike,
            "VoOA": np.floor(0.9 * volume),
            "EmMrgnTrgDiv": np.full(2 * both, NORMAL),
            "PCDiv": np.where(is_call, CALL, PUT),
            "LTD": np.array([expiry.last_trading.isoformat() for expiry in live])[which],
            "SQD": np.array([expiry.sq.isoformat() for expiry in live])[which],
            "Settle": settle,
            "Theo": np.round(theory, 4),
            "BaseVol": np.round(100 * at_the_money, 4),
            "UnderPx": np.full(2 * both, level),
            "IV": implied,
            "IR": np.full(2 * both, 100 * _RATE),
        }
    )
    if underlying.emergency[place]:
        midday = (underlying.open[place] + level) / 2
        called = black(midday, strike, years, 1.15 * implied / 100, is_call)
        table = pl.concat(
            [
                table,
                table.with_columns(
                    EmMrgnTrgDiv=pl.lit(EMERGENCY),
                    Settle=pl.Series(np.maximum(option_tick(called), 1.0)),
                    Theo=pl.Series(np.round(called, 4)),
                    UnderPx=pl.lit(round(float(midday), 2)),
                    IV=pl.Series(np.round(1.15 * implied, 4)),
                ),
            ]
        )
    return table.select(COLUMNS).sort("Code", "EmMrgnTrgDiv")


def _prices(rng: np.random.Generator, settle: Floats, volume: Floats, fresh: NDArray[np.bool_]) -> dict[str, Floats]:
    """Open, high, low and close of the whole day and of both sessions; 0 where nothing traded."""
    count = len(settle)

    def session(traded: NDArray[np.bool_], around: Floats, last: Floats) -> list[Floats]:
        opened = np.maximum(option_tick(around * np.exp(0.06 * rng.standard_normal(count))), 1.0)
        high = np.maximum(option_tick(np.maximum(opened, last) * np.exp(0.05 * np.abs(rng.standard_normal(count)))), 1)
        low = np.maximum(option_tick(np.minimum(opened, last) * np.exp(-0.05 * np.abs(rng.standard_normal(count)))), 1)
        shape = (opened, np.maximum(high, np.maximum(opened, last)), np.minimum(low, np.minimum(opened, last)), last)
        return [np.where(traded, values, 0.0) for values in shape]

    at_night = (volume > 1) & ~fresh & (rng.random(count) < 0.6)
    by_day = (volume > 0) & (~at_night | (rng.random(count) < 0.9))
    night_last = np.maximum(option_tick(settle * np.exp(0.05 * rng.standard_normal(count))), 1.0)
    night = session(at_night, settle, night_last)
    sun = session(by_day, settle, np.maximum(settle, 1.0))
    open_, close = np.where(at_night, night[0], sun[0]), np.where(by_day, sun[3], night[3])
    high = np.maximum(night[1], sun[1])
    low = np.where(at_night & by_day, np.minimum(night[2], sun[2]), night[2] + sun[2])
    whole = {"O": open_, "H": high, "L": low, "C": close}
    parts = dict(zip((*_NIGHT_COLUMNS, "AO", "AH", "AL", "AC"), (*night, *sun), strict=True))
    return whole | parts


def _night(values: Floats, fresh: NDArray[np.bool_]) -> pl.Series:
    """Prices of the night session as text: "" where the series had none, on its first trading day."""
    written = pl.Series(values).cast(pl.String)
    return pl.select(pl.when(pl.Series(fresh)).then(pl.lit("")).otherwise(written)).to_series()


def _codes(live: list[Expiry], which: Ints, strike: Floats, is_call: NDArray[np.bool_]) -> list[str]:
    months = [expiry.month[3] + expiry.month[5:] for expiry in live]
    steps = (strike / 250).astype(np.int64)
    return [
        f"{14 if call else 13}{months[m]}{_DIGITS[step // 36 % 36]}{_DIGITS[step % 36]}18"
        for m, step, call in zip(which.tolist(), steps.tolist(), is_call.tolist(), strict=True)
    ]


def option_tick(price: Floats) -> Floats:
    """`price` on the tick of the options: 1 yen up to 100, 5 up to 1,000, 10 above."""
    tick = np.where(price <= 100, 1.0, np.where(price <= 1000, 5.0, 10.0))
    return np.asarray(np.round(price / tick) * tick, dtype=np.float64)


def black(level: float, strike: Floats, years: Floats, sigma: Floats, is_call: NDArray[np.bool_]) -> Floats:
    """Price of a European option on a forward at `level` (Black 1976)."""
    spread = sigma * np.sqrt(years)
    above = np.log(level / strike) / spread + spread / 2
    call = level * _normal(above) - strike * _normal(above - spread)
    put = call - level + strike
    return np.asarray(np.exp(-_RATE * years) * np.maximum(np.where(is_call, call, put), 0.0), dtype=np.float64)


def _normal(x: Floats) -> Floats:
    """Standard normal distribution function to 1e-7 (Abramowitz and Stegun 26.2.17)."""
    t = 1 / (1 + 0.2316419 * np.abs(x))
    poly = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    tail = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi) * poly
    return np.asarray(np.where(x >= 0, 1 - tail, tail), dtype=np.float64)
