"""Predictions leave here, and only of a run whose verdict passed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.evaluation.inputs import PARTS, EvaluationData, load_run
from atft_pipeline.evaluation.judge import require_promotable
from atft_pipeline.evaluation.metrics import average_ranks
from atft_pipeline.evaluation.scorecard import HEADLINE_DELAY, scorecard_dir
from atft_pipeline.lake.store import write_table, write_table_if_changed
from atft_pipeline.verdict import ContractBroken

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
KEYS = ("date", "code", "horizon")


@dataclass(frozen=True)
class Predictions:
    """What was written: the newest date, its stocks, and where."""

    date: str
    stocks: int
    rows: int
    path: Path
    history: Path


def write_predictions(lake: Path, run_id: str) -> Predictions:
    """Store the newest date's predictions and the history of validation and test.

    <lake>/predictions/<date>.parquet: date, code, horizon, score, rank (1 = highest), quantiles of the return
    standardised within the date, run_id, panel_hash. Raises `ContractBroken` unless the run's verdict passed; nothing
    is written then.
    """
    data = load_run(lake, run_id)
    panel_hash = str(data.manifest["hash"])
    require_promotable(lake, data.run_id, panel_hash)
    newest = len(data.dates) - 1
    where = np.isfinite(data.scores[newest]).all(axis=1) & data.tradable[newest]
    if not where.any():
        raise ContractBroken(
            f"run {run_id} has no score for a tradable stock on {data.dates[newest]}, the newest date; look at the "
            "panel's masks of that date"
        )
    source = {"run_id": data.run_id, "panel_hash": panel_hash}
    frame = _rows(data, slice(newest, newest + 1), where[None])
    frame = frame.with_columns(pl.lit(data.run_id).alias("run_id"), pl.lit(panel_hash).alias("panel_hash"))
    path = lake / "predictions" / f"{data.dates[newest]}.parquet"
    write_table(path, frame, keys=KEYS, source=source)
    history = scorecard_dir(lake, data.run_id) / "predictions_val.parquet"
    write_table_if_changed(history, _history(data), keys=KEYS, source=source)
    return Predictions(str(data.dates[newest]), int(where.sum()), frame.height, path, history)


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
