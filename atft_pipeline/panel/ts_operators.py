"""Time-series operators over a dense [date, stock] array: windows, recursions and scans along dates.

Every operator takes and returns float64 [T, N] (or one series, [T]); NaN is null, and a non-finite input counts as
null, so that one infinity cannot poison a row after it. A window counts rows, includes row t, skips nulls and is null
below `min_obs`. Cross-section operators live in `cs_operators`; callers import from `operators`.

The kernels of windows are in `window_operators` and `order_operators`: row t of a window of n rows depends on rows
t-n+1..t and on nothing else, bit for bit, whatever comes before, after or beside it, and however many threads share
the stocks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atft_pipeline.panel import order_operators as order
from atft_pipeline.panel import window_operators as window
from atft_pipeline.panel.element_operators import Array, in_threads, lag, past_change, square_root
from atft_pipeline.panel.window_operators import BLOCK

_SINCE, _CUMPROD, _CUMSUM, _STREAK = 0, 1, 2, 3


@njit(cache=True, nogil=True, error_model="numpy")
def _recursive_mean(x, out, alpha, min_obs, j0, j1):  # type: ignore[no-untyped-def]
    state, cnt = np.zeros(j1 - j0), np.zeros(j1 - j0)
    for t in range(x.shape[0]):
        values, means = x[t, j0:j1], out[t, j0:j1]
        for j in range(j1 - j0):  # everything is read before anything is written: so the loop runs in vectors
            v, before, n = values[j], state[j], cnt[j]
            ok = v - v == 0.0
            moved = before + alpha * (v - before)
            moved = v if n == 0.0 else moved
            now = moved if ok else before
            n += 1.0 if ok else 0.0
            state[j], cnt[j] = now, n
            means[j] = now if ok and n >= min_obs else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _scan(x, out, mode, cap, j0, j1):  # type: ignore[no-untyped-def]
    state = np.full(j1 - j0, np.array([cap, 1.0, 0.0, 0.0])[mode])
    for t in range(x.shape[0]):
        for j in range(j1 - j0):
            v = x[t, j0 + j]
            ok = v - v == 0.0
            y = state[j]
            if mode == _SINCE:
                y = 0.0 if ok and v != 0.0 else min(y + 1.0, cap)
            elif mode == _CUMPROD:
                y = y * v if ok else y
            elif mode == _CUMSUM:
                y = y + v if ok else y
            elif ok:
                sign = np.sign(v)
                y = min(cap, max(-cap, y + sign)) if sign * y > 0.0 else sign
            state[j] = y
            out[t, j0 + j] = y if ok or mode != _STREAK else np.nan


def _as_panel(x: NDArray[np.generic]) -> Array:
    dense = np.ascontiguousarray(x, dtype=np.float64)
    if dense.ndim not in (1, 2):
        raise ValueError(f"an operator takes [T] or [T, N], not shape {dense.shape}")
    return dense.reshape(len(dense), -1)


def _run(kernel: Callable[..., None], x: NDArray[np.generic], *args: object, y: Array | None = None) -> Array:
    """Apply a kernel to blocks of stocks, on every core when the array is large. Threads own disjoint stocks."""
    panel = _as_panel(x)
    out = np.empty_like(panel)
    arrays = (panel, out) if y is None else (panel, y, out)
    in_threads(lambda first, end: kernel(*arrays, *args, first, end), panel.shape[1], BLOCK, panel.size)
    return out.reshape(np.shape(x))


def _run_pair(mode: int, x: NDArray[np.generic], y: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Windows over pairs; a [T] series (or [T, 1]) is the same for every stock."""
    a, b = _as_panel(x), _as_panel(y)
    shape = np.broadcast_shapes(a.shape, b.shape)
    a, b = (np.ascontiguousarray(np.broadcast_to(v, shape)) for v in (a, b))
    out = _run(window.co_moments, a, _window(n), float(min_obs), mode, y=b)
    return out[:, 0] if np.ndim(x) == 1 and np.ndim(y) == 1 else out


def _window(n: int) -> int:
    if n < 1:
        raise ValueError(f"a window of {n} rows; it must hold at least one")
    return n


def ts_lag(x: NDArray[np.generic], k: int) -> Array:
    """x k rows earlier; null on the first k rows. A negative k would read the future and raises ValueError."""
    if k < 0:
        raise ValueError(f"ts_lag by {k} rows would read the future; labels are made in dataset/labels.py only")
    return lag(x, k)


def ts_change(x: NDArray[np.generic], k: int) -> Array:
    """x / x[-k] - 1: `divide(x, ts_lag(x, k)) - 1`, to the bit, without the copies in between."""
    if k < 0:
        raise ValueError(f"ts_change over {k} rows would read the future; labels are made in dataset/labels.py only")
    return past_change(x, k)


