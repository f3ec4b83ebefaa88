"""Who is listed: the issues of a simulated market with their life, segment, size and risk, and the master table.

`stocks` counts common stocks. A few instruments that the universe rule must exclude come on top: two ETFs, a REIT and a
preferred share.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.sectors import MARKET_NAMES, OTHER, S17_NAMES, SECTORS, members_per_sector

if TYPE_CHECKING:
    from atft_pipeline.exchange.drawing import Market
    from atft_pipeline.exchange.sources import SpanTable

SEGMENT_CHANGE = date(2022, 4, 4)
ALPHANUMERIC_SINCE = date(2024, 1, 1)
CODE_LETTERS = "ACDFGHJKLMNPRSTUWXY"
"""Letters that J-Quants codes use (B, E, I, O, Q, V, Z are left out)."""

MARKET_VOLATILITY = 0.0122
STYLE_VOLATILITY = 0.0025
SECTOR_VOLATILITY = 0.0045
STYLES = 3

_TURNOVER_RATE = 0.003
_MARGIN_NAMES = {"1": "信用", "2": "貸借", "3": "その他"}
_SCALES = (("TOPIX Core30", 30), ("TOPIX Large70", 70), ("TOPIX Mid400", 400), ("TOPIX Small 1", 500))
_PRIME_ISSUES = 1840
_MASTER_FIELDS = (
    "Code", "CoName", "CoNameEn", "S17", "S17Nm", "S33", "S33Nm", "ScaleCat", "Mkt", "MktNm", "Mrgn", "MrgnNm",
    "ProdCat",
)  # fmt: skip

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Universe:
    """Issues in ascending code order; every array has one entry per issue. Days count the market's business days."""

    codes: list[str]
    names: list[str]
    english: list[str]
    sector: Ints
    """Index into SECTORS; len(SECTORS) for ETF, REIT and preferred shares."""
    market_before: list[str]
    """Segment up to 2022-04-01."""
    market_after: list[str]
    scale: list[str]
    margin: list[str]
    product: list[str]
    common: NDArray[np.bool_]
    first: Ints
    """Business day of the listing; 0 for those listed before the history begins."""
    last: Ints
    """Business day after the last one listed; the number of business days for those still listed."""
    price: Floats
    """Price in yen on the first day."""
    shares: Floats
    """Shares issued on the first day."""
    turnover: Floats
    """Typical turnover in yen a day."""
    beta: Floats
    style: Floats
    """Loadings on the style factors [issues, STYLES]."""
    specific: Floats
    """Daily specific volatility."""
    total: Floats
    """Daily total volatility."""
    thin: Floats
    """Chance of a day without a trade."""
    parent: Ints
    """Issue whose return a preferred share follows; -1 otherwise."""

    def listed(self, days: int) -> NDArray[np.bool_]:
        """[days, issues]: listed on the business day."""
        day = np.arange(days)[:, None]
        return (day >= self.first) & (day < self.last)

    def listed_on(self, days: range) -> NDArray[np.bool_]:
        """[days, issues]: listed on these business days."""
        day = np.arange(days.start, days.stop)[:, None]
        return (day >= self.first) & (day < self.last)


def draw_universe(stocks: int, days: list[date], seed: int) -> Universe:
    """Draw `stocks` common stocks and the few other instruments for a history over the business `days`."""
    rng = np.random.default_rng([seed, 1])
    sector = np.repeat(np.arange(len(SECTORS)), members_per_sector(stocks))
    first, last = _lives(rng, stocks, days)
    segment = _segments(rng, stocks, first)
    cap = np.exp(rng.normal(np.log([9e10, 1.4e10, 9e9])[segment], np.array([1.3, 0.9, 0.8])[segment]))
    price = np.clip(np.exp(rng.normal(np.log(1700), 0.7, stocks)), 500, 12_000)
    total = np.array([0.0185, 0.0205, 0.031])[segment] * np.exp(rng.normal(0, 0.18, stocks))
    beta = np.clip(rng.normal(np.array([1.0, 0.85, 1.2])[segment], 0.22), 0.2, 2.0)
    style = np.clip(rng.normal(0, 1, (stocks, STYLES)), -2.5, 2.5)
    size = np.log(cap)
    style[:, 0] = (size - size.mean()) / size.std()
    common_variance = (
        (beta * MARKET_VOLATILITY) ** 2 + (style**2).sum(axis=1) * STYLE_VOLATILITY**2 + SECTOR_VOLATILITY**2
    )
    specific = np.sqrt(np.maximum(total**2 - common_variance, 0.36 * total**2))
    before, after = _market_codes(rng, segment)
    drawn = Universe(
        codes=_codes(rng, stocks, [days[i] for i in first], first),
        names=[f"模擬{SECTORS[s].name}{i + 1:04d}" for i, s in enumerate(sector)],
        english=[f"Simulated {SECTORS[s].english} {i + 1:04d}" for i, s in enumerate(sector)],
        sector=sector,
        market_before=before,
        market_after=after,
        scale=_scales(cap, segment),
        margin=["2" if u < 0.85 - 0.35 * seg else "1" for u, seg in zip(rng.random(stocks), segment, strict=True)],
        product=["011"] * stocks,
        common=np.ones(stocks, dtype=bool),
        first=first,
        last=last,
        price=price,
        shares=np.round(cap / price / 100) * 100,
        turnover=cap * _TURNOVER_RATE * np.array([1.0, 0.8, 3.0])[segment] * np.exp(rng.normal(0, 0.5, stocks)) + 4e6,
        beta=beta,
        style=style,
        specific=specific,
        total=np.sqrt(specific**2 + common_variance),
        thin=np.where((rng.random(stocks) < 0.1) & (segment == 1), rng.uniform(0.05, 0.5, stocks), 0.0003),
        parent=np.full(stocks, -1),
    )
    return _sorted(_with_others(drawn, len(days)))


