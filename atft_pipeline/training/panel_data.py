"""The training panel as the trainer sees it: memory-mapped arrays, verified against their manifest.

The folder is written elsewhere; here it is only read. Loading refuses damage, another width than the manifest
declares, label-like feature names, and training labels that reach into the validation part.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.training.faults import PanelError

ARRAYS = ("x", "row_ok", "tradable", "y", "returns", "sector", "market", "dates", "codes")
LABEL_LIKE = re.compile(r"^(target|feat_ret|fwd|label)_")
CHUNK = 1 << 22


@dataclass(frozen=True)
class PanelData:
    """Dates T, stocks N, features F. `x` is mapped copy-on-write, so nothing here can change the file."""

    folder: Path
    manifest: dict[str, Any]
    x: NDArray[np.float16]
    """[T, N, F] scaled features, 0 where missing."""
    row_ok: NDArray[np.bool_]
    tradable: NDArray[np.bool_]
    y: NDArray[np.float32]
    """[T, N, delays, horizons] forward returns, NaN missing."""
    returns: NDArray[np.float32]
    """[T, N] adjusted 1-day returns known at the row's close, NaN missing."""
    sector: NDArray[np.int8]
    market: NDArray[np.int8]
    dates: NDArray[np.datetime64]
    codes: NDArray[np.str_]

    @property
    def hash(self) -> str:
        return str(self.manifest["hash"])

    @property
    def n_features(self) -> int:
        return int(self.manifest["n_features"])

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f["name"] for f in self.manifest["features"])

    @property
    def feature_hash(self) -> str:
        """SHA-256 of the ordered feature names."""
        return hashlib.sha256("\n".join(self.feature_names).encode()).hexdigest()

    @property
    def spectral(self) -> tuple[int, ...]:
        """Indices of the features that adaptive normalisation may change."""
        return tuple(i for i, f in enumerate(self.manifest["features"]) if f["spectral"])

    @property
    def return_channel(self) -> int:
        return int(self.manifest["return_channel"])

    @property
    def horizons(self) -> tuple[int, ...]:
        return tuple(int(h) for h in self.manifest["horizons"])

    @property
    def delays(self) -> tuple[int, ...]:
        return tuple(int(d) for d in self.manifest["delays"])

    @property
    def first_position(self) -> int:
        """Position of the first date on the axis of the panel that the model was trained on: 0 on that panel itself."""
        return int(self.manifest.get("first_position", 0))

    def part(self, name: str) -> range:
        """Date positions of `train`, `valid` or `test`."""
        first, end = self.manifest["split_index"][name]
        return range(int(first), int(end))

    def labels(self, delay: int) -> NDArray[np.float32]:
        """[T, N, horizons] of one delay."""
        return self.y[:, :, self.delays.index(delay)]

    def windows(self, length: int, min_share: float) -> NDArray[np.bool_]:
        """[T, N]: the stock has a usable row on t and on at least `min_share` of the `length` rows up to t."""
        seen = np.cumsum(self.row_ok, axis=0, dtype=np.int32)
        seen[length:] -= seen[:-length].copy()
        enough = (seen >= np.ceil(min_share * length)) & self.row_ok
        enough[: length - 1] = False
        return enough


def load_panel(folder: Path, *, verify: bool = True) -> PanelData:
    """Map the panel in `folder`. `verify` re-reads every file against the manifest's hashes. Raises `PanelError`."""
    path = folder / "manifest.json"
    if not path.exists():
        raise PanelError(f"{path} is missing: materialise the training_panel asset first")
    manifest = json.loads(path.read_text())
    if verify:
        verify_files(folder, manifest)
    arrays = {name: _array(folder / f"{name}.npy") for name in ARRAYS}
    panel = PanelData(folder, manifest, **arrays)
    _check_shapes(panel)
    _check_names(panel)
    _check_label_ends(panel)
    return panel


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def manifest_hash(manifest: dict[str, Any]) -> str:
    """SHA-256 of the manifest's canonical JSON without its own `hash`; through `files` it covers every array."""
    body = {k: v for k, v in manifest.items() if k != "hash"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def verify_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Every array must have the hash that the manifest's `files` records, and the manifest its own."""
    if manifest.get("hash") != manifest_hash(manifest):
        raise PanelError(f"{folder / 'manifest.json'} does not match its own hash: rebuild the training panel")
    for name in ARRAYS:
        file = f"{name}.npy"
        if not (folder / file).exists():
            raise PanelError(f"{folder / file} is missing: rebuild the training panel")
        if file_hash(folder / file) != manifest["files"].get(file):
            raise PanelError(f"{folder / file} does not match the manifest: rebuild the training panel")


def _array(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="c")
    except (OSError, ValueError) as error:
        raise PanelError(f"{path} cannot be read ({error}): rebuild the training panel") from error


def _check_shapes(panel: PanelData) -> None:
    dates, stocks = panel.row_ok.shape
    manifest = panel.manifest
    if len(manifest["features"]) != panel.n_features or panel.x.shape[2] != panel.n_features:
        raise PanelError(
            f"feature count: manifest says {panel.n_features} and lists {len(manifest['features'])}, the array has "
            f"{panel.x.shape[2]}; a feature group went missing or was added: rebuild dataset and panel"
        )
    want = {
        "x": (dates, stocks, panel.n_features), "tradable": (dates, stocks), "returns": (dates, stocks),
        "y": (dates, stocks, len(panel.delays), len(panel.horizons)), "sector": (dates, stocks),
        "market": (dates, stocks), "dates": (dates,), "codes": (stocks,),
    }  # fmt: skip
    for name, shape in want.items():
        if getattr(panel, name).shape != shape:
            raise PanelError(f"{name}.npy has shape {getattr(panel, name).shape}, want {shape}: rebuild the panel")


def _check_names(panel: PanelData) -> None:
    names = panel.feature_names
    forbidden = [n for n in names if LABEL_LIKE.match(n)]
    if forbidden:
        raise PanelError(f"label-like columns among the inputs: {', '.join(forbidden)}; they would leak the future")
    if len(set(names)) != len(names):
        raise PanelError("the manifest names a feature twice")
    if not names[panel.return_channel].startswith("ret_1d"):
        raise PanelError(f"return_channel points at {names[panel.return_channel]!r}, want ret_1d: rebuild the panel")


def _check_label_ends(panel: PanelData) -> None:
    if not panel.delays:
        return  # written to be scored, not trained on: it has neither labels nor parts
    reach = max(panel.horizons) + max(panel.delays)
    for earlier, later in (("train", "valid"), ("valid", "test")):
        last = panel.part(earlier)[-1] + reach
        if last >= panel.part(later)[0]:
            raise PanelError(
                f"the last {earlier} label ends at date {last}, {later} starts at {panel.part(later)[0]}: the embargo "
                f"must be at least {reach} trading days"
            )
