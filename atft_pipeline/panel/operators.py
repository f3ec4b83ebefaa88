"""The operator vocabulary in which features are written: ts_* along dates, cs_* across stocks, group_* inside a group.

This is the only door to the compiled kernels: the modules named *_operators hold them, everyone imports from here. The
element-wise ones (divide, log, where_known) give null where a formula has no value, instead of an infinity.
"""

from __future__ import annotations

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
from atft_pipeline.panel.element_operators import Array, divide, log, on_listed, where_known
from atft_pipeline.panel.pair_operators import CorrelationGraph, correlation_graph
from atft_pipeline.panel.ts_operators import (
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
from atft_pipeline.panel.window_operators import EPS

__all__ = [
    "EPS",
    "Array",
    "CorrelationGraph",
    "correlation_graph",
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
    "on_listed",
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
