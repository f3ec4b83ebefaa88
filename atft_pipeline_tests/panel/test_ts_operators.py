"""Time-series operators against slow, obvious references: nulls, ties, constants, short histories, hostile values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.panel import operators as op

Array = NDArray[np.float64]
N, MIN_OBS = 12, 7


def hostile(rows: int = 90, codes: int = 70, seed: int = 0) -> Array:
    """Prices near 1e5, returns, constants, ties, gaps, a short history, an empty one and two infinities."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, codes))
    x[:, 0] = 1e5 + 1e-4 * x[:, 0]
    x[:, 1] = 98_765.4
    x[:, 2] = np.round(x[:, 2])
    x[:, 3:40][rng.random((rows, 37)) < 0.2] = np.nan
    x[: rows - 9, 4] = np.nan
    x[:, 5] = np.nan
    x[20, 6], x[40, 7] = np.inf, -np.inf
    x[30:60, 8] = np.nan
    x[30:60, 9] = x[29, 9]
    return x


def rolling(x: Array, n: int, min_obs: int, of: Callable[[Array], float]) -> Array:
    """The window's finite values, one window at a time."""
    out = np.full(x.shape, np.nan)
    for t in range(x.shape[0]):
        for j in range(x.shape[1]):
            window = x[max(0, t - n + 1) : t + 1, j]
            window = window[np.isfinite(window)]
            if len(window) >= max(min_obs, 1):
                out[t, j] = of(window)
    return out


def assert_agree(ours: Array, reference: Array, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(reference))
    np.testing.assert_allclose(ours, reference, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (op.ts_sum, np.sum),
        (op.ts_mean, np.mean),
        (op.ts_min, np.min),
        (op.ts_max, np.max),
        (op.ts_product, np.prod),
        (op.ts_var, lambda w: np.var(w - w[0], ddof=1)),
        (op.ts_std, lambda w: np.std(w - w[0], ddof=1)),
    ],
)
def test_windows_match_numpy(ours: Callable[..., Array], reference: Callable[[Array], float]) -> None:
    x = hostile()
    assert_agree(ours(x, N, MIN_OBS), rolling(x, N, MIN_OBS, reference), rtol=1e-8)


def test_population_deviation_divides_by_the_count() -> None:
    x = hostile()
    assert_agree(op.ts_std(x, N, MIN_OBS, ddof=0), rolling(x, N, MIN_OBS, lambda w: float(np.std(w - w[0]))), rtol=1e-8)


def skewness(window: Array) -> float:
    d = (window - window[0]) - np.mean(window - window[0])
    return float(np.mean(d**3) / np.mean(d**2) ** 1.5) if np.ptp(window) > 0 else np.nan


def test_skewness_is_the_biased_estimator_and_null_without_variance() -> None:
    x = hostile()
    expected = rolling(x, N, MIN_OBS, skewness)
    assert_agree(op.ts_skew(x, N, MIN_OBS), expected, rtol=1e-6)
    assert np.isnan(op.ts_skew(x, N, MIN_OBS)[:, 1]).all()


def test_zscore_is_null_at_null_rows_and_without_variance() -> None:
    x = hostile()
    z = op.ts_zscore(x, N, MIN_OBS)
    expected = rolling(x, N, MIN_OBS, lambda w: (w[-1] - w.mean()) / w.std(ddof=1) if np.ptp(w) > 0 else np.nan)
    assert_agree(z, np.where(np.isfinite(x), expected, np.nan), rtol=1e-5)
    assert np.isnan(z[:, 1]).all() and np.isnan(z[45:60, 9]).all()


def test_polars_rolling_agrees_on_the_same_nulls() -> None:
    x = hostile()[:, 10:40]
    frame = pl.DataFrame(x).with_columns(pl.all().fill_nan(None))
    assert_agree(op.ts_mean(x, N, MIN_OBS), frame.select(pl.all().rolling_mean(N, min_samples=MIN_OBS)).to_numpy())
    assert_agree(
        op.ts_std(x, N, MIN_OBS), frame.select(pl.all().rolling_std(N, min_samples=MIN_OBS)).to_numpy(), rtol=1e-7
    )


