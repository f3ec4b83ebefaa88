"""Kernels that sort the members of a date: ranks inside groups, and quantiles. Callers use `cs_operators`.

Order comes from a radix sort of the values' bits (eleven at a time), which is exact, stable and about twice as fast as
a comparison sort at a full market's four thousand members.
"""

from __future__ import annotations

import numpy as np
from numba import njit

DIGIT_BITS = 11
DIGITS = 6
"""Six digits of eleven bits cover the 64 of a float."""
BUCKETS = 1 << DIGIT_BITS

_SIGN = np.uint64(1 << 63)
_ALL = np.uint64((1 << 64) - 1)
_SHIFT = np.uint64(DIGIT_BITS)
_LAST = np.uint64(BUCKETS - 1)


@njit(cache=True, nogil=True, error_model="numpy")
def ascending(value, n, key, order, spare, count):  # type: ignore[no-untyped-def]
    """Positions that sort value[:n], none of them NaN; the result is `order` or `spare`, whichever was written last."""
    count[:] = 0
    for i in range(n):
        bits = np.float64(value[i] + 0.0).view(np.int64)  # + 0.0 makes the two zeros equal
        key[i] = np.uint64(bits) ^ (_ALL if bits < 0 else _SIGN)
        order[i] = i
        rest = key[i]
        for d in range(DIGITS):
            count[d, np.int64(rest & _LAST)] += 1
            rest >>= _SHIFT
    for d in range(DIGITS):
        shift = np.uint64(DIGIT_BITS * d)
        if n == 0 or count[d, np.int64((key[0] >> shift) & _LAST)] == n:
            continue
        place = 0
        for i in range(BUCKETS):
            size = count[d, i]
            count[d, i] = place
            place += size
        for i in range(n):
            bucket = np.int64((key[order[i]] >> shift) & _LAST)
            spare[count[d, bucket]] = order[i]
            count[d, bucket] += 1
        order, spare = spare, order
    return order


@njit(cache=True, nogil=True, error_model="numpy")
def group_ranks(x, ids, where, groups, min_obs, out, t0, t1):  # type: ignore[no-untyped-def]
    """(average rank - 1) / (n - 1) inside each group; empty `ids` or `where` mean one group, everyone."""
    stocks = x.shape[1]
    grouped, masked = ids.size > 0, where.size > 0
    value, column = np.empty(stocks), np.empty(stocks, np.int64)
    placed, owner = np.empty(stocks), np.empty(stocks, np.int64)
    key, count = np.empty(stocks, np.uint64), np.empty((DIGITS, BUCKETS), np.int32)
    first_order, second_order = np.empty(stocks, np.int32), np.empty(stocks, np.int32)
    for t in range(t0, t1):
        size = np.zeros(groups + 1, np.int64)
        members = 0
        for j in range(stocks):
            out[t, j] = np.nan
            g = ids[t, j] if grouped else 0
            if (not masked or where[t, j]) and 0 <= g < groups and x[t, j] - x[t, j] == 0.0:
                value[members], column[members] = x[t, j], j
                size[g + 1] += 1
                members += 1
        order = ascending(value, members, key, first_order, second_order, count)
        start = np.cumsum(size)
        slot = start[:-1].copy()
        for i in range(members):  # by group, and by value inside a group
            j = column[order[i]]
            g = ids[t, j] if grouped else 0
            placed[slot[g]], owner[slot[g]] = value[order[i]], j
            slot[g] += 1
        for g in range(groups):
            first, last = start[g], start[g + 1]
            n = last - first
            if n < min_obs or n < 2:
                continue
            i = first
            while i < last:
                k = i
                while k + 1 < last and placed[k + 1] == placed[i]:
                    k += 1
                pct = (0.5 * (i + k) - first) / (n - 1.0)
                for m in range(i, k + 1):
                    out[t, owner[m]] = pct
                i = k + 1


@njit(cache=True, nogil=True, error_model="numpy")
def quantiles(x, where, levels, min_obs, out, t0, t1):  # type: ignore[no-untyped-def]
    """Each date's quantiles [T, levels], linear between order statistics."""
    stocks, masked = x.shape[1], where.size > 0
    value, key, count = np.empty(stocks), np.empty(stocks, np.uint64), np.empty((DIGITS, BUCKETS), np.int32)
    first_order, second_order = np.empty(stocks, np.int32), np.empty(stocks, np.int32)
    for t in range(t0, t1):
        n = 0
        for j in range(stocks):
            if (not masked or where[t, j]) and x[t, j] - x[t, j] == 0.0:
                value[n] = x[t, j]
                n += 1
        order = ascending(value, n, key, first_order, second_order, count)
        for i in range(len(levels)):
            out[t, i] = np.nan
            if n >= min_obs and n >= 1:
                at = levels[i] * (n - 1)
                low = int(at)
                a, b = value[order[low]], value[order[min(low + 1, n - 1)]]
                out[t, i] = a + (at - low) * (b - a)
