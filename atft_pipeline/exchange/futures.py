"""Index, volatility and bond futures: contracts, rolls, sessions, volume and open interest, in the API's 29 columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from jquantsapi import constants
from numpy.typing import NDArray

from atft_pipeline.exchange.drawing import Market
from atft_pipeline.exchange.indices import TOPIX, draw_indices
from atft_pipeline.exchange.nikkei import Underlying, draw_underlying
from atft_pipeline.exchange.options import EMERGENCY, NORMAL
from atft_pipeline.exchange.tokyo_calendar import business_day_before, is_business_day, sq_day

if TYPE_CHECKING:
    from atft_pipeline.exchange.sources import SpanTable

COLUMNS = tuple(constants.DERIVATIVES_FUTURES_COLUMNS_V2)

_SESSIONS = ("O", "H", "L", "C", "AO", "AH", "AL", "AC")
_NIGHT = ("EO", "EH", "EL", "EC")
_UNUSED = ("MO", "MH", "ML", "MC")
"""Morning sessions ended in February 2011; the API leaves their columns blank."""
_BOND = 150.0
_BOND_MOVE = 0.0015

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Product:
    """One futures product. `carry` is the yearly drift of its price against the spot; `volume` a typical day's."""

    name: str
    number: str
    tick: float
    multiplier: float
    monthly: bool
    contracts: int
    carry: float
    volume: float
    expires: str = "sq"


PRODUCTS = (
    Product("JGBLF", "0001", 0.01, 1_000_000, False, 3, -0.008, 25_000, "bond"),
    Product("NK225F", "0018", 10.0, 1_000, False, 6, -0.019, 45_000),
    Product("NK225MF", "0019", 5.0, 100, True, 6, -0.019, 700_000),
    Product("NKVIF", "0020", 0.05, 10_000, True, 6, 0.0, 300, "volatility"),
    Product("TOPIXF", "0005", 0.5, 10_000, False, 5, -0.021, 75_000),
    Product("TOPIXMF", "0006", 0.25, 1_000, False, 3, -0.021, 9_000),
)


