"""Predictions leave here: the champion's scores of the newest date, when its verdict passed and its inputs hold.

A champion need not have been trained on the present panel: it carries what it needs to score the present dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.dataset.training_panel import read_manifest
from atft_pipeline.evaluation.champion import require_champion
from atft_pipeline.evaluation.inputs import PARTS, EvaluationData, load_run
from atft_pipeline.evaluation.judge import require_promotable
from atft_pipeline.evaluation.metrics import average_ranks
from atft_pipeline.evaluation.readiness import judge_dataset, judge_inputs, judge_readiness, require_ready
from atft_pipeline.evaluation.rescoring import rescore_newest
from atft_pipeline.evaluation.scorecard import HEADLINE_DELAY, scorecard_dir
from atft_pipeline.evaluation.scoring_kit import own_panel_hash, present_panel_is_of, read_kit
from atft_pipeline.evaluation.slices import group_neutral
from atft_pipeline.lake.store import write_json, write_table, write_table_if_changed
from atft_pipeline.settings import Thresholds
from atft_pipeline.verdict import ContractBroken, Verdict

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
KEYS = ("date", "code", "horizon")


@dataclass(frozen=True)
class Predictions:
    """What was written: whose scores, the newest date, its stocks, and where."""

    run_id: str
    date: str
    stocks: int
    rows: int
    path: Path
    history: Path
    """Scores and realised returns of validation and test, of the run on its own panel."""
    readiness: Mapping[str, Verdict]
    rescored: bool
    """The run was trained on an earlier panel and scored the present dataset with the statistics it carries."""


def champions_predictions(lake: Path, thresholds: Thresholds, now: datetime | None = None) -> Predictions:
    """`write_predictions` of the champion. Raises `ContractBroken` when there is none."""
    return write_predictions(lake, require_champion(lake), thresholds, now)


def write_predictions(lake: Path, run_id: str, thresholds: Thresholds, now: datetime | None = None) -> Predictions:
    """Store a run's predictions for the newest date of the present dataset, and its history of validation and test.

    <lake>/predictions/<date>.parquet: date, code, horizon, score, rank (1 = highest), sector_neutral_rank (of the score
    minus its sector's mean), quantiles of the return standardised within the date, mc_mean and mc_sd (Monte-Carlo
    dropout; null where the run has none), run_id, the hashes of the panel that the run was trained on and of its
    statistics, and that of the dataset which was scored. Beside it <date>.json says how the inputs were judged. `now`
    (aware) is the market's clock, None where it has none. Raises `ContractBroken` unless the run's verdict passed, the
    run can read the dataset, and the inputs are current, complete and like training; nothing is written then.
    """
    require_promotable(lake, run_id, own_panel_hash(lake, run_id))
    rescored = not present_panel_is_of(lake, run_id)
    data, readiness = _newest(lake, run_id, thresholds, now)
    where = np.isfinite(data.scores[-1]).all(axis=1) & data.tradable[-1]
    if not where.any():
        raise ContractBroken(
            f"run {run_id} has no score for a tradable stock on {data.dates[-1]}, the newest date; look at the panel's "
            "masks of that date"
        )
    require_ready(readiness, data.run_id)
    hashes = {
        "panel_hash": str(data.summary["panel_hash"]),
        "dataset_hash": str(data.manifest["dataset_hash"]),
        "stats_hash": str(data.manifest["stats_hash"]),
    }
    source = {"run_id": data.run_id, "panel_hash": hashes["panel_hash"]}
    newest = len(data.dates) - 1
    frame = _rows(data, slice(newest, newest + 1), where[None]).with_columns(_newest_columns(data, where))
    frame = frame.with_columns(pl.lit(value).alias(name) for name, value in {"run_id": data.run_id, **hashes}.items())
    path = lake / "predictions" / f"{data.dates[-1]}.parquet"
    write_table(path, frame, keys=KEYS, source=source)
    told = {"rescored": rescored, "readiness": {name: verdict.to_json() for name, verdict in readiness.items()}}
    write_json(path.with_suffix(".json"), {"run_id": data.run_id, **told, **hashes})
    history = scorecard_dir(lake, data.run_id) / "predictions_val.parquet"
    if not rescored:
        write_table_if_changed(history, _history(data), keys=KEYS, source=source)
    return Predictions(
        data.run_id, str(data.dates[-1]), int(where.sum()), frame.height, path, history, readiness, rescored
    )  # fmt: skip


def _newest(
    lake: Path, run_id: str, thresholds: Thresholds, now: datetime | None
) -> tuple[EvaluationData, dict[str, Verdict]]:
    """The run's data up to the newest date, and how its inputs are judged: as trained on its own panel, scored anew on
    a later one."""
    if present_panel_is_of(lake, run_id):
        data = load_run(lake, run_id)
        return data, judge_readiness(lake, data, thresholds, now)
    # A stale dataset is told before anything is computed from it.
    current = judge_dataset(lake, read_manifest(lake))
    require_ready({"current": current}, run_id)
    data, same = rescore_newest(lake, read_kit(lake, run_id), thresholds)
    found = judge_inputs(lake, data, thresholds, now)
    return data, {"current": current, **found, "same_scores": same}


def _newest_columns(data: EvaluationData, where: NDArray[np.bool_]) -> list[pl.Series]:
    """What only the newest date has, in the order of `_rows`: sector-neutral rank and spread under dropout."""
    newest = np.where(where[:, None], data.scores[-1], np.nan).T
    # Stocks without a known sector are a group of their own: everybody gets a rank.
    neutral = group_neutral(newest, np.broadcast_to(data.sector[-1].astype(np.int64) + 1, newest.shape))
    ranks = 1 + average_ranks(-neutral)
    unknown = np.full((2, *newest.T.shape), np.nan)
    spread = unknown if data.uncertainty is None else np.asarray(data.uncertainty, np.float64)
    return [
        pl.Series("sector_neutral_rank", ranks.T[where].ravel()),
        *(
            pl.Series(name, values[where].ravel(), dtype=pl.Float32).fill_nan(None)
            for name, values in zip(("mc_mean", "mc_sd"), spread, strict=True)
        ),
    ]


def _history(data: EvaluationData) -> pl.DataFrame:
    """Scores, quantiles and the realised delay-1 return `y` on validation and test dates."""
    frames = []
    for part in PARTS:
        span = data.part(part)
        y = data.labels(part, HEADLINE_DELAY)
        frame = _rows(data, span, data.scored[span], y)
        frames.append(frame.with_columns(pl.lit(part).alias("part"), pl.lit(data.summary.get("phase")).alias("phase")))
    return pl.concat(frames)


def _rows(
    data: EvaluationData, span: slice, where: NDArray[np.bool_], y: NDArray[np.floating] | None = None
) -> pl.DataFrame:
    """One row per (date, code, horizon) of the stocks `where` [D, N], sorted by these."""
    horizons = len(data.horizons)
    day, stock = (np.repeat(index, horizons) for index in np.nonzero(where))
    step = np.tile(np.arange(horizons), int(where.sum()))
    scores, quantiles = data.scores[span], data.quantiles[span]
    ranks = np.stack([1 + average_ranks(np.where(where, -scores[..., i], np.nan)) for i in range(horizons)], axis=2)
    columns = [
        pl.Series("date", data.dates[span][day].astype("datetime64[D]")).cast(pl.Date),
        pl.Series("code", data.codes[stock].astype(str), dtype=pl.String),
        pl.Series("horizon", np.array(data.horizons, dtype=np.int32)[step]),
        pl.Series("score", scores[day, stock, step].astype(np.float32)),
        pl.Series("rank", ranks[day, stock, step]),
        *(
            pl.Series(f"q{int(level * 100):02d}", quantiles[day, stock, step, q].astype(np.float32))
            for q, level in enumerate(QUANTILES)
        ),
    ]
    if y is not None:
        columns.append(pl.Series("y", y[day, stock, step].astype(np.float32)).fill_nan(None))
    return pl.DataFrame(columns)
