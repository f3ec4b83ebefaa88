"""The morning and the afternoon of a daily bar: the Premium columns, made to agree with the whole day.

The morning opens the day and the afternoon closes it, the extremes of the day are those of one of the two, and volume
and turnover add up. A day's draw depends on the day alone, so any span of bars can be written by itself.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.prices import on_tick

FIELDS = ("O", "H", "L", "C", "UL", "LL", "Vo", "Va", "AdjO", "AdjH", "AdjL", "AdjC", "AdjVo")
COLUMNS = tuple(half + field for half in "MA" for field in FIELDS)

_LOT = 100.0
_FEW_LOTS = 5
"""A day of fewer lots than this may have traded in one session only."""
_DRAWS = 7

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def draw_sessions(seed: int, days: list[date], day: Ints, issue: Ints) -> Floats32:
    """[_DRAWS, rows] uniform numbers for rows of `day` (ascending places in `days`) and `issue`.

    The numbers of a day and issue are the same whatever other rows there are.
    """
    luck = np.empty((_DRAWS, len(day)), dtype=np.float32)
    edges = np.searchsorted(day, np.arange(len(days) + 1))
    for place in np.unique(day):
        rows = slice(edges[place], edges[place + 1])
        rng = np.random.default_rng([seed, 58, days[place].toordinal()])
        luck[:, rows] = rng.random((int(issue[rows].max()) + 1, _DRAWS), dtype=np.float32)[issue[rows]].T
    return luck


def session_columns(
    bars: pl.DataFrame, luck: Floats32, limits: tuple[Floats, Floats], later: Floats, fine: Bools
) -> list[pl.Series]:
    """The 26 columns for the rows of `bars` (O H L C Vo Va, null without a trade).

    `luck` is [_DRAWS, rows]; `limits` are the highest and lowest prices of the day, `later` the product of the later
    adjustment factors, and `fine` marks the finer ticks, each [rows].
    """
    upper, lower = limits
    opened, high, low, close, volume, turnover = (
        bars[name].to_numpy().astype(np.float64) for name in ("O", "H", "L", "C", "Vo", "Va")
    )
    traded = ~np.isnan(close)
    lots = np.where(traded, volume / _LOT, 0.0)
    single = traded & ((lots < 2) | ((lots < _FEW_LOTS) & (luck[0] < 0.4)))
    in_morning = traded & (~single | (luck[1] < 0.5))
    in_afternoon = traded & (~single | ~in_morning)
    both = in_morning & in_afternoon

    def price(wanted: Floats) -> Floats:
        """A price on a tick within the range of the day."""
        return np.where(traded, np.clip(on_tick(np.where(traded, wanted, 100.0), fine), low, high), np.nan)

    noon = price(low + luck[2] * (high - low))
    again = price(noon + 0.3 * (luck[3] - 0.5) * (high - low))
    high_first, low_first = luck[4] < 0.55, luck[5] < 0.55
    morning_high = np.where(high_first, high, np.maximum(opened, noon))
    afternoon_high = np.where(high_first, np.maximum(again, close), high)
    morning_low = np.where(low_first, low, np.minimum(opened, noon))
    afternoon_low = np.where(low_first, np.minimum(again, close), low)

    share = np.clip(0.3 + 0.4 * luck[6], 0, 1)
    morning_volume = np.clip(np.round(share * lots), 1, np.maximum(lots - 1, 1)) * _LOT
    morning_value = np.floor(turnover * morning_volume / np.maximum(volume, 1.0))
    halves = {
        "M": (in_morning, opened, morning_high, morning_low, noon, morning_volume, morning_value),
        "A": (in_afternoon, again, afternoon_high, afternoon_low, close, volume - morning_volume,
              turnover - morning_value),
    }  # fmt: skip
    whole = (opened, high, low, close, volume, turnover)
    columns: list[pl.Series] = []
    for half, (trades, *split) in halves.items():
        o, h, lo, c, vo, va = (
            np.where(trades, np.where(both, part, day), np.nan) for part, day in zip(split, whole, strict=True)
        )
        adjusted = [_half_up(price * later) for price in (o, h, lo, c)] + [_half_up(vo / later)]
        hit_up, hit_down = trades & (h >= upper - 1e-6), trades & (lo <= lower + 1e-6)
        values: list[NDArray[np.generic]] = [
            o, h, lo, c, np.where(hit_up, "1", "0"), np.where(hit_down, "1", "0"), vo, va, *adjusted,
        ]  # fmt: skip
        for field, array in zip(FIELDS, values, strict=True):
            series = pl.Series(half + field, array)
            columns.append(series if field in ("UL", "LL") else series.fill_nan(None))
    return columns


def _half_up(values: Floats) -> Floats:
    return np.asarray(np.floor(values * 10 + 0.5 + 1e-9) / 10, dtype=np.float64)
