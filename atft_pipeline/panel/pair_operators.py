"""The correlation graph of each date: who moves with whom over the last rows, as numbers per stock.

All pairs of members are correlated on the days both are known, in float32 on series that are centred and scaled first.
Neighbouring dates share most of their window, so a block of `DATES` of them is summed together: the rows that all of
its windows hold once, and for each date the few older and newer ones. A block starts at a multiple of `DATES` rows and
reads a date's own window only, in a fixed order of sums, so a row is the same bit for bit whatever comes after it and
whoever else is on the axis. Callers import from `operators`.
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

DATES = 16
"""Dates summed together. Twice as many save a tenth of the time and leave the first-level cache."""
ROWS, LANES = 4, 128
"""Pairs per inner loop: four stocks with 128 others, whose sums on 16 dates stay near the core."""
STEP = 5
"""Rows that a pass over those pairs takes in, beside the common ones: a divisor of DATES - 1."""

ZERO, ONE, TINY = np.float32(0.0), np.float32(1.0), np.float32(1e-30)
LEAST_LEFT = np.float32(1e-6)
"""Share of a series' variance that must be left on the common days for a correlation to mean anything."""

_Z, _SQUARE, _SEEN = 0, 1, 2
LEFT, RIGHT = (_Z, _Z, _SQUARE, _SEEN, _SEEN, _SEEN), (_Z, _SEEN, _SEEN, _SEEN, _Z, _SQUARE)
"""The sums behind a correlation on common days: xy, x, xx, count, y, yy."""
_COUNT, _SUM, _SQUARES, _SLOPE, _OFFSET, _LEAST = range(6)
"""Of a stock's own window, per date: known days, their sum and sum of squares, 1/sqrt(V) with V the sum of squares
around the mean, sum/sqrt(count V), and the least V on common days. The last three are 0 where it has no correlation."""

_COLUMN_BITS = np.uint64(32)
_LAST_COLUMN = np.uint64(2**32 - 1)


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
def _gather(x, members, first, rows, min_obs, column, inside, whole, series, terms):  # type: ignore[no-untyped-def]
    """The block of dates from row `first`: who takes part and their series; returns n and how many are plain.

    A stock takes part that is a member with enough observations on any of the dates; `inside` [DATES, n] says on which,
    `whole` on which its window has no hole. `series` [3, rows + DATES - 1, n] gets the values less an origin and in a
    unit (0 where unknown), their squares, and 1 where known; `terms` what a correlation needs of each date. Origin and
    unit come from the rows that every window of the block holds: no date reads beyond its own window. Plain stocks,
    without a hole in the whole block, come first; each part is in code order.
    """
    depth, begin, stocks = rows + DATES - 1, first + 1 - rows, x.shape[1]
    held = np.zeros((depth + 1, stocks), np.int16)  # known values above each row of the block
    for k in range(depth):
        u = begin + k
        for j in range(stocks):
            known = 0 <= u < x.shape[0] and x[u, j] - x[u, j] == 0.0
            held[k + 1, j] = held[k, j] + (1 if known else 0)
    takes_part = np.zeros(stocks, np.bool_)
    for d in range(min(DATES, x.shape[0] - first)):
        for j in range(stocks):
            takes_part[j] |= members[first + d, j] and held[d + rows, j] - held[d, j] >= min_obs
    n, plain = 0, 0
    for part in range(2):
        for j in range(stocks):
            if takes_part[j] and (held[depth, j] < depth) == (part == 1):
                column[n] = j
                n += 1
        if part == 0:
            plain = n
    z, square, seen = series[_Z], series[_SQUARE], series[_SEEN]
    origin, unit, count = np.zeros(n), np.zeros(n), np.zeros(n)
    for k in range(DATES - 1, rows):
        for i in range(n):
            v = x[begin + k, column[i]] if begin + k >= 0 else np.nan
            known = v - v == 0.0
            count[i] += 1.0 if known else 0.0
            origin[i] += v if known else 0.0
    for i in range(n):
        origin[i] /= max(count[i], 1.0)
    for k in range(DATES - 1, rows):
        for i in range(n):
            d = (x[begin + k, column[i]] if begin + k >= 0 else np.nan) - origin[i]
            unit[i] += d * d if d - d == 0.0 else 0.0
    for i in range(n):
        sd = np.sqrt(unit[i] / max(count[i], 1.0))
        unit[i] = 1.0 / sd if sd > EPS else 1.0
    for k in range(depth):
        u = begin + k
        for i in range(n):
            v = x[u, column[i]] if 0 <= u < x.shape[0] else np.nan
            known = v - v == 0.0
            z[k, i] = (v - origin[i]) * unit[i] if known else 0.0
            square[k, i] = z[k, i] * z[k, i]
            seen[k, i] = 1.0 if known else 0.0
        for matrix in (z, square, seen):
            matrix[k, n : n + ROWS] = 0.0
    total, squares = np.empty(n), np.empty(n)
    terms[:, :, :n] = 0.0
    for d in range(DATES):
        total[:], squares[:] = 0.0, 0.0
        for k in range(d, d + rows):
            for i in range(n):
                total[i] += z[k, i]
                squares[i] += np.float64(z[k, i]) * np.float64(z[k, i])
        for i in range(n):
            j = column[i]
            days = held[d + rows, j] - held[d, j]
            member = first + d < x.shape[0] and members[first + d, j] and days >= min_obs
            inside[d, i], whole[d, i] = member, days == rows
            terms[_COUNT, d, i], terms[_SUM, d, i], terms[_SQUARES, d, i] = days, total[i], squares[i]
            left = squares[i] - total[i] * total[i] / max(days, 1)
            if member and left > 0.0 and np.sqrt(left / max(days - 1, 1)) > EPS * unit[i]:
                terms[_SLOPE, d, i] = 1.0 / np.sqrt(left)
                terms[_OFFSET, d, i] = total[i] / np.sqrt(days * left)
                terms[_LEAST, d, i] = LEAST_LEFT * left
    return n, plain


