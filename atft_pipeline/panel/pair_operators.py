"""The correlation graph of each date: who moves with whom over the last rows, as numbers per stock.

All pairs of members are correlated on the days both are known, in float32 on series that are centred and scaled once.
Nothing but the window's own rows of the members enters a date, in code order and with a fixed order of sums, so a row
is the same bit for bit whatever comes after it and whoever else is on the axis. Callers import from `operators`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atft_pipeline.panel.element_operators import Array, in_threads
from atft_pipeline.panel.window_operators import EPS

Mask = NDArray[np.bool_]

ROWS, LANES = 4, 512
"""Pairs per inner loop: four stocks with 512 others, whose sums stay in the first-level cache."""

ONE = np.float32(1.0)
LEAST_LEFT = np.float32(1e-6)
"""Share of a series' variance that must be left on the common days for a correlation to mean anything."""

_Z, _SQUARE, _SEEN = 0, 1, 2
LEFT, RIGHT = (_Z, _Z, _SQUARE, _SEEN, _SEEN, _SEEN), (_Z, _SEEN, _SEEN, _SEEN, _Z, _SQUARE)
"""The sums behind a correlation on common days: xy, x, xx, count, y, yy."""


@dataclass(frozen=True)
class CorrelationGraph:
    """Per cell, float64 [T, N], null for a cell that is no member or has too few observations.

    A member's out-edges go to at most k others of the highest correlation; the graph is the union of all edges.
    """

    degree: Array
    strength: Array
    """Sum of the correlations of the out-edges; 0 without any."""
    mean: Array
    """Mean correlation of the out-edges; null without any."""
    highest: Array
    """Highest correlation; null without an out-edge."""
    clustering: Array
    """Share of a stock's pairs of neighbours that are neighbours themselves; 0 below two neighbours."""
    peers: tuple[Array, ...]
    """For each given series the mean over the out-edges, weighted by correlation, of those who have a value."""


@njit(cache=True, nogil=True)
def _gather(x, members, t, min_obs, column, days, series):  # type: ignore[no-untyped-def]
    """Window [rows, n] of the members with enough observations; returns n and how many of them are whole.

    `series` gets, for each, the values centred and scaled to a length of one (0 where unknown), their squares, and 1
    where known; `days` how many are known. Members with a full window come first, each part in code order. A constant
    series stays zero: it correlates with nobody.
    """
    z, square, seen = series[_Z], series[_SQUARE], series[_SEEN]
    stocks = x.shape[1]
    count, total, squares = np.zeros(stocks), np.zeros(stocks), np.zeros(stocks)
    rows = series.shape[1]
    first = max(0, t + 1 - rows)
    for u in range(first, t + 1):
        row = x[u]
        for j in range(stocks):
            known = row[j] - row[j] == 0.0
            count[j] += 1.0 if known else 0.0
            total[j] += row[j] if known else 0.0
    for j in range(stocks):
        total[j] /= max(count[j], 1.0)
    for u in range(first, t + 1):
        row = x[u]
        for j in range(stocks):
            d = row[j] - total[j]
            squares[j] += d * d if d - d == 0.0 else 0.0
    n, whole = 0, 0
    for part in range(2):
        for j in range(stocks):
            if members[t, j] and count[j] >= min_obs and (count[j] < rows) == (part == 1):
                spread = np.sqrt(squares[j] / max(count[j] - 1.0, 1.0)) > EPS
                squares[j] = 1.0 / np.sqrt(squares[j]) if spread else 0.0
                column[n], days[n] = j, count[j]
                n += 1
        if part == 0:
            whole = n
    for k in range(rows):
        u = t + 1 - rows + k  # below 0 before the first row: nobody knows it
        for i in range(n):
            v = x[u, column[i]] if u >= 0 else np.nan
            known = v - v == 0.0
            z[k, i] = (v - total[column[i]]) * squares[column[i]] if known else 0.0
            square[k, i] = z[k, i] * z[k, i]
            seen[k, i] = 1.0 if known else 0.0
        for matrix in (z, square, seen):
            matrix[k, n : n + ROWS] = 0.0
    return n, whole


