"""The oracle: what every return was expected to be, and the scale of each part that gives it its planted size.

Written beside the market's tables, never inside one; only the evaluation may read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.plants import PARTS, Planted
from atft_pipeline.exchange.signals import Effects
from atft_pipeline.exchange.tokyo_calendar import is_business_day
from atft_pipeline.settings import HORIZONS

DELAYS = (0, 1, 2, 5)
AHEAD = max(DELAYS) + max(HORIZONS)
"""Days that the oracle looks ahead."""

_ROUNDS = 8
_EXACT = 1e-4
_SMALLEST = 0.2
"""A scale never falls below this share of what the planted size needs on average: in a tiny market luck alone may
exceed the plant."""

_CHUNK = 250
"""Days worked on at a time, to bound memory."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def acting_dates(trading_days: list[date]) -> list[date]:
    """The trading days followed by AHEAD more, on which what is known at the end will act."""
    more: list[date] = []
    day = trading_days[-1]
    while len(more) < AHEAD:
        day += timedelta(days=1)
        if is_business_day(day):
            more.append(day)
    return trading_days + more


def daily_correlation(score: Floats, returns: Floats, where: Bools) -> Floats:
    """Pearson correlation of `score` and `returns` over the issues `where` of each day; NaN where undefined."""
    use = where & np.isfinite(score) & np.isfinite(returns)
    count = use.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = np.where(use, score, 0.0), np.where(use, returns, 0.0)
        x = np.where(use, x - (x.sum(axis=1) / count)[:, None], 0.0)
        y = np.where(use, y - (y.sum(axis=1) / count)[:, None], 0.0)
        product = (x * y).sum(axis=1)
        spread = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
        return np.where((spread > 0) & (count > 2), product / spread, np.nan)


def calibrate(
    planted: Mapping[str, Planted],
    schedule: Mapping[str, Floats],
    realise: Callable[[Mapping[str, float]], tuple[Effects, Floats]],
    universe: Bools,
) -> dict[str, float]:
    """Find the scales at which each part's mean daily correlation with the written returns is its planted size.

    `realise(scale)` plays the market: the effects and the adjusted returns of its bars [days, issues]. `universe`
    [days, issues] says who counts.
    """
    where = universe[1:] & universe[:-1]
    scale = dict.fromkeys(planted, 0.0)
    needed: dict[str, float] = {}
    for _ in range(_ROUNDS):
        effects, returns = realise(scale)
        missing: dict[str, float] = {}
        for part, plant in planted.items():
            effect = effects.expected(part, 0, slice(0, len(returns) - 1)) * schedule[part][1 : len(returns), None]
            ic = daily_correlation(effect, returns[1:], where)
            missing[part] = plant.ic - float(np.nanmean(ic)) if plant.ic and np.isfinite(ic).any() else 0.0
            if part not in needed:
                needed[part] = _spread_ratio(returns[1:], effect, where)
        if all(abs(gap) < _EXACT for gap in missing.values()):
            break
        for part, gap in missing.items():
            least = _SMALLEST * planted[part].ic * needed[part]
            scale[part] = max(scale[part] + gap * needed[part], least)
    return scale


def _spread_ratio(returns: Floats, effect: Floats, where: Bools) -> float:
    """Return per unit of effect at a correlation of 1: the cross-sectional spreads' mean ratio, inverted."""
    count = np.maximum(where.sum(axis=1), 1)

    def spread(values: Floats) -> Floats:
        kept = np.where(where & np.isfinite(values), values, 0.0)
        return np.sqrt((kept**2).sum(axis=1) / count - (kept.sum(axis=1) / count) ** 2)

    ratio = spread(effect) / np.maximum(spread(returns), 1e-12)
    acting = ratio > 0
    return 1.0 / float(ratio[acting].mean()) if acting.any() else 0.0