@njit(cache=True, nogil=True)
def _dots(a, b, i, w, rows, out, newer):  # type: ignore[no-untyped-def]
    """Sums over each date's window of a[:, i + m] b[:, j] for four columns m and the w columns j of a tile; b is [depth
    x LANES], out [4, DATES x LANES], `newer` [LANES] room to work in."""
    # One multiplication per addition: fused or not, in a vector or left over, a sum has one value.
    # Rows lie in one piece of memory at known distances, and what a loop writes is read before it: so the compiler sees
    # that no two of them overlap, and every loop runs in vectors.
    common = (DATES - 1) * LANES
    out[:, common : common + LANES] = ZERO
    o0, o1, o2, o3 = out[0, common:], out[1, common:], out[2, common:], out[3, common:]
    k = DATES - 1
    while k + 4 <= rows:
        p0, p1, p2, p3 = a[k, i], a[k + 1, i], a[k + 2, i], a[k + 3, i]
        q0, q1, q2, q3 = a[k, i + 1], a[k + 1, i + 1], a[k + 2, i + 1], a[k + 3, i + 1]
        r0, r1, r2, r3 = a[k, i + 2], a[k + 1, i + 2], a[k + 2, i + 2], a[k + 3, i + 2]
        s0, s1, s2, s3 = a[k, i + 3], a[k + 1, i + 3], a[k + 2, i + 3], a[k + 3, i + 3]
        row = b[k * LANES :]
        for j in range(w):
            x0, x1, x2, x3 = row[j], row[LANES + j], row[2 * LANES + j], row[3 * LANES + j]
            o0[j] = (((o0[j] + p0 * x0) + p1 * x1) + p2 * x2) + p3 * x3
            o1[j] = (((o1[j] + q0 * x0) + q1 * x1) + q2 * x2) + q3 * x3
            o2[j] = (((o2[j] + r0 * x0) + r1 * x1) + r2 * x2) + r3 * x3
            o3[j] = (((o3[j] + s0 * x0) + s1 * x1) + s2 * x2) + s3 * x3
        k += 4
    while k < rows:
        p0, q0, r0, s0 = a[k, i], a[k, i + 1], a[k, i + 2], a[k, i + 3]
        row = b[k * LANES :]
        for j in range(w):
            o0[j] += p0 * row[j]
            o1[j] += q0 * row[j]
            o2[j] += r0 * row[j]
            o3[j] += s0 * row[j]
        k += 1
    for m in range(ROWS):
        for d in range(DATES - 1 - STEP, -1, -STEP):  # the older rows, one more for each earlier date
            p0, p1, p2, p3, p4 = a[d, i + m], a[d + 1, i + m], a[d + 2, i + m], a[d + 3, i + m], a[d + 4, i + m]
            row, sums = b[d * LANES :], out[m, d * LANES :]
            for j in range(w):
                x = sums[5 * LANES + j] + p4 * row[4 * LANES + j]
                sums[4 * LANES + j] = x
                x += p3 * row[3 * LANES + j]
                sums[3 * LANES + j] = x
                x += p2 * row[2 * LANES + j]
                sums[2 * LANES + j] = x
                x += p1 * row[LANES + j]
                sums[LANES + j] = x
                sums[j] = x + p0 * row[j]
        newer[:] = ZERO
        for d in range(1, DATES, STEP):
            k = rows + d - 1
            p0, p1, p2, p3, p4 = a[k, i + m], a[k + 1, i + m], a[k + 2, i + m], a[k + 3, i + m], a[k + 4, i + m]
            row, sums = b[k * LANES :], out[m, d * LANES :]
            for j in range(w):
                x0 = newer[j] + p0 * row[j]
                x1 = x0 + p1 * row[LANES + j]
                x2 = x1 + p2 * row[2 * LANES + j]
                x3 = x2 + p3 * row[3 * LANES + j]
                x4 = x3 + p4 * row[4 * LANES + j]
                s0, s1, s2, s3 = sums[j], sums[LANES + j], sums[2 * LANES + j], sums[3 * LANES + j]
                s4 = sums[4 * LANES + j]
                sums[j], sums[LANES + j], sums[2 * LANES + j], sums[3 * LANES + j] = s0 + x0, s1 + x1, s2 + x2, s3 + x3
                sums[4 * LANES + j] = s4 + x4
                newer[j] = x4