@pytest.mark.parametrize(("ours", "alpha"), [(op.ts_ema, 2 / (N + 1)), (op.ts_rma, 1 / N)])
def test_recursive_means_match_polars(ours: Callable[..., Array], alpha: float) -> None:
    x = np.where(np.isfinite(hostile()), hostile(), np.nan)
    frame = pl.DataFrame(x).with_columns(pl.all().fill_nan(None))
    expected = frame.select(pl.all().ewm_mean(alpha=alpha, adjust=False, ignore_nulls=True, min_samples=N))
    assert_agree(ours(x, N), expected.fill_null(np.nan).to_numpy().astype(np.float64))


def test_pairs_use_rows_where_both_are_known() -> None:
    x, y = hostile(seed=1), hostile(seed=2)
    for mode, ours in (("cov", op.ts_cov), ("corr", op.ts_corr), ("beta", op.ts_beta)):
        got = ours(x, y, N, MIN_OBS)
        expected = np.full(x.shape, np.nan)
        for t in range(x.shape[0]):
            for j in range(x.shape[1]):
                a, b = x[max(0, t - N + 1) : t + 1, j], y[max(0, t - N + 1) : t + 1, j]
                both = np.isfinite(a) & np.isfinite(b)
                if both.sum() < MIN_OBS:
                    continue
                c = np.cov(a[both] - a[both][0], b[both] - b[both][0])
                if mode == "cov":
                    expected[t, j] = c[0, 1]
                elif mode == "corr" and c[0, 0] > 1e-24 and c[1, 1] > 1e-24:
                    expected[t, j] = c[0, 1] / np.sqrt(c[0, 0] * c[1, 1])
                elif mode == "beta" and c[1, 1] > 1e-12:
                    expected[t, j] = c[0, 1] / c[1, 1]
        assert_agree(got, expected, rtol=1e-6, atol=1e-11)


def test_beta_of_a_multiple_is_the_multiple() -> None:
    m = np.random.default_rng(3).normal(0, 0.01, 80)
    beta = op.ts_beta(1.3 * m[:, None] * np.ones((80, 3)), m, 60, 40)
    np.testing.assert_allclose(beta[39:], 1.3, rtol=1e-12)
    assert np.isnan(beta[:39]).all()


def test_correlation_of_a_series_with_itself_never_exceeds_one() -> None:
    x = hostile()
    corr = op.ts_corr(x, x, N, MIN_OBS)
    assert np.nanmax(corr) <= 1.0 and np.isnan(corr[:, 1]).all()


def test_constant_window_has_a_variance_of_exactly_zero_after_any_history() -> None:
    x = np.concatenate([np.random.default_rng(4).normal(1e5, 2e4, 200), np.full(60, 123_456.7)])
    assert (op.ts_var(x, 20, 15)[219:] == 0).all()
    assert (op.ts_mean(x, 20, 15)[219:] == 123_456.7).all()


def test_tiny_variance_on_a_high_level_survives() -> None:
    noise = np.random.default_rng(5).normal(0, 1e-6, 300)
    ours = op.ts_std(1e5 + noise, 60, 60)[-1]
    assert ours == pytest.approx(np.std((1e5 + noise)[-60:] - 1e5, ddof=1), rel=1e-9)


def test_infinity_is_null_and_forgotten() -> None:
    x = np.arange(60.0)
    poisoned = x.copy()
    poisoned[20] = np.inf
    without = x.copy()
    without[20] = np.nan
    for ours in (op.ts_sum, op.ts_mean, op.ts_std, op.ts_max):
        np.testing.assert_array_equal(ours(poisoned, 10, 5), ours(without, 10, 5))
    np.testing.assert_array_equal(op.ts_ema(poisoned, 10), op.ts_ema(without, 10))
    np.testing.assert_array_equal(op.ts_cumsum(poisoned), op.ts_cumsum(without))


def test_first_valid_row_is_the_minimum_and_codes_do_not_touch() -> None:
    """Q1: a rolling window that is not closed over the code fills its first rows from the code before."""
    x = np.random.default_rng(6).normal(size=(30, 2))
    both = op.ts_mean(x, 10, 8)
    assert np.isnan(both[:7]).all() and np.isfinite(both[7:]).all()
    np.testing.assert_array_equal(op.ts_mean(x[:, ::-1].copy(), 10, 8)[:, ::-1], both)
    np.testing.assert_array_equal(op.ts_mean(x[:, 1], 10, 8), both[:, 1])


