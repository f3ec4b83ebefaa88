"""Weekly trading by investor type per section: thousands of yen that add up, published four business days later."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.indices import TOPIX
from atft_pipeline.exchange.tokyo_calendar import business_days
from atft_pipeline.exchange.universe import SEGMENT_CHANGE

if TYPE_CHECKING:
    from atft_pipeline.exchange.drawing import Market
    from atft_pipeline.exchange.sources import SpanTable

CORRECTIONS_SINCE = date(2023, 4, 3)
"""From here on a correction is a further row with a newer PubDate."""

TYPES = ("Ind", "Frgn", "SecCo", "InvTr", "BusCo", "OthCo", "InsCo", "Bank", "TrstBnk", "OthFin")
"""The brokerage customers; with the members' own account (`Prop`) they make up the total."""

_OLD = {"TSE1st": ("0101",), "TSE2nd": ("0102",), "TSEMothers": ("0104",), "TSEJASDAQ": ("0106", "0107")}
_NEW = {"TSEPrime": ("0111",), "TSEStandard": ("0112",), "TSEGrowth": ("0113",)}
_WHOLE = "TokyoNagoya"

# Share of brokerage value per type: large board, others, growth.
_SHARES = np.array(
    [
        [0.245, 0.63, 0.006, 0.022, 0.018, 0.006, 0.004, 0.003, 0.036, 0.030],
        [0.52, 0.37, 0.012, 0.016, 0.022, 0.010, 0.003, 0.003, 0.014, 0.030],
        [0.60, 0.31, 0.012, 0.022, 0.012, 0.008, 0.001, 0.001, 0.010, 0.024],
    ]
)
_BOARD = {"TSE1st": 0, "TSEPrime": 0, _WHOLE: 0, "TSEMothers": 2, "TSEGrowth": 2}
_TREND = np.array([-0.45, 0.55, 0.1, -0.3, -0.25, 0.05, -0.3, -0.3, -0.25, 0.0])
"""How each type trades with the week's market return, in standard deviations of its net share."""
_LEAN = np.array([0.0, 0.0, 0.0, 0.03, 0.22, 0.0, -0.10, -0.08, 0.03, 0.0])
_SPREAD = np.array([0.03, 0.02, 0.03, 0.12, 0.10, 0.06, 0.10, 0.10, 0.10, 0.05])
_PUBLISHED_AFTER = 4
_CORRECTED_AFTER = 11

Floats = NDArray[np.float64]


def weeks(days: list[date]) -> list[list[int]]:
    """Indices of the business days of each week."""
    grouped: dict[date, list[int]] = {}
    for i, day in enumerate(days):
        grouped.setdefault(day - timedelta(days=day.weekday()), []).append(i)
    return [grouped[monday] for monday in sorted(grouped)]


def investor_types(market: Market) -> SpanTable:
    """Source of /equities/investor-types: all weeks, as published up to the last day; 56 columns."""
    table = _all_weeks(market)

    def rows(first: date, last: date) -> pl.DataFrame:
        return table.filter(pl.col("PubDate").is_between(pl.lit(first.isoformat()), pl.lit(last.isoformat())))

    return rows


