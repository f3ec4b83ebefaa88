"""Cross-section and group operators over a dense [date, stock] array: one date at a time, dates shared by the cores.

NaN is null and non-finite inputs count as null. Sums run over the members in code order and skip everything else, so
a row's result does not change by one bit when codes that are not members join or leave the axis. A group is an integer
id per cell; ids outside 0..n_groups-1 belong to no group. Callers import from `operators`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atft_pipeline.panel import rank_operators as rank
from atft_pipeline.panel.element_operators import Array, in_threads
from atft_pipeline.panel.window_operators import EPS

Mask = NDArray[np.bool_]
Ids = NDArray[np.integer]

NO_GROUP = np.empty((0, 0), np.int16)
"""Stands for one group that everyone is in."""
EVERYONE = np.empty((0, 0), np.bool_)
"""Stands for a mask without exceptions."""


@njit(cache=True, nogil=True, error_model="numpy")
def _group_moments(x, ids, where, spread, count, mean, squares, t0, t1):  # type: ignore[no-untyped-def]
    groups, stocks = count.shape[1], x.shape[1]
    grouped, masked = ids.size > 0, where.size > 0
    for t in range(t0, t1):
        for j in range(stocks):
            g = ids[t, j] if grouped else 0
            if (not masked or where[t, j]) and 0 <= g < groups and x[t, j] - x[t, j] == 0.0:
                count[t, g] += 1.0
                mean[t, g] += x[t, j]
        for g in range(groups):
            mean[t, g] /= max(count[t, g], 1.0)
        if not spread:
            continue
        for j in range(stocks):
            g = ids[t, j] if grouped else 0
            if (not masked or where[t, j]) and 0 <= g < groups and x[t, j] - x[t, j] == 0.0:
                squares[t, g] += (x[t, j] - mean[t, g]) ** 2


@njit(cache=True, nogil=True, error_model="numpy")
def _limited(x, where, low, high, out, t0, t1):  # type: ignore[no-untyped-def]
    masked = where.size > 0
    for t in range(t0, t1):
        a, b = low[t], high[t]
        for j in range(x.shape[1]):
            v = x[t, j]
            member = (not masked or where[t, j]) and v - v == 0.0
            v = a if v < a else v
            v = b if v > b else v
            out[t, j] = v if member else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _standardised(x, where, mean, sd, clip, out, t0, t1):  # type: ignore[no-untyped-def]
    masked = where.size > 0
    for t in range(t0, t1):
        for j in range(x.shape[1]):
            v = x[t, j]
            member = (not masked or where[t, j]) and v - v == 0.0 and sd[t] > EPS
            z = (v - mean[t]) / sd[t]
            out[t, j] = min(clip, max(-clip, z)) if member else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _taken(table, ids, out, t0, t1):  # type: ignore[no-untyped-def]
    for t in range(t0, t1):
        for j in range(ids.shape[1]):
            g = ids[t, j]
            out[t, j] = table[t, g] if 0 <= g < table.shape[1] else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _own_means(x, ids, where, count, mean, min_obs, leave_one_out, out, t0, t1):  # type: ignore[no-untyped-def]
    masked = where.size > 0
    for t in range(t0, t1):
        for j in range(x.shape[1]):
            g = ids[t, j]
            out[t, j] = np.nan
            if not 0 <= g < count.shape[1]:
                continue
            n, m = count[t, g], mean[t, g]
            if leave_one_out and (not masked or where[t, j]) and x[t, j] - x[t, j] == 0.0:
                m = m + (m - x[t, j]) / (n - 1.0)
                n = n - 1.0
            if n >= min_obs:
                out[t, j] = m


def _inputs(x: NDArray[Any], group: Ids | None, where: Mask | None) -> tuple[Array, Ids, Mask]:
    """The values, and ids and mask of the same shape (or `NO_GROUP`, `EVERYONE`)."""
    dense = np.ascontiguousarray(x, dtype=np.float64)
    if dense.ndim != 2:
        raise ValueError(f"a cross-section needs [T, N], not shape {dense.shape}")
    return dense, _same_shape(group, NO_GROUP, dense), _same_shape(where, EVERYONE, dense)


def _same_shape(given: NDArray[Any] | None, alike: NDArray[Any], dense: Array) -> NDArray[Any]:
    if given is None:
        return alike
    return np.ascontiguousarray(np.broadcast_to(np.asarray(given, alike.dtype), dense.shape))


def _over_dates(dense: Array, job: Any) -> None:
    """job(first, end) over dates; threads own disjoint dates."""
    in_threads(job, len(dense), 1, dense.size)


def _moments(
    x: NDArray[Any], group: Ids | None, where: Mask | None, n_groups: int, spread: bool = False
) -> tuple[Array, Array, Array]:
    """Count, mean and (if `spread`) sum of squared deviations per (date, group), [T, n_groups]; mean of none is 0."""
    dense, ids, mask = _inputs(x, group, where)
    count, mean, squares = (np.zeros((len(dense), n_groups)) for _ in range(3))
    _over_dates(dense, lambda t0, t1: _group_moments(dense, ids, mask, spread, count, mean, squares, t0, t1))
    return count, mean, squares


def _quantiles(x: NDArray[Any], where: Mask | None, levels: tuple[float, ...], min_obs: int) -> Array:
    """[T, levels] quantiles over the members of each date; each date is sorted once."""
    dense, _, mask = _inputs(x, None, where)
    out, wanted = np.empty((len(dense), len(levels))), np.asarray(levels, np.float64)
    _over_dates(dense, lambda t0, t1: rank.quantiles(dense, mask, wanted, min_obs, out, t0, t1))
    return out


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
    return _mean_and_deviation(x, where, min_obs)[1]


def _mean_and_deviation(x: NDArray[Any], where: Mask | None, min_obs: int) -> tuple[Array, Array]:
    count, mean, squares = _moments(x, None, where, 1, spread=True)
    variance = squares / np.maximum(count - 1, 1)
    sd = np.sqrt(np.where(count >= max(min_obs, 2), variance, np.nan))
    return np.where(count >= max(min_obs, 1), mean, np.nan)[:, 0], sd[:, 0]


def cs_quantile(x: NDArray[Any], q: float, where: Mask | None = None, min_obs: int = 1) -> Array:
    """Quantile over the members of each date, [T], linear between order statistics (numpy's default)."""
    return _quantiles(x, where, (q,), min_obs)[:, 0]


def cs_rank(x: NDArray[Any], where: Mask | None = None, min_obs: int = 2) -> Array:
    """(average rank - 1) / (n - 1) among the non-null members of the date, [T, N]; null for everyone else."""
    return group_rank(x, None, where, min_obs)


def cs_zscore(x: NDArray[Any], where: Mask | None = None, min_obs: int = 2, clip: float | None = None) -> Array:
    """(x - mean) / sd among the members of the date, ddof 1, within +-clip, [T, N]; null at zero variance."""
    mean, sd = _mean_and_deviation(x, where, min_obs)
    dense, _, mask = _inputs(x, None, where)
    out, limit = np.empty(dense.shape), np.inf if clip is None else float(clip)
    _over_dates(dense, lambda t0, t1: _standardised(dense, mask, mean, sd, limit, out, t0, t1))
    return out


def cs_clip(x: NDArray[Any], where: Mask | None, lo_q: float, hi_q: float) -> Array:
    """Members limited to the date's own quantiles [lo_q, hi_q], [T, N]; null for everyone else."""
    limits = _quantiles(x, where, (lo_q, hi_q), 1)
    low, high = (np.ascontiguousarray(limits[:, i]) for i in (0, 1))
    dense, _, mask = _inputs(x, None, where)
    out = np.empty(dense.shape)
    _over_dates(dense, lambda t0, t1: _limited(dense, mask, low, high, out, t0, t1))
    return out


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
    values, ids = np.ascontiguousarray(table, np.float64), np.asarray(group)
    out = np.empty(ids.shape)
    _over_dates(out, lambda t0, t1: _taken(values, ids, out, t0, t1))
    return out


def group_column(table: NDArray[Any], group: Ids) -> NDArray[np.float32]:
    """As `group_take`, in float32: for what becomes a column as it is, with half the memory to walk."""
    values, ids = np.ascontiguousarray(table, np.float32), np.asarray(group)
    out = np.empty(ids.shape, np.float32)
    in_threads(lambda t0, t1: _taken(values, ids, out, t0, t1), len(out), 1, out.size)
    return out


def group_mean(x: NDArray[Any], group: Ids, where: Mask | None, min_obs: int, leave_one_out: bool = False) -> Array:
    """Mean of the cell's group on its date, [T, N]; null below `min_obs` contributing members.

    With `leave_one_out` a member's own value is taken out first, and `min_obs` counts the others.
    """
    dense, ids, mask = _inputs(x, group, where)
    count, mean, _ = _moments(dense, ids, None if mask is EVERYONE else mask, _n_groups(group))
    out = np.empty(dense.shape)
    _over_dates(
        dense, lambda t0, t1: _own_means(dense, ids, mask, count, mean, max(min_obs, 1), leave_one_out, out, t0, t1)
    )
    return out


def group_rank(x: NDArray[Any], group: Ids | None, where: Mask | None, min_obs: int = 2) -> Array:
    """(average rank - 1) / (n - 1) among the non-null members of the cell's group (None: all) on its date, [T, N]."""
    groups = 1 if group is None else _n_groups(group)
    dense, ids, mask = _inputs(x, group, where)
    out = np.empty(dense.shape)
    _over_dates(dense, lambda t0, t1: rank.group_ranks(dense, ids, mask, groups, min_obs, out, t0, t1))
    return out
