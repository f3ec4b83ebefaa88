"""Time-series operators over a dense [date, stock] array: windows, recursions and scans along dates.

Every operator takes and returns float64 [T, N] (or one series, [T]); NaN is null, and a non-finite input counts as
null, so that one infinity cannot poison a row after it. A window counts rows, includes row t, skips nulls and is null
below `min_obs`. Cross-section operators live in `cs_operators`; callers import from `operators`.

Windows are recomputed from their own rows instead of being updated: row t depends on rows t-n+1..t and on nothing
else, bit for bit, whatever comes before, after or beside it. Moments are taken around the window's newest value and
then around the mean, so a constant window has a variance of exactly zero at any price level. The inner loop runs over
a block of neighbouring stocks, which is contiguous memory and vectorises.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]

EPS = 1e-12
"""Denominators and standard deviations at or below this count as zero."""

BLOCK = 64
"""Stocks per inner loop: eight AVX-512 registers, and a window of 240 rows still fits the second-level cache."""

_SMALL = 1 << 16
_SUM, _PRODUCT, _MIN, _MAX = 0, 1, 2, 3
_MEAN, _VAR, _SKEW, _ZSCORE = 0, 1, 2, 3
_COV, _CORR, _BETA = 0, 1, 2
_SINCE, _CUMPROD, _CUMSUM, _STREAK = 0, 1, 2, 3


@njit(cache=True, nogil=True)
def _fold(x, out, n, min_obs, mode, j0, j1):  # type: ignore[no-untyped-def]
    acc, cnt = np.empty(BLOCK), np.empty(BLOCK)
    start = np.array([0.0, 1.0, np.inf, -np.inf])[mode]
    for b in range(j0, j1, BLOCK):
        w = min(BLOCK, j1 - b)
        for t in range(x.shape[0]):
            acc[:w] = start
            cnt[:w] = 0.0
            for k in range(max(0, t - n + 1), t + 1):
                row = x[k, b : b + w]
                if mode == _SUM:
                    for j in range(w):
                        ok = row[j] - row[j] == 0.0
                        acc[j] += row[j] if ok else 0.0
                        cnt[j] += 1.0 if ok else 0.0
                elif mode == _PRODUCT:
                    for j in range(w):
                        ok = row[j] - row[j] == 0.0
                        acc[j] *= row[j] if ok else 1.0
                        cnt[j] += 1.0 if ok else 0.0
                elif mode == _MIN:
                    for j in range(w):
                        ok = row[j] - row[j] == 0.0
                        acc[j] = row[j] if ok and row[j] < acc[j] else acc[j]
                        cnt[j] += 1.0 if ok else 0.0
                else:
                    for j in range(w):
                        ok = row[j] - row[j] == 0.0
                        acc[j] = row[j] if ok and row[j] > acc[j] else acc[j]
                        cnt[j] += 1.0 if ok else 0.0
            for j in range(w):
                out[t, b + j] = acc[j] if cnt[j] >= min_obs else np.nan


@njit(cache=True, nogil=True)
def _moments(x, out, n, min_obs, mode, ddof, j0, j1):  # type: ignore[no-untyped-def]
    pivot, mean = np.zeros(BLOCK), np.empty(BLOCK)
    cnt, s1, s2, s3 = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for b in range(j0, j1, BLOCK):
        w = min(BLOCK, j1 - b)
        pivot[:] = 0.0
        for t in range(x.shape[0]):
            first = max(0, t - n + 1)
            for j in range(w):
                v = x[t, b + j]
                pivot[j] = v if v - v == 0.0 else pivot[j]
            cnt[:w] = 0.0
            s1[:w] = 0.0
            for k in range(first, t + 1):
                row = x[k, b : b + w]
                for j in range(w):
                    d = row[j] - pivot[j]
                    ok = d - d == 0.0
                    s1[j] += d if ok else 0.0
                    cnt[j] += 1.0 if ok else 0.0
            for j in range(w):
                mean[j] = s1[j] / max(cnt[j], 1.0)
            if mode == _MEAN:
                for j in range(w):
                    out[t, b + j] = pivot[j] + mean[j] if cnt[j] >= min_obs else np.nan
                continue
            s2[:w] = 0.0
            s3[:w] = 0.0
            for k in range(first, t + 1):
                row = x[k, b : b + w]
                for j in range(w):
                    d = row[j] - pivot[j] - mean[j]
                    d = d if d - d == 0.0 else 0.0
                    s2[j] += d * d
                    s3[j] += d * d * d
            for j in range(w):
                c = cnt[j]
                y = np.nan
                if c >= min_obs and c > ddof:
                    if mode == _VAR:
                        y = s2[j] / (c - ddof)
                    elif mode == _SKEW:
                        m2 = s2[j] / c
                        sd = np.sqrt(m2)
                        if sd > EPS:
                            y = s3[j] / c / (m2 * sd)
                    else:
                        sd = np.sqrt(s2[j] / (c - ddof))
                        d = x[t, b + j] - pivot[j] - mean[j]
                        if sd > EPS and d - d == 0.0:
                            y = d / sd
                out[t, b + j] = y


@njit(cache=True, nogil=True)
def _co_moments(x, y, out, n, min_obs, mode, j0, j1):  # type: ignore[no-untyped-def]
    px, py, mx, my = np.zeros(BLOCK), np.zeros(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    cnt, sxx, sxy, syy = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for b in range(j0, j1, BLOCK):
        w = min(BLOCK, j1 - b)
        px[:] = 0.0
        py[:] = 0.0
        for t in range(x.shape[0]):
            first = max(0, t - n + 1)
            for j in range(w):
                ok = x[t, b + j] - x[t, b + j] + (y[t, b + j] - y[t, b + j]) == 0.0
                px[j] = x[t, b + j] if ok else px[j]
                py[j] = y[t, b + j] if ok else py[j]
            cnt[:w] = 0.0
            mx[:w] = 0.0
            my[:w] = 0.0
            for k in range(first, t + 1):
                xr, yr = x[k, b : b + w], y[k, b : b + w]
                for j in range(w):
                    dx, dy = xr[j] - px[j], yr[j] - py[j]
                    ok = (dx - dx) + (dy - dy) == 0.0
                    mx[j] += dx if ok else 0.0
                    my[j] += dy if ok else 0.0
                    cnt[j] += 1.0 if ok else 0.0
            for j in range(w):
                mx[j] /= max(cnt[j], 1.0)
                my[j] /= max(cnt[j], 1.0)
            sxx[:w] = 0.0
            sxy[:w] = 0.0
            syy[:w] = 0.0
            for k in range(first, t + 1):
                xr, yr = x[k, b : b + w], y[k, b : b + w]
                for j in range(w):
                    dx, dy = xr[j] - px[j] - mx[j], yr[j] - py[j] - my[j]
                    ok = (dx - dx) + (dy - dy) == 0.0
                    dx, dy = dx if ok else 0.0, dy if ok else 0.0
                    sxx[j] += dx * dx
                    sxy[j] += dx * dy
                    syy[j] += dy * dy
            for j in range(w):
                c = cnt[j]
                v = np.nan
                if c >= min_obs and c > 1.0:
                    if mode == _COV:
                        v = sxy[j] / (c - 1.0)
                    elif mode == _CORR:
                        if np.sqrt(sxx[j] / (c - 1.0)) > EPS and np.sqrt(syy[j] / (c - 1.0)) > EPS:
                            v = sxy[j] / np.sqrt(sxx[j] * syy[j])
                            v = min(1.0, max(-1.0, v))
                    elif sxx[j] / (c - 1.0) > EPS:
                        v = sxy[j] / sxx[j]
                out[t, b + j] = v


@njit(cache=True, nogil=True)
def _recursive_mean(x, out, alpha, min_obs, j0, j1):  # type: ignore[no-untyped-def]
    state, cnt = np.empty(j1 - j0), np.zeros(j1 - j0)
    for t in range(x.shape[0]):
        for j in range(j1 - j0):
            v = x[t, j0 + j]
            ok = v - v == 0.0
            if ok:
                state[j] = v if cnt[j] == 0.0 else state[j] + alpha * (v - state[j])
                cnt[j] += 1.0
            out[t, j0 + j] = state[j] if ok and cnt[j] >= min_obs else np.nan


@njit(cache=True, nogil=True)
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
    stocks = panel.shape[1]
    workers = min(len(os.sched_getaffinity(0)), -(-stocks // BLOCK))
    if panel.size < _SMALL or workers < 2:
        kernel(*arrays, *args, 0, stocks)
    else:
        step = -(-stocks // (workers * BLOCK)) * BLOCK
        with ThreadPoolExecutor(workers) as pool:  # made per call: an idle pool would not survive a fork
            spans = [(j, min(j + step, stocks)) for j in range(0, stocks, step)]
            for job in [pool.submit(kernel, *arrays, *args, first, last) for first, last in spans]:
                job.result()
    return out.reshape(np.shape(x))


def _run_pair(mode: int, x: NDArray[np.generic], y: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Windows over pairs; a [T] series (or [T, 1]) is the same for every stock."""
    a, b = _as_panel(x), _as_panel(y)
    shape = np.broadcast_shapes(a.shape, b.shape)
    a, b = (np.ascontiguousarray(np.broadcast_to(v, shape)) for v in (a, b))
    out = _run(_co_moments, a, _window(n), float(min_obs), mode, y=b)
    return out[:, 0] if np.ndim(x) == 1 and np.ndim(y) == 1 else out


