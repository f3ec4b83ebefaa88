"""A finished run's folder without training: scores of known quality, and an oracle beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.lake.store import write_array, write_json
from atft_pipeline.settings import HORIZONS
from atft_pipeline_tests.small_lake import Market

RUN = "abc123def456"
ALIVE = {"graph_grad_norm": 0.02, "gates_grad_norm": 0.01, "edges_per_date": 80.0}
PHASES = ("baseline", "adaptive norm", "graph")
ORACLE_DELAYS = (0, 1, 2, 5)


def good_scores(market: Market, noise: float = 1.0, seed: int = 5) -> NDArray[np.float64]:
    """[T, N, H]: the signal that moves the return two days later, blurred."""
    rng = np.random.default_rng(seed)
    blurred = market.signal + noise * rng.normal(size=market.signal.shape)
    blurred[~market.axes.listed] = np.nan
    return np.repeat(blurred[:, :, None], len(HORIZONS), axis=2)


def store_run(
    lake: Path,
    panel_hash: str,
    scores: NDArray[np.float64],
    liveness: dict[str, Any] | None = None,
    run_id: str = RUN,
    recipe: str = "r1",
) -> Path:
    folder = lake / "runs" / run_id
    (folder / "ckpt").mkdir(parents=True, exist_ok=True)
    (folder / "ckpt" / "final.pt").write_bytes(b"the weights of " + run_id.encode())
    write_array(folder / "scores.npy", scores.astype(np.float32))
    steps = np.array([-1.3, -0.7, 0.0, 0.7, 1.3], dtype=np.float32)
    write_array(folder / "quantiles.npy", (scores[..., None] + steps).astype(np.float32))
    spread = np.stack([scores[-1:], np.where(np.isnan(scores[-1:]), np.nan, 0.25)])
    write_array(folder / "uncertainty.npy", spread.astype(np.float32))
    write_json(
        folder / "metrics_summary.json", summary(run_id, panel_hash, ALIVE if liveness is None else liveness, recipe)
    )
    lines = [epoch_record(phase, epoch) for phase in range(3) for epoch in range(1, 4)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def summary(run_id: str, panel_hash: str, liveness: dict[str, Any], recipe: str) -> dict[str, Any]:
    found = {"start_rank_ic": 0.01, "best_rank_ic": 0.02, "best_epoch": 2, "epochs": 3, "seconds": 9}
    phases = [{"phase": k, "name": name, **found} for k, name in enumerate(PHASES)]
    return {
        "run_id": run_id, "panel_hash": panel_hash, "liveness": liveness, "phase": 2, "epoch": 2, "phases": phases,
        "n_params": 1000, "seed": 7, "preset": "demo", "config_hash": recipe, "source_hash": "s1",
    }  # fmt: skip


def epoch_record(phase: int, epoch: int) -> dict[str, Any]:
    return {
        "phase": phase, "phase_name": PHASES[phase], "epoch": epoch, "rank_ic": 0.01 * phase + 0.003 * epoch,
        "rank_ic_se": 0.006,
        "train": {"total": 2.0 - 0.2 * phase - 0.05 * epoch, "weights": {"huber": 1.0, "rank": 0.3 + 0.1 * phase}},
    }  # fmt: skip


def store_oracle(market_dir: Path, market: Market) -> None:
    """The expected return: the signal of T acts on T+2 alone, so (T+1, T+1+h] holds it and (T, T+1] does not."""
    day, stock = np.nonzero(market.axes.listed)
    strength = 0.005
    columns = {
        "date": pl.Series(market.axes.dates[day]).cast(pl.Date),
        "code": pl.Series(market.axes.codes[stock].astype(str)),
    }
    before = np.zeros_like(market.signal)
    before[1:] = market.signal[:-1]  # yesterday's signal moves tomorrow
    for delay in ORACLE_DELAYS:
        for horizon in HORIZONS:
            expected = strength * market.signal * (delay < 2 <= delay + horizon) + strength * before * (delay == 0)
            columns[f"d{delay}_h{horizon}"] = pl.Series(expected[day, stock])
    (market_dir / "oracle").mkdir(parents=True)
    pl.DataFrame(columns).write_parquet(market_dir / "oracle" / "oracle.parquet")
