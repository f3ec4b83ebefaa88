"""The correlation graph once more, in its plainest form, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
GRAPH_NUMBERS = ("degree", "strength", "mean", "highest", "clustering")


def plain_graph(
    x: Array,
    members: NDArray[np.bool_],
    value: Array,
    *,
    rows: int,
    min_obs: int,
    least: float,
    k: int,
    at: Iterable[int] = (),
) -> dict[str, Array]:
    """Each date from a window that is cut out, each pair by `numpy.corrcoef` on the rows both know.

    Only the dates `at`, if given.
    """
    out = {name: np.full(x.shape, np.nan) for name in (*GRAPH_NUMBERS, "peers")}
    for t in at or range(len(x)):
        window = x[max(0, t + 1 - rows) : t + 1]
        inside = [j for j in np.flatnonzero(members[t]) if np.isfinite(window[:, j]).sum() >= min_obs]
        rho: dict[int, dict[int, float]] = {j: {} for j in inside}
        whole = np.isfinite(window).all(axis=0) & (np.ptp(window, axis=0) > 0)
        of_whole = dict(zip(np.flatnonzero(whole), np.corrcoef(window[:, whole].T), strict=True))
        rank = np.cumsum(whole) - 1
        for i, j in combinations(inside, 2):
            if whole[i] and whole[j]:
                rho[i][j] = rho[j][i] = of_whole[i][rank[j]]
                continue
            both = np.isfinite(window[:, i]) & np.isfinite(window[:, j])
            a, b = window[both, i], window[both, j]
            if both.sum() >= min_obs and np.ptp(a) > 0 and np.ptp(b) > 0:
                rho[i][j] = rho[j][i] = np.corrcoef(a, b)[0, 1]
        edges = {i: sorted((-r, j) for j, r in rho[i].items() if r >= least)[:k] for i in inside}
        joined = {frozenset((i, j)) for i in inside for _, j in edges[i]}
        for i in inside:
            near = {j for j in inside if frozenset((i, j)) in joined}
            weights = {j: -r for r, j in edges[i]}
            out["degree"][t, i] = len(near)
            out["strength"][t, i] = sum(weights.values())
            pairs = [frozenset(pair) in joined for pair in combinations(near, 2)]
            out["clustering"][t, i] = np.mean(pairs) if pairs else 0.0
            if weights:
                out["mean"][t, i], out["highest"][t, i] = np.mean(list(weights.values())), max(weights.values())
            known = {j: w for j, w in weights.items() if np.isfinite(value[t, j])}
            if known:
                out["peers"][t, i] = sum(w * value[t, j] for j, w in known.items()) / sum(known.values())
    return out
