"""Kernels of windows along dates: a window of n rows is put together from spans of 1, 2, 4, ... rows.

A span's summary is merged from its two halves, so a window of 240 rows costs eleven merges, not 240 additions. Which
spans a window takes depends on n alone; row t therefore depends on rows t-n+1..t and on nothing else, bit for bit. A
span keeps its newest value as the origin of its sums: a constant window has a variance of exactly zero at any price
level, and since the origin lies inside the window, no more than a factor n of precision is lost.

The inner loops run over `BLOCK` neighbouring stocks, which is contiguous memory and vectorises. Callers use
`ts_operators`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

BLOCK = 128
"""Stocks per inner loop: sixteen AVX-512 registers; what is kept of a window of 250 rows fits second-level cache."""

EPS = 1e-12
"""Denominators and standard deviations at or below this count as zero."""

SUM, PRODUCT, MIN, MAX = 0, 1, 2, 3
MEAN, VAR, SKEW, ZSCORE = 0, 1, 2, 3
COV, CORR, BETA = 0, 1, 2


@njit(cache=True, nogil=True, error_model="numpy")
def _plan(n):  # type: ignore[no-untyped-def]
    """Levels, rows kept of each, its first row in the ring, and where in the window its span ends (-1: not used)."""
    levels = 1
    while 2**levels <= n:
        levels += 1
    offset, mask, first = np.full(levels, -1), np.empty(levels, np.int64), np.empty(levels + 1, np.int64)
    place = 0
    first[0] = 0
    for k in range(levels):
        if n >> k & 1:
            offset[k] = place
            place += 2**k
        rows = 1
        while rows <= max(2**k, offset[k]):
            rows *= 2
        mask[k] = rows - 1
        first[k + 1] = first[k] + rows
    return levels, mask, first, offset


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_fold(ring, a, b, o, mode):  # type: ignore[no-untyped-def]
    """State: count, value."""
    for j in range(BLOCK):
        u, v = ring[a, BLOCK + j], ring[b, BLOCK + j]
        ring[o, j] = ring[a, j] + ring[b, j]
        if mode == SUM:
            ring[o, BLOCK + j] = u + v
        elif mode == PRODUCT:
            ring[o, BLOCK + j] = u * v
        elif mode == MIN:
            ring[o, BLOCK + j] = u if u < v else v
        else:
            ring[o, BLOCK + j] = u if u > v else v


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_moments(ring, a, b, o, mode):  # type: ignore[no-untyped-def]
    """State: count, origin p, and the sums of x - p, its square and its cube, as far as the mode needs them; b holds
    the older rows."""
    if mode == MEAN:  # a loop of its own for each: one with conditions runs at half the speed
        for j in range(BLOCK):
            na, nb, pa, pb = ring[a, j], ring[b, j], ring[a, BLOCK + j], ring[b, BLOCK + j]
            d = pb - pa if na > 0.0 and nb > 0.0 else 0.0
            ring[o, j] = na + nb
            ring[o, BLOCK + j] = pa if na > 0.0 else pb
            ring[o, 2 * BLOCK + j] = ring[a, 2 * BLOCK + j] + (ring[b, 2 * BLOCK + j] + nb * d)
    elif mode != SKEW:
        for j in range(BLOCK):
            na, nb, pa, pb = ring[a, j], ring[b, j], ring[a, BLOCK + j], ring[b, BLOCK + j]
            sb = ring[b, 2 * BLOCK + j]
            d = pb - pa if na > 0.0 and nb > 0.0 else 0.0
            shift = nb * d
            ring[o, j] = na + nb
            ring[o, BLOCK + j] = pa if na > 0.0 else pb
            ring[o, 2 * BLOCK + j] = ring[a, 2 * BLOCK + j] + (sb + shift)
            ring[o, 3 * BLOCK + j] = ring[a, 3 * BLOCK + j] + (ring[b, 3 * BLOCK + j] + d * (2.0 * sb + shift))
    else:
        for j in range(BLOCK):
            na, nb, pa, pb = ring[a, j], ring[b, j], ring[a, BLOCK + j], ring[b, BLOCK + j]
            sb, qb = ring[b, 2 * BLOCK + j], ring[b, 3 * BLOCK + j]
            d = pb - pa if na > 0.0 and nb > 0.0 else 0.0
            shift = nb * d
            ring[o, j] = na + nb
            ring[o, BLOCK + j] = pa if na > 0.0 else pb
            ring[o, 2 * BLOCK + j] = ring[a, 2 * BLOCK + j] + (sb + shift)
            ring[o, 3 * BLOCK + j] = ring[a, 3 * BLOCK + j] + (qb + d * (2.0 * sb + shift))
            cube = ring[b, 4 * BLOCK + j] + d * (3.0 * qb + d * (3.0 * sb + shift))
            ring[o, 4 * BLOCK + j] = ring[a, 4 * BLOCK + j] + cube


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_pairs(a, b, o):  # type: ignore[no-untyped-def]
    """State: count, origins px and py, sums of x - px and y - py, and of their three products."""
    for j in range(BLOCK):  # everything is read before anything is written: so the loop runs in vectors
        na, px, py, ax, ay = a[j], a[BLOCK + j], a[2 * BLOCK + j], a[3 * BLOCK + j], a[4 * BLOCK + j]
        axx, axy, ayy = a[5 * BLOCK + j], a[6 * BLOCK + j], a[7 * BLOCK + j]
        nb, qx, qy, sx, sy = b[j], b[BLOCK + j], b[2 * BLOCK + j], b[3 * BLOCK + j], b[4 * BLOCK + j]
        sxx, sxy, syy = b[5 * BLOCK + j], b[6 * BLOCK + j], b[7 * BLOCK + j]
        both = (na > 0.0) & (nb > 0.0)
        dx = qx - px if both else 0.0
        dy = qy - py if both else 0.0
        o[j] = na + nb
        o[BLOCK + j] = px if na > 0.0 else qx
        o[2 * BLOCK + j] = py if na > 0.0 else qy
        o[3 * BLOCK + j] = ax + (sx + nb * dx)
        o[4 * BLOCK + j] = ay + (sy + nb * dy)
        o[5 * BLOCK + j] = axx + (sxx + dx * (2.0 * sx + nb * dx))
        o[6 * BLOCK + j] = axy + (sxy + (dx * sy + dy * sx + nb * (dx * dy)))
        o[7 * BLOCK + j] = ayy + (syy + dy * (2.0 * sy + nb * dy))


@njit(cache=True, nogil=True, error_model="numpy")
def fold(x, out, n, min_obs, mode, j0, j1):  # type: ignore[no-untyped-def]
    """Sum, product, smallest or largest value of each window."""
    levels, mask, first, offset = _plan(n)
    neutral = np.array([0.0, 1.0, np.inf, -np.inf])[mode]
    ring = np.zeros((first[levels] + 3, 2 * BLOCK))
    empty = first[levels]
    for b in range(j0, j1, BLOCK):
        w = min(BLOCK, j1 - b)
        ring[:, :BLOCK] = 0.0
        ring[:, BLOCK:] = neutral
        for t in range(x.shape[0]):
            now, row = first[0] + (t & mask[0]), x[t, b : b + w]
            for j in range(w):
                ok = row[j] - row[j] == 0.0
                ring[now, j] = 1.0 if ok else 0.0
                ring[now, BLOCK + j] = row[j] if ok else neutral
            for k in range(levels - 1):
                back = t - 2**k
                old = first[k] + (back & mask[k]) if back >= 0 else empty
                new = first[k + 1] + (t & mask[k + 1])
                _merge_fold(ring, first[k] + (t & mask[k]), old, new, mode)
            whole = -1
            for k in range(levels):
                if offset[k] < 0:
                    continue
                back = t - offset[k]
                span = first[k] + (back & mask[k]) if back >= 0 else empty
                if whole < 0:
                    whole = span
                else:
                    target = empty + 2 if whole == empty + 1 else empty + 1
                    _merge_fold(ring, whole, span, target, mode)
                    whole = target
            for j in range(w):
                out[t, b + j] = ring[whole, BLOCK + j] if ring[whole, j] >= min_obs else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def moments(x, out, n, min_obs, mode, ddof, j0, j1):  # type: ignore[no-untyped-def]
    """Mean, variance, skewness, or the newest value's z-score in each window."""
    levels, mask, first, offset = _plan(n)
    states = 3 if mode == MEAN else (5 if mode == SKEW else 4)
    ring = np.zeros((first[levels] + 3, states * BLOCK))
    empty = first[levels]
    for b in range(j0, j1, BLOCK):
        w = min(BLOCK, j1 - b)
        ring[:] = 0.0
        for t in range(x.shape[0]):
            now, row = first[0] + (t & mask[0]), x[t, b : b + w]
            for j in range(w):
                ok = row[j] - row[j] == 0.0
                ring[now, j] = 1.0 if ok else 0.0
                ring[now, BLOCK + j] = row[j] if ok else 0.0
            for k in range(levels - 1):
                back = t - 2**k
                old = first[k] + (back & mask[k]) if back >= 0 else empty
                new = first[k + 1] + (t & mask[k + 1])
                _merge_moments(ring, first[k] + (t & mask[k]), old, new, mode)
            whole = -1
            for k in range(levels):
                if offset[k] < 0:
                    continue
                back = t - offset[k]
                span = first[k] + (back & mask[k]) if back >= 0 else empty
                if whole < 0:
                    whole = span
                else:
                    target = empty + 2 if whole == empty + 1 else empty + 1
                    _merge_moments(ring, whole, span, target, mode)
                    whole = target
            _finish_moments(ring, whole, row, out[t, b : b + w], min_obs, mode, ddof)


