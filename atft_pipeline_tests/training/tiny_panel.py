"""A small synthetic training panel in the format that training reads, with signals planted where asked.

`linear`: three features carry the stock's future return. `lagged_peers`: the same features of the stock's cluster mates
do, which only the graph can show. With neither, the labels are noise.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.settings import DELAYS, HORIZONS
from atft_pipeline.training.files import write_array, write_json
from atft_pipeline.training.panel_data import manifest_hash

SPECTRAL = 3
NOISE = 0.02
REACH = max(HORIZONS) + max(DELAYS)


def write_tiny_panel(
    folder: Path, *, dates: int = 150, stocks: int = 40, features: int = 12, window: int = 20, seed: int = 0,
    linear: float = 0.0, lagged_peers: float = 0.0, cluster: int = 8, curved: bool = False, missing: float = 0.02,
    extra_names: dict[int, str] | None = None, leak: bool = False, carriers: tuple[int, ...] = (5, 6, 7),
) -> Path:  # fmt: skip
    """Write the panel folder and return it.

    `linear` and `lagged_peers` are the planted part's size in units of the noise of a day's return. `curved` plants the
    features' sizes instead of their values, which no linear map sees. `leak` puts the delay-1 1-day label into
    feature 5. `carriers`: the features that carry what is planted.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(dates, stocks, features)).astype(np.float32)
    returns = _returns(rng, x[..., list(carriers)], linear, lagged_peers, cluster, curved)
    x[:, :, 0] = _cross_section(returns)  # ret_1d
    row_ok = rng.random((dates, stocks)) >= missing
    row_ok[: dates // 3, -2:] = False  # two late listings
    row_ok[dates // 2 :, 0] = False  # one delisting
    y = labels(np.where(row_ok, returns, np.nan))
    if leak:
        x[:, :, 5] = np.nan_to_num(_cross_section(y[:, :, 1, 0]))
    x[~row_ok] = 0
    sector = np.broadcast_to(1 + np.arange(stocks) % 5, (dates, stocks))  # cuts across the clusters
    arrays: dict[str, NDArray[Any]] = {
        "x": x.astype(np.float16),
        "row_ok": row_ok,
        "tradable": row_ok & (rng.random((dates, stocks)) > 0.02),
        "y": y.astype(np.float32),
        "returns": np.where(row_ok, returns, np.nan).astype(np.float32),
        "sector": sector.astype(np.int8),
        "market": np.broadcast_to(1 + np.arange(stocks) % 2, (dates, stocks)).astype(np.int8),
        "dates": np.busday_offset("2022-01-04", np.arange(dates)).astype("datetime64[D]"),
        "codes": np.array([f"{1300 + 10 * i:04d}0" for i in range(stocks)]),
    }
    names = ["ret_1d", *(f"feature_{i}" for i in range(1, features))]
    for index, name in (extra_names or {}).items():
        names[index] = name
    write_panel(folder, arrays, names, window)
    return folder


def write_panel(folder: Path, arrays: dict[str, NDArray[Any]], names: list[str], window: int) -> None:
    """Arrays and manifest; also used by tests that change an array on purpose."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, array in arrays.items():
        write_array(folder / f"{name}.npy", array)
        buffer = io.BytesIO()
        np.save(buffer, array)
        files[f"{name}.npy"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    dates = arrays["dates"]
    split_index = _split(len(dates), window)
    manifest: dict[str, Any] = {
        "version": 1,
        "features": [
            {"name": n, "group": "tiny", "kind": "cross_section", "spectral": i < SPECTRAL} for i, n in enumerate(names)
        ],
        "n_features": len(names),
        "return_channel": 0,
        "horizons": list(HORIZONS),
        "delays": list(DELAYS),
        "n_dates": len(dates),
        "n_stocks": len(arrays["codes"]),
        "split": {
            **{part: [str(dates[a]), str(dates[b - 1])] for part, (a, b) in split_index.items()},
            "embargo_days": REACH,
        },
        "split_index": {part: list(span) for part, span in split_index.items()},
        "dataset_hash": "tiny",
        "stats_hash": "tiny",
        "files": files,
    }
    manifest["hash"] = manifest_hash(manifest)
    write_json(folder / "manifest.json", manifest)


def labels(returns: NDArray[np.floating]) -> NDArray[np.float64]:
    """[T, N, delays, horizons]: the return over (T + delay, T + delay + h], NaN where either end is missing."""
    level = np.cumprod(1 + np.nan_to_num(returns), axis=0)
    level[~np.isfinite(returns)] = np.nan
    y = np.full((*returns.shape, len(DELAYS), len(HORIZONS)), np.nan)
    for i, delay in enumerate(DELAYS):
        for j, h in enumerate(HORIZONS):
            last = len(returns) - delay - h
            if last > 0:
                y[:last, :, i, j] = level[delay + h :] / level[delay : delay + last] - 1
    return y


def _returns(
    rng: np.random.Generator, x: NDArray[np.float32], linear: float, lagged_peers: float, cluster: int, curved: bool
) -> NDArray[np.float64]:
    """Daily returns: noise, a common cluster move that makes peers correlate, and the planted parts.

    x [T, N, carriers]. What is planted on day t moves day t + 2: the first day of a delay-1 label.
    """
    dates, stocks, _ = x.shape
    groups = np.arange(stocks) // cluster
    shared = rng.normal(size=(dates, groups.max() + 1))[:, groups]
    own = rng.normal(size=(dates, stocks))
    returns = NOISE * (1.2 * shared + own) if lagged_peers else NOISE * own
    shape = (np.abs(x) - np.sqrt(2 / np.pi)) / np.sqrt(1 - 2 / np.pi) if curved else x
    signal = shape.mean(axis=-1) * np.sqrt(x.shape[-1])
    returns[2:] += NOISE * linear * signal[:-2]
    if lagged_peers:
        mean = np.stack([signal[:, groups == g].mean(axis=1) for g in range(groups.max() + 1)], axis=1)[:, groups]
        # The peers' mean without the stock itself: no feature of the stock's own shows it.
        peers = (mean * cluster - signal) / (cluster - 1) * np.sqrt(cluster - 1)
        returns[2:] += NOISE * lagged_peers * peers[:-2]
    return returns


def _cross_section(values: NDArray[np.floating]) -> NDArray[np.float32]:
    centred = values - np.nanmean(values, axis=1, keepdims=True) if np.isfinite(values).all() else _nan_centre(values)
    spread = np.sqrt(np.nanmean(np.where(np.isfinite(centred), centred, 0) ** 2, axis=1, keepdims=True))
    return (centred / np.where(spread > 0, spread, 1)).astype(np.float32)


def _nan_centre(values: NDArray[np.floating]) -> NDArray[np.floating]:
    count = np.maximum(np.isfinite(values).sum(axis=1, keepdims=True), 1)
    return values - np.nansum(values, axis=1, keepdims=True) / count


def _split(dates: int, window: int) -> dict[str, tuple[int, int]]:
    usable = dates - (window - 1) - 2 * REACH
    train, valid = round(0.6 * usable), round(0.2 * usable)
    start = window - 1
    first_valid = start + train + REACH
    return {
        "train": (start, start + train),
        "valid": (first_valid, first_valid + valid),
        "test": (first_valid + valid + REACH, dates),
    }