@njit(cache=True, nogil=True, error_model="numpy")
def _on_common_days(sums, m, d, i, j0, w, whole, terms, min_obs, rho):  # type: ignore[no-untyped-def]
    """Replace the correlations `rho` of stock i where a window has a hole, by those on the days both know.

    A whole window's part of the common days is the other's own days, and the other's moments there are its own.
    """
    at = d * LANES
    sxy, sx, sxx = sums[0, m, at:], sums[1, m, at:], sums[2, m, at:]
    both, sy, syy = sums[3, m, at:], sums[4, m, at:], sums[5, m, at:]
    days, total, squares = terms[_COUNT, d, j0 : j0 + w], terms[_SUM, d, j0 : j0 + w], terms[_SQUARES, d, j0 : j0 + w]
    least, others = terms[_LEAST, d, j0 : j0 + w], whole[d, j0 : j0 + w]
    mine, days_i, total_i, squares_i = whole[d, i], terms[_COUNT, d, i], terms[_SUM, d, i], terms[_SQUARES, d, i]
    least_i = terms[_LEAST, d, i]
    for j in range(w):  # every value is loaded and computed, then chosen: so the loop has no branch
        x_j, xx_j, y_j, yy_j, n_j, whole_j = sx[j], sxx[j], sy[j], syy[j], both[j], others[j]
        own_n, own_y, own_yy, on_all = days[j], total[j], squares[j], rho[j]
        n = own_n if mine else (days_i if whole_j else n_j)
        x, xx = (total_i if whole_j else x_j), (squares_i if whole_j else xx_j)
        y, yy = (own_y if mine else y_j), (own_yy if mine else yy_j)
        vx, vy = xx - x * x / n, yy - y * y / n
        known = (n >= min_obs) & (least_i > ZERO) & (least[j] > ZERO) & (vx > least_i) & (vy > least[j])
        on_common = (sxy[j] - x * y / n) / np.sqrt(max(vx * vy, TINY))
        rho[j] = on_all if mine and whole_j else (on_common if known else ZERO)


@njit(cache=True, nogil=True)
def _offer(best, floor, i, rho, column, least):  # type: ignore[no-untyped-def]
    """Keep the column among the k best of i. A place holds correlation and column in one number, the larger the better:
    between equal correlations the lower column stays. An empty place is 0."""
    place = (np.uint64(np.float32(rho).view(np.uint32)) << _COLUMN_BITS) | (_LAST_COLUMN - np.uint64(column))
    for a in range(len(best)):
        kept = best[a]
        best[a] = max(kept, place)
        place = min(kept, place)
    floor[i] = max(least, _rho(best[-1]))