@dataclass(frozen=True)
class Spot:
    """What a product is written on, per business day."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats


def futures(market: Market) -> SpanTable:
    """Every listed contract of every business day, sorted by (Date, Code, EmMrgnTrgDiv)."""
    underlying = draw_underlying(market)
    spots = _spots(market, underlying)
    parts = [
        _contract(market, product, spots[product.name], underlying, month)
        for product in PRODUCTS
        for month in _months(product, market.business)
    ]
    table = pl.concat(parts).sort("Date", "Code", "EmMrgnTrgDiv")

    def rows(begin: date, end: date) -> pl.DataFrame:
        return table.filter(pl.col("Date").is_between(pl.lit(begin.isoformat()), pl.lit(end.isoformat())))

    return rows


def _spots(market: Market, underlying: Underlying) -> Mapping[str, Spot]:
    rng = np.random.default_rng([market.size.seed, 56])
    bars = draw_indices(market.universe, market.quotes, market.closes, market.noise, market.size.seed)
    at = bars.codes.index(TOPIX)
    row, still = np.maximum(np.cumsum(market.trading) - 1, 0), ~market.trading
    topix = Spot(
        *(
            np.where(still, bars.close[row, at], values[row, at])
            for values in (bars.open, bars.high, bars.low, bars.close)
        )
    )
    nikkei = Spot(underlying.open, underlying.high, underlying.low, underlying.close)
    fear = 100 * underlying.at_the_money(np.arange(len(row)), np.full(len(row), 30 / 365))
    days = len(row)
    bond = _BOND * np.exp(np.cumsum(_BOND_MOVE * rng.standard_normal(days)))
    return {
        "TOPIXF": topix, "TOPIXMF": topix, "NK225F": nikkei, "NK225MF": nikkei,
        "NKVIF": _wander(rng, fear, 0.01), "JGBLF": _wander(rng, bond, 0.0008),
    }  # fmt: skip


def _wander(rng: np.random.Generator, close: Floats, reach: float) -> Spot:
    """Open, high and low around a path of closes."""
    opened = np.append(close[:1], close[:-1]) * np.exp(reach * rng.standard_normal(len(close)))
    top, bottom = np.maximum(opened, close), np.minimum(opened, close)
    wide = reach * np.abs(rng.standard_normal((2, len(close))))
    return Spot(opened, top * np.exp(wide[0]), bottom * np.exp(-wide[1]), close)


def last_trading_day(product: Product, month: int) -> date:
    """The last trading day of the contract of `month`, counted from January of year 0."""
    year, number = month // 12, month % 12 + 1
    if product.expires == "bond":  # five business days before delivery on the 20th
        day = date(year, number, 20)
        while not is_business_day(day):
            day += timedelta(days=1)
        for _ in range(5):
            day = business_day_before(day)
        return day
    if product.expires == "volatility":  # settles 30 days before the next month's options
        return business_day_before(sq_day((month + 1) // 12, (month + 1) % 12 + 1) - timedelta(days=30))
    return business_day_before(sq_day(year, number))


def _step(product: Product) -> int:
    return 1 if product.monthly else 3


def _months(product: Product, business: list[date]) -> list[int]:
    """Contract months that trade within the history."""
    first = business[0].year * 12 + business[0].month - 1
    last = business[-1].year * 12 + business[-1].month - 1 + product.contracts * _step(product)
    possible = [m for m in range(first - 1, last + 1) if product.monthly or (m + 1) % 3 == 0]
    return [m for m in possible if last_trading_day(product, m) >= business[0] and _listing(product, m) < business[-1]]


def _listing(product: Product, month: int) -> date:
    """The day before the first trading day: the contract `contracts` months earlier trades for the last time."""
    return last_trading_day(product, month - product.contracts * _step(product))


def _contract(market: Market, product: Product, spot: Spot, underlying: Underlying, month: int) -> pl.DataFrame:
    """The rows of one contract. Its noise is drawn under a seed of its own."""
    rng = np.random.default_rng([market.size.seed, 57, PRODUCTS.index(product), month])
    days = np.array(market.business, dtype="datetime64[D]")
    last, listing = last_trading_day(product, month), _listing(product, month)
    begin = int(np.searchsorted(days, np.datetime64(listing, "D"), side="right"))
    end = int(np.searchsorted(days, np.datetime64(last, "D"), side="right"))
    life = slice(begin, end)
    count = end - begin
    fresh = np.arange(count) == 0 if listing >= market.business[0] else np.zeros(count, dtype=bool)
    left = (np.datetime64(last, "D") - days[life]).astype(np.int64)
    before = last_trading_day(product, month - _step(product))
    central = days[life] >= np.datetime64(before, "D")
    central &= days[life] < np.datetime64(last, "D")

    def fair(level: Floats) -> Floats:
        if product.expires == "volatility":
            return np.asarray(20 + (level - 20) * np.exp(-6 * left / 365), dtype=np.float64)
        return np.asarray(level * np.exp(product.carry * left / 365), dtype=np.float64)

    def tick(price: Floats) -> Floats:
        return np.asarray(np.round(np.round(price / product.tick) * product.tick, 2), dtype=np.float64)

    basis = np.exp(0.0004 * rng.standard_normal(count))
    settle = tick(fair(spot.close[life]) * basis)
    previous = np.append(tick(fair(spot.open[life]))[:1], settle[:-1])
    opened = tick(fair(spot.open[life]) * np.exp(0.0004 * rng.standard_normal(count)))
    night_last = tick(np.exp(0.6 * np.log(opened) + 0.4 * np.log(previous) + 0.001 * rng.standard_normal(count)))
    night_open = tick(previous * np.exp(0.0005 * rng.standard_normal(count)))
    wide = np.exp(0.0015 * np.abs(rng.standard_normal((2, count))))
    share = _share(days[life], before, last)
    volume = np.round(product.volume * share * np.exp(0.3 * rng.standard_normal(count)))
    volume = np.where(volume < 3, 0.0, volume)
    traded = volume > 0
    by_night = traded & ~fresh
    night = [
        night_open,
        tick(np.maximum(night_open, night_last) * wide[0]),
        tick(np.minimum(night_open, night_last) / wide[1]),
        night_last,
    ]
    day_high = np.maximum(tick(fair(spot.high[life]) * basis), np.maximum(opened, settle))
    day_low = np.minimum(tick(fair(spot.low[life]) * basis), np.minimum(opened, settle))
    sun = [opened, day_high, day_low, settle]
    whole = [
        np.where(by_night, night[0], sun[0]),
        np.where(by_night, np.maximum(night[1], sun[1]), sun[1]),
        np.where(by_night, np.minimum(night[2], sun[2]), sun[2]),
        sun[3],
    ]
    prices = dict(zip(_SESSIONS, (*whole, *sun), strict=True))
    interest = np.round(6 * product.volume * share * np.exp(0.03 * rng.standard_normal(count)))
    table = pl.DataFrame(
        {
            "Code": np.full(count, f"16{month // 12 % 10}{month % 12 + 1:02d}{product.number}"),
            "ProdCat": np.full(count, product.name),
            "Date": np.datetime_as_string(days[life]).astype(str),
            **{name: np.where(traded, values, 0.0) for name, values in prices.items()},
            **{name: np.full(count, "") for name in _UNUSED},
            **{name: _text(np.where(by_night, v, 0.0), fresh) for name, v in zip(_NIGHT, night, strict=True)},
            "Vo": volume,
            "OI": interest,
            "Va": np.round(volume * settle * product.multiplier),
            "CM": np.full(count, f"{month // 12}-{month % 12 + 1:02d}"),
            "VoOA": np.floor(0.92 * volume),
            "EmMrgnTrgDiv": np.full(count, NORMAL),
            "LTD": np.full(count, last.isoformat()),
            "SQD": np.full(count, "" if product.expires == "bond" else _next_business_day(last).isoformat()),
            "Settle": settle,
            "CCMFlag": np.where(central, "1", "0"),
        }
    ).select(COLUMNS)
    called = underlying.emergency[life] & (product.expires == "sq")
    if not called.any():
        return table
    midday = tick((opened + settle) / 2)
    extra = table.with_columns(EmMrgnTrgDiv=pl.lit(EMERGENCY), Settle=pl.Series(midday)).filter(pl.Series(called))
    return pl.concat([table, extra])


def _next_business_day(day: date) -> date:
    day += timedelta(days=1)
    while not is_business_day(day):
        day += timedelta(days=1)
    return day


def _share(days: NDArray[np.datetime64], before: date, last: date) -> Floats:
    """Share of the product's volume: it comes in days before the earlier contract ends, and leaves the same way."""
    since = (days - np.datetime64(before, "D")).astype(np.float64)
    until = (np.datetime64(last, "D") - days).astype(np.float64)
    come, stay = 1 / (1 + np.exp(-(since + 4) / 1.5)), 1 / (1 + np.exp(-(until - 4) / 1.5))
    return np.asarray(come * stay + 2e-4 * np.exp(since / 120), dtype=np.float64)


def _text(values: Floats, fresh: Bools) -> pl.Series:
    """Prices of the night session as text: "" on the contract's first trading day, which has none."""
    written = pl.Series(values).cast(pl.String)
    return pl.select(pl.when(pl.Series(fresh)).then(pl.lit("")).otherwise(written)).to_series()
