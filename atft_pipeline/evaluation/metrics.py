"""The metrics that gate training and evaluation, on plain arrays: numpy only, no state, no files.

Scores and labels are [D, N] (dates, stocks) with NaN for "not there". Every statistic is computed per date over the
whole cross-section first; an undefined date is NaN and is counted, never silently zero. Nothing here flips a sign.
Formulas: IC is Pearson, RankIC is Spearman with average ties (Fama-MacBeth style series of daily correlations).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

TRADING_DAYS = 252
"""Annualisation of Sharpe ratios, the field's convention."""
MIN_CROSS_SECTION = 20


def average_ranks(x: Array) -> Array:
    """Ranks 0..n-1 within each row of [D, N], ties averaged, NaN where x is NaN."""
    x = np.asarray(x, dtype=np.float64)
    if x.size == 0:
        return x.copy()
    rows, width = x.shape
    order = np.argsort(x, axis=1, kind="stable")
    ordered = np.take_along_axis(x, order, axis=1)
    starts = np.ones((rows, width), dtype=bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]  # NaN differs from itself: each NaN is its own group
    first = np.flatnonzero(starts.ravel())
    size = np.diff(np.append(first, rows * width))
    middle = (first % width) + (size - 1) / 2
    ranks = np.empty_like(x)
    np.put_along_axis(ranks, order, np.repeat(middle, size).reshape(rows, width), axis=1)
    ranks[np.isnan(x)] = np.nan
    return ranks


def _paired(scores: Array, y: Array) -> tuple[Array, Array, NDArray[np.int64]]:
    """Both arrays as float64 with NaN wherever either is missing, and the number of pairs per date."""
    if np.shape(scores) != np.shape(y):
        raise ValueError(f"scores {np.shape(scores)} and labels {np.shape(y)} must have the same [dates, stocks]")
    valid = np.isfinite(scores) & np.isfinite(y)
    return (
        np.where(valid, np.asarray(scores, np.float64), np.nan),
        np.where(valid, np.asarray(y, np.float64), np.nan),
        valid.sum(axis=1),
    )


def _constant(x: Array) -> NDArray[np.bool_]:
    """Rows whose values are all equal; compared exactly, because centring a constant leaves rounding noise."""
    return np.fmax.reduce(x, axis=1, initial=-np.inf) <= np.fmin.reduce(x, axis=1, initial=np.inf)


def _pearson(a: Array, b: Array, count: NDArray[np.int64], min_cross_section: int) -> Array:
    """Pearson per row of two [D, N] arrays that are NaN at the same places."""
    n = np.maximum(count, 1)[:, None]
    a0 = np.nan_to_num(a - np.nansum(a, axis=1, keepdims=True) / n)
    b0 = np.nan_to_num(b - np.nansum(b, axis=1, keepdims=True) / n)
    scale = np.sqrt((a0 * a0).sum(axis=1) * (b0 * b0).sum(axis=1))
    undefined = (count < max(min_cross_section, 2)) | _constant(a) | _constant(b) | (scale <= 0)
    correlation = (a0 * b0).sum(axis=1) / np.where(undefined, 1.0, scale)
    return np.where(undefined, np.nan, np.clip(correlation, -1.0, 1.0))


def ic(scores: Array, y: Array, min_cross_section: int = MIN_CROSS_SECTION) -> Array:
    """Pearson correlation of score and label per date: [D], NaN where undefined (constant side, too few stocks)."""
    s, t, count = _paired(scores, y)
    return _pearson(s, t, count, min_cross_section)


def rank_ic(scores: Array, y: Array, min_cross_section: int = MIN_CROSS_SECTION) -> Array:
    """Spearman correlation with average ties per date: [D], NaN where undefined."""
    s, t, count = _paired(scores, y)
    return _pearson(average_ranks(s), average_ranks(t), count, min_cross_section)


