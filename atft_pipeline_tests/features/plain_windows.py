"""Windows, recursions and lags in their plainest form, for the second writing of the formulas in tests."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]
NAN = np.nan


def grid(frame: pl.DataFrame, column: str) -> NDArray[np.generic]:
    """[T, N] by pivoting; rows in date order, codes ascending."""
    wide = frame.pivot("Code", index="Date", values=column).sort("Date").drop("Date")
    values = wide.select(sorted(wide.columns))
    return values.fill_null(NAN).to_numpy() if values.dtypes[0].is_numeric() else values.to_numpy()


def lag(x: Array, k: int) -> Array:
    return np.concatenate([np.full((k, x.shape[1]), NAN), x])[: len(x)]


def windows(x: Array, n: int) -> Array:
    """The last n rows of every cell, [T, N, n]; null before the first."""
    return sliding_window_view(np.concatenate([np.full((n - 1, x.shape[1]), NAN), x]), n, axis=0)


def over(x: Array, n: int, least: int, of: Callable[..., Array], **options: object) -> Array:
    """`of` the non-null values of the last n rows; null where fewer than `least` are known."""
    window = windows(x, n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        values = of(window, axis=-1, **options)
    return np.where(np.isfinite(window).sum(-1) >= least, values, NAN)


def mean(x: Array, n: int, least: int) -> Array:
    return over(x, n, least, np.nanmean)


def sd(x: Array, n: int, least: int, ddof: int = 1) -> Array:
    """Of the distances from the window's first known value, so that a constant window has exactly none."""
    centre = over(x, n, 1, np.nanmax)

    def of(window: Array, axis: int) -> Array:
        return np.nanstd(window - centre[:, :, None], axis=axis, ddof=ddof)

    return over(x, n, least, of)


def low(x: Array, n: int, least: int) -> Array:
    return over(x, n, least, np.nanmin)


def high(x: Array, n: int, least: int) -> Array:
    return over(x, n, least, np.nanmax)


def total(x: Array, n: int, least: int) -> Array:
    return over(x, n, least, np.nansum)


def pairs(x: Array, y: Array, n: int, least: int, correlation: bool) -> Array:
    """Covariance (ddof 1) or correlation over the rows where both are known."""
    both = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(both, x, NAN), np.where(both, y, NAN)
    dx, dy = (windows(v, n) - over(v, n, 1, np.nanmean)[:, :, None] for v in (x, y))
    count = np.isfinite(dx).sum(-1)
    covariance = np.where(count >= least, np.nansum(dx * dy, axis=-1) / (count - 1), NAN)
    return divided(covariance, sd(x, n, least) * sd(y, n, least)) if correlation else covariance


def smooth(x: Array, alpha: float, least: int) -> Array:
    """The recursive mean as the conventions name it, code by code."""
    frame = pl.DataFrame(x, schema=[str(j) for j in range(x.shape[1])]).fill_nan(None)
    mean = pl.all().ewm_mean(alpha=alpha, adjust=False, ignore_nulls=True, min_samples=least)
    return frame.select(mean).fill_null(NAN).to_numpy()


def ema(x: Array, n: int) -> Array:
    return smooth(x, 2 / (n + 1), n)


def rma(x: Array, n: int) -> Array:
    return smooth(x, 1 / n, n)


def divided(a: Array, b: Array) -> Array:
    """a / b, null where b is zero."""
    with np.errstate(all="ignore"):
        return np.where(np.abs(b) > 1e-12, a / b, NAN)


def since(flag: NDArray[np.bool_]) -> Array:
    out = np.empty(flag.shape)
    for j in range(flag.shape[1]):
        age = 250
        for t in range(len(flag)):
            age = 0 if flag[t, j] else min(age + 1, 250)
            out[t, j] = age
    return out
