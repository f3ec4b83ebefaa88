"""The panel operators against Polars window expressions on the same data, values compared: cells per second.

    python benchmarks/operators.py [stocks] [days]

Prints one JSON line per operator; see benchmarks/results/ for kept figures.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable

import numpy as np
import polars as pl

from atft_pipeline.panel.operators import cs_rank, ts_beta, ts_max, ts_mean, ts_std

REPEATS = 3


def best_seconds(work: Callable[[], object]) -> float:
    """Shortest of a few runs after one that is not counted (compilation, caches)."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main(stocks: int = 1000, days: int = 1225) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(days, stocks))
    x[rng.random(x.shape) < 0.02] = np.nan
    y = x * 0.5 + rng.normal(size=x.shape)
    everyone = np.ones(x.shape, bool)
    table = pl.DataFrame(
        {
            "code": np.tile(np.arange(stocks), days),
            "day": np.repeat(np.arange(days), stocks),
            "x": pl.Series(x.ravel()).fill_nan(None),
            "y": pl.Series(y.ravel()).fill_nan(None),
        }
    ).sort("code", "day")
    both = pl.col("x").is_not_null() & pl.col("y").is_not_null()
    xs, ys = pl.when(both).then(pl.col("x")), pl.when(both).then(pl.col("y"))

    def rolled(column: pl.Expr, n: int) -> pl.Expr:
        return column.rolling_mean(n, min_samples=2)

    pairs: dict[str, tuple[Callable[[], np.ndarray], pl.Expr]] = {
        "ts_mean_60": (lambda: ts_mean(x, 60, 45), pl.col("x").rolling_mean(60, min_samples=45).over("code")),
        "ts_std_60": (lambda: ts_std(x, 60, 45), pl.col("x").rolling_std(60, min_samples=45).over("code")),
        "ts_max_240": (lambda: ts_max(x, 240, 120), pl.col("x").rolling_max(240, min_samples=120).over("code")),
        "ts_beta_60": (
            lambda: ts_beta(y, x, 60, 2),
            (
                (rolled(xs * ys, 60) - rolled(xs, 60) * rolled(ys, 60)) / (rolled(xs * xs, 60) - rolled(xs, 60) ** 2)
            ).over("code"),
        ),
        "cs_rank": (
            lambda: cs_rank(x, everyone, 100),
            ((pl.col("x").rank("average") - 1) / (pl.col("x").count() - 1)).over("day"),
        ),
    }
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    for name, (ours, theirs) in pairs.items():
        peer = np.asarray(table.select(theirs).to_series().to_numpy()).reshape(stocks, days).T
        error = float(np.nanmax(np.abs(ours() - peer)))
        mine, other = best_seconds(ours), best_seconds(lambda expression=theirs: table.select(expression))
        figures = {
            "benchmark": name,
            "stocks": stocks,
            "days": days,
            "mcells_per_s": round(x.size / mine / 1e6, 1),
            "polars_mcells_per_s": round(x.size / other / 1e6, 1),
            "ratio": round(other / mine, 2),
            "largest_difference": error,
            "machine": machine,
        }
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