@njit(cache=True, nogil=True)
def _dots(a, b, i, j0, j1, out):  # type: ignore[no-untyped-def]
    """Sums over the window of a[:, i + m] b[:, j] for four columns m, j from j0 to j1; out is [4 x LANES], flat."""
    # One multiplication per addition: fused or not, in a vector or left over, a sum has one value.
    w = j1 - j0
    out[:] = np.float32(0.0)
    o0, o1, o2, o3 = out[:LANES], out[LANES : 2 * LANES], out[2 * LANES : 3 * LANES], out[3 * LANES :]
    rows = a.shape[0]
    k = 0
    while k + 4 <= rows:
        p0, p1, p2, p3 = a[k, i], a[k + 1, i], a[k + 2, i], a[k + 3, i]
        q0, q1, q2, q3 = a[k, i + 1], a[k + 1, i + 1], a[k + 2, i + 1], a[k + 3, i + 1]
        r0, r1, r2, r3 = a[k, i + 2], a[k + 1, i + 2], a[k + 2, i + 2], a[k + 3, i + 2]
        s0, s1, s2, s3 = a[k, i + 3], a[k + 1, i + 3], a[k + 2, i + 3], a[k + 3, i + 3]
        b0, b1, b2, b3 = b[k, j0:j1], b[k + 1, j0:j1], b[k + 2, j0:j1], b[k + 3, j0:j1]
        for j in range(w):
            x0, x1, x2, x3 = b0[j], b1[j], b2[j], b3[j]
            o0[j] = (((o0[j] + p0 * x0) + p1 * x1) + p2 * x2) + p3 * x3
            o1[j] = (((o1[j] + q0 * x0) + q1 * x1) + q2 * x2) + q3 * x3
            o2[j] = (((o2[j] + r0 * x0) + r1 * x1) + r2 * x2) + r3 * x3
            o3[j] = (((o3[j] + s0 * x0) + s1 * x1) + s2 * x2) + s3 * x3
        k += 4
    while k < rows:
        p0, q0, r0, s0 = a[k, i], a[k, i + 1], a[k, i + 2], a[k, i + 3]
        b0 = b[k, j0:j1]
        for j in range(w):
            o0[j] += p0 * b0[j]
            o1[j] += q0 * b0[j]
            o2[j] += r0 * b0[j]
            o3[j] += s0 * b0[j]
        k += 1


@njit(cache=True, nogil=True)
def _correlations(series, days, i, j0, j1, whole, min_obs, sums):  # type: ignore[no-untyped-def]
    """Correlation of four columns from i with each of j0 to j1 - 1, as sums[0], flat; 0 where there is none.

    Both whole: the product of the scaled series. Else all moments on the days both know; where only the second has
    holes these are its own days, on which it is centred and scaled already.
    """
    w = j1 - j0
    if j1 <= whole and i + ROWS <= whole:
        last = 1
    elif i + ROWS <= whole:
        last = 3
    else:
        last = 6
    for m in range(last):
        _dots(series[LEFT[m]], series[RIGHT[m]], i, j0, j1, sums[m])
    if last == 1:
        return
    if last == 3:
        for m in range(0, ROWS * LANES, LANES):
            for j in range(w):
                sums[3, m + j] = days[j0 + j]
                sums[4, m + j] = np.float32(0.0)
                sums[5, m + j] = np.float32(1.0)
    for m in range(0, ROWS * LANES, LANES):
        rho, sx, sxx = sums[0, m : m + w], sums[1, m : m + w], sums[2, m : m + w]
        count, sy, syy = sums[3, m : m + w], sums[4, m : m + w], sums[5, m : m + w]
        for j in range(w):
            vx = sxx[j] - sx[j] * sx[j] / max(count[j], ONE)
            vy = syy[j] - sy[j] * sy[j] / max(count[j], ONE)
            r = (rho[j] - sx[j] * sy[j] / max(count[j], ONE)) / np.sqrt(max(vx, LEAST_LEFT) * max(vy, LEAST_LEFT))
            known = count[j] >= min_obs and vx > LEAST_LEFT and vy > LEAST_LEFT
            rho[j] = r if known else np.float32(0.0)


@njit(cache=True, nogil=True)
def _offer(best, peer, size, floor, i, j, rho):  # type: ignore[no-untyped-def]
    """Keep j among the k best of i; between equal correlations the lower column stays."""
    k = best.shape[1]
    n = size[i]
    if rho < floor[i]:
        return
    if n == k and not (rho > best[i, k - 1] or (rho == best[i, k - 1] and j < peer[i, k - 1])):
        return
    at = n if n < k else k - 1
    while at > 0 and (rho > best[i, at - 1] or (rho == best[i, at - 1] and j < peer[i, at - 1])):
        best[i, at] = best[i, at - 1]
        peer[i, at] = peer[i, at - 1]
        at -= 1
    best[i, at] = rho
    peer[i, at] = j
    size[i] = min(n + 1, k)
    if n + 1 >= k:
        floor[i] = best[i, k - 1]


