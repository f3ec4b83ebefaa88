"""Kernels of windows that need the order of their values: rank, quantile, and where the largest value stands.

A window is walked row by row over `BLOCK` neighbouring stocks, so the cost grows with its length; the order inside a
window depends on nothing outside it. Callers use `ts_operators`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from atft_pipeline.panel.window_operators import BLOCK


@njit(cache=True, nogil=True, error_model="numpy")
def window_rank(x, out, n, min_obs, j0, j1):  # type: ignore[no-untyped-def]
    """Average rank of the newest value among the known values of its window, divided by their number."""
    count, below, equal = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for b in range(j0, j1, BLOCK):
        w = min(BLOCK, j1 - b)
        for t in range(x.shape[0]):
            count[:], below[:], equal[:] = 0.0, 0.0, 0.0
            now = x[t, b : b + w]
            for k in range(max(0, t - n + 1), t + 1):
                row = x[k, b : b + w]
                for j in range(w):
                    known = row[j] - row[j] == 0.0
                    count[j] += 1.0 if known else 0.0
                    below[j] += 1.0 if known and row[j] < now[j] else 0.0
                    equal[j] += 1.0 if known and row[j] == now[j] else 0.0
            for j in range(w):
                known = now[j] - now[j] == 0.0 and count[j] >= min_obs
                out[t, b + j] = (below[j] + 0.5 * (equal[j] + 1.0)) / count[j] if known else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def rows_since_extreme(x, out, n, min_obs, sign, j0, j1):  # type: ignore[no-untyped-def]
    """Rows since the largest value of sign * x in the window, the oldest of equal ones."""
    count, best, place = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for b in range(j0, j1, BLOCK):
        w = min(BLOCK, j1 - b)
        for t in range(x.shape[0]):
            count[:], best[:], place[:] = 0.0, -np.inf, 0.0
            for k in range(max(0, t - n + 1), t + 1):
                row = x[k, b : b + w]
                for j in range(w):
                    v = sign * row[j]
                    known = v - v == 0.0
                    count[j] += 1.0 if known else 0.0
                    larger = known and v > best[j]
                    best[j] = v if larger else best[j]
                    place[j] = k if larger else place[j]
            for j in range(w):
                out[t, b + j] = t - place[j] if count[j] >= min_obs and count[j] > 0.0 else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def window_quantile(x, out, n, min_obs, level, j0, j1):  # type: ignore[no-untyped-def]
    """Quantile of each window's known values, linear between order statistics; the window is kept sorted."""
    ordered = np.empty(n)
    for j in range(j0, j1):
        size = 0
        for t in range(x.shape[0]):
            old = x[t - n, j] if t >= n else np.nan
            if old - old == 0.0:
                i = np.searchsorted(ordered[:size], old)
                for m in range(i, size - 1):
                    ordered[m] = ordered[m + 1]
                size -= 1
            new = x[t, j]
            if new - new == 0.0:
                i = size
                while i > 0 and ordered[i - 1] > new:
                    ordered[i] = ordered[i - 1]
                    i -= 1
                ordered[i] = new
                size += 1
            out[t, j] = np.nan
            if size >= min_obs and size > 0:
                at = level * (size - 1)
                low = int(at)
                a, b = ordered[low], ordered[min(low + 1, size - 1)]
                out[t, j] = a + (at - low) * (b - a)
