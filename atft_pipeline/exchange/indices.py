"""Indices of the simulated market, from the stocks' own bars: TOPIX, size, style, segment and sector indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.bars import Quotes, shares_issued
from atft_pipeline.exchange.prices import Closes
from atft_pipeline.exchange.returns import Noise
from atft_pipeline.exchange.sectors import OTHER, SECTORS
from atft_pipeline.exchange.universe import Universe

if TYPE_CHECKING:
    from atft_pipeline.exchange.drawing import Market
    from atft_pipeline.exchange.sources import SpanTable

SEGMENT_INDICES_SINCE = date(2022, 6, 27)
"""First day of the Prime, Standard and Growth indices."""
LIVES: Mapping[str, tuple[date, date]] = {
    **dict.fromkeys(("0500", "0501", "0502"), (SEGMENT_INDICES_SINCE, date.max)),
    "002F": (date(2018, 10, 9), date.max),
    "0091": (date.min, date(2022, 4, 1)),
    "0503": (date(2023, 7, 3), date.max),
}
"""First and last day of the indices that do not exist throughout."""
CLOSE_ONLY = ("8501", "8502", "8503")
"""Indices that show neither open, high nor low."""

TOPIX = "0000"
_LEVELS = {
    "0000": 1950.0, "0028": 950.0, "002D": 1650.0, "0070": 1050.0, "0075": 2050.0, "8100": 2300.0, "8200": 2500.0,
    "0500": 1000.0, "0501": 1000.0, "0502": 1000.0,
}  # fmt: skip
_SECTOR_LEVEL = 1500.0
_FIRST_S17 = 0x80
_PRIME_150 = 150

Floats = NDArray[np.float64]


def sector_code(sector: int) -> str:
    """Index code of the n-th sector: 0040 counted on in hexadecimal, so 004A follows 0049."""
    return f"{0x40 + sector:04X}"


def _members(universe: Universe) -> dict[str, NDArray[np.bool_]]:
    """Index code -> members [issues]. Segment membership is the one after April 2022."""
    scale, segment = np.array(universe.scale), np.array(universe.market_after)
    common = universe.common
    value = universe.style[:, 1] > 0
    topix = common & (segment == "0111")
    members = {
        TOPIX: topix,
        "0028": topix & (scale == "TOPIX Core30"),
        "002D": topix & np.isin(scale, ["TOPIX Small 1", "TOPIX Small 2"]),
        "0070": common & (segment == "0113"),
        "0075": np.array([product == "013" for product in universe.product]),
        "8100": topix & value,
        "8200": topix & ~value,
        "0500": topix,
        "0501": common & (segment == "0112"),
        "0502": common & (segment == "0113"),
    }
    return members | {sector_code(s): common & (universe.sector == s) for s in range(len(SECTORS))}


def _further_members(universe: Universe) -> dict[str, NDArray[np.bool_]]:
    """The same for the indices beside those: finer size classes, 17 sectors, JASDAQ, Prime 150, styles, REIT uses."""
    scale, before = np.array(universe.scale), np.array(universe.market_before)
    common = universe.common
    topix = common & (np.array(universe.market_after) == "0111")
    large = topix & np.isin(scale, ["TOPIX Core30", "TOPIX Large70"])
    middle, small = topix & (scale == "TOPIX Mid400"), topix & (scale == "TOPIX Small 1")
    rest = small | (topix & (scale == "TOPIX Small 2"))
    value = universe.style[:, 1] > 0
    size = np.where(topix, universe.price * universe.shares, 0.0)
    prime_150 = topix & (size >= np.sort(size)[-min(_PRIME_150, len(size))])
    estates = np.array([product == "013" for product in universe.product])
    group = np.array([int(sector.s17) for sector in (*SECTORS, OTHER)])[universe.sector]
    members = {
        "0029": topix & (scale == "TOPIX Large70"), "002A": large, "002B": middle, "002C": large | middle,
        "002E": large | middle | small, "002F": small, "0091": common & np.isin(before, ["0106", "0107"]),
        "0503": prime_150, "812C": (large | middle) & value, "812D": rest & value, "822C": (large | middle) & ~value,
        "822D": rest & ~value, **dict.fromkeys(CLOSE_ONLY, estates),
    }  # fmt: skip
    return members | {f"{_FIRST_S17 + n:04X}": common & (group == n + 1) for n in range(17)}


@dataclass(frozen=True)
class IndexBars:
    """Open, high, low, close [days, indices] of the indices `codes`."""

    codes: list[str]
    open: Floats
    high: Floats
    low: Floats
    close: Floats


def draw_indices(universe: Universe, quotes: Quotes, closes: Closes, noise: Noise, seed: int) -> IndexBars:
    """Capitalisation-weighted means of the members' returns; an index without members moves with its factors."""
    moved = np.nan_to_num(closes.returns())
    gap = np.where(quotes.traded, quotes.open / quotes.close * (1 + moved) - 1, moved)
    weight = np.ones_like(closes.close)
    weight[1:] = closes.close[:-1] * shares_issued(universe, closes)[:-1]
    weight *= quotes.traded

    def draw(members: Mapping[str, NDArray[np.bool_]], rng: np.random.Generator) -> IndexBars:
        codes = sorted(members)
        days, count = len(closes.close), len(codes)
        close, opened = np.zeros((days, count)), np.zeros((days, count))
        for place, code in enumerate(codes):
            inside = members[code]
            total = weight[:, inside].sum(axis=1)
            for target, source in ((close, moved), (opened, gap)):
                mean = (weight[:, inside] * source[:, inside]).sum(axis=1) / np.maximum(total, 1.0)
                target[:, place] = np.where(total > 0, mean, _stand_in(code, noise))
        close[0] = 0.0
        levels = np.array([_LEVELS.get(code, _SECTOR_LEVEL) for code in codes])
        level = levels * np.cumprod(1 + close, axis=0)
        before = np.vstack([levels[None], level[:-1]])
        start = before * (1 + opened)
        reach = 0.35 * np.abs(noise.market[:, None]) + 0.002
        high = np.maximum(start, level) * (1 + reach * np.abs(rng.standard_normal((days, count))) * 0.6)
        low = np.minimum(start, level) * (1 - reach * np.abs(rng.standard_normal((days, count))) * 0.6)
        return IndexBars(codes, np.round(start, 2), np.round(high, 2), np.round(low, 2), np.round(level, 2))

    first = draw(_members(universe), np.random.default_rng([seed, 8]))
    further = draw(_further_members(universe), np.random.default_rng([seed, 81]))
    codes = first.codes + further.codes
    order = np.argsort(codes)

    def joined(one: Floats, other: Floats) -> Floats:
        return np.hstack([one, other])[:, order]

    return IndexBars(
        [codes[n] for n in order],
        joined(first.open, further.open),
        joined(first.high, further.high),
        joined(first.low, further.low),
        joined(first.close, further.close),
    )


