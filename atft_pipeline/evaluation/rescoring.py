"""A run's scores on the present dataset, which was built after the run's own panel, with the statistics it carries.

Nothing is fitted. The run's inputs are read from the dataset, scaled by its own kit and scored by its own weights, in a
process of its own as training is. On dates that the run's own panel held the scores are bit-equal to those that
training stored, as long as the raw values are the same.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.dataset.scoring_panel import write_scoring_panel
from atft_pipeline.dataset.training_panel import panel_dir, read_manifest
from atft_pipeline.evaluation.drift import RECENT
from atft_pipeline.evaluation.inputs import FROM_PANEL, EvaluationData, run_dir
from atft_pipeline.evaluation.metrics import rank_ic
from atft_pipeline.evaluation.scoring_kit import ScoringKit, judge_columns, own_axes
from atft_pipeline.lake.store import read_array, read_json
from atft_pipeline.settings import Thresholds
from atft_pipeline.verdict import ContractBroken, Verdict

COMPARED = 5
"""Newest dates of the run's own panel that are scored again and held against the scores that training stored."""
EQUAL = 1e-6
GRAPH_WINDOW = 60
"""Sessions behind a date that its graph reads: `GraphRules.window`, which only torch's side may import."""


@dataclass(frozen=True)
class _Scored:
    """What the scoring process left, mapped from a folder that is about to go: dates `rows` of the present axis."""

    rows: range
    scores: NDArray[np.float32]
    quantiles: NDArray[np.float32]
    uncertainty: NDArray[np.float32] | None
    x: NDArray[np.float16]

    def at(self, positions: NDArray[np.integer]) -> NDArray[np.float32]:
        """Scores [D, N, H] of positions of the present axis."""
        return np.array(self.scores[positions - self.rows.start])


def rescore_newest(lake: Path, kit: ScoringKit, thresholds: Thresholds) -> tuple[EvaluationData, Verdict]:
    """The run on the newest date of the present panel, with the dates before it that readiness looks at; and whether it
    still gives on its own panel's newest dates the scores that training stored.

    Raises `ContractBroken` when a column is missing or means something else, or the weights cannot be used.
    """
    manifest = read_manifest(lake)
    end = int(manifest["n_dates"])
    positions, stored = stored_scores(lake, kit, COMPARED)
    spans = [range(int(positions[0]), int(positions[-1]) + 1), range(end - 1, end)]
    kept = slice(end - RECENT - 1, end)
    with _scoring(lake, kit, spans, from_at_least=kept.start, uncertainty=True) as found:
        same = judge_same_scores(found.at(positions), stored, thresholds)
        inside = slice(kept.start - found.rows.start, None)
        arrays = {name: np.array(getattr(found, name)[inside]) for name in ("x", "scores", "quantiles")}
        spread = None if found.uncertainty is None else np.array(found.uncertainty[:, -1])
    arrays |= {name: _panel_array(lake, name, kept) for name in FROM_PANEL if name != "x"}
    read = {**manifest, "features": [dict(feature) for feature in kit.features], "stats_hash": kit.stats_hash}
    del read["split_index"]  # positions on the whole axis
    summary = read_json(run_dir(lake, kit.run_id) / "metrics_summary.json")
    data = EvaluationData(
        run_id=kit.run_id, summary=summary, manifest=read, uncertainty=spread, carried=kit.ranges, **arrays
    )
    return data, same


def rescored_rank_ic(lake: Path, kit: ScoringKit, span: range, delay: int) -> dict[int, NDArray[np.floating]]:
    """Horizon -> daily RankIC of the run on the dates `span` of the present panel, under that panel's labels and masks
    as an evaluation applies them."""
    manifest = read_manifest(lake)
    with _scoring(lake, kit, [span], from_at_least=span.start) as found:
        scores = found.at(np.arange(span.start, span.stop)).astype(np.float64)
    tradable = _panel_array(lake, "tradable", slice(span.start, span.stop))
    y = _panel_array(lake, "y", slice(span.start, span.stop))[:, :, manifest["delays"].index(delay)].astype(np.float64)
    y[~tradable] = np.nan
    return {h: rank_ic(scores[..., i], y[..., i]) for i, h in enumerate(manifest["horizons"])}


def stored_scores(lake: Path, kit: ScoringKit, count: int) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
    """The newest `count` dates of the run's own panel that the present one holds too: their positions on the present
    axis, and the scores [D, N, H] that training stored, NaN for codes that the run's panel did not hold.

    Raises `ContractBroken` where there is no such date: then nothing shows that the inputs mean what they meant.
    """
    dates, codes = own_axes(lake, kit.run_id)
    now, present = (_panel_array(lake, name) for name in ("dates", "codes"))
    common = _common_dates(kit.run_id, dates, now)[-count:]
    scores = read_array(run_dir(lake, kit.run_id) / "scores.npy")[np.searchsorted(dates, common)]
    _, here, there = np.intersect1d(present, codes, return_indices=True)
    placed = np.full((len(common), len(present), scores.shape[2]), np.nan)
    placed[:, here] = scores[:, there]
    return np.searchsorted(now, common), placed


