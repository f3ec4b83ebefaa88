"""The panel that an earlier run is scored on: dates of the present dataset, scaled with that run's own statistics.

It has the format of a training panel, so the code that scores after training reads it, but no labels and no split:
nothing can be trained on it. Masks, returns and ids are those of the present training panel, which no statistics touch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.dataset.contract import dataset_dir
from atft_pipeline.dataset.scaling import FeatureStatistics, scaled
from atft_pipeline.dataset.training_panel import (
    ARRAYS,
    RETURN_CHANNEL,
    file_hash,
    manifest_hash,
    panel_dir,
    read_manifest,
)
from atft_pipeline.lake.store import read_array, read_table, write_array, write_json
from atft_pipeline.verdict import ContractBroken


def write_scoring_panel(
    lake: Path,
    folder: Path,
    features: Sequence[Mapping[str, Any]],
    statistics: Mapping[str, FeatureStatistics],
    span: range,
    first_position: int,
) -> dict[str, Any]:
    """Write the dates `span` (positions on the present training panel) into `folder`; returns the manifest.

    `features` are the run's inputs in its order, as its own panel's manifest lists them; `first_position` is where the
    span's first date stands on the axis of that panel, by which graphs are refreshed. Raises `ContractBroken` when the
    dataset's rows are not those of the training panel, or a value cannot be scaled.
    """
    present = read_manifest(lake)
    names = [f["name"] for f in features]
    arrays = {name: _cut(lake, name, span) for name in ARRAYS if name not in ("x", "y", "codes")}
    codes = read_array(panel_dir(lake) / "codes.npy", mmap=False)
    labels = np.zeros((len(span), len(codes), 0, len(present["horizons"])), np.float32)
    for name, array in {**arrays, "codes": codes, "y": labels}.items():
        write_array(folder / f"{name}.npy", array)
    _write_inputs(lake, folder / "x.npy", names, statistics, arrays["dates"], codes, arrays["row_ok"])
    body: dict[str, Any] = {
        "version": 1,
        "features": [dict(f) for f in features],
        "n_features": len(features),
        "return_channel": names.index(RETURN_CHANNEL),
        "horizons": present["horizons"],
        "delays": [],
        "n_dates": len(span),
        "n_stocks": len(codes),
        "first_position": first_position,
        "dataset_hash": present["dataset_hash"],
        "files": {f"{name}.npy": file_hash(folder / f"{name}.npy") for name in ARRAYS},
    }
    manifest = {**body, "hash": manifest_hash(body)}
    write_json(folder / "manifest.json", manifest)
    return manifest


def _cut(lake: Path, name: str, span: range) -> NDArray[Any]:
    return np.ascontiguousarray(read_array(panel_dir(lake) / f"{name}.npy")[span.start : span.stop])


def _write_inputs(
    lake: Path,
    path: Path,
    names: Sequence[str],
    statistics: Mapping[str, FeatureStatistics],
    dates: NDArray[np.datetime64],
    codes: NDArray[np.str_],
    row_ok: NDArray[np.bool_],
) -> None:
    """x.npy [T, N, F] float16 of the dates, a year at a time, as `write_training_panel` makes it."""
    x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(*row_ok.shape, len(names)))
    years = dates.astype("datetime64[Y]").astype(int) + 1970
    for year in np.unique(years):
        first, end = np.searchsorted(years, [year, year + 1])
        span = slice(int(first), int(end))
        frame = read_table(dataset_dir(lake) / f"{year}.parquet", ["code", "date", *names])
        frame = frame.filter(pl.col("date").is_between(dates[first].item(), dates[end - 1].item()))
        day = np.searchsorted(dates[span], frame["date"].to_numpy().astype("datetime64[D]"))
        stock = np.searchsorted(codes, frame["code"].to_numpy().astype(codes.dtype))
        _require_known(frame, dates[span], codes, day, stock)
        block = np.empty((*row_ok[span].shape, len(names)), np.float16)
        for place, name in enumerate(names):
            grid = np.full(row_ok[span].shape, np.nan)
            grid[day, stock] = frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            block[:, :, place] = scaled(statistics[name], grid, row_ok[span])
            if not np.isfinite(block[:, :, place]).all():
                raise ContractBroken(f"{name} of {year} overflows float16 with the statistics that the run carries")
        x[span] = block
    x.flush()


def _require_known(
    frame: pl.DataFrame,
    dates: NDArray[np.datetime64],
    codes: NDArray[np.str_],
    day: NDArray[np.integer],
    stock: NDArray[np.integer],
) -> None:
    """Every row of the dataset has its place on the training panel's axes, and every date has rows."""
    day, stock = np.minimum(day, len(dates) - 1), np.minimum(stock, len(codes) - 1)
    same = (dates[day] == frame["date"].to_numpy().astype("datetime64[D]")) & (codes[stock] == frame["code"].to_numpy())
    if not same.all() or len(np.unique(day)) != len(dates):
        raise ContractBroken(
            "the dataset's dates or codes are not those of the training panel; materialise training_panel again"
        )