def _all_weeks(market: Market) -> pl.DataFrame:
    rng = np.random.default_rng([market.size.seed, 9])
    days = market.business
    turnover = {
        segment: _turnover(market, codes, before)
        for segments, before in ((_OLD, True), (_NEW, False))
        for segment, codes in segments.items()
    }
    closes = market.index_bars.close[market.trading_row, market.index_bars.codes.index(TOPIX)]
    after = business_days(days[0], days[-1] + timedelta(days=60))
    position = {day: i for i, day in enumerate(after)}
    rows: list[dict[str, object]] = []
    previous = float(closes[0])
    for week in weeks(days):
        first, last = days[week[0]], days[week[-1]]
        close = float(closes[week[-1]])
        move, previous = close / previous - 1, close
        published = after[position[last] + _PUBLISHED_AFTER]
        corrected = after[position[last] + _CORRECTED_AFTER]
        sections = _OLD if last < SEGMENT_CHANGE else _NEW
        traded = {name: float(turnover[name][week[0] : week[-1] + 1].sum()) for name in sections}
        traded[_WHOLE] = 1.02 * sum(traded.values())
        mood = rng.standard_normal(len(TYPES))
        wrong = rng.random() < 0.08
        for section in sorted(traded):
            amounts = _amounts(rng, traded[section] / 1e3, _BOARD.get(section, 1), move, mood)
            period = {"StDate": first.isoformat(), "EnDate": last.isoformat(), "Section": section}
            if published <= days[-1]:
                rows.append({"PubDate": published.isoformat(), **period, **_columns(*amounts)})
            if wrong and published >= CORRECTIONS_SINCE and corrected <= days[-1]:
                fixed = (_restated(rng, amounts[0]), amounts[1])
                rows.append({"PubDate": corrected.isoformat(), **period, **_columns(*fixed)})
    schema = {"PubDate": pl.String, "StDate": pl.String, "EnDate": pl.String, "Section": pl.String}
    numbers = {f"{name}{side}": pl.Float64 for name in _groups() for side in ("Sell", "Buy", "Tot", "Bal")}
    return pl.DataFrame(rows, schema={**schema, **numbers}).sort("PubDate", "Section", "StDate")


def _turnover(market: Market, codes: tuple[str, ...], before: bool) -> Floats:
    """[business days]: yen traded in the issues whose market code, before or after the segment change, is in `codes`.

    0 on the days of the other era and on days without trading.
    """
    universe = market.universe
    inside = np.isin(np.array(universe.market_before if before else universe.market_after), codes)
    total = np.where(market.quotes.traded[:, inside], market.quotes.turnover[:, inside], 0.0).sum(axis=1)
    era = np.array([(day < SEGMENT_CHANGE) == before for day in market.business])
    return np.where(market.trading & era, total[market.trading_row], 0.0)


def _amounts(rng: np.random.Generator, traded: float, board: int, move: float, mood: Floats) -> tuple[Floats, Floats]:
    """(sold, bought) in thousand yen of the own account and then each type; both sides sum to about the same."""
    own = rng.uniform(0.10, 0.14)
    total = 2 * traded
    share = _SHARES[board] * np.exp(rng.normal(0, 0.06, len(TYPES)))
    volume = total * (1 - own) * share / share.sum()
    mixed = 0.8 * mood + 0.6 * rng.standard_normal(len(TYPES))
    net = _LEAN + _SPREAD * (1.3 * _TREND * np.clip(move / 0.022, -3, 3) + np.sqrt(1 - _TREND**2) * mixed)
    net = np.clip(net, -0.8, 0.8) * volume
    balance = np.concatenate([[np.clip(-net.sum(), -0.6 * own * total, 0.6 * own * total)], net])
    both = np.concatenate([[own * total], volume])
    return np.round((both - balance) / 2), np.round((both + balance) / 2)


def _restated(rng: np.random.Generator, sold: Floats) -> Floats:
    """The sales after a correction of a few types."""
    change = np.where(rng.random(len(sold)) < 0.3, rng.uniform(0.98, 1.02, len(sold)), 1.0)
    change[0] = 1.01
    return np.round(sold * change)


def _groups() -> tuple[str, ...]:
    return ("Prop", "Brk", "Tot", *TYPES)


def _columns(sold: Floats, bought: Floats) -> dict[str, float]:
    """The 52 amounts of a row from what the own account (first) and each type sold and bought."""
    sell = dict(zip(("Prop", *TYPES), map(float, sold), strict=True))
    buy = dict(zip(("Prop", *TYPES), map(float, bought), strict=True))
    for side in (sell, buy):
        side["Brk"] = sum(side[name] for name in TYPES)
        side["Tot"] = side["Prop"] + side["Brk"]
    row: dict[str, float] = {}
    for name in _groups():
        row[f"{name}Sell"], row[f"{name}Buy"] = sell[name], buy[name]
        row[f"{name}Tot"], row[f"{name}Bal"] = sell[name] + buy[name], buy[name] - sell[name]
    return row
