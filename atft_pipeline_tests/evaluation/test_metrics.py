"""The gating metrics against scipy, hand-made tables and planted traps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, rankdata, spearmanr

from atft_pipeline.evaluation import metrics


def noisy(dates: int, stocks: int, seed: int = 0, holes: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(dates, stocks))
    y = 0.3 * scores + rng.normal(size=(dates, stocks))
    y[rng.random(y.shape) < holes] = np.nan
    scores[rng.random(y.shape) < holes] = np.nan
    return scores, y


def test_average_ranks_agree_with_scipy_on_ties() -> None:
    x = np.round(np.random.default_rng(1).normal(size=(7, 50)), 1)
    expected = np.apply_along_axis(rankdata, 1, x) - 1
    np.testing.assert_allclose(metrics.average_ranks(x), expected)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -7e-9])
def test_t23_a_constant_prediction_has_no_ic_and_is_counted(value: float) -> None:
    _, y = noisy(40, 60)
    scores = np.full_like(y, value)
    summary = metrics.summarise(scores, y, horizon=1)
    assert np.isnan(metrics.rank_ic(scores, y)).all() and np.isnan(metrics.ic(scores, y)).all()
    assert summary["rank_ic"]["n_dates"] == 0 and summary["rank_ic"]["n_dates_nan"] == 40
    assert np.isnan(summary["rank_ic"]["mean"]) and np.isnan(summary["hit_rate"]["mean"])


def test_t24_rank_ic_equals_spearman_with_ties_and_ignores_monotone_transforms() -> None:
    scores, y = noisy(30, 80)
    scores, y = np.round(scores, 1), np.round(y, 1)
    got = metrics.rank_ic(scores, y)
    got_pearson = metrics.ic(scores, y)
    for d in range(len(scores)):
        both = np.isfinite(scores[d]) & np.isfinite(y[d])
        assert got[d] == pytest.approx(spearmanr(scores[d, both], y[d, both]).statistic, abs=1e-12)
        assert got_pearson[d] == pytest.approx(pearsonr(scores[d, both], y[d, both]).statistic, abs=1e-12)
    np.testing.assert_allclose(metrics.rank_ic(np.exp(3 * scores) - 5, y), got, atol=1e-12)


def test_t25_perfect_is_one_and_negated_is_minus_one_without_any_sign_inversion() -> None:
    y = np.random.default_rng(2).normal(size=(60, 40)) * 0.02
    good, bad = metrics.summarise(y, y, 1), metrics.summarise(-y, y, 1)
    for name in ("rank_ic", "ic"):
        assert good[name]["mean"] == pytest.approx(1) and bad[name]["mean"] == pytest.approx(-1)
    assert good["hit_rate"]["mean"] == 1 and bad["hit_rate"]["mean"] == 0
    assert metrics.sharpe(metrics.decile_book(y, y).net) > 0
    assert metrics.sharpe(metrics.decile_book(-y, y).net) < 0


def test_t26_pure_noise_stays_within_three_standard_errors() -> None:
    rng = np.random.default_rng(3)
    summary = metrics.summarise(rng.normal(size=(500, 50)), rng.normal(size=(500, 50)), 1)["rank_ic"]
    assert abs(summary["mean"]) < 3 * summary["se"]
    assert summary["se"] == pytest.approx(1 / np.sqrt(49 * 500), rel=0.2)


def test_t27_every_date_counts_once_in_any_order() -> None:
    scores, y = noisy(50, 60)
    whole = metrics.rank_ic(scores, y)
    pieces = np.concatenate([metrics.rank_ic(scores[a : a + 7], y[a : a + 7]) for a in range(0, 50, 7)])
    np.testing.assert_array_equal(whole, pieces)
    shuffled = np.random.default_rng(4).permutation(60)
    np.testing.assert_allclose(metrics.rank_ic(scores[:, shuffled], y[:, shuffled]), whole, atol=1e-12)


def test_t28_sharpe_of_a_hand_made_book_with_costs() -> None:
    scores = np.array([[1, 2, 3], [1, 2, 3], [3, 2, 1], [3, 2, 1], [2, 1, 3.0]])
    returns = np.array([[-0.01, 0, 0.02], [0.01, 0, 0.01], [0.03, 0, 0.01], [0, 0, 0.01], [0, 0.01, 0.02]])
    book = metrics.decile_book(scores, returns, cost=0.001)
    gross = [0.03, 0.0, 0.02, -0.01, 0.01]  # long the best, short the worst
    turnover = [2.0, 0.0, 4.0, 0.0, 4.0]  # last day: -1 -> 1 on c, +1 -> 0 on a, 0 -> -1 on b
    np.testing.assert_allclose(book.gross, gross)
    np.testing.assert_allclose(book.turnover, turnover)
    net = np.array(gross) - 0.001 * np.array(turnover)
    np.testing.assert_allclose(book.net, net)
    assert metrics.sharpe(book.net) == pytest.approx(np.sqrt(252) * net.mean() / net.std(ddof=1))


def test_sleeves_average_the_last_days_and_trade_less() -> None:
    rng = np.random.default_rng(5)
    scores, returns = rng.normal(size=(40, 30)), rng.normal(size=(40, 30)) * 0.01
    daily, weekly = metrics.decile_book(scores, returns), metrics.decile_book(scores, returns, horizon=5)
    weights = np.stack([metrics.decile_weights(scores)[max(0, t - 4) : t + 1].mean(axis=0) for t in range(40)])
    np.testing.assert_allclose(weekly.gross, (weights * returns).sum(axis=1), atol=1e-12)
    assert weekly.turnover[5:].mean() < daily.turnover[5:].mean() / 2


def test_newey_west_without_lags_is_the_plain_standard_error_and_grows_with_overlap() -> None:
    x = np.random.default_rng(6).normal(size=2000)
    assert metrics.newey_west_se(x, 0) == pytest.approx(x.std(ddof=1) / np.sqrt(len(x)), rel=1e-6)
    overlapping = np.convolve(x, np.ones(5), mode="valid")
    assert metrics.newey_west_se(overlapping, 4) > 1.5 * metrics.newey_west_se(overlapping, 0)


def test_block_bootstrap_covers_the_mean_and_respects_dependence() -> None:
    x = np.random.default_rng(7).normal(size=800)
    low, high = metrics.block_bootstrap(x)
    assert low < x.mean() < high
    assert high - low == pytest.approx(4 * metrics.newey_west_se(x, 0), rel=0.3)
    assert metrics.block_bootstrap(x) == (low, high)


def test_deciles_of_a_perfect_score_rise_and_their_spread_is_positive() -> None:
    y = np.random.default_rng(8).normal(size=(20, 100))
    means = metrics.decile_means(y, y)
    assert (np.diff(means, axis=1) > 0).all()
    np.testing.assert_allclose(metrics.decile_spread(y, y), means[:, 9] - means[:, 0])


def test_degeneracy_sees_collapsed_and_rounded_scores() -> None:
    x = np.random.default_rng(9).normal(size=(30, 100))
    x[:, ::7] = np.nan
    healthy, flat, rounded = (metrics.degeneracy(s) for s in (x, np.full_like(x, 0.1), np.round(x)))
    assert healthy["unique_ratio"] == 1 and healthy["share_dates_degenerate"] == 0
    assert flat["score_std_median"] == 0 and flat["share_dates_degenerate"] == 1
    assert rounded["unique_ratio"] < 0.2


def test_too_few_stocks_leave_the_date_undefined() -> None:
    scores, y = noisy(5, 19, holes=0)
    assert np.isnan(metrics.rank_ic(scores, y)).all()
    assert np.isfinite(metrics.rank_ic(scores, y, min_cross_section=10)).all()


def test_weighted_mean_renormalises_over_the_horizons_that_exist() -> None:
    series = {1: np.array([0.1, np.nan, np.nan]), 4: np.array([0.4, 0.4, np.nan])}
    got = metrics.weighted_mean(series)
    assert got[0] == pytest.approx((0.1 + 0.4 * 0.5) / 1.5) and got[1] == pytest.approx(0.4) and np.isnan(got[2])


def test_rank_autocorrelation_of_a_frozen_score_is_one() -> None:
    frozen = np.tile(np.random.default_rng(10).normal(size=40), (10, 1))
    np.testing.assert_allclose(metrics.rank_autocorrelation(frozen, 5), 1.0)
    assert metrics.rank_autocorrelation(frozen, 20).size == 0


def test_max_drawdown_is_the_deepest_fall() -> None:
    assert metrics.max_drawdown(np.array([0.1, -0.5, 0.2])) == pytest.approx(0.5)
