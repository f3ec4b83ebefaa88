"""The training panel, which the model reads: scaled inputs, labels at both delays, masks and ids as mapped arrays.

Built beside the old one and swapped in by a rename; `manifest.json` carries the hash of every array, so a reader can
tell a whole panel from a damaged one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.dataset.contract import (
    FORBIDDEN_INPUT,
    Contract,
    DatasetColumn,
    check_training_width,
    dataset_dir,
    verify_dataset,
)
from atft_pipeline.dataset.scaling import Statistics, require_statistics, scaled
from atft_pipeline.dataset.spine import years
from atft_pipeline.dataset.splits import Split
from atft_pipeline.lake.store import LakeError, read_json, read_table
from atft_pipeline.panel.axes import Axes
from atft_pipeline.settings import DELAYS, HORIZONS, Thresholds
from atft_pipeline.verdict import ContractBroken, Verdict

ARRAYS = ("x", "row_ok", "tradable", "y", "returns", "sector", "market", "dates", "codes")
RETURN_CHANNEL = "ret_1d"
"""The input from which the graph and the adaptive normalisation read a stock's own return."""
CHUNK = 1 << 22


@dataclass(frozen=True)
class PanelArrays:
    """What the training panel takes from the market panel; arrays [T, N] unless said otherwise."""

    axes: Axes
    row_ok: NDArray[np.bool_]
    """A usable row: listed, traded, in the universe."""
    tradable: NDArray[np.bool_]
    """`row_ok`, and not locked at a price limit, as known at the row's close."""
    y: NDArray[np.floating]
    """[T, N, delays, horizons] forward returns; NaN where not known."""
    returns: NDArray[np.floating]
    sector: NDArray[np.integer]
    market: NDArray[np.integer]

    def until(self, end: int) -> PanelArrays:
        """The first `end` dates."""
        axes = Axes(self.axes.dates[:end], self.axes.codes, self.axes.listed[:end])
        cut = {f.name: getattr(self, f.name)[:end] for f in fields(self) if f.name != "axes"}
        return PanelArrays(axes=axes, **cut)


def panel_dir(lake: Path) -> Path:
    return lake / "training_panel"