def test_a_window_depends_on_its_own_rows_only_bit_for_bit() -> None:
    x = hostile(rows=120, codes=130, seed=7)
    cases: list[Callable[[Array], Array]] = [
        lambda v: op.ts_mean(v, N, MIN_OBS),
        lambda v: op.ts_std(v, N, MIN_OBS),
        lambda v: op.ts_skew(v, N, MIN_OBS),
        lambda v: op.ts_sum(v, N, MIN_OBS),
        lambda v: op.ts_corr(v, np.abs(v), N, MIN_OBS),
        lambda v: op.ts_rank(v, N, MIN_OBS),
        lambda v: op.ts_quantile(v, 0.8, N, MIN_OBS),
        lambda v: op.ts_since_max(v, N, MIN_OBS),
    ]
    for case in cases:
        whole = case(x)
        np.testing.assert_array_equal(case(x[:80]), whole[:80], err_msg="later rows")
        np.testing.assert_array_equal(case(x[40:])[N:], whole[40 + N :], err_msg="earlier rows")
        np.testing.assert_array_equal(case(np.delete(x, 3, axis=1)), np.delete(whole, 3, axis=1), err_msg="other codes")


def test_order_windows_match_numpy() -> None:
    x = hostile()

    def rank(window: Array) -> float:
        return float(((window < window[-1]).sum() + ((window == window[-1]).sum() + 1) / 2) / len(window))

    expected = np.where(np.isfinite(x), rolling(x, N, MIN_OBS, rank), np.nan)
    assert_agree(op.ts_rank(x, N, MIN_OBS), expected)
    assert_agree(op.ts_quantile(x, 0.3, N, MIN_OBS), rolling(x, N, MIN_OBS, lambda w: float(np.quantile(w, 0.3))))
    with pytest.raises(ValueError, match="between 0 and 1"):
        op.ts_quantile(x, 1.5, N, MIN_OBS)


def test_rows_since_an_extreme_name_the_oldest_of_equal_rows() -> None:
    x = np.round(hostile())
    known = np.isfinite(x)
    for ours, sign in ((op.ts_since_max, 1.0), (op.ts_since_min, -1.0)):
        expected = np.full(x.shape, np.nan)
        for t, j in np.ndindex(x.shape):
            first = max(0, t - N + 1)
            if known[first : t + 1, j].sum() >= MIN_OBS:
                window = np.where(known[first : t + 1, j], sign * x[first : t + 1, j], -np.inf)
                expected[t, j] = t - first - window.argmax()
        np.testing.assert_array_equal(ours(x, N, MIN_OBS), expected)


def test_large_arrays_take_the_threaded_path_to_the_same_bits() -> None:
    x = np.random.default_rng(8).normal(size=(400, 300))
    whole = op.ts_std(x, 20, 15)
    apart = np.column_stack([op.ts_std(x[:, j].copy(), 20, 15) for j in range(0, 300, 37)])
    np.testing.assert_array_equal(whole[:, ::37], apart)


def test_negative_lag_raises() -> None:
    with pytest.raises(ValueError, match="would read the future"):
        op.ts_lag(np.arange(5.0), -1)


def test_lag_beyond_the_history_is_null() -> None:
    assert np.isnan(op.ts_lag(np.arange(5.0), 5)).all()
    np.testing.assert_array_equal(op.ts_lag(np.arange(5.0), 0), np.arange(5.0))
    np.testing.assert_array_equal(op.ts_lag(np.arange(4.0), 2), [np.nan, np.nan, 0, 1])


