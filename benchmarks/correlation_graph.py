"""The correlation graph of every date against numpy on one date, degrees compared: milliseconds of a core per date.

    python benchmarks/correlation_graph.py [stocks] [dates]

15 % of the stocks miss 3 % of their days, so that half of them take the pairwise-complete path. Prints one JSON line.
"""

from __future__ import annotations

import json
import platform
import sys
import time

import numpy as np

from atft_pipeline.panel.operators import correlation_graph

ROWS, MIN_OBS, LEAST, PEERS = 60, 45, 0.30, 10


def market(stocks: int, days: int) -> np.ndarray:
    """Residual returns of 33 sectors, with the holes."""
    rng = np.random.default_rng(0)
    x = 0.02 * (rng.normal(size=(days, stocks)) + 0.5 * rng.normal(size=(days, 33))[:, np.arange(stocks) % 33])
    x[rng.random(x.shape) < np.where(np.arange(stocks) < 0.15 * stocks, 0.03, 0)] = np.nan
    return x


def plain_degrees(window: np.ndarray) -> np.ndarray:
    """Degrees of one date, [N], from matrix products over the common days."""
    seen = np.isfinite(window).astype(float)
    x = np.nan_to_num(window)
    count, sx, sy, sxy = seen.T @ seen, x.T @ seen, seen.T @ x, x.T @ x
    sxx, syy = (x**2).T @ seen, seen.T @ x**2
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = (sxy - sx * sy / count) / np.sqrt((sxx - sx**2 / count) * (syy - sy**2 / count))
    rho[(count < MIN_OBS) | (rho < LEAST)] = -1
    np.fill_diagonal(rho, -1)
    out = np.zeros(rho.shape, bool)
    top = np.argpartition(-rho, PEERS, axis=1)[:, :PEERS]
    np.put_along_axis(out, top, np.take_along_axis(rho, top, axis=1) > 0, axis=1)
    return (out | out.T).sum(axis=1)


def main(stocks: int = 3700, dates: int = 64) -> None:
    x = market(stocks, dates + ROWS)
    members = np.ones(x.shape, bool)
    members[:ROWS] = False
    rules = {"rows": ROWS, "min_obs": MIN_OBS, "least": LEAST, "k": PEERS}
    correlation_graph(x[: ROWS + 2], members[: ROWS + 2], [x[: ROWS + 2]], **rules)  # compilation is not counted
    wall, core = time.perf_counter(), time.process_time()
    graph = correlation_graph(x, members, [x, x], **rules)
    wall, core = time.perf_counter() - wall, time.process_time() - core
    began = time.process_time()
    plain = plain_degrees(x[-ROWS:])
    peer = time.process_time() - began
    unequal = int((graph.degree[-1] != plain).sum())
    if unequal > stocks // 1000:  # float32 against float64 may turn a tie at the threshold or the tenth place
        raise SystemExit(f"{unequal} of {stocks} degrees differ from numpy's")
    line = {
        "benchmark": "correlation_graph", "stocks": stocks, "dates": dates, "wall_s": round(wall, 3),
        "core_ms_per_date": round(1e3 * core / dates, 1), "numpy_core_ms_per_date": round(1e3 * peer, 1),
        "degrees_that_differ": unequal, "machine": platform.processor() or platform.machine(),
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