@njit(cache=True, nogil=True, inline="always")
def _rho(place):  # type: ignore[no-untyped-def]
    return np.uint32(place >> _COLUMN_BITS).view(np.float32)


@njit(cache=True, nogil=True, inline="always")
def _column(place):  # type: ignore[no-untyped-def]
    return np.int64(_LAST_COLUMN - (place & _LAST_COLUMN))


@njit(cache=True, nogil=True)
def _correlations(products, slope, offset, floor, slopes, offsets, floors, i, w, rho, above):  # type: ignore[no-untyped-def]
    """Correlations of stock i with the w of a tile from their products, as if all windows were whole; and by how much
    each is `above` the lower of the two floors, on the date when it is most."""
    above[:] = -ONE
    for d in range(0, DATES, 4):
        a0, a1, a2, a3 = slope[d, i], slope[d + 1, i], slope[d + 2, i], slope[d + 3, i]
        b0, b1, b2, b3 = offset[d, i], offset[d + 1, i], offset[d + 2, i], offset[d + 3, i]
        m0, m1, m2, m3 = floor[d, i], floor[d + 1, i], floor[d + 2, i], floor[d + 3, i]
        first = d * LANES
        x, s, o, enter, found = products[first:], slopes[first:], offsets[first:], floors[first:], rho[first:]
        for j in range(w):
            r0 = x[j] * (a0 * s[j]) - b0 * o[j]
            r1 = x[LANES + j] * (a1 * s[LANES + j]) - b1 * o[LANES + j]
            r2 = x[2 * LANES + j] * (a2 * s[2 * LANES + j]) - b2 * o[2 * LANES + j]
            r3 = x[3 * LANES + j] * (a3 * s[3 * LANES + j]) - b3 * o[3 * LANES + j]
            e0, e1, e2, e3 = enter[j], enter[LANES + j], enter[2 * LANES + j], enter[3 * LANES + j]
            most = above[j]
            x0 = r0 - (e0 if e0 < m0 else m0)
            x1 = r1 - (e1 if e1 < m1 else m1)
            x2 = r2 - (e2 if e2 < m2 else m2)
            x3 = r3 - (e3 if e3 < m3 else m3)
            x0, x2 = (x0 if x0 > x1 else x1), (x2 if x2 > x3 else x3)
            x0 = x0 if x0 > x2 else x2
            above[j] = x0 if x0 > most else most
            found[j], found[LANES + j], found[2 * LANES + j], found[3 * LANES + j] = r0, r1, r2, r3


@njit(cache=True, nogil=True)
def _reach(rho, floor, floors, i, w, above):  # type: ignore[no-untyped-def]
    """As the second part of `_correlations`, for those on common days."""
    above[:] = -ONE
    for d in range(DATES):
        mine, found, enter = floor[d, i], rho[d * LANES :], floors[d * LANES :]
        for j in range(w):
            e, most = enter[j], above[j]
            more = found[j] - (e if e < mine else mine)
            above[j] = more if more > most else most


