"""The deflated Sharpe ratio: is the best of many trials better than the best of as many trials without skill?

Bailey and Lopez de Prado (2014), "The Deflated Sharpe Ratio", Journal of Portfolio Management 40(5). All ratios here
are per period, never annualised: the annualised one has another sampling error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

EULER = 0.5772156649015329
"""Euler-Mascheroni: the mean of the standard Gumbel law, to which the maximum of normal draws tends."""
NORMAL = NormalDist()


@dataclass(frozen=True)
class Deflated:
    """A Sharpe ratio held against what the best of `trials` would show by luck."""

    sharpe: float
    """Per period."""
    luck: float
    """Expected maximum per-period ratio of as many trials whose true ratio is 0."""
    probability: float
    """That the true ratio exceeds `luck`; NaN when undefined. 0.95 is the usual demand."""
    trials: int
    periods: int
    skew: float
    kurtosis: float


def expected_maximum(trials: int, variance: float) -> float:
    """Expected largest of `trials` independent Sharpe ratios of mean 0 and `variance` (False Strategy theorem).

    0 for a single trial: nothing was chosen. Raises ValueError below one trial or for a negative variance.
    """
    if trials < 1 or not variance >= 0:
        raise ValueError(f"{trials} trials with variance {variance}: at least one trial and no negative variance")
    if trials == 1:
        return 0.0
    first, second = NORMAL.inv_cdf(1 - 1 / trials), NORMAL.inv_cdf(1 - 1 / (trials * math.e))
    return math.sqrt(variance) * ((1 - EULER) * first + EULER * second)


def probabilistic_sharpe(sharpe: float, benchmark: float, periods: int, skew: float, kurtosis: float) -> float:
    """Probability that the true ratio exceeds `benchmark`, given `periods` returns; `kurtosis` is 3 for the normal law.

    NaN where the variance of the estimate is not positive or there are fewer than two periods.
    """
    spread = 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2
    if periods < 2 or not spread > 0:
        return math.nan
    return NORMAL.cdf((sharpe - benchmark) * math.sqrt(periods - 1) / math.sqrt(spread))


def deflated_sharpe(returns: NDArray[np.floating], rivals: Sequence[float], trials: int) -> Deflated:
    """The deflated ratio of the chosen trial's periodic `returns` [T].

    `rivals` are the per-period ratios of the trials that have one, the chosen one included; their sample variance
    stands for the trials' spread. `trials` counts all that were tried, the pruned and failed ones too. Correlated
    trials count fully, which errs on the strict side. Without two rivals the spread is unknown: probability NaN.
    """
    x = np.asarray(returns, np.float64)
    x = x[np.isfinite(x)]
    known = np.asarray([r for r in rivals if math.isfinite(r)], np.float64)
    if trials < len(known):
        raise ValueError(f"{len(known)} trials have a Sharpe ratio, but only {trials} are said to have been tried")
    if len(x) < 2 or x.max() == x.min():
        return Deflated(math.nan, math.nan, math.nan, trials, len(x), math.nan, math.nan)
    centred = x - x.mean()
    deviation = math.sqrt(float((centred**2).mean()))
    sharpe = float(x.mean() / x.std(ddof=1))
    skew, kurtosis = (float((centred**p).mean()) / deviation**p for p in (3, 4))
    if len(known) < 2:
        return Deflated(sharpe, math.nan, math.nan, trials, len(x), skew, kurtosis)
    luck = expected_maximum(trials, float(known.var(ddof=1)))
    probability = probabilistic_sharpe(sharpe, luck, len(x), skew, kurtosis)
    return Deflated(sharpe, luck, probability, trials, len(x), skew, kurtosis)