def write_training_panel(
    lake: Path,
    contract: Contract,
    arrays: PanelArrays,
    split: Split,
    statistics: Statistics,
    *,
    thresholds: Thresholds,
    selected: Sequence[str] | None = None,
    smaller_contract: str = "",
    home: Path | None = None,
) -> dict[str, Any]:
    """Scale the verified dataset and store the panel; return its manifest. The panel ends with the split's last date.

    `home` is the folder that gets training_panel/, by default the lake: each fold of a walk-forward has its own.
    `selected` names the inputs to keep (default: all of the contract's). `smaller_contract` names a contract of fewer
    than 306 columns that is wanted on purpose. Raises `ContractBroken` when the contract is too small, or the dataset
    or the statistics do not hold; the panel that was there stays then.
    """
    metadata = verify_dataset(lake, contract)
    check_training_width(contract, smaller_contract).require()
    require_statistics(statistics, str(metadata["hash"]), split, thresholds)
    columns = _inputs(contract, selected)
    place, kept = panel_dir(home or lake), arrays.until(len(split.dates))
    building = place.with_name(f".training_panel.{os.getpid()}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        _write_x(lake, building / "x.npy", columns, arrays, statistics, len(split.dates))
        _write_others(building, kept)
        made_of = {"contract": contract.name, "dataset_hash": metadata["hash"], "stats_hash": statistics.hash}
        manifest = _manifest(building, columns, kept.axes, split, made_of)
        _write_synced(building / "manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())
        _swap_in(building, place)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return manifest


def read_manifest(lake: Path) -> dict[str, Any]:
    """The stored manifest. Raises `LakeError` where there is none."""
    manifest: dict[str, Any] = read_json(panel_dir(lake) / "manifest.json")
    return manifest


def verify_training_panel(lake: Path) -> dict[str, Any]:
    """The manifest, after re-hashing every array. Raises `ContractBroken` naming the file that differs."""
    manifest = read_manifest(lake)
    if manifest["hash"] != manifest_hash(manifest):
        raise ContractBroken(f"{panel_dir(lake)}: manifest.json does not match its own hash; rebuild the panel")
    for name, wanted in manifest["files"].items():
        path = panel_dir(lake) / name
        if not path.exists() or file_hash(path) != wanted:
            raise ContractBroken(f"{path} is missing or does not match the manifest; rebuild the training panel")
    return manifest


def require_trainable(lake: Path, contract: Contract, smaller_contract: str = "") -> dict[str, Any]:
    """The manifest of a training panel that may be trained on: whole, made from the dataset that is stored now, and of
    a contract that is wide enough or named. Raises `ContractBroken` or `LakeError` with the remedy."""
    metadata = verify_dataset(lake, contract)
    check_training_width(contract, smaller_contract).require()
    manifest = verify_training_panel(lake)
    if manifest["dataset_hash"] != metadata["hash"]:
        raise ContractBroken(
            f"{panel_dir(lake)} was made from another dataset (contract {manifest.get('contract', 'unknown')!r}, "
            f"wanted {contract.name!r}); materialise normalization_stats and training_panel again"
        )
    return manifest


def check_training_panel(lake: Path) -> Verdict:
    """`verify_training_panel` as a verdict: got and want are the arrays that match the manifest."""
    want = len(ARRAYS)
    try:
        manifest = verify_training_panel(lake)
    except (ContractBroken, LakeError) as broken:
        return Verdict(False, 0, want, str(broken))
    message = f"{want} arrays match the manifest: {manifest['n_dates']} dates, {manifest['n_stocks']} stocks"
    return Verdict(True, want, want, message, {"hash": manifest["hash"], "inputs": manifest["n_features"]})


def manifest_hash(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON without `hash`; through `files` it covers every array."""
    body = {key: value for key, value in manifest.items() if key != "hash"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(CHUNK):
            found.update(piece)
    return found.hexdigest()


def _inputs(contract: Contract, selected: Sequence[str] | None) -> tuple[DatasetColumn, ...]:
    by_name = {c.name: c for c in contract.features}
    names = list(by_name) if selected is None else list(selected)
    bad = [name for name in names if name not in by_name or FORBIDDEN_INPUT.match(name)]
    if bad:
        raise ContractBroken(f"selected inputs {', '.join(bad[:8])} are not inputs of plan '{contract.plan}'")
    if RETURN_CHANNEL not in names:
        raise ContractBroken(f"the selected inputs lack {RETURN_CHANNEL}, which graph and normalisation read; add it")
    return tuple(by_name[name] for name in names)


def _write_x(
    lake: Path, path: Path, columns: Sequence[DatasetColumn], arrays: PanelArrays, statistics: Statistics, end: int
) -> None:
    """x.npy [end, N, F] float16, one year at a time."""
    fitted = {f.name: f for f in statistics.features}
    axes = arrays.axes
    shape = (end, len(axes.codes), len(columns))
    x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    for year in (y for y in years(axes) if y.first < end):
        frame = read_table(dataset_dir(lake) / f"{year.year}.parquet", [c.name for c in columns])
        where = arrays.row_ok[year.first : year.end]
        block = np.empty((*where.shape, len(columns)), dtype=np.float16)
        for i, column in enumerate(columns):
            block[:, :, i] = scaled(fitted[column.name], year.dense(frame[column.name]), where)
        if not np.isfinite(block).all():
            bad = columns[int(np.argwhere(~np.isfinite(block))[0][2])]
            raise ContractBroken(f"{bad.name} overflows float16 when scaled as {bad.kind}; declare another kind")
        x[year.first : year.end] = block[: end - year.first]
    x.flush()
    del x
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _write_others(folder: Path, arrays: PanelArrays) -> None:
    listed = arrays.axes.listed
    _save(folder / "row_ok.npy", (arrays.row_ok & listed).astype(bool))
    _save(folder / "tradable.npy", (arrays.tradable & arrays.row_ok & listed).astype(bool))
    _save(folder / "y.npy", arrays.y.astype(np.float32))
    _save(folder / "returns.npy", arrays.returns.astype(np.float32))
    _save(folder / "sector.npy", np.where(arrays.sector > 0, arrays.sector, 0).astype(np.int8))
    _save(folder / "market.npy", np.where(arrays.market > 0, arrays.market, 0).astype(np.int8))
    _save(folder / "dates.npy", arrays.axes.dates.astype("datetime64[D]"))
    _save(folder / "codes.npy", arrays.axes.codes.astype("<U5"))


def _manifest(
    folder: Path, columns: Sequence[DatasetColumn], axes: Axes, split: Split, made_of: Mapping[str, str]
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "version": 1,
        "features": [{"name": c.name, "group": c.group, "kind": c.kind, "spectral": c.spectral} for c in columns],
        "n_features": len(columns),
        "return_channel": [c.name for c in columns].index(RETURN_CHANNEL),
        "horizons": list(HORIZONS),
        "delays": list(DELAYS),
        "n_dates": len(axes.dates),
        "n_stocks": len(axes.codes),
        "split": split.as_json(),
        "split_index": split.positions(),
        **made_of,
        "files": {f"{name}.npy": file_hash(folder / f"{name}.npy") for name in ARRAYS},
    }
    return {**body, "hash": manifest_hash(body)}


def _save(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as out:
        np.save(out, array, allow_pickle=False)
        out.flush()
        os.fsync(out.fileno())


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _swap_in(new: Path, place: Path) -> None:
    """Put the finished folder in place. A kill between the two renames leaves no panel, never a mixed one."""
    old = place.with_name(f".training_panel.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    with suppress(FileNotFoundError):
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)
    descriptor = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
