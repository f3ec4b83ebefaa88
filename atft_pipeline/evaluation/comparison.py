"""Two runs on the same dates: the daily RankIC of one minus that of the other, with an error by blocks of days.

Both are judged on the validation dates of the present panel. A run that was trained on an earlier panel is scored on
the present dataset with the statistics it carries, on dates after its own training only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from atft_pipeline.dataset.training_panel import panel_dir, read_manifest
from atft_pipeline.evaluation import metrics
from atft_pipeline.evaluation.judge import JUDGED
from atft_pipeline.evaluation.rescoring import rescored_rank_ic
from atft_pipeline.evaluation.scorecard import HEADLINE_DELAY, read_scorecard, scorecard_dir
from atft_pipeline.evaluation.scoring_kit import ScoringKit, read_kit
from atft_pipeline.lake.store import LakeError, read_array, read_json, read_record, read_table, write_table
from atft_pipeline.settings import HORIZONS

BLOCK = 20
"""Mean length of a block of the bootstrap: labels of 20 days overlap."""


@dataclass(frozen=True)
class Comparison:
    """Challenger minus champion: daily RankIC (mean over horizons) on the dates on which both were judged."""

    champion: str
    challenger: str
    refit: bool
    """The same recipe on another panel."""
    n_dates: int
    first: str
    last: str
    mean: float
    se: float
    low: float
    high: float
    rescored: bool = False
    """The champion was scored on the challenger's panel; False where both were trained on the same one."""


def compare(lake: Path, champion: str, challenger: str) -> Comparison:
    """Difference per day with a block bootstrap; never two separate means.

    Raises `LakeError` without evaluations, `ContractBroken` when a run cannot be scored on the present dataset.
    """
    panels = [read_scorecard(lake, run_id)["panel_hash"] for run_id in (champion, challenger)]
    same = panels[0] == panels[1]
    old, new = (_stored(lake, run) if same else _present(lake, run) for run in (champion, challenger))
    days = sorted(old.keys() & new.keys())
    gap = np.array([new[day] - old[day] for day in days], dtype=np.float64)
    low, high = metrics.block_bootstrap(gap, block=BLOCK)
    said = metrics.summarise_series(gap, max(HORIZONS) - 1)
    return Comparison(
        champion=champion,
        challenger=challenger,
        refit=_recipe(lake, champion) == _recipe(lake, challenger),
        n_dates=len(days),
        first=str(days[0]) if days else "",
        last=str(days[-1]) if days else "",
        mean=said["mean"],
        se=said["se"],
        low=low,
        high=high,
        rescored=not same,
    )


def told_of(c: Comparison) -> str:
    """The comparison in a sentence."""
    where = ", on the present dataset" if c.rescored else ""
    return (
        f"{c.challenger} minus {c.champion}: daily RankIC {c.mean:+.4f} (95 % {c.low:+.4f} to {c.high:+.4f}) on "
        f"{c.n_dates} common validation dates {c.first} to {c.last}{where}, delay {HEADLINE_DELAY}, mean over horizons"
    )


def _present(lake: Path, run_id: str) -> dict[Any, float]:
    """The run on the present panel's validation dates: as evaluated, if that is its own panel, else scored anew. What
    was scored is kept beside its evaluation until the panel changes."""
    present = str(read_manifest(lake)["hash"])
    if read_scorecard(lake, run_id)["panel_hash"] == present:
        return _stored(lake, run_id)
    kit, path = read_kit(lake, run_id), scorecard_dir(lake, run_id) / "rescored.parquet"
    source = {"panel_hash": present, "checkpoint_hash": kit.checkpoint_hash}
    if not _is_of(path, source):
        write_table(path, _rescored_rows(lake, kit), keys=("horizon", "date"), source=source)
    return _by_day(read_table(path))


def _rescored_rows(lake: Path, kit: ScoringKit) -> pl.DataFrame:
    """horizon, date, value: daily RankIC of the run on the present validation dates after its own training."""
    first, end = read_manifest(lake)["split_index"][JUDGED]
    dates = np.array(read_array(panel_dir(lake) / "dates.npy")).astype("datetime64[D]")
    first = max(int(first), int(np.searchsorted(dates, kit.valid_from)))
    span = range(first, max(first, int(end)))
    series = rescored_rank_ic(lake, kit, span, HEADLINE_DELAY) if span else {h: np.zeros(0) for h in kit.horizons}
    days = pl.Series("date", dates[span.start : span.stop]).cast(pl.Date)
    return pl.concat(
        pl.DataFrame([days, pl.Series("value", np.asarray(values, np.float64)).fill_nan(None)]).select(
            pl.lit(h, pl.Int32).alias("horizon"), "date", "value"
        )
        for h, values in series.items()
    )


def _is_of(path: Path, source: dict[str, str]) -> bool:
    try:
        return read_record(path).source == source
    except LakeError:
        return False


def _stored(lake: Path, run_id: str) -> dict[Any, float]:
    """The run's own evaluation, on the panel that it was trained on."""
    rows = read_table(scorecard_dir(lake, run_id) / "daily.parquet")
    return _by_day(rows.filter(model="model", measure="rank_ic", part=JUDGED, delay=HEADLINE_DELAY))


def _by_day(rows: pl.DataFrame) -> dict[date, float]:
    """Date -> mean over horizons of the daily RankIC `value`, where defined."""
    known = rows.filter(pl.col("value").is_not_null())
    wide = known.pivot("horizon", index="date", values="value").sort("date")
    series = {h: wide[str(h)].to_numpy() for h in HORIZONS if str(h) in wide.columns}
    if not series:
        return {}
    mean = metrics.weighted_mean({h: v.astype(np.float64) for h, v in series.items()})
    return {day: float(v) for day, v in zip(wide["date"].to_list(), mean, strict=True) if np.isfinite(v)}


def _recipe(lake: Path, run_id: str) -> tuple[str, ...]:
    """What decides a run besides its panel: settings and code. A run that does not say is a recipe of its own."""
    summary = read_json(lake / "runs" / run_id / "metrics_summary.json")
    known = [summary.get(name) for name in ("config_hash", "source_hash")]
    return tuple(known) if all(known) else (run_id,)
