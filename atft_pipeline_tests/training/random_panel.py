"""A training panel of noise, of any size up to a full market's, written without holding it in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from atft_pipeline.settings import DELAYS, HORIZONS
from atft_pipeline.training.files import write_json
from atft_pipeline.training.panel_data import ARRAYS, file_hash, manifest_hash

SPECTRAL, REACH, POOL_DATES = 16, max(HORIZONS) + max(DELAYS), 32


def write_random_panel(
    folder: Path, *, train: int, stocks: int, features: int, window: int, held_out: int = 16
) -> Path:
    """A panel of noise with `train` training dates; stocks move in clusters of 20, so that graphs have edges."""
    rng = np.random.default_rng(0)
    dates = window - 1 + train + 2 * (REACH + held_out)
    folder.mkdir(parents=True, exist_ok=True)
    cluster = np.arange(stocks) // 20
    shared = rng.standard_normal((dates, cluster.max() + 1), np.float32)[:, cluster]
    returns = 0.02 * (shared + rng.standard_normal((dates, stocks), np.float32))
    row_ok = rng.random((dates, stocks)) > 0.01
    pool = rng.standard_normal((min(POOL_DATES, dates), stocks, features), np.float32).clip(-5, 5).astype(np.float16)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float16, (dates, stocks, features))
    for day in range(dates):  # days of the pool, each time with other stocks: drawing all of it would take minutes
        x[day] = np.roll(pool[day % len(pool)], day, axis=0)
        x[day][~row_ok[day]] = 0
    x.flush()
    del x
    first_valid = window - 1 + train + REACH
    parts = {
        "train": (window - 1, window - 1 + train),
        "valid": (first_valid, first_valid + held_out),
        "test": (first_valid + held_out + REACH, dates),
    }
    arrays = {
        "row_ok": row_ok, "tradable": row_ok, "returns": np.where(row_ok, returns, np.nan).astype(np.float32),
        "y": (0.02 * rng.standard_normal((dates, stocks, len(DELAYS), len(HORIZONS)), np.float32)),
        "sector": np.broadcast_to(1 + np.arange(stocks) % 33, (dates, stocks)).astype(np.int8),
        "market": np.broadcast_to(1 + np.arange(stocks) % 3, (dates, stocks)).astype(np.int8),
        "dates": np.busday_offset("2016-01-04", np.arange(dates)).astype("datetime64[D]"),
        "codes": np.array([f"{10_000 + 10 * i}" for i in range(stocks)]),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    names = ["ret_1d", *(f"noise_{i}" for i in range(1, features))]
    days = arrays["dates"]
    manifest: dict[str, Any] = {
        "version": 1, "n_features": features, "return_channel": 0, "horizons": list(HORIZONS), "delays": list(DELAYS),
        "features": [{"name": n, "group": "noise", "kind": "cross_section", "spectral": i < SPECTRAL}
                     for i, n in enumerate(names)],
        "n_dates": dates, "n_stocks": stocks, "dataset_hash": "noise", "stats_hash": "noise",
        "split": {**{k: [str(days[a]), str(days[b - 1])] for k, (a, b) in parts.items()}, "embargo_days": REACH},
        "split_index": {k: list(span) for k, span in parts.items()},
        "files": {f"{name}.npy": file_hash(folder / f"{name}.npy") for name in ARRAYS},
    }  # fmt: skip
    manifest["hash"] = manifest_hash(manifest)
    write_json(folder / "manifest.json", manifest)
    return folder
