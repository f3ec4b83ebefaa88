"""What a book's risk and a score's slices say, on hand-made series and planted effects."""

from __future__ import annotations

import numpy as np
import pytest

from atft_pipeline.evaluation import books, metrics, risk, slices
from atft_pipeline.evaluation.baselines import momentum


def test_deflated_sharpe_reproduces_the_papers_example() -> None:
    """Bailey and Lopez de Prado 2014: 100 trials of variance 1/2, 1250 days, skew -3, kurtosis 10, Sharpe 2.5."""
    spread = np.sqrt(0.5 / 250)
    trials = np.tile([-1.0, 1.0], 50) * spread * np.sqrt(99 / 100)  # 100 ratios with exactly that variance
    luck = risk.expected_best_sharpe(trials)
    assert luck == pytest.approx(0.1132, abs=1e-4)
    assert risk.sharpe_confidence(2.5 / np.sqrt(250), luck, 1250, -3, 10) == pytest.approx(0.9004, abs=1e-4)


def test_more_trials_deflate_a_sharpe_ratio() -> None:
    rng = np.random.default_rng(0)
    returns = 0.001 + 0.01 * rng.normal(size=500)
    few, many = rng.normal(0, 0.05, 3), rng.normal(0, 0.05, 300)
    alone = risk.deflated_sharpe(returns, [0.1])
    assert alone == pytest.approx(risk.probabilistic_sharpe(returns))
    assert alone > risk.deflated_sharpe(returns, few) > risk.deflated_sharpe(returns, many)
    assert np.isnan(risk.deflated_sharpe(np.zeros(50), many))


def test_time_under_water_and_worst_days_of_a_hand_made_curve() -> None:
    returns = np.array([0.1, -0.1, 0.02, 0.2, -0.3, 0.0, 0.1, np.nan])
    under = risk.time_under_water(returns)
    assert (under.longest, under.share) == (4, 6 / 8)
    assert risk.drawdown(returns)[4] == pytest.approx(0.3)
    days = np.arange("2024-01-01", "2024-01-09", dtype="datetime64[D]")
    assert risk.worst_days(returns, days, 2) == [("2024-01-05", -0.3), ("2024-01-02", -0.1)]


def test_the_cost_curve_crosses_zero_at_the_break_even_cost() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(120, 60))
    book = metrics.decile_book(scores, 0.002 * scores + 0.02 * rng.normal(size=scores.shape))
    even = metrics.book_summary(book)["break_even_cost"]
    free, at_even, dear = risk.cost_curve(book, [0.0, float(even), 2 * float(even)])  # type: ignore[arg-type]
    assert free > 0 > dear
    assert at_even == pytest.approx(0, abs=1e-9)


def test_buckets_cut_by_rank_on_each_date() -> None:
    x = np.array([[5.0, 1.0, 3.0, np.nan, 2.0, 4.0, 6.0]])
    where = np.array([[True, True, True, True, True, True, False]])
    assert slices.buckets(x, where, 3).tolist() == [[3, 1, 2, 0, 1, 2, 0]]


def test_a_signal_in_one_bucket_shows_there_only() -> None:
    rng = np.random.default_rng(2)
    scores, size, y = (rng.normal(size=(80, 150)) for _ in range(3))
    groups = slices.buckets(size, np.ones(size.shape, bool), 3)
    y = y + 1.0 * scores * (groups == 1)
    means = {g: series.mean() for g, series in slices.group_rank_ic(scores, y, groups).items()}
    assert means[1] > 0.5
    assert max(abs(means[2]), abs(means[3])) < 0.1
    assert list(slices.yearly(np.arange(3.0), np.array(["2023-12-29", "2024-01-04", "2024-01-05"], "M8[D]"))) == [
        "2023",
        "2024",
    ]


def test_a_score_that_is_only_its_sector_or_beta_has_nothing_left() -> None:
    rng = np.random.default_rng(3)
    sector = np.broadcast_to(1 + np.arange(100) % 4, (60, 100))
    level = rng.normal(size=(60, 4))[np.arange(60)[:, None], sector - 1]
    beta, y = rng.normal(size=(60, 100)), rng.normal(size=(60, 100))
    y = y + level + beta
    by_sector, by_beta = level + 0.01 * rng.normal(size=y.shape), beta + 0.01 * rng.normal(size=y.shape)
    assert np.nanmean(metrics.rank_ic(by_sector, y)) > 0.3
    assert abs(np.nanmean(metrics.rank_ic(slices.group_neutral(by_sector, sector), y))) < 0.05
    assert np.nanmean(metrics.rank_ic(by_beta, y)) > 0.3
    assert abs(np.nanmean(slices.factor_neutral_rank_ic(by_beta, y, [beta]))) < 0.05
    both = by_beta + (y - level - beta)
    assert np.nanmean(slices.factor_neutral_rank_ic(both, y, [beta])) > 0.3
    few = np.full((1, 100), np.nan)
    few[0, :10] = 1.0
    assert np.isnan(slices.factor_neutral(few, [beta[:1]])).all()


def test_a_long_only_book_holds_the_top_decile_and_the_market_is_the_mean() -> None:
    rng = np.random.default_rng(4)
    scores, returns = rng.normal(size=(30, 40)), 0.01 * rng.normal(size=(30, 40))
    book = books.long_only_book(scores, returns, cost=0.001)
    top = np.argsort(scores, axis=1)[:, -4:]
    np.testing.assert_allclose(book.gross, np.take_along_axis(returns, top, axis=1).mean(axis=1))
    np.testing.assert_allclose(book.net, book.gross - 0.001 * book.turnover)
    assert book.turnover[0] == pytest.approx(1.0)
    slow = books.long_only_book(scores, returns, horizon=5)
    assert slow.turnover[5:].mean() < book.turnover[5:].mean() / 2
    returns[3, :39], returns[4] = np.nan, np.nan
    assert books.equal_weight_market(returns)[3] == returns[3, 39]
    assert np.isnan(books.equal_weight_market(returns)[4])


def test_momentum_sums_the_last_log_returns() -> None:
    returns = np.full((30, 2), 0.01)
    returns[:12, 1] = np.nan
    score = momentum(returns, np.ones((30, 2), bool), days=20)
    assert score[29, 0] == pytest.approx(20 * np.log(1.01))
    assert score[29, 1] == pytest.approx(18 * np.log(1.01))
    assert np.isnan(score[25, 1]) and np.isnan(score[13, 0]) and np.isfinite(score[14, 0])