def label_columns(
    effects: Effects, scale: Mapping[str, float], schedule: Mapping[str, Floats], wanted: range | None = None
) -> dict[str, Floats]:
    """E[return over (T+delay, T+delay+h] | known at T] per label, and each part's own share of `d0_h1`.

    Arrays are [wanted trading days, issues]; None wants all.
    """
    days, issues = effects.reversal.shape
    wanted = range(days) if wanted is None else wanted
    names = [f"d{delay}_h{horizon}" for delay in DELAYS for horizon in HORIZONS]
    columns = {name: np.zeros((len(wanted), issues)) for name in names}
    columns |= {f"part_{part}": np.zeros((len(wanted), issues)) for part in PARTS}
    for start in range(wanted.start, wanted.stop, _CHUNK):
        rows = slice(start, min(start + _CHUNK, wanted.stop))
        put = slice(rows.start - wanted.start, rows.stop - wanted.start)
        total = np.zeros((AHEAD + 1, rows.stop - rows.start, issues))
        for part, size in scale.items():
            for ahead in range(AHEAD):
                acting = schedule[part][rows.start + 1 + ahead : rows.stop + 1 + ahead, None]
                expected = size * acting * effects.expected(part, ahead, rows)
                total[ahead + 1] += expected
                if ahead == 0:
                    columns[f"part_{part}"][put] = expected
        total = np.cumsum(total, axis=0)
        for delay in DELAYS:
            for horizon in HORIZONS:
                columns[f"d{delay}_h{horizon}"][put] = total[delay + horizon] - total[delay]
    return columns


def oracle_table(
    codes: list[str],
    days: list[date],
    listed: Bools,
    row: NDArray[np.int64],
    trading: Bools,
    columns: Mapping[str, Floats],
) -> pl.DataFrame:
    """One row per bar of `days`; `row` [days] is each day's row in `columns`.

    On a day without trading (`trading` [days] false) the expectations are null.
    """
    day, issue = np.nonzero(listed)
    at, open_day = row[day], trading[day]
    keys = [
        pl.Series("date", days, dtype=pl.Date).gather(day).alias("date"),
        pl.Series("code", codes).gather(issue).alias("code"),
    ]
    values = [
        pl.Series(name, np.where(open_day, array[at, issue], np.nan)).fill_nan(None) for name, array in columns.items()
    ]
    return pl.DataFrame([*keys, *values])


class Realised:
    """Collects, span by span, the daily correlation of the oracle with the written returns, per label and part."""

    def __init__(self, returns: Floats, universe: Bools) -> None:
        """`returns` and `universe` are [trading days, issues] of the whole history."""
        self._returns = returns
        self._universe = universe
        self._series: dict[str, list[Floats]] = {}

    def correlate(self, columns: Mapping[str, Floats], rows: range) -> dict[str, Floats]:
        """Daily correlations of `columns`, the labels of the trading days `rows`."""
        ahead = self._returns[rows.start : rows.stop + AHEAD]
        where = self._universe[rows.start : rows.stop]
        found = {}
        for delay in DELAYS:
            for horizon in HORIZONS:
                name = f"d{delay}_h{horizon}"
                future = forward_returns(ahead, delay, horizon)[: len(rows)]
                found[name] = daily_correlation(columns[name], future, where)
        future = forward_returns(ahead, 0, 1)[: len(rows)]
        return found | {f"part_{part}": daily_correlation(columns[f"part_{part}"], future, where) for part in PARTS}

    def add(self, correlations: Mapping[str, Floats]) -> None:
        """Take the next days' correlations; in order of time."""
        for name, series in correlations.items():
            self._series.setdefault(name, []).append(series)

    def facts(self, planted: Mapping[str, Planted]) -> dict[str, Any]:
        """Mean, spread and error of every label and every planted part."""
        summaries = {name: _summary(np.concatenate(parts)) for name, parts in self._series.items()}
        parts = {part: {"planted": plant.ic, **summaries[f"part_{part}"]} for part, plant in planted.items()}
        labels = {name: facts for name, facts in summaries.items() if not name.startswith("part_")}
        return {"labels": labels, "parts": parts}


def forward_returns(returns: Floats, delay: int, horizon: int) -> Floats:
    """Compound return over (T+delay, T+delay+horizon]; NaN where a day is missing or lies beyond the history."""
    future = np.full_like(returns, np.nan)
    last = len(returns) - delay - horizon
    if last > 0:
        grown = np.ones((last, returns.shape[1]))
        for step in range(1, horizon + 1):
            grown *= 1 + returns[delay + step : delay + step + last]
        future[:last] = grown - 1
    return future


def _summary(ic: Floats) -> dict[str, float | int]:
    ic = ic[np.isfinite(ic)]
    if len(ic) < 2:
        return {"ic": 0.0, "sd": 0.0, "se": 0.0, "dates": len(ic)}
    spread = float(ic.std(ddof=1))
    return {"ic": float(ic.mean()), "sd": spread, "se": spread / float(np.sqrt(len(ic))), "dates": len(ic)}