@njit(cache=True, nogil=True)
def _edges(series, n, plain, rows, min_obs, least, column, whole, terms, best, floor):  # type: ignore[no-untyped-def]
    """Fill the out-edges `best` of all n stocks on each date, computing every pair once.

    `floor` is what a correlation must reach to enter a stock's list: most pairs enter neither on any date of the block
    and are passed over after one look at all of them.
    """
    depth = rows + DATES - 1
    sums, newer = np.empty((6, ROWS, DATES * LANES), np.float32), np.empty(LANES, np.float32)
    rho, above = np.empty(DATES * LANES, np.float32), np.empty(LANES, np.float32)
    tile, slopes = np.empty((3, depth * LANES), np.float32), np.empty(DATES * LANES, np.float32)
    offsets, floors = np.empty(DATES * LANES, np.float32), np.empty(DATES * LANES, np.float32)
    best[:n], floor[:, :n] = 0, least
    slope, offset = terms[_SLOPE], terms[_OFFSET]
    j0 = 0
    while j0 < n:  # the lists of these few stocks stay near the core while all before them pass by
        j1 = min(j0 + LANES, n)
        if j0 < plain < j1:
            j1 = plain
        w = j1 - j0
        # the columns of these stocks side by side in one piece of memory, row after row
        for k in range(depth):
            for s in range(3):
                tile[s, k * LANES : k * LANES + w] = series[s, k, j0:j1]
        for d in range(DATES):
            first = d * LANES
            slopes[first : first + w], offsets[first : first + w] = slope[d, j0:j1], offset[d, j0:j1]
            floors[first : first + w] = floor[d, j0:j1]
        for i0 in range(0, j1, ROWS):
            if i0 + ROWS > plain:
                last = 6
            else:
                last = 1 if j1 <= plain else 3
            for s in range(last):
                _dots(series[LEFT[s]], tile[RIGHT[s]], i0, w, rows, sums[s], newer)
            for m in range(min(ROWS, j1 - i0)):
                i = i0 + m
                _correlations(sums[0, m], slope, offset, floor, slopes, offsets, floors, i, w, rho, above)
                if last > 1:
                    for d in range(DATES):
                        _on_common_days(sums, m, d, i, j0, w, whole, terms, min_obs, rho[d * LANES :])
                    _reach(rho, floor, floors, i, w, above)
                for j in range(w):
                    if above[j] >= ZERO and j0 + j > i:  # on some date; one pair in a hundred
                        for d in range(DATES):
                            r = min(rho[d * LANES + j], ONE)
                            if r >= floor[d, i]:
                                _offer(best[i, d], floor[d], i, r, column[j0 + j], least)
                            if r >= floors[d * LANES + j]:
                                _offer(best[j0 + j, d], floor[d], j0 + j, r, column[i], least)
                                floors[d * LANES + j] = floor[d, j0 + j]
                if j0 <= i < j1:
                    for d in range(DATES):
                        floors[d * LANES + i - j0] = floor[d, i]
        j0 = j1


@njit(cache=True, nogil=True)
def _neighbours(n, best, place, peer, start, middle, ends, pointing, mark):  # type: ignore[no-untyped-def]
    """Undirected adjacency in rows: neighbours of i are ends[start[i]:start[i + 1]], each once, those above i up to
    middle[i]. `peer` [n, k] is room for whom the out-edges reach, `pointing` for as many edges as there are, `mark` for
    a number per stock."""
    k = best.shape[1]
    first = np.zeros(n + 1, np.int64)
    for i in range(n):
        for e in range(k):
            j = place[_column(best[i, e])] if best[i, e] > 0 else i
            peer[i, e] = j
            first[j + 1] += 1
    first = np.cumsum(first)
    fill = first[:n].copy()
    for i in range(n):
        for e in range(k):
            j = peer[i, e]
            pointing[fill[j]] = i
            fill[j] += 1
    mark[:n] = -1
    at = 0
    for i in range(n):  # every candidate is written and then kept or not: nobody can foresee which
        start[i] = at
        for e in range(k):
            mark[peer[i, e]] = i
        for e in range(k):
            ends[at] = peer[i, e]
            at += 1 if peer[i, e] > i else 0
        for e in range(first[i], first[i + 1]):
            ends[at] = pointing[e]
            at += 1 if (pointing[e] > i) & (mark[pointing[e]] != i) else 0
        middle[i] = at
        for e in range(k):
            ends[at] = peer[i, e]
            at += 1 if peer[i, e] < i else 0
        for e in range(first[i], first[i + 1]):
            ends[at] = pointing[e]
            at += 1 if (pointing[e] < i) & (mark[pointing[e]] != i) else 0
    start[n] = at


@njit(cache=True, nogil=True)
def _triangles(n, start, middle, ends, mark, closed):  # type: ignore[no-untyped-def]
    """How many triangles each stock is a corner of; each is found once, from its lowest corner."""
    mark[:n], closed[:n] = -1, 0
    for i in range(n):
        for e in range(start[i], middle[i]):
            mark[ends[e]] = i
        for e in range(start[i], middle[i]):
            j = ends[e]
            found = 0
            for f in range(start[j], middle[j]):
                closes = 1 if mark[ends[f]] == i else 0
                closed[ends[f]] += closes
                found += closes
            closed[i] += found
            closed[j] += found