def _window(n: int) -> int:
    if n < 1:
        raise ValueError(f"a window of {n} rows; it must hold at least one")
    return n


def ts_lag(x: NDArray[np.generic], k: int) -> Array:
    """x k rows earlier; null on the first k rows. A negative k would read the future and raises ValueError."""
    if k < 0:
        raise ValueError(f"ts_lag by {k} rows would read the future; labels are made in dataset/labels.py only")
    out = np.full(np.shape(x), np.nan)
    out[k:] = x[: len(x) - k] if k < len(x) else out[k:]
    return out


def ts_sum(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Sum over the last n rows."""
    return _run(_fold, x, _window(n), float(min_obs), _SUM)


def ts_product(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Product over the last n rows; for compounding pass 1 + r."""
    return _run(_fold, x, _window(n), float(min_obs), _PRODUCT)


def ts_min(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Smallest value of the last n rows."""
    return _run(_fold, x, _window(n), float(min_obs), _MIN)


def ts_max(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Largest value of the last n rows."""
    return _run(_fold, x, _window(n), float(min_obs), _MAX)


def ts_count(mask: NDArray[np.generic], n: int) -> Array:
    """How many of the last n rows are true (non-zero and non-null); never null."""
    values = np.asarray(mask, dtype=np.float64)
    return _run(_fold, np.where(np.isfinite(values) & (values != 0), 1.0, 0.0), _window(n), 0.0, _SUM)


def ts_mean(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Mean over the last n rows."""
    return _run(_moments, x, _window(n), float(max(min_obs, 1)), _MEAN, 0.0)


def ts_var(x: NDArray[np.generic], n: int, min_obs: int, ddof: int = 1) -> Array:
    """Variance over the last n rows; exactly 0 for a constant window."""
    return _run(_moments, x, _window(n), float(min_obs), _VAR, float(ddof))


def ts_std(x: NDArray[np.generic], n: int, min_obs: int, ddof: int = 1) -> Array:
    """Standard deviation over the last n rows; exactly 0 for a constant window."""
    return np.sqrt(ts_var(x, n, min_obs, ddof))


def ts_skew(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Biased skewness, m3 / m2^1.5 with moments divided by the count; null at zero variance."""
    return _run(_moments, x, _window(n), float(min_obs), _SKEW, 0.0)


def ts_zscore(x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """(x - mean) / sd over the last n rows, ddof 1; null at zero variance and where x is null."""
    return _run(_moments, x, _window(n), float(min_obs), _ZSCORE, 1.0)


def ts_cov(x: NDArray[np.generic], y: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Covariance, ddof 1, over the rows of the window where both are non-null."""
    return _run_pair(_COV, x, y, n, min_obs)


def ts_corr(x: NDArray[np.generic], y: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """Pearson correlation over the rows where both are non-null; null when either is constant."""
    return _run_pair(_CORR, x, y, n, min_obs)


def ts_beta(y: NDArray[np.generic], x: NDArray[np.generic], n: int, min_obs: int) -> Array:
    """cov(y, x) / var(x) over the rows where both are non-null; null when var(x) <= 1e-12."""
    return _run_pair(_BETA, x, y, n, min_obs)


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