@njit(cache=True, nogil=True)
def _edges(series, days, n, whole, min_obs, least, column, best, peer, size, floor):  # type: ignore[no-untyped-def]
    """Fill the out-edges of all n members, computing every pair once; `peer` holds columns of the axis.

    `floor` is what a correlation must reach to enter a member's list: most pairs enter neither and are passed over.
    """
    sums = np.empty((6, ROWS * LANES), np.float32)
    flags = np.zeros(LANES + 8, np.uint8)
    eights = flags.view(np.uint64)  # eight flags are looked at in one comparison
    size[:n], floor[:n] = 0, least
    for i0 in range(0, n, ROWS):
        j0 = i0 + 1
        while j0 < n:
            j1 = min(j0 + LANES, n)
            if j0 < whole < j1:
                j1 = whole
            _correlations(series, days, i0, j0, j1, whole, min_obs, sums)
            for m in range(min(ROWS, n - i0)):
                i = i0 + m
                row, enter, mine, w = sums[0, m * LANES : m * LANES + j1 - j0], floor[j0:j1], floor[i], j1 - j0
                for j in range(w):
                    flags[j] = row[j] >= min(mine, enter[j])
                flags[w : w + 8] = 0
                for word in range(-(-w // 8)):
                    if eights[word] == 0:
                        continue
                    for j in range(8 * word, 8 * word + 8):
                        if flags[j] and j0 + j > i and row[j] >= min(floor[i], enter[j]):
                            r = min(row[j], ONE)
                            _offer(best, peer, size, floor, i, column[j0 + j], r)
                            _offer(best, peer, size, floor, j0 + j, column[i], r)
            j0 = j1


@njit(cache=True, nogil=True)
def _neighbours(n, size, peer, place, start, ends):  # type: ignore[no-untyped-def]
    """Undirected adjacency in rows: neighbours of i are ends[start[i]:start[i + 1]], each once."""
    count = np.zeros(n + 1, np.int64)
    for i in range(n):
        for e in range(size[i]):
            j = place[peer[i, e]]
            mutual = False
            for f in range(size[j]):
                mutual = mutual or place[peer[j, f]] == i
            if not mutual or i < j:
                count[i + 1] += 1
                count[j + 1] += 1
    start[: n + 1] = np.cumsum(count)
    fill = start[:n].copy()
    for i in range(n):
        for e in range(size[i]):
            j = place[peer[i, e]]
            mutual = False
            for f in range(size[j]):
                mutual = mutual or place[peer[j, f]] == i
            if not mutual or i < j:
                ends[fill[i]] = j
                ends[fill[j]] = i
                fill[i] += 1
                fill[j] += 1


@njit(cache=True, nogil=True)
def _graph(x, members, values, rows, min_obs, least, k, out, peers, t0, t1):  # type: ignore[no-untyped-def]
    stocks = x.shape[1]
    series = np.empty((3, rows, stocks + ROWS), np.float32)
    days = np.empty(stocks, np.float32)
    column, place = np.empty(stocks, np.int64), np.full(stocks, -1, np.int64)
    best, peer, size = np.empty((stocks, k), np.float32), np.empty((stocks, k), np.int64), np.zeros(stocks, np.int64)
    floor = np.empty(stocks, np.float32)
    start, ends, mark = (
        np.empty(stocks + 1, np.int64),
        np.empty(2 * k * stocks, np.int64),
        np.full(stocks, -1, np.int64),
    )
    for t in range(t0, t1):
        n, whole = _gather(x, members, t, min_obs, column, days, series)
        for i in range(n):
            place[column[i]] = i
        _edges(series, days, n, whole, min_obs, least, column, best, peer, size, floor)
        _neighbours(n, size, peer, place, start, ends)
        mark[:n] = -1
        for i in range(n):
            j = column[i]
            degree = start[i + 1] - start[i]
            strength = 0.0
            for e in range(size[i]):
                strength += best[i, e]
            for e in range(start[i], start[i + 1]):
                mark[ends[e]] = i
            closed = 0  # each triangle at i is met from both of its other corners
            for e in range(start[i], start[i + 1]):
                for f in range(start[ends[e]], start[ends[e] + 1]):
                    closed += 1 if mark[ends[f]] == i else 0
            out[0, t, j] = degree
            out[1, t, j] = strength
            if size[i] > 0:
                out[2, t, j] = strength / size[i]
                out[3, t, j] = best[i, 0]
            out[4, t, j] = closed / (degree * (degree - 1.0)) if degree >= 2 else 0.0
            for s in range(values.shape[0]):
                total = 0.0
                weight = 0.0
                for e in range(size[i]):
                    v = values[s, t, peer[i, e]]
                    if v - v == 0.0:
                        total += best[i, e] * v
                        weight += best[i, e]
                if weight > 0.0:
                    peers[s, t, j] = total / weight


def correlation_graph(
    x: NDArray[np.generic], members: Mask, values: Sequence[NDArray[np.generic]], *,
    rows: int, min_obs: int, least: float, k: int,
) -> CorrelationGraph:  # fmt: skip
    """Graph of each date over its members: Pearson correlation of x, [T, N], over the last `rows` rows.

    Correlations use the rows both stocks know, at least `min_obs`. Each member with `min_obs` observations of its own
    points to its `k` highest correlations of `least` or more; ties go to the lower column. `values` are [T, N] series
    to average over the peers.
    """
    if rows < 2 or min_obs < 2 or k < 1 or least <= 0:
        raise ValueError(f"rows {rows}, min_obs {min_obs}, k {k}, least {least}: a graph needs 2, 2, 1 and above 0")
    dense = np.ascontiguousarray(x, np.float64)
    given = np.ascontiguousarray(np.stack([np.asarray(v, np.float64) for v in values]))
    out, peers = np.full((5, *dense.shape), np.nan), np.full(given.shape, np.nan)
    inside = np.ascontiguousarray(members, np.bool_)
    limits = (rows, np.float32(min_obs), np.float32(least), k)
    in_threads(lambda t0, t1: _graph(dense, inside, given, *limits, out, peers, t0, t1), len(dense), 1, dense.size)
    return CorrelationGraph(out[0], out[1], out[2], out[3], out[4], tuple(peers))
