"""The deflated Sharpe against the worked example of its paper, the formula by hand, and markets without skill."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from atft_pipeline.evaluation.deflated import deflated_sharpe, expected_maximum, probabilistic_sharpe

DAILY = math.sqrt(250)


def test_the_papers_example_of_a_strategy_found_in_100_trials() -> None:
    """Annual ratio 2.5 over 1250 days, skew -3, kurtosis 10, annual variance of the trials 0.5: 0.1132 and 0.9004."""
    luck = expected_maximum(100, 0.5 / 250)
    assert luck == pytest.approx(0.1132, abs=5e-5)
    assert probabilistic_sharpe(2.5 / DAILY, luck, 1250, -3, 10) == pytest.approx(0.9004, abs=5e-5)
    # The same strategy as the best of 46 would pass the 95 % demand: 0.9505.
    assert probabilistic_sharpe(2.5 / DAILY, expected_maximum(46, 0.5 / 250), 1250, -3, 10) == pytest.approx(
        0.9505, abs=5e-5
    )


def test_the_formula_by_hand_with_scipys_moments_and_quantiles() -> None:
    x = np.random.default_rng(3).standard_t(5, size=400) * 0.01 + 0.001
    rivals = [0.02, -0.05, 0.11, float(x.mean() / x.std(ddof=1))]
    gamma = 0.5772156649015329
    top = math.sqrt(np.var(rivals, ddof=1)) * (
        (1 - gamma) * stats.norm.ppf(1 - 1 / 9) + gamma * stats.norm.ppf(1 - 1 / (9 * math.e))
    )
    s, g3, g4 = rivals[-1], stats.skew(x), stats.kurtosis(x, fisher=False)
    want = stats.norm.cdf((s - top) * math.sqrt(399) / math.sqrt(1 - g3 * s + (g4 - 1) / 4 * s**2))
    found = deflated_sharpe(x, rivals, 9)
    assert (found.sharpe, found.luck) == pytest.approx((s, top), abs=1e-12)
    assert (found.skew, found.kurtosis) == pytest.approx((g3, g4), abs=1e-9)
    assert found.probability == pytest.approx(want, abs=1e-12)


def test_the_expected_maximum_is_what_simulated_trials_without_skill_show() -> None:
    draws = np.random.default_rng(0).normal(0, 0.05, size=(20_000, 50)).max(axis=1)
    assert expected_maximum(50, 0.05**2) == pytest.approx(draws.mean(), rel=0.02)


def test_the_best_of_many_without_skill_is_deflated_although_it_looks_good() -> None:
    rng = np.random.default_rng(1)
    plain, passed = 0, 0
    for _ in range(60):
        returns = rng.normal(0, 0.01, size=(40, 250))
        ratios = returns.mean(axis=1) / returns.std(axis=1, ddof=1)
        best = int(ratios.argmax())
        plain += probabilistic_sharpe(float(ratios[best]), 0.0, 250, 0.0, 3.0) > 0.95
        passed += deflated_sharpe(returns[best], ratios.tolist(), 40).probability > 0.95
    assert plain > 50 and passed < 5


def test_more_trials_never_make_the_same_result_better() -> None:
    x = np.random.default_rng(2).normal(0.001, 0.01, 500)
    found = [deflated_sharpe(x, [0.1, 0.0, -0.1], n).probability for n in (3, 10, 100, 1000)]
    assert found == sorted(found, reverse=True) and found[0] > found[-1]


def test_what_is_not_defined_is_nan_and_what_is_wrong_is_refused() -> None:
    x = np.random.default_rng(2).normal(0.001, 0.01, 500)
    assert math.isnan(deflated_sharpe(np.full(100, 0.01), [0.1, 0.2], 2).probability)
    assert math.isnan(deflated_sharpe(x, [0.1], 20).probability)
    assert deflated_sharpe(np.append(x, np.nan), [0.1, 0.0], 2) == deflated_sharpe(x, [0.1, 0.0], 2)
    with pytest.raises(ValueError, match="only 2 are said"):
        deflated_sharpe(x, [0.1, 0.2, 0.3], 2)
    with pytest.raises(ValueError, match="at least one trial"):
        expected_maximum(0, 1.0)