def _lives(rng: np.random.Generator, stocks: int, days: list[date]) -> tuple[Ints, Ints]:
    """First and last business day per stock: about 2.5 % a year list and as many delist, spread over the history."""
    total = len(days)
    first, last = np.zeros(stocks, dtype=np.int64), np.full(stocks, total, dtype=np.int64)
    changes = min(max(1, round(0.025 * stocks * total / 245)), stocks // 4)
    moved = rng.permutation(stocks)[: 2 * changes]
    slots = (np.arange(changes) + rng.uniform(0.2, 0.9, changes)) / changes
    first[moved[:changes]] = np.clip((total * slots).astype(np.int64), 1, total - 1)
    slots = (np.arange(changes) + rng.uniform(0.2, 0.9, changes)) / changes
    last[moved[changes:]] = np.clip((total * slots).astype(np.int64), 2, total - 1)
    return first, last


def _segments(rng: np.random.Generator, stocks: int, first: Ints) -> Ints:
    """0 large board, 1 standard, 2 growth; a new listing is mostly growth."""
    draw = rng.random(stocks)
    old = np.where(draw < 0.5, 0, np.where(draw < 0.87, 1, 2))
    new = np.where(draw < 0.1, 0, np.where(draw < 0.35, 1, 2))
    return np.where(first > 0, new, old)


def _market_codes(rng: np.random.Generator, segment: Ints) -> tuple[list[str], list[str]]:
    """Segments before and after 2022-04-04: part of the First Section chose Standard."""
    draw = rng.random(len(segment))
    after = [("0111", "0112", "0113")[s] for s in segment]
    before = []
    for s, u in zip(segment, draw, strict=True):
        if s == 0:
            before.append("0101")
        elif s == 1:
            before.append("0101" if u < 0.23 else "0102" if u < 0.52 else "0106")
        else:
            before.append("0104" if u < 0.85 else "0107")
    return before, after


def _scales(cap: Floats, segment: Ints) -> list[str]:
    """TOPIX size classes by capitalisation among the large board, in the real proportions; "-" elsewhere."""
    scale = ["-"] * len(cap)
    large = [int(i) for i in np.argsort(-cap, kind="stable") if segment[i] == 0]
    bounds = [max(k + 1, round(len(large) * top / _PRIME_ISSUES)) for k, top in enumerate((30, 100, 500, 1000))]
    for rank, i in enumerate(large):
        above = sum(rank >= bound for bound in bounds)
        scale[i] = _SCALES[above][0] if above < len(_SCALES) else "TOPIX Small 2"
    return scale


def _codes(rng: np.random.Generator, stocks: int, listing: list[date], first: Ints) -> list[str]:
    """Five-character codes: numeric in sector order; new listings from 2024 carry letters (130A0)."""
    letters = [f"{n}{letter}0" for n in range(130, 1000) for letter in CODE_LETTERS]
    new = [i for i in range(stocks) if first[i] > 0 and listing[i] >= ALPHANUMERIC_SINCE]
    fresh = sorted(new, key=lambda i: first[i])
    numeric = np.sort(rng.choice(np.arange(1400, 9980), size=stocks, replace=False))
    codes = [f"{number}0" for number in numeric]
    for i, code in zip(fresh, letters, strict=False):
        codes[i] = code
    return codes


def _with_others(stocks: Universe, days: int) -> Universe:
    """Append two ETFs, a REIT and a preferred share of the largest stock."""
    largest = int(np.argmax(stocks.shares * stocks.price))
    taken = {code[:4] for code in stocks.codes}
    reit = next(str(number) for number in range(8951, 9999) if str(number) not in taken)

    def add(values: list[str], *more: str) -> list[str]:
        return [*values, *more]

    def put(values: NDArray[np.generic], more: list[float]) -> NDArray[np.generic]:
        return np.concatenate([values, np.array(more, dtype=values.dtype)])

    return Universe(
        codes=add(stocks.codes, "13060", "13210", f"{reit}0", f"{stocks.codes[largest][:4]}5"),
        names=add(stocks.names, "模擬TOPIX連動型上場投信", "模擬業種別上場投信", "模擬不動産投資法人", "模擬優先株式"),
        english=add(
            stocks.english, "Simulated TOPIX ETF", "Simulated Sector ETF", "Simulated REIT", "Simulated Preferred Share"
        ),
        sector=put(stocks.sector, [len(SECTORS)] * 4).astype(np.int64),
        market_before=add(stocks.market_before, *["0109"] * 4),
        market_after=add(stocks.market_after, *["0109"] * 4),
        scale=add(stocks.scale, *["-"] * 4),
        margin=add(stocks.margin, "2", "2", "2", "1"),
        product=add(stocks.product, "014", "014", "013", "011"),
        common=put(stocks.common, [False] * 4).astype(bool),
        first=put(stocks.first, [0] * 4).astype(np.int64),
        last=put(stocks.last, [days, days, days, int(stocks.last[largest])]).astype(np.int64),
        price=put(stocks.price, [2100, 2000, 90_000, 0.7 * float(stocks.price[largest])]).astype(float),
        shares=put(stocks.shares, [4e9, 3e8, 2e6, 1e7]).astype(float),
        turnover=put(stocks.turnover, [3e9, 2e8, 5e8, 2e7]).astype(float),
        beta=put(stocks.beta, [1.0, 0.95, 0.6, 0.6]).astype(float),
        style=np.vstack([stocks.style, np.zeros((4, STYLES))]),
        specific=put(stocks.specific, [0.0006, 0.002, 0.007, 0.005]).astype(float),
        total=put(stocks.total, [0.011, 0.011, 0.01, 0.012]).astype(float),
        thin=put(stocks.thin, [0.0, 0.0, 0.0, 0.02]).astype(float),
        parent=put(stocks.parent, [-1, -1, -1, largest]).astype(np.int64),
    )


def _sorted(universe: Universe) -> Universe:
    """The same issues in ascending code order."""
    order = sorted(range(len(universe.codes)), key=lambda i: universe.codes[i])
    place = {old: new for new, old in enumerate(order)}
    moved: dict[str, Any] = {}
    for name, values in vars(universe).items():
        moved[name] = [values[i] for i in order] if isinstance(values, list) else values[order]
    moved["parent"] = np.array([place[int(p)] if p >= 0 else -1 for p in moved["parent"]], dtype=np.int64)
    return Universe(**moved)


def master(market: Market) -> SpanTable:
    """Source of /equities/master: one row per listed issue and business day, 14 fields."""
    universe = market.universe
    sectors = [*SECTORS, OTHER]
    facts = pl.DataFrame(
        {
            "Code": universe.codes,
            "CoName": universe.names,
            "CoNameEn": universe.english,
            "S17": [sectors[s].s17 for s in universe.sector],
            "S17Nm": [S17_NAMES[sectors[s].s17] for s in universe.sector],
            "S33": [sectors[s].s33 for s in universe.sector],
            "S33Nm": [sectors[s].name for s in universe.sector],
            "ScaleCat": universe.scale,
            "before": universe.market_before,
            "after": universe.market_after,
            "Mrgn": universe.margin,
            "MrgnNm": [_MARGIN_NAMES[m] for m in universe.margin],
            "ProdCat": universe.product,
        }
    )
    segments = {
        name: facts.with_columns(
            pl.col(name).alias("Mkt"), pl.col(name).replace_strict(MARKET_NAMES).alias("MktNm")
        ).select(_MASTER_FIELDS)
        for name in ("before", "after")
    }
    changed = bisect_left(market.business, SEGMENT_CHANGE)

    def rows(first: date, last: date) -> pl.DataFrame:
        span = market.business_range(first, last)
        parts = []
        for name, days in (
            ("before", range(span.start, min(span.stop, changed))),
            ("after", range(max(span.start, changed), span.stop)),
        ):
            day, issue = np.nonzero(universe.listed_on(days))
            dates = pl.Series("Date", [market.business[n].isoformat() for n in days], dtype=pl.String)
            parts.append(segments[name][issue].insert_column(0, dates[day]))
        return pl.concat(parts)

    return rows
