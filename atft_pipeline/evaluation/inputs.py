"""What an evaluation reads: a run's scores beside labels, masks and inputs. Here of the panel that the run was trained
on, proven to belong together; `rescoring.py` makes the same of a newer one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.dataset.training_panel import panel_dir, read_manifest
from atft_pipeline.evaluation.drift import InputRange, training_range
from atft_pipeline.lake.store import read_array, read_json
from atft_pipeline.verdict import ContractBroken

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]

PARTS = ("valid", "test")


@dataclass(frozen=True)
class EvaluationData:
    """A run's scores beside labels, masks and inputs. T dates, N stocks, H horizons, Q quantiles."""

    run_id: str
    summary: Mapping[str, Any]
    manifest: Mapping[str, Any]
    scores: Array
    """[T, N, H]"""
    quantiles: Array
    """[T, N, H, Q]"""
    x: NDArray[np.float16]
    y: Array
    """[T, N, delays, H]"""
    row_ok: Mask
    tradable: Mask
    returns: Array
    sector: NDArray[np.integer]
    """[T, N] sector33 ids, 0 for unknown."""
    dates: NDArray[np.datetime64]
    codes: NDArray[np.str_]
    uncertainty: Array | None = None
    """[2, N, H] mean and standard deviation under dropout on the newest date; None where the run has none."""
    carried: tuple[InputRange, ...] = ()
    """The inputs' ranges in training, when these dates do not hold the training part."""

    @property
    def horizons(self) -> tuple[int, ...]:
        return tuple(self.manifest["horizons"])

    @property
    def delays(self) -> tuple[int, ...]:
        return tuple(self.manifest["delays"])

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(f["name"] for f in self.manifest["features"])

    @cached_property
    def scored(self) -> Mask:
        """[T, N]: the model scored the stock and it may be traded. The one mask under which every score is compared."""
        return np.asarray(np.isfinite(self.scores).any(axis=2) & self.tradable)

    @cached_property
    def ranges(self) -> Sequence[InputRange]:
        """What the inputs were like in training, in the order of `features`."""
        return self.carried or training_range(self.x, self.row_ok, self.part("train"), self.features)

    def part(self, name: str) -> slice:
        """Date positions of train, valid or test."""
        first, end = self.manifest["split_index"][name]
        return slice(int(first), int(end))

    def labels(self, part: str, delay: int) -> Array:
        """[D, N, H] labels of the scored stocks, NaN elsewhere."""
        span = self.part(part)
        y = np.asarray(self.y[span, :, self.delays.index(delay)], dtype=np.float64)
        return np.where(self.scored[span][:, :, None], y, np.nan)


def runs_dir(lake: Path) -> Path:
    return lake / "runs"


def run_dir(lake: Path, run_id: str) -> Path:
    return runs_dir(lake) / run_id


def load_run(lake: Path, run_id: str) -> EvaluationData:
    """Map a finished run and its panel. Raises `ContractBroken` when the run was trained on another panel."""
    run = run_dir(lake, run_id)
    summary = read_json(run / "metrics_summary.json")
    manifest = read_manifest(lake)
    if summary.get("run_id") != run.resolve().name:
        raise ContractBroken(f"{run}: metrics_summary.json belongs to run {summary.get('run_id')}; train again")
    if summary.get("panel_hash") != manifest["hash"]:
        raise ContractBroken(f"run {run_id} was trained on another training panel; train on the present one first")
    scores = read_array(run / "scores.npy")
    shape = (manifest["n_dates"], manifest["n_stocks"], len(manifest["horizons"]))
    if scores.shape != shape:
        raise ContractBroken(f"{run / 'scores.npy'} has shape {scores.shape}, the panel wants {shape}; train again")
    spread = run / "uncertainty.npy"
    arrays: dict[str, Any] = {name: read_array(panel_dir(lake) / f"{name}.npy") for name in FROM_PANEL}
    return EvaluationData(
        run_id=str(summary["run_id"]),
        summary=summary,
        manifest=manifest,
        scores=scores,
        quantiles=read_array(run / "quantiles.npy"),
        uncertainty=read_array(spread)[:, -1] if spread.exists() else None,
        **arrays,
    )


FROM_PANEL = ("x", "y", "row_ok", "tradable", "returns", "sector", "dates", "codes")
