"""Cross-section and group operators over a dense [date, stock] array: one date at a time.

NaN is null and non-finite inputs count as null. Sums run over the members in code order and skip everything else, so
a row's result does not change by one bit when codes that are not members join or leave the axis. A group is an integer
id per cell; ids outside 0..n_groups-1 belong to no group. Callers import from `operators`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atft_pipeline.panel.ts_operators import EPS, Array

Mask = NDArray[np.bool_]
Ids = NDArray[np.integer]


@njit(cache=True, nogil=True)
def _group_moments(x, ids, where, count, mean, squares):  # type: ignore[no-untyped-def]
    groups = count.shape[1]
    for t in range(x.shape[0]):
        for j in range(x.shape[1]):
            g = ids[t, j]
            if where[t, j] and 0 <= g < groups and x[t, j] - x[t, j] == 0.0:
                count[t, g] += 1.0
                mean[t, g] += x[t, j]
        for g in range(groups):
            mean[t, g] /= max(count[t, g], 1.0)
        for j in range(x.shape[1]):
            g = ids[t, j]
            if where[t, j] and 0 <= g < groups and x[t, j] - x[t, j] == 0.0:
                squares[t, g] += (x[t, j] - mean[t, g]) ** 2


@njit(cache=True, nogil=True)
def _group_ranks(x, ids, where, groups, min_obs, out):  # type: ignore[no-untyped-def]
    stocks = x.shape[1]
    value, column = np.empty(stocks), np.empty(stocks, np.int64)
    for t in range(x.shape[0]):
        size = np.zeros(groups + 1, np.int64)
        members = 0
        for j in range(stocks):
            out[t, j] = np.nan
            g = ids[t, j]
            if where[t, j] and 0 <= g < groups and x[t, j] - x[t, j] == 0.0:
                value[members], column[members] = x[t, j], j
                size[g + 1] += 1
                members += 1
        start = np.cumsum(size)
        slot = start[:-1].copy()
        order = np.empty(members, np.int64)  # members by group, and by value inside a group
        for i in np.argsort(value[:members]):
            g = ids[t, column[i]]
            order[slot[g]] = i
            slot[g] += 1
        for g in range(groups):
            first, last = start[g], start[g + 1]
            n = last - first
            if n < min_obs or n < 2:
                continue
            i = first
            while i < last:
                k = i
                while k + 1 < last and value[order[k + 1]] == value[order[i]]:
                    k += 1
                pct = (0.5 * (i + k) - first) / (n - 1.0)
                for m in range(i, k + 1):
                    out[t, column[order[m]]] = pct
                i = k + 1


@njit(cache=True, nogil=True)
def _quantiles(x, where, q, min_obs, out):  # type: ignore[no-untyped-def]
    value = np.empty(x.shape[1])
    for t in range(x.shape[0]):
        n = 0
        for j in range(x.shape[1]):
            if where[t, j] and x[t, j] - x[t, j] == 0.0:
                value[n] = x[t, j]
                n += 1
        if n < min_obs or n < 1:
            out[t] = np.nan
            continue
        ordered = np.sort(value[:n])
        at = q * (n - 1)
        low = int(at)
        high = min(low + 1, n - 1)
        out[t] = ordered[low] + (at - low) * (ordered[high] - ordered[low])


def _inputs(x: NDArray[Any], group: Ids | None, where: Mask | None) -> tuple[Array, Ids, Mask]:
    dense = np.ascontiguousarray(x, dtype=np.float64)
    if dense.ndim != 2:
        raise ValueError(f"a cross-section needs [T, N], not shape {dense.shape}")
    ids = np.zeros((1, 1), np.int16) if group is None else np.asarray(group, np.int16)
    mask = np.ones((1, 1), np.bool_) if where is None else np.asarray(where, np.bool_)
    return dense, np.broadcast_to(ids, dense.shape).copy(), np.broadcast_to(mask, dense.shape).copy()


def _moments(x: NDArray[Any], group: Ids | None, where: Mask | None, n_groups: int) -> tuple[Array, Array, Array]:
    """Count, mean and sum of squared deviations per (date, group), each [T, n_groups]; the mean of none is 0."""
    dense, ids, mask = _inputs(x, group, where)
    count, mean, squares = (np.zeros((len(dense), n_groups)) for _ in range(3))
    _group_moments(dense, ids, mask, count, mean, squares)
    return count, mean, squares


def _n_groups(group: Ids) -> int:
    return max(int(np.max(group, initial=-1)) + 1, 1)


def cs_count(x: NDArray[Any], where: Mask | None = None) -> Array:
    """Non-null members per date, [T]."""
    return _moments(x, None, where, 1)[0][:, 0]


def cs_sum(x: NDArray[Any], where: Mask | None = None) -> Array:
    """Sum over the members of each date, [T]; 0 when there are none."""
    count, mean, _ = _moments(x, None, where, 1)
    return (count * mean)[:, 0]


def cs_mean(x: NDArray[Any], where: Mask | None = None, min_obs: int = 1) -> Array:
    """Mean over the members of each date, [T]."""
    count, mean, _ = _moments(x, None, where, 1)
    return np.where(count >= max(min_obs, 1), mean, np.nan)[:, 0]


def cs_std(x: NDArray[Any], where: Mask | None = None, min_obs: int = 2) -> Array:
    """Standard deviation over the members of each date, ddof 1, [T]."""
    count, _, squares = _moments(x, None, where, 1)
    variance = squares / np.maximum(count - 1, 1)
    return np.sqrt(np.where(count >= max(min_obs, 2), variance, np.nan))[:, 0]


def cs_quantile(x: NDArray[Any], q: float, where: Mask | None = None, min_obs: int = 1) -> Array:
    """Quantile over the members of each date, [T], linear between order statistics (numpy's default)."""
    dense, _, mask = _inputs(x, None, where)
    out = np.empty(len(dense))
    _quantiles(dense, mask, float(q), min_obs, out)
    return out


def cs_rank(x: NDArray[Any], where: Mask | None = None, min_obs: int = 2) -> Array:
    """(average rank - 1) / (n - 1) among the non-null members of the date, [T, N]; null for everyone else."""
    return group_rank(x, np.zeros((1, 1), np.int16), where, min_obs)


def cs_zscore(x: NDArray[Any], where: Mask | None = None, min_obs: int = 2, clip: float | None = None) -> Array:
    """(x - mean) / sd among the members of the date, ddof 1, within +-clip, [T, N]; null at zero variance."""
    mean, sd = cs_mean(x, where, min_obs)[:, None], cs_std(x, where, min_obs)[:, None]
    member = np.isfinite(x) if where is None else np.isfinite(x) & where
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(member & (sd > EPS), (x - mean) / sd, np.nan)
    return z if clip is None else np.clip(z, -clip, clip)


def cs_clip(x: NDArray[Any], where: Mask | None, lo_q: float, hi_q: float) -> Array:
    """Members limited to the date's own quantiles [lo_q, hi_q], [T, N]; null for everyone else."""
    low, high = (cs_quantile(x, q, where)[:, None] for q in (lo_q, hi_q))
    member = np.isfinite(x) if where is None else np.isfinite(x) & where
    return np.where(member, np.clip(x, low, high), np.nan)


def group_table(x: NDArray[Any], group: Ids, where: Mask | None, n_groups: int, min_obs: int = 1) -> Array:
    """Mean per (date, group), [T, n_groups]; null below `min_obs` members."""
    count, mean, _ = _moments(x, group, where, n_groups)
    return np.where(count >= max(min_obs, 1), mean, np.nan)


def group_sum_table(x: NDArray[Any], group: Ids, where: Mask | None, n_groups: int) -> Array:
    """Sum per (date, group), [T, n_groups]; 0 for a group without members."""
    count, mean, _ = _moments(x, group, where, n_groups)
    return count * mean


def group_count_table(x: NDArray[Any], group: Ids, where: Mask | None, n_groups: int) -> Array:
    """Non-null members per (date, group), [T, n_groups]."""
    return _moments(x, group, where, n_groups)[0]


def group_take(table: NDArray[Any], group: Ids) -> Array:
    """Each cell's group value, [T, N], from a [T, G] table; null where the id is outside the table."""
    values, ids = np.asarray(table, np.float64), np.asarray(group, np.int64)
    known = (ids >= 0) & (ids < values.shape[1])
    return np.where(known, np.take_along_axis(values, np.where(known, ids, 0), axis=1), np.nan)


def group_mean(x: NDArray[Any], group: Ids, where: Mask | None, min_obs: int, leave_one_out: bool = False) -> Array:
    """Mean of the cell's group on its date, [T, N]; null below `min_obs` contributing members.

    With `leave_one_out` a member's own value is taken out first, and `min_obs` counts the others.
    """
    n_groups = _n_groups(group)
    count, mean, _ = _moments(x, group, where, n_groups)
    n, m = group_take(count, group), group_take(mean, group)
    if leave_one_out:
        own = np.isfinite(x) if where is None else np.isfinite(x) & where
        with np.errstate(invalid="ignore", divide="ignore"):
            m = np.where(own, m + (m - x) / (n - 1), m)
        n = n - own
    return np.where(n >= max(min_obs, 1), m, np.nan)


def group_rank(x: NDArray[Any], group: Ids, where: Mask | None, min_obs: int = 2) -> Array:
    """(average rank - 1) / (n - 1) among the non-null members of the cell's group on its date, [T, N]."""
    dense, ids, mask = _inputs(x, group, where)
    out = np.empty_like(dense)
    _group_ranks(dense, ids, mask, _n_groups(group), min_obs, out)
    return out