@njit(cache=True, nogil=True, error_model="numpy")
def _finish_moments(ring, o, row, out, min_obs, mode, ddof):  # type: ignore[no-untyped-def]
    if mode == MEAN:
        for j in range(len(out)):
            c = ring[o, j]
            y = ring[o, BLOCK + j] + ring[o, 2 * BLOCK + j] / max(c, 1.0)
            out[j] = y if c >= min_obs and c > ddof else np.nan
        return
    for j in range(len(out)):
        c, s, q = ring[o, j], ring[o, 2 * BLOCK + j], ring[o, 3 * BLOCK + j]
        mean = s / max(c, 1.0)
        m2 = max(q - s * mean, 0.0)
        enough = c >= min_obs and c > ddof
        y = np.nan
        if mode == VAR:
            y = m2 / max(c - ddof, 1.0)
        elif mode == SKEW:
            variance = m2 / max(c, 1.0)
            sd = np.sqrt(variance)
            m3 = ring[o, 4 * BLOCK + j] - mean * (3.0 * q - 2.0 * s * mean)
            y = m3 / max(c, 1.0) / (variance * sd) if sd > EPS else np.nan
        else:
            sd = np.sqrt(m2 / max(c - ddof, 1.0))
            y = -mean / sd if sd > EPS and row[j] - row[j] == 0.0 else np.nan
        out[j] = y if enough else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def co_moments(x, y, out, n, min_obs, mode, j0, j1):  # type: ignore[no-untyped-def]
    """Covariance, correlation, or slope of y on x, over the rows of each window where both are known."""
    levels, mask, first, offset = _plan(n)
    ring = np.zeros((first[levels] + 3, 8 * BLOCK))
    empty = first[levels]
    for b in range(j0, j1, BLOCK):
        w = min(BLOCK, j1 - b)
        ring[:] = 0.0
        for t in range(x.shape[0]):
            now, xr, yr = first[0] + (t & mask[0]), x[t, b : b + w], y[t, b : b + w]
            for j in range(w):
                ok = (xr[j] - xr[j]) + (yr[j] - yr[j]) == 0.0
                ring[now, j] = 1.0 if ok else 0.0
                ring[now, BLOCK + j] = xr[j] if ok else 0.0
                ring[now, 2 * BLOCK + j] = yr[j] if ok else 0.0
            for k in range(levels - 1):
                back = t - 2**k
                old = first[k] + (back & mask[k]) if back >= 0 else empty
                new = first[k + 1] + (t & mask[k + 1])
                _merge_pairs(ring[first[k] + (t & mask[k])], ring[old], ring[new])
            whole = -1
            for k in range(levels):
                if offset[k] < 0:
                    continue
                back = t - offset[k]
                span = first[k] + (back & mask[k]) if back >= 0 else empty
                if whole < 0:
                    whole = span
                else:
                    target = empty + 2 if whole == empty + 1 else empty + 1
                    _merge_pairs(ring[whole], ring[span], ring[target])
                    whole = target
            _finish_pairs(ring[whole], out[t, b : b + w], min_obs, mode)


@njit(cache=True, nogil=True, error_model="numpy")
def _finish_pairs(acc, out, min_obs, mode):  # type: ignore[no-untyped-def]
    for j in range(len(out)):
        c, sx, sy = acc[j], acc[3 * BLOCK + j], acc[4 * BLOCK + j]
        mx, my = sx / max(c, 1.0), sy / max(c, 1.0)
        sxx = max(acc[5 * BLOCK + j] - sx * mx, 0.0)
        sxy = acc[6 * BLOCK + j] - sx * my
        syy = max(acc[7 * BLOCK + j] - sy * my, 0.0)
        free = max(c - 1.0, 1.0)
        v = np.nan
        if mode == COV:
            v = sxy / free
        elif mode == CORR:
            if np.sqrt(sxx / free) > EPS and np.sqrt(syy / free) > EPS:
                v = min(1.0, max(-1.0, sxy / np.sqrt(sxx * syy)))
        elif sxx / free > EPS:
            v = sxy / sxx
        out[j] = v if c >= min_obs and c > 1.0 else np.nan