def _stand_in(code: str, noise: Noise) -> Floats:
    sector = int(code, 16) - 0x40
    return noise.market + (noise.sectors[:, sector] if 0 <= sector < len(SECTORS) else 0.0)


def indices(market: Market) -> SpanTable:
    """Source of /indices/bars/daily: one row per business day and index. A day without trading repeats the close."""
    bars = market.index_bars
    codes = np.array(bars.codes)

    def rows(first: date, last: date) -> pl.DataFrame:
        span = market.business_range(first, last)
        days = market.business[span.start : span.stop]
        row = market.trading_row[span.start : span.stop]
        still = ~market.trading[span.start : span.stop, None]
        flat = {
            name: np.where(still, bars.close[row], values[row]).ravel()
            for name, values in {"O": bars.open, "H": bars.high, "L": bars.low, "C": bars.close}.items()
        }
        dates = pl.Series("Date", [day.isoformat() for day in days], dtype=pl.String)
        day = np.repeat(np.arange(len(days)), len(codes))
        code = pl.Series("Code", np.tile(codes, len(days)), dtype=pl.String)
        table = pl.DataFrame([dates[day], code, *(pl.Series(name, values) for name, values in flat.items())])
        reduced = table.with_columns(
            pl.when(pl.col("Code").is_in(CLOSE_ONLY)).then(None).otherwise(pl.col(name)).alias(name) for name in "OHL"
        )
        for index, (begin, end) in LIVES.items():
            lives = pl.col("Date").is_between(pl.lit(begin.isoformat()), pl.lit(end.isoformat()))
            reduced = reduced.filter((pl.col("Code") != index) | lives)
        return reduced

    return rows


def topix(market: Market) -> SpanTable:
    """Source of /indices/bars/daily/topix: the same bars as index 0000."""
    whole = indices(market)

    def rows(first: date, last: date) -> pl.DataFrame:
        return whole(first, last).filter(pl.col("Code") == TOPIX).drop("Code")

    return rows