@njit(cache=True, nogil=True)
def _graph(x, members, values, rows, min_obs, least, k, out, peers, t0, t1):  # type: ignore[no-untyped-def]
    stocks = x.shape[1]
    series = np.empty((3, rows + DATES - 1, stocks + ROWS), np.float32)
    terms, floor = np.empty((6, DATES, stocks), np.float32), np.empty((DATES, stocks), np.float32)
    inside, whole = np.empty((DATES, stocks), np.bool_), np.empty((DATES, stocks), np.bool_)
    best = np.empty((stocks, DATES, k), np.uint64)
    column, place = np.empty(stocks, np.int64), np.full(stocks, -1, np.int64)
    start, middle = np.empty(stocks + 1, np.int64), np.empty(stocks, np.int64)
    mark, closed = np.empty(stocks, np.int32), np.empty(stocks, np.int32)
    peer, pointing = np.empty((stocks, k), np.int32), np.empty(k * stocks, np.int32)
    ends = np.empty(2 * k * stocks + 1, np.int32)
    for first in range(t0, t1, DATES):
        n, plain = _gather(x, members, first, rows, min_obs, column, inside, whole, series, terms)
        for i in range(n):
            place[column[i]] = i
        _edges(series, n, plain, rows, min_obs, least, column, whole, terms, best, floor)
        for d in range(min(DATES, t1 - first)):
            _neighbours(n, best[:, d], place, peer, start, middle, ends, pointing, mark)
            _triangles(n, start, middle, ends, mark, closed)
            for i in range(n):
                if inside[d, i]:
                    _describe(first + d, column[i], best[i, d], start[i + 1] - start[i], closed[i], values, out, peers)


@njit(cache=True, nogil=True)
def _describe(t, j, best, degree, closed, values, out, peers):  # type: ignore[no-untyped-def]
    """Write the numbers of the stock in column j at row t."""
    size, strength = 0, 0.0
    for place in best:
        size += 1 if place > 0 else 0
        strength += _rho(place)
    out[0, t, j] = degree
    out[1, t, j] = strength
    if size > 0:
        out[2, t, j] = strength / size
        out[3, t, j] = _rho(best[0])
    out[4, t, j] = 2 * closed / (degree * (degree - 1.0)) if degree >= 2 else 0.0
    for s in range(values.shape[0]):
        total, weight = 0.0, 0.0
        for e in range(size):
            v = values[s, t, _column(best[e])]
            if v - v == 0.0:
                total += _rho(best[e]) * v
                weight += _rho(best[e])
        if weight > 0.0:
            peers[s, t, j] = total / weight


def correlation_graph(
    x: NDArray[np.generic], members: Mask, values: Sequence[NDArray[np.generic]], *,
    rows: int, min_obs: int, least: float, k: int,
) -> CorrelationGraph:  # fmt: skip
    """Graph of each date over its members: Pearson correlation of x, [T, N], over the last `rows` >= `DATES` rows.

    Correlations use the rows both stocks know, at least `min_obs`. Each member with `min_obs` observations of its own
    points to its `k` highest correlations of `least` or more; ties go to the lower column. `values` are [T, N] series
    to average over the peers.
    """
    if rows < DATES or min_obs < 2 or k < 1 or least <= 0:
        needed = f"{DATES}, 2, 1 and above 0"
        raise ValueError(f"rows {rows}, min_obs {min_obs}, k {k}, least {least}: a graph needs {needed}")
    dense = np.ascontiguousarray(x, np.float64)
    given = np.ascontiguousarray(np.stack([np.asarray(v, np.float64) for v in values]))
    out, peers = np.full((5, *dense.shape), np.nan), np.full(given.shape, np.nan)
    inside = np.ascontiguousarray(members, np.bool_)
    limits = (rows, np.float32(min_obs), np.float32(least), k)

    def some_dates(t0: int, t1: int) -> None:
        _graph(dense, inside, given, *limits, out, peers, t0, t1)

    in_threads(some_dates, len(dense), DATES, dense.size, shares=len(dense))  # a block is a second's part of work
    return CorrelationGraph(out[0], out[1], out[2], out[3], out[4], tuple(peers))
