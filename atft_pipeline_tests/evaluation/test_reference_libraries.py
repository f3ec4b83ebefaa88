"""Our statistics equal scipy, alphalens-reloaded and empyrical-reloaded to 1e-6 on data shaped like a real market."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from atft_pipeline.evaluation import metrics, risk, slices

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import empyrical
    from alphalens import performance

DATES, STOCKS = 90, 188  # 187 has no factor 2 or 5: no stock lies on the border of two deciles, where rules differ
CLOSE = 1e-6


@pytest.fixture(scope="module")
def market() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fat-tailed returns with a common factor, persistent scores that know a little of them, five sectors."""
    rng = np.random.default_rng(11)
    beta = rng.uniform(0.3, 1.7, STOCKS)
    returns = 0.008 * rng.standard_t(4, (DATES, 1)) * beta + 0.02 * rng.standard_t(4, (DATES, STOCKS))
    scores = rng.normal(size=(DATES, STOCKS))
    for t in range(1, DATES):
        scores[t] = 0.9 * scores[t - 1] + np.sqrt(1 - 0.81) * scores[t]
    return scores + 3 * returns, returns, np.broadcast_to(1 + np.arange(STOCKS) % 5, (DATES, STOCKS))


@pytest.fixture(scope="module")
def factor_data(market: tuple[np.ndarray, np.ndarray, np.ndarray]) -> pd.DataFrame:
    """The same data in the shape that alphalens reads: deciles by pandas' own cut."""
    scores, returns, sectors = market
    index = pd.MultiIndex.from_product(
        [pd.bdate_range("2023-01-04", periods=DATES), [f"{i:04d}" for i in range(STOCKS)]], names=["date", "asset"]
    )
    frame = pd.DataFrame(
        {"1D": returns.ravel(), "factor": scores.ravel(), "group": sectors.ravel().astype(str)}, index=index
    )
    frame["factor_quantile"] = frame.groupby(level="date")["factor"].transform(lambda x: pd.qcut(x, 10, labels=False))
    return frame


@pytest.fixture(scope="module")
def book(market: tuple[np.ndarray, np.ndarray, np.ndarray]) -> pd.Series:
    scores, returns, _ = market
    net = metrics.decile_book(scores, returns, horizon=5).net
    return pd.Series(net, index=pd.bdate_range("2023-01-04", periods=DATES))


def test_rank_ic_equals_alphalens(market: tuple[np.ndarray, ...], factor_data: pd.DataFrame) -> None:
    scores, returns, _ = market
    theirs = performance.factor_information_coefficient(factor_data)["1D"].to_numpy()
    np.testing.assert_allclose(metrics.rank_ic(scores, returns), theirs, atol=CLOSE)


def test_rank_ic_by_sector_equals_alphalens(market: tuple[np.ndarray, ...], factor_data: pd.DataFrame) -> None:
    theirs = performance.factor_information_coefficient(factor_data, by_group=True)["1D"]
    for sector, series in slices.group_rank_ic(*market).items():
        np.testing.assert_allclose(series, theirs.xs(str(sector), level="group").to_numpy(), atol=CLOSE)


def test_decile_returns_equal_alphalens(market: tuple[np.ndarray, ...], factor_data: pd.DataFrame) -> None:
    scores, returns, _ = market
    theirs, _ = performance.mean_return_by_quantile(factor_data, by_date=True, demeaned=False)
    np.testing.assert_allclose(
        metrics.decile_means(scores, returns), theirs["1D"].unstack("factor_quantile").to_numpy(), atol=CLOSE
    )


@pytest.mark.parametrize("lag", [1, 5])
def test_rank_autocorrelation_equals_alphalens(
    market: tuple[np.ndarray, ...], factor_data: pd.DataFrame, lag: int
) -> None:
    theirs = performance.factor_rank_autocorrelation(factor_data, period=lag).to_numpy()
    np.testing.assert_allclose(metrics.rank_autocorrelation(market[0], lag), theirs[lag:], atol=CLOSE)


def test_return_statistics_equal_empyrical(book: pd.Series) -> None:
    net = book.to_numpy()
    assert metrics.sharpe(net) == pytest.approx(empyrical.sharpe_ratio(book), abs=CLOSE)
    assert metrics.max_drawdown(net) == pytest.approx(-empyrical.max_drawdown(book), abs=CLOSE)
    assert risk.drawdown(net).max() == pytest.approx(-empyrical.max_drawdown(book), abs=CLOSE)
    assert risk.annual_return(net) == pytest.approx(empyrical.annual_return(book), abs=CLOSE)
    assert risk.annual_volatility(net) == pytest.approx(empyrical.annual_volatility(book), abs=CLOSE)


def test_beta_equals_the_regression_of_scipy(market: tuple[np.ndarray, ...]) -> None:
    returns = market[1]
    beta = slices.rolling_beta(returns, np.ones(returns.shape, bool), window=60)
    for n in (0, 77, 187):
        slope = stats.linregress(returns[-60:].mean(axis=1), returns[-60:, n]).slope
        assert beta[-1, n] == pytest.approx(slope, abs=CLOSE)
    assert np.isnan(beta[:39]).all()


def test_factor_neutral_scores_equal_partial_rank_regression(market: tuple[np.ndarray, ...]) -> None:
    scores, returns, _ = market
    left = slices.factor_neutral(scores, [returns])
    assert np.abs(metrics.rank_ic(scores, returns)).max() > 0.1
    ranks = [stats.rankdata(x[7]) for x in (scores, returns)]
    fit = stats.linregress(ranks[1], ranks[0])
    residual = ranks[0] - fit.intercept - fit.slope * ranks[1]
    np.testing.assert_allclose(left[7], 2 * residual / (STOCKS - 1), atol=CLOSE)


def test_skew_and_kurtosis_enter_the_sharpe_confidence_as_scipy_gives_them(book: pd.Series) -> None:
    x = book.to_numpy()
    ours = risk.probabilistic_sharpe(x, 0.02)
    ratio, skew, kurtosis = x.mean() / x.std(ddof=1), stats.skew(x), stats.kurtosis(x, fisher=False)
    z = (ratio - 0.02) * np.sqrt(len(x) - 1) / np.sqrt(1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2)
    assert ours == pytest.approx(stats.norm.cdf(z), abs=CLOSE)
