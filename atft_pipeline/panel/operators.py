"""The operator vocabulary in which features are written: ts_* along dates, cs_* across stocks, group_* inside a group.

This is the only door to the compiled kernels: `ts_operators` and `cs_operators` hold them, everyone imports from here.
The element-wise helpers below give null where a formula has no value, instead of an infinity.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.panel.cs_operators import (
    cs_clip,
    cs_count,
    cs_mean,
    cs_quantile,
    cs_rank,
    cs_std,
    cs_sum,
    cs_zscore,
    group_count_table,
    group_mean,
    group_rank,
    group_sum_table,
    group_table,
    group_take,
)
from atft_pipeline.panel.ts_operators import (
    EPS,
    Array,
    ts_beta,
    ts_corr,
    ts_count,
    ts_cov,
    ts_cumprod,
    ts_cumsum,
    ts_ema,
    ts_lag,
    ts_max,
    ts_mean,
    ts_min,
    ts_product,
    ts_rma,
    ts_since,
    ts_skew,
    ts_std,
    ts_streak,
    ts_sum,
    ts_var,
    ts_zscore,
)

__all__ = [
    "EPS",
    "Array",
    "cs_clip",
    "cs_count",
    "cs_mean",
    "cs_quantile",
    "cs_rank",
    "cs_std",
    "cs_sum",
    "cs_zscore",
    "divide",
    "group_count_table",
    "group_mean",
    "group_rank",
    "group_sum_table",
    "group_table",
    "group_take",
    "log",
    "ts_beta",
    "ts_corr",
    "ts_count",
    "ts_cov",
    "ts_cumprod",
    "ts_cumsum",
    "ts_ema",
    "ts_lag",
    "ts_max",
    "ts_mean",
    "ts_min",
    "ts_product",
    "ts_rma",
    "ts_since",
    "ts_skew",
    "ts_std",
    "ts_streak",
    "ts_sum",
    "ts_var",
    "ts_zscore",
    "where_known",
]


def divide(numerator: NDArray[np.generic] | float, denominator: NDArray[np.generic]) -> Array:
    """numerator / denominator where |denominator| > 1e-12, else null; never an epsilon added to the denominator."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.asarray(np.divide(numerator, denominator, dtype=np.float64))
    np.copyto(ratio, np.nan, where=np.abs(np.asarray(denominator, np.float64)) <= EPS)
    return ratio


def log(x: NDArray[np.generic]) -> Array:
    """Natural logarithm; null where x is not positive."""
    value = np.asarray(x, np.float64)
    positive = value > 0
    return np.where(positive, np.log(np.where(positive, value, 1.0)), np.nan)


def where_known(condition: NDArray[np.bool_], *inputs: NDArray[np.generic]) -> Array:
    """1 where the condition holds, 0 where not, null where any input is null: a comparison alone hides nulls as 0."""
    flag = np.where(condition, 1.0, 0.0)
    for value in inputs:
        flag = np.where(np.isnan(value), np.nan, flag)
    return flag