@pytest.mark.parametrize("window", [0, -3])
def test_window_without_rows_raises(window: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        op.ts_mean(np.arange(5.0), window, 1)


def test_scans() -> None:
    nan = np.nan
    flag = np.array([0, 1, 0, nan, 0, 0, 1])
    np.testing.assert_array_equal(op.ts_since(flag, 3), [3, 0, 1, 2, 3, 3, 0])
    np.testing.assert_array_equal(op.ts_cumprod(np.array([1, 0.5, nan, 4])), [1, 0.5, 0.5, 2])
    np.testing.assert_array_equal(op.ts_cumsum(np.array([1, nan, 2])), [1, 1, 3])
    np.testing.assert_array_equal(op.ts_streak(np.array([1, 2, nan, 3, -1, -1, 0, 5]), 2), [1, 2, nan, 2, -1, -2, 0, 1])
    np.testing.assert_array_equal(op.ts_count(np.array([1, 0, nan, 1]), 2), [1, 1, 0, 1])


def test_division_is_guarded_not_shifted() -> None:
    np.testing.assert_array_equal(
        op.divide(np.ones(4), np.array([2.0, 0.0, 1e-13, np.nan])), [0.5, np.nan, np.nan, np.nan]
    )
    np.testing.assert_array_equal(op.log(np.array([1.0, 0.0, -1.0, np.nan])), [0, np.nan, np.nan, np.nan])


def test_comparison_with_a_null_is_null() -> None:
    x = np.array([1.0, -1.0, np.nan])
    np.testing.assert_array_equal(op.where_known(x > 0, x), [1, 0, np.nan])


@pytest.mark.parametrize("n", [1, 2, 3, 31, 32, 33, 63, 64, 100])
def test_a_window_of_any_length_is_put_together_from_all_its_rows(n: int) -> None:
    """Spans of 1, 2, 4, ... rows: every length takes another set of them, none may miss or repeat a row."""
    x = hostile(rows=110, codes=40, seed=9)[:, 1:13]
    assert_agree(op.ts_sum(x, n, 1), rolling(x, n, 1, np.sum), rtol=1e-9, atol=1e-9)
    assert_agree(op.ts_max(x, n, 1), rolling(x, n, 1, np.max))
    assert_agree(op.ts_var(x, n, 2), rolling(x, n, 2, lambda w: np.var(w - w[0], ddof=1)), rtol=1e-7, atol=1e-18)
    pair = op.ts_cov(x, x, n, 2)
    assert_agree(pair, op.ts_var(x, n, 2), rtol=1e-9, atol=1e-18)


def test_an_outlier_leaves_no_trace_once_it_has_left_the_window() -> None:
    x = np.random.default_rng(10).normal(size=(60, 3))
    spiked = x.copy()
    spiked[10] = 1e12
    for ours in (op.ts_mean, op.ts_var, op.ts_skew, op.ts_sum):
        np.testing.assert_array_equal(ours(spiked, 20, 15)[30:], ours(x, 20, 15)[30:])


def test_element_wise_operators_give_the_same_bits_in_pieces_as_whole() -> None:
    """Large arrays are taken in pieces by several threads; a [T, 1] or [T] partner is broadcast."""
    rng = np.random.default_rng(11)
    x, day, code = rng.normal(size=(700, 300)), rng.normal(size=(700, 1)), rng.normal(size=300)
    x[5, 7], day[3] = 0.0, 0.0
    for below in (x, day, code):
        whole = np.vstack([op.divide(x[t : t + 1], below[t : t + 1] if below.ndim == 2 else below) for t in range(700)])
        np.testing.assert_array_equal(op.divide(x, below), whole)
    np.testing.assert_array_equal(op.log(x), np.vstack([op.log(row[None]) for row in x]))
    np.testing.assert_array_equal(op.where_known(x > 0, x, day), np.vstack([
        op.where_known(x[t : t + 1] > 0, x[t : t + 1], day[t : t + 1]) for t in range(700)
    ]))  # fmt: skip
    np.testing.assert_array_equal(op.ts_lag(x, 3)[3:], x[:-3])


def test_storage_masks_unlisted_cells_and_sees_an_infinity() -> None:
    x = np.random.default_rng(12).normal(size=(700, 300))
    listed = np.ones(x.shape, bool)
    listed[4, 5] = False
    x[4, 5] = np.inf
    stored, finite = op.on_listed(x, listed)
    assert finite and np.isnan(stored[4, 5]) and stored.dtype == np.float32
    np.testing.assert_array_equal(stored[listed], x[listed].astype(np.float32))
    x[699, 299] = 1e300
    assert not op.on_listed(x, listed)[1]
    spread, _ = op.on_listed(np.arange(700.0)[:, None], listed)
    assert spread[9, 9] == 9 and np.isnan(spread[4, 5])


def test_change_over_rows_is_the_guarded_quotient_to_the_bit() -> None:
    x = np.random.default_rng(14).normal(size=(700, 300))
    x[50, 3], x[60, 4] = 0.0, np.nan
    for k in (0, 1, 7, 900):
        np.testing.assert_array_equal(op.ts_change(x, k), op.divide(x, op.ts_lag(x, k)) - 1)
    with pytest.raises(ValueError, match="would read the future"):
        op.ts_change(x, -1)