def judge_same_scores(
    now: NDArray[np.floating], stored: NDArray[np.floating], thresholds: Thresholds | None = None
) -> Verdict:
    """Scores [D, N, H] now against those that training stored: the smallest rank correlation of a date and horizon.

    A corrected price moves the scores of a few stocks. A column that means something else, or statistics that are not
    the model's, move all of them.
    """
    least = (thresholds or Thresholds()).min_same_scores
    both = np.isfinite(now) & np.isfinite(stored)
    equal = float((np.abs(now - stored) <= EQUAL)[both].mean()) if both.any() else 0.0
    series = np.concatenate([rank_ic(now[..., h], stored[..., h]) for h in range(now.shape[2])])
    worst = float(np.nanmin(series)) if np.isfinite(series).any() else 0.0
    message = (
        f"on {len(now)} dates of its own panel {equal:.1%} of the scores are those that training stored (within "
        f"{EQUAL:g}); smallest rank correlation of a date {worst:.4f}"
    )
    if not worst >= least:
        message += (
            f", want {least:g}: the columns no longer mean what the model learnt. Promote a run that was trained on "
            "the present dataset"
        )
    return Verdict(worst >= least, worst, least, message, {"equal": equal})


@contextmanager
def _scoring(
    lake: Path, kit: ScoringKit, spans: Sequence[range], *, from_at_least: int, uncertainty: bool = False
) -> Iterator[_Scored]:
    """The run over the dates from what the first span needs behind it (at least from `from_at_least` on) to the last
    span's end; only the dates of the spans are scored. What is yielded lies in a folder that goes afterwards."""
    judge_columns(lake, kit).require()
    settings = _settings(lake, kit.run_id)
    window = int(settings["sequence_length"]) - 1
    behind = max(window, GRAPH_WINDOW - 1 + int(settings["graph_refresh"]) - 1)
    start = min(span.start for span in spans)
    if start < window:
        raise ContractBroken(
            f"run {kit.run_id} reads {window} dates behind a date, the present panel has {start} before "
            f"{_panel_array(lake, 'dates')[start]}: build it from an earlier start"
        )
    rows = range(max(0, min(start - behind, from_at_least)), max(span.stop for span in spans))
    folder = Path(tempfile.mkdtemp(prefix=".rescoring.", suffix=".staging", dir=lake))
    try:
        features = [{k: v for k, v in feature.items() if k != "dtype"} for feature in kit.features]
        place = _own_position(lake, kit.run_id, rows.start)
        write_scoring_panel(lake, folder / "panel", features, kit.by_name, rows, place)
        inside = [range(span.start - rows.start, span.stop - rows.start) for span in spans]
        _run_scorer(lake, kit.run_id, folder, inside, uncertainty)
        out = folder / "out"
        yield _Scored(
            rows, read_array(out / "scores.npy"), read_array(out / "quantiles.npy"),
            read_array(out / "uncertainty.npy") if (out / "uncertainty.npy").exists() else None,
            read_array(folder / "panel" / "x.npy"),
        )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_scorer(lake: Path, run_id: str, folder: Path, spans: Sequence[range], uncertainty: bool) -> None:
    """The scoring process. Raises `ContractBroken` with its last words when it refuses or fails."""
    command = [sys.executable, "-m", "atft_pipeline.training.rescoring", "--panel", str(folder / "panel")]
    command += ["--run", str(run_dir(lake, run_id)), "--out", str(folder / "out")]
    command += [part for span in spans for part in ("--span", f"{span.start}:{span.stop}")]
    done = subprocess.run(
        command + ["--uncertainty"] * uncertainty, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ContractBroken(f"run {run_id} could not score the present dataset (exit {done.returncode}): {words[-1]}")


def _own_position(lake: Path, run_id: str, position: int) -> int:
    """Where a position of the present date axis stands on the axis of the run's own panel; beyond its ends too."""
    own, now = own_axes(lake, run_id)[0], _panel_array(lake, "dates")
    newest = _common_dates(run_id, own, now)[-1]
    return int(np.searchsorted(own, newest) - np.searchsorted(now, newest)) + position


def _common_dates(run_id: str, own: NDArray[np.datetime64], now: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    common = np.intersect1d(own, now)
    if not len(common):
        raise ContractBroken(
            f"the present panel ({now[0]} to {now[-1]}) and that of run {run_id} ({own[0]} to {own[-1]}) have no date "
            "in common; promote a run that was trained on the present one"
        )
    return common


def _settings(lake: Path, run_id: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(read_json(run_dir(lake, run_id) / "config.json")["config"])
    return found


def _panel_array(lake: Path, name: str, span: slice = slice(None)) -> NDArray[Any]:
    """A copy of some dates of an array of the present training panel; codes have no dates."""
    return np.array(read_array(panel_dir(lake) / f"{name}.npy")[slice(None) if name == "codes" else span])
