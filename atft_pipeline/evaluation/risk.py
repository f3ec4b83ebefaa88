"""Statistics of daily return series [D], on plain arrays: what a book earned, how deep and how long it sank, and
whether its Sharpe ratio survives the number of trials behind it.

Returns are simple returns of one day; NaN counts as no return. Nothing here gates training (`metrics.py` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.evaluation.metrics import TRADING_DAYS, Array, Book, sharpe

EULER = 0.5772156649015329
"""The Euler-Mascheroni constant."""
_NORMAL = NormalDist()


def drawdown(returns: Array) -> Array:
    """Share by which the compounded equity curve lies below its running peak, each day: [D], 0 at a peak."""
    equity = np.concatenate([[1.0], np.cumprod(1 + np.nan_to_num(np.asarray(returns, np.float64)))])
    return np.asarray(1 - (equity / np.maximum.accumulate(equity))[1:])


@dataclass(frozen=True)
class UnderWater:
    """Time below an earlier peak: the longest spell in days, and the share of all days."""

    longest: int
    share: float


def time_under_water(returns: Array) -> UnderWater:
    """How long the equity curve stays below its running peak; a spell that still runs at the end counts."""
    below = drawdown(returns) > 0
    longest = run = 0
    for day in below.tolist():
        run = run + 1 if day else 0
        longest = max(longest, run)
    return UnderWater(longest, float(below.mean()) if len(below) else float("nan"))


def annual_return(returns: Array, annual: int = TRADING_DAYS) -> float:
    """Compound growth rate a year."""
    x = np.nan_to_num(np.asarray(returns, np.float64))
    return float(np.prod(1 + x) ** (annual / len(x)) - 1) if len(x) else float("nan")


def annual_volatility(returns: Array, annual: int = TRADING_DAYS) -> float:
    """Standard deviation (ddof=1) of the returns, annualised."""
    x = np.asarray(returns, np.float64)
    x = x[np.isfinite(x)]
    return float(x.std(ddof=1) * np.sqrt(annual)) if len(x) > 1 else float("nan")


def worst_days(returns: Array, dates: NDArray[np.datetime64], shown: int = 5) -> list[tuple[str, float]]:
    """The `shown` worst days as (date, return), worst first."""
    x = np.where(np.isfinite(returns), returns, np.inf)
    order = [i for i in np.argsort(x, kind="stable")[:shown] if np.isfinite(returns[i])]
    return [(str(dates[i].astype("datetime64[D]")), float(returns[i])) for i in order]


def cost_curve(book: Book, costs: Sequence[float]) -> list[float]:
    """Annualised Sharpe of the book net of each one-way cost (shares of traded value, 0.001 = 10 basis points)."""
    return [sharpe(book.gross - cost * book.turnover) for cost in costs]


def sharpe_confidence(ratio: float, benchmark: float, n: int, skew: float, kurtosis: float) -> float:
    """Probability that the true Sharpe ratio exceeds `benchmark`, both per period, after `n` periods whose returns have
    this skew and (not excess) kurtosis (Bailey and Lopez de Prado 2012, eq. 11)."""
    variance = 1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2
    return _NORMAL.cdf(float((ratio - benchmark) * np.sqrt(n - 1) / np.sqrt(variance)))


def probabilistic_sharpe(returns: Array, benchmark: float = 0.0) -> float:
    """`sharpe_confidence` of a daily series; NaN where its Sharpe ratio is undefined. `benchmark` is per day."""
    x = np.asarray(returns, np.float64)
    x = x[np.isfinite(x)]
    if len(x) < 3 or x.max() == x.min():
        return float("nan")
    z = (x - x.mean()) / x.std()
    skew, kurtosis = float((z**3).mean()), float((z**4).mean())
    return sharpe_confidence(float(x.mean() / x.std(ddof=1)), benchmark, len(x), skew, kurtosis)


def expected_best_sharpe(trial_sharpes: Array) -> float:
    """Sharpe ratio that the best of so many worthless trials reaches by luck, in the unit of the given ratios (Bailey
    and Lopez de Prado 2014, eq. 1): from the number of trials and the variance between them."""
    ratios = np.asarray(trial_sharpes, np.float64)
    n = len(ratios)
    if n < 2:
        return 0.0
    best = (1 - EULER) * _NORMAL.inv_cdf(1 - 1 / n) + EULER * _NORMAL.inv_cdf(1 - 1 / (n * np.e))
    return float(ratios.std(ddof=1) * best)


def deflated_sharpe(returns: Array, trial_sharpes: Array) -> float:
    """Probability that the chosen trial's Sharpe ratio is more than luck, after all trials that were made (Bailey and
    Lopez de Prado 2014). `trial_sharpes` are per day and include the chosen one; failed trials count, as 0."""
    return probabilistic_sharpe(returns, expected_best_sharpe(trial_sharpes))
