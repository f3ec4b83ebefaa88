"""Rank correlations inside parts of the market, and of what is left of a score after plain factors: arrays only.

Scores, labels and characteristics are [D, N] with NaN for "not there"; groups are [D, N] integers, 0 for unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.evaluation.metrics import MIN_CROSS_SECTION, Array, average_ranks, ic, rank_ic

Ints = NDArray[np.integer]

MIN_GROUP = 5
"""Fewest stocks of a sector on a date for a correlation inside it."""


def buckets(characteristic: Array, where: NDArray[np.bool_], count: int = 3) -> Ints:
    """[D, N]: 1..count by the characteristic's rank on the date among the stocks of `where`, 0 elsewhere."""
    known = np.where(where & np.isfinite(characteristic), characteristic, np.nan)
    size = np.maximum(np.isfinite(known).sum(axis=1, keepdims=True), 1)
    place = np.minimum(np.nan_to_num(average_ranks(known)) * count // size, count - 1)
    return np.where(np.isfinite(known), place + 1, 0).astype(np.int64)


def group_rank_ic(scores: Array, y: Array, groups: Ints, *, fewest: int = MIN_GROUP) -> dict[int, Array]:
    """Group -> daily RankIC [D] among its own stocks; NaN on dates with fewer than `fewest` of them."""
    found = {}
    for group in np.unique(groups[groups > 0]).tolist():
        found[int(group)] = rank_ic(np.where(groups == group, scores, np.nan), y, fewest)
    return found


def yearly(series: Array, dates: NDArray[np.datetime64]) -> dict[str, Array]:
    """Year -> the part of a daily series that lies in it."""
    years = dates.astype("datetime64[Y]").astype(str)
    return {year: np.asarray(series)[years == year] for year in sorted(set(years.tolist()))}


def group_neutral(scores: Array, groups: Ints) -> Array:
    """Scores minus the mean of their group on the date; NaN for stocks without a group."""
    s = np.where(groups > 0, np.asarray(scores, np.float64), np.nan)
    neutral = np.full_like(s, np.nan)
    for group in np.unique(groups[groups > 0]).tolist():
        own = np.where(groups == group, s, np.nan)
        n = np.isfinite(own).sum(axis=1, keepdims=True)
        mean = np.nansum(own, axis=1, keepdims=True) / np.maximum(n, 1)
        neutral = np.where(np.isfinite(own), own - mean, neutral)
    return neutral


def factor_neutral(scores: Array, factors: Sequence[Array]) -> Array:
    """Residual of the score's ranks after a regression on the factors' ranks and a constant, date by date.

    A missing factor counts as its middle rank. NaN where the score is missing and on dates with too few stocks.
    """
    left = np.full(np.shape(scores), np.nan)
    for d, row in enumerate(np.asarray(scores, np.float64)):
        use = np.flatnonzero(np.isfinite(row))
        if len(use) < max(MIN_CROSS_SECTION, 2 * len(factors) + 2):
            continue
        columns = [np.ones(len(use)), *(_centred_rank(np.asarray(f[d, use], np.float64)) for f in factors)]
        design = np.column_stack(columns)
        target = _centred_rank(row[use])
        left[d, use] = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return left


def factor_neutral_rank_ic(scores: Array, y: Array, factors: Sequence[Array]) -> Array:
    """Daily correlation [D] of the label's ranks with what `factor_neutral` leaves of the score.

    Pearson on purpose: where little is left its ranks are those of the rounding, and would correlate with anything.
    """
    both = np.isfinite(scores) & np.isfinite(y)
    left = factor_neutral(np.where(both, scores, np.nan), factors)
    return ic(left, average_ranks(np.where(both, y, np.nan)))


def _centred_rank(x: Array) -> Array:
    """Ranks from -1 to 1, 0 where missing."""
    n = max(int(np.isfinite(x).sum()), 2)
    return np.asarray(np.nan_to_num(2 * average_ranks(x[None])[0] / (n - 1) - 1))


def rolling_beta(returns: Array, where: NDArray[np.bool_], window: int = 60, fewest: int = 40) -> Array:
    """[T, N]: slope of a stock's return on the equal-weight market's over the last `window` days; NaN before.

    Row t uses returns up to t.
    """
    known = where & np.isfinite(returns)
    r = np.where(known, np.nan_to_num(returns), 0.0).astype(np.float64)
    m = r.sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    m = np.where(known, m, 0.0)
    n, sum_r, sum_m, sum_rm, sum_mm = (_window_sum(v, window) for v in (known.astype(float), r, m, r * m, m * m))
    n1 = np.maximum(n, 1)
    variance = sum_mm / n1 - (sum_m / n1) ** 2
    covariance = sum_rm / n1 - sum_r * sum_m / n1**2
    good = (n >= fewest) & (variance > 0)
    return np.where(good, covariance / np.where(good, variance, 1.0), np.nan)


def _window_sum(x: Array, window: int) -> Array:
    total = np.cumsum(x, axis=0)
    total[window:] = total[window:] - total[:-window].copy()
    return total
