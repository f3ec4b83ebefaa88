"""How each kind of feature becomes a model input. Every treatment maps missing to 0 and stays within a known range.

Cross-sectional treatments look at one date only, so they need no fit and cannot leak; time treatments take a centre
and a scale that were fitted on training dates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.panel.operators import cs_rank

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

CLIP = 5.0
IQR_TO_SD = 1.349
"""Interquartile range of a standard normal."""
FLOOR_SHARE, FLOOR = 1e-3, 1e-6
MIN_CROSS_SECTION = 5
"""Fewest known values on a date for a rank to mean anything."""

CATEGORY_LEVELS = {
    "meta_market_id": 10,
    "meta_sector17_id": 18,
    "meta_sector33_id": 34,
    "meta_scale_id": 5,
    "meta_margin_id": 3,
    "cal_dow": 4,
    "cal_month": 12,
}
"""Largest id of each category: the constant that brings ids into 0..1."""

RANK, LOG_ROBUST, ROBUST, AS_IS, SHARE = "rank_normal", "log_robust", "robust", "as_is", "share"
TREATMENT = {
    "cross_section": RANK,
    "log": LOG_ROBUST,
    "market": ROBUST,
    "time": ROBUST,
    "flag": AS_IS,
    "category": SHARE,
}


def normal_quantile(p: Array) -> Array:
    """Inverse normal distribution function, |error| < 1.2e-9 relative (Acklam's rational approximation)."""
    a = (-39.69683028665376, 220.9460984245205, -275.9285104469687, 138.3577518672690, -30.66479806614716, 2.506628277459239)  # fmt: skip  # noqa: E501
    b = (-54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972, -13.28068155288572, 1.0)
    c = (-0.007784894002430293, -0.3223964580411365, -2.400758277161838, -2.549732539343734, 4.374664141464968, 2.938163982698783)  # fmt: skip  # noqa: E501
    d = (0.007784695709041462, 0.3224671290700398, 2.445134137142996, 3.754408661907416, 1.0)
    low = 0.02425
    tail = np.minimum(p, 1 - p)
    q = np.sqrt(-2 * np.log(np.where(tail < low, tail, 0.5)))
    outer = np.polyval(c, q) / np.polyval(d, q)
    centred = p - 0.5
    r = centred * centred
    inner = np.polyval(a, r) * centred / np.polyval(b, r)
    return np.where(tail < low, np.where(p < 0.5, outer, -outer), inner)


def rank_normal(x: Array, where: Mask) -> Array:
    """Per date: average rank among the stocks `where`, as a normal quantile; 0 where missing or too few are known."""
    share = cs_rank(x, where, MIN_CROSS_SECTION)
    count = (where & ~np.isnan(x)).sum(axis=1, keepdims=True)
    middle = (share * (count - 1) + 0.5) / np.maximum(count, 1)
    known = ~np.isnan(share)
    return np.where(known, normal_quantile(np.where(known, middle, 0.5)), 0.0)


def robust(x: Array, centre: float, scale: float) -> Array:
    """(x - centre) / scale within +-5; 0 where missing."""
    return np.nan_to_num(np.clip((x - centre) / scale, -CLIP, CLIP))


def log_robust(x: Array, where: Mask) -> Array:
    """Per date: sign(x) log(1 + |x|), then centred and scaled by that date's median and interquartile range."""
    return np.nan_to_num(np.clip(log_robust_unclipped(x, where), -CLIP, CLIP))


def log_robust_unclipped(x: Array, where: Mask) -> Array:
    """`log_robust` before clipping, NaN where missing: what the saturation share is measured on."""
    compressed = np.sign(x) * np.log1p(np.abs(x))
    inside = np.where(where, compressed, np.nan)
    few = np.isfinite(inside).sum(axis=1) < MIN_CROSS_SECTION
    inside[few] = np.nan
    low, centre, high = row_quantiles(inside, (0.25, 0.5, 0.75))
    scale = spread(centre, high - low)
    z = (inside - centre[:, None]) / scale[:, None]
    return np.where((high - low > 0)[:, None] | np.isnan(z), z, 0.0)


def row_quantiles(x: Array, levels: tuple[float, ...]) -> list[Array]:
    """Linear-interpolated quantiles of each row of [T, N], ignoring NaN; NaN for an empty row. One sort per row."""
    ordered = np.sort(x, axis=1)
    count = np.isfinite(x).sum(axis=1)
    found = []
    for level in levels:
        place = np.maximum(count - 1, 0) * level
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, np.maximum(count - 1, 0))
        first, second = (np.take_along_axis(ordered, at[:, None], axis=1)[:, 0] for at in (low, high))
        found.append(first + (second - first) * (place - low))
    return found


def spread(centre: Array | float, iqr: Array | float) -> Array:
    """Robust standard deviation from an interquartile range, with the floors that keep a division meaningful."""
    return np.maximum(np.maximum(np.asarray(iqr) / IQR_TO_SD, FLOOR_SHARE * np.abs(centre)), FLOOR)


def as_share(name: str, x: Array) -> Array:
    """Category ids divided by their largest id. Raises KeyError for a category without a declared size."""
    if name not in CATEGORY_LEVELS:
        raise KeyError(f"category {name} has no declared number of levels; add it to CATEGORY_LEVELS")
    return np.nan_to_num(x / CATEGORY_LEVELS[name])