def _row_median(x: Array) -> Array:
    """Median per row ignoring NaN, NaN for an empty row (without numpy's warning)."""
    ordered = np.sort(x, axis=1)
    count = np.isfinite(x).sum(axis=1)
    low = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0)[:, None], axis=1)
    high = np.take_along_axis(ordered, np.minimum(count // 2, x.shape[1] - 1)[:, None], axis=1)
    return np.where(count > 0, ((low + high) / 2)[:, 0], np.nan)


def hit_rate(scores: Array, y: Array, *, centred: bool = True, min_cross_section: int = MIN_CROSS_SECTION) -> Array:
    """Share of stocks per date whose score and label lie on the same side of the median (`centred=False`: of zero).

    Values exactly on the line are left out. A constant score leaves nothing to compare: NaN.
    """
    s, t, count = _paired(scores, y)
    if centred:
        s = s - _row_median(s)[:, None]
        t = t - _row_median(t)[:, None]
    usable = np.isfinite(s) & np.isfinite(t) & (s != 0) & (t != 0)
    n = usable.sum(axis=1)
    same = (usable & (np.sign(s) == np.sign(t))).sum(axis=1)
    return np.where((n > 0) & (count >= min_cross_section), same / np.maximum(n, 1), np.nan)


def newey_west_se(series: Array, lag: int) -> float:
    """Standard error of the mean with Bartlett weights up to `lag` (Newey and West 1987); NaN below 3 values."""
    x = np.asarray(series, np.float64)
    x = x[np.isfinite(x)]
    n = len(x)
    if n < 3:
        return float("nan")
    e = x - x.mean()
    variance = float(e @ e) / n
    for k in range(1, min(lag, n - 1) + 1):
        variance += 2 * (1 - k / (lag + 1)) * float(e[k:] @ e[:-k]) / n
    if variance <= 0:  # strong negative autocorrelation in a short sample: fall back to the plain error
        variance = float(e @ e) / n
    return float(np.sqrt(variance / (n - 1)))


def block_bootstrap(
    series: Array,
    statistic: Callable[[Array], Array] | None = None,
    *,
    block: int = 20,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval by the stationary block bootstrap (Politis and Romano 1994), mean block length `block`.

    `statistic` maps resampled series [draws, n] to [draws]; the default is the mean.
    """
    x = np.asarray(series, np.float64)
    x = x[np.isfinite(x)]
    n = len(x)
    if n < 3:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    jump = rng.random((draws, n)) < 1 / min(block, n)
    jump[:, 0] = True
    start = rng.integers(0, n, size=(draws, n))
    position = np.arange(n)
    last_jump = np.maximum.accumulate(np.where(jump, position, 0), axis=1)
    index = (np.take_along_axis(start, last_jump, axis=1) + position - last_jump) % n
    values = x[index].mean(axis=1) if statistic is None else statistic(x[index])
    tail = (1 - level) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def sharpe(returns: Array, annual: int = TRADING_DAYS) -> float:
    """Annualised mean over standard deviation (ddof=1) of periodic returns; NaN when undefined."""
    x = np.asarray(returns, np.float64)
    x = x[np.isfinite(x)]
    if len(x) < 2 or x.max() == x.min():
        return float("nan")
    return float(np.sqrt(annual) * x.mean() / x.std(ddof=1))


def sharpe_ci(returns: Array, annual: int = TRADING_DAYS, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of `sharpe` by the block bootstrap."""

    def statistic(draws: Array) -> Array:
        spread = draws.std(axis=1, ddof=1)
        return np.sqrt(annual) * draws.mean(axis=1) / np.where(spread > 0, spread, np.nan)

    return block_bootstrap(returns, statistic, seed=seed)


def max_drawdown(returns: Array) -> float:
    """Largest fall of the compounded equity curve from its running peak, as a positive share."""
    x = np.nan_to_num(np.asarray(returns, np.float64))
    if not len(x):
        return float("nan")
    equity = np.concatenate([[1.0], np.cumprod(1 + x)])
    return float((1 - equity / np.maximum.accumulate(equity)).max())


def decile_means(scores: Array, y: Array, buckets: int = 10, min_cross_section: int = MIN_CROSS_SECTION) -> Array:
    """Mean label per score bucket and date: [D, buckets], lowest scores first; tied scores share a bucket."""
    s, t, count = _paired(scores, y)
    defined = (count >= max(min_cross_section, buckets)) & ~_constant(s)
    relative = average_ranks(s) / np.maximum(count - 1, 1)[:, None]
    bucket = np.minimum((np.nan_to_num(relative) * buckets).astype(np.int64), buckets - 1)
    means = np.full((len(s), buckets), np.nan)
    for b in range(buckets):
        inside = (bucket == b) & np.isfinite(s)
        n = inside.sum(axis=1)
        total = np.where(inside, np.nan_to_num(t), 0.0).sum(axis=1)
        means[:, b] = np.where(defined & (n > 0), total / np.maximum(n, 1), np.nan)
    return means


def decile_spread(scores: Array, y: Array, buckets: int = 10, min_cross_section: int = MIN_CROSS_SECTION) -> Array:
    """Top minus bottom bucket's mean label per date: [D]."""
    means = decile_means(scores, y, buckets, min_cross_section)
    return means[:, -1] - means[:, 0]


@dataclass(frozen=True)
class Book:
    """A dollar-neutral book's daily series, each [D]; returns are shares of one side's capital (gross exposure 2)."""

    gross: Array
    net: Array
    turnover: Array
    """Sum of absolute changes of the weights: 2 on the first day, at most 4."""


def decile_weights(scores: Array, fraction: float = 0.1) -> Array:
    """Equal weights, +1 in total on the top `fraction` of scores and -1 on the bottom; zero on undefined dates.

    Ties at the border are broken by column order on both sides; a constant score takes no position.
    """
    s = np.asarray(scores, np.float64)
    count = np.isfinite(s).sum(axis=1)
    legs = np.maximum(np.rint(count * fraction).astype(np.int64), 1)
    place = np.empty(s.shape, dtype=np.int64)
    columns = np.broadcast_to(np.arange(s.shape[1]), s.shape)
    np.put_along_axis(place, np.argsort(s, axis=1, kind="stable"), columns, axis=1)
    finite = np.isfinite(s)
    long = finite & (place >= (count - legs)[:, None])
    short = finite & (place < legs[:, None])
    weights = (long.astype(np.float64) - short.astype(np.float64)) / legs[:, None]
    weights[(count < 2 * legs) | _constant(s)] = 0.0
    return weights


def decile_book(
    scores: Array, day_returns: Array, *, horizon: int = 1, fraction: float = 0.1, cost: float = 0.001
) -> Book:
    """The dollar-neutral decile book, traded daily in `horizon` overlapping sleeves (Jegadeesh and Titman 1993).

    `day_returns` [D, N] is the one-day return that a position decided on the row's date earns (the 1-day label of the
    chosen delay); missing means zero. `cost` is one-way, per unit of turnover (0.001 = 10 basis points).
    """
    weights = decile_weights(scores, fraction)
    if horizon > 1:
        summed = np.cumsum(weights, axis=0)
        summed[horizon:] = summed[horizon:] - summed[:-horizon].copy()
        weights = summed / np.minimum(np.arange(1, len(weights) + 1), horizon)[:, None]
    gross = (weights * np.nan_to_num(np.asarray(day_returns, np.float64))).sum(axis=1)
    turnover = np.abs(np.diff(weights, axis=0, prepend=0.0)).sum(axis=1)
    return Book(gross=gross, net=gross - cost * turnover, turnover=turnover)


def book_summary(book: Book, *, cost: float = 0.001, seed: int = 0) -> dict[str, object]:
    """Annualised net and gross Sharpe with its 95 % interval, turnover, drawdown and break-even cost of a book."""
    turnover = float(np.mean(book.turnover)) if len(book.turnover) else float("nan")
    return {
        "sharpe_net_ann": sharpe(book.net),
        "sharpe_gross_ann": sharpe(book.gross),
        "ci95": list(sharpe_ci(book.net, seed=seed)),
        "turnover": turnover,
        "max_dd": max_drawdown(book.net),
        "cost_one_way": cost,
        "break_even_cost": float(np.mean(book.gross)) / turnover if turnover > 0 else float("nan"),
        "n_dates": len(book.net),
    }


def rank_autocorrelation(scores: Array, lag: int, min_cross_section: int = MIN_CROSS_SECTION) -> Array:
    """Rank correlation of a date's scores with those `lag` dates before: [D - lag]."""
    if lag >= len(scores):
        return np.empty(0)
    return rank_ic(scores[lag:], scores[:-lag], min_cross_section)


def degeneracy(scores: Array, min_unique_ratio: float = 0.9) -> dict[str, float]:
    """Signs of a collapsed score: median per-date std, median share of distinct values, share of poor dates."""
    s = np.asarray(scores, np.float64)
    s = s[np.isfinite(s).any(axis=1)]
    if not len(s):
        return {"score_std_median": float("nan"), "unique_ratio": float("nan"), "share_dates_degenerate": float("nan")}
    spread = np.where(_constant(s), 0.0, np.nanstd(s, axis=1))
    ordered = np.sort(s, axis=1)
    distinct = np.isfinite(ordered[:, 0]).astype(np.int64)
    distinct += (np.isfinite(ordered[:, 1:]) & (ordered[:, 1:] != ordered[:, :-1])).sum(axis=1)
    unique = distinct / np.isfinite(s).sum(axis=1)
    return {
        "score_std_median": float(np.median(spread)),
        "unique_ratio": float(np.median(unique)),
        "share_dates_degenerate": float((unique < min_unique_ratio).mean()),
    }


def summarise_series(series: Array, lag: int) -> dict[str, float]:
    """mean, std, se (Newey-West), t, icir, n_dates (defined), n_dates_nan, share_positive of a daily series."""
    x = np.asarray(series, np.float64)
    good = x[np.isfinite(x)]
    n = len(good)
    mean = float(good.mean()) if n else float("nan")
    std = float(good.std(ddof=1)) if n > 1 else float("nan")
    se = newey_west_se(good, lag)
    return {
        "mean": mean,
        "std": std,
        "se": se,
        "t": mean / se if se > 0 else float("nan"),
        "icir": mean / std if std > 0 else float("nan"),
        "n_dates": n,
        "n_dates_nan": len(x) - n,
        "share_positive": float((good > 0).mean()) if n else float("nan"),
    }


def summarise(
    scores: Array, y: Array, horizon: int, min_cross_section: int = MIN_CROSS_SECTION
) -> dict[str, dict[str, float]]:
    """`rank_ic`, `ic`, `hit_rate` and `spread` of one horizon, each as `summarise_series` with lag horizon-1."""
    lag = max(horizon - 1, 0)
    return {
        "rank_ic": summarise_series(rank_ic(scores, y, min_cross_section), lag),
        "ic": summarise_series(ic(scores, y, min_cross_section), lag),
        "hit_rate": summarise_series(hit_rate(scores, y, min_cross_section=min_cross_section), lag),
        "spread": summarise_series(decile_spread(scores, y, min_cross_section=min_cross_section), lag),
    }


def horizon_weights(horizons: Sequence[int]) -> Array:
    """1/sqrt(h), normalised to one: the weights of every mean over horizons, in the loss and in the metrics."""
    w = 1 / np.sqrt(np.asarray(horizons, np.float64))
    return w / w.sum()


def weighted_mean(series: Mapping[int, Array]) -> Array:
    """The w_h-mean of daily series keyed by horizon: [D], weights renormalised over the horizons defined that day."""
    stacked = np.stack([np.asarray(v, np.float64) for v in series.values()])
    weight = np.where(np.isfinite(stacked), horizon_weights(list(series))[:, None], 0.0)
    total = weight.sum(axis=0)
    value = (weight * np.nan_to_num(stacked)).sum(axis=0) / np.where(total > 0, total, 1.0)
    return np.where(total > 0, value, np.nan)