def ts_sum(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Sum over the last n rows."""
    return _run(window.fold, x, _window(n), float(min_obs), window.SUM)


def ts_product(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Product over the last n rows; for compounding pass 1 + r."""
    return _run(window.fold, x, _window(n), float(min_obs), window.PRODUCT)


def ts_min(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Smallest value of the last n rows."""
    return _run(window.fold, x, _window(n), float(min_obs), window.MIN)


def ts_max(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Largest value of the last n rows."""
    return _run(window.fold, x, _window(n), float(min_obs), window.MAX)


def ts_count(mask: NDArray[np.generic], n: int) -> Array:
    """How many of the last n rows are true (non-zero and non-null); never null."""
    values = np.asarray(mask, dtype=np.float64)
    return _run(window.fold, np.where(np.isfinite(values) & (values != 0), 1.0, 0.0), _window(n), 0.0, window.SUM)


def ts_mean(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Mean over the last n rows."""
    return _run(window.moments, x, _window(n), float(max(min_obs, 1)), window.MEAN, 0.0)


def ts_var(x: NDArray[np.generic], n: int, min_obs: int, ddof: int = 1) -> Array:
    """Variance over the last n rows; exactly 0 for a constant window."""
    return _run(window.moments, x, _window(n), float(min_obs), window.VAR, float(ddof))


def ts_std(x: NDArray[np.generic], n: int, min_obs: int, ddof: int = 1) -> Array:
    """Standard deviation over the last n rows; exactly 0 for a constant window."""
    return square_root(ts_var(x, n, min_obs, ddof))


def ts_skew(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Biased skewness, m3 / m2^1.5 with moments divided by the count; null at zero variance."""
    return _run(window.moments, x, _window(n), float(min_obs), window.SKEW, 0.0)


def ts_zscore(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """(x - mean) / sd over the last n rows, ddof 1; null at zero variance and where x is null."""
    return _run(window.moments, x, _window(n), float(min_obs), window.ZSCORE, 1.0)


def ts_rank(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Average rank of x among the last n rows over their count, (0, 1]; null where x is null."""
    return _run(order.window_rank, x, _window(n), float(min_obs))


def ts_quantile(x: NDArray[np.generic], q: float, n: int, min_obs: int) -> Array:
    """Quantile over the last n rows, linear between order statistics (numpy's default)."""
    if not 0 <= q <= 1:
        raise ValueError(f"quantile {q}; it must lie between 0 and 1")
    return _run(order.window_quantile, x, _window(n), float(min_obs), float(q))


def ts_since_max(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Rows since the largest value of the last n rows, 0 to n - 1; the oldest of equal ones."""
    return _run(order.rows_since_extreme, x, _window(n), float(min_obs), 1.0)


def ts_since_min(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Rows since the smallest value of the last n rows, 0 to n - 1; the oldest of equal ones."""
    return _run(order.rows_since_extreme, x, _window(n), float(min_obs), -1.0)


def ts_cov(x: NDArray[np.generic], y: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Covariance, ddof 1, over the rows of the window where both are non-null."""
    return _run_pair(window.COV, x, y, n, min_obs)


def ts_corr(x: NDArray[np.generic], y: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Pearson correlation over the rows where both are non-null; null when either is constant."""
    return _run_pair(window.CORR, x, y, n, min_obs)


def ts_beta(y: NDArray[np.generic], x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """cov(y, x) / var(x) over the rows where both are non-null; null when var(x) <= 1e-12."""
    return _run_pair(window.BETA, x, y, n, min_obs)


def ts_ema(x: NDArray[np.generic], span: int) -> Array:
    """Exponential mean, alpha = 2 / (span + 1), seeded by the first value; null until `span` observations.

    The recursion steps over nulls and gives null on them: polars' `ewm_mean(adjust=False, ignore_nulls=True)`.
    """
    return _run(_recursive_mean, x, 2.0 / (_window(span) + 1.0), float(span))


def ts_rma(x: NDArray[np.generic], n: int) -> Array:
    """Wilder's smoothing, alpha = 1 / n (New Concepts in Technical Trading Systems, 1978), else as `ts_ema`."""
    return _run(_recursive_mean, x, 1.0 / _window(n), float(n))


def ts_since(flag: NDArray[np.generic], cap: int) -> Array:
    """Rows since the last true (non-zero, non-null) row: 0 on the row itself, `cap` when that or none was seen."""
    return _run(_scan, flag, _SINCE, float(cap))


def ts_cumprod(x: NDArray[np.generic]) -> Array:
    """Running product from the first row; a null multiplies by one."""
    return _run(_scan, x, _CUMPROD, 0.0)


def ts_cumsum(x: NDArray[np.generic]) -> Array:
    """Running sum from the first row; a null adds nothing."""
    return _run(_scan, x, _CUMSUM, 0.0)


def ts_streak(x: NDArray[np.generic], cap: int) -> Array:
    """Signed count of consecutive non-null rows with the sign of x, within +-cap; 0 at x = 0, null at null."""
    return _run(_scan, x, _STREAK, float(cap))
