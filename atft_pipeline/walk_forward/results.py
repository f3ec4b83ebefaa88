"""What a walk-forward found: one table over all test dates, every number with its error and by fold, and its page."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.evaluation import metrics
from atft_pipeline.evaluation.out_of_sample import SCORE_KEYS
from atft_pipeline.evaluation.rivals import CONSTANT, RIVALS
from atft_pipeline.evaluation.walk_record import walks_dir
from atft_pipeline.lake.store import read_json, read_table, replacing, write_json, write_table
from atft_pipeline.settings import DELAYS, HORIZONS
from atft_pipeline.training.runs import source_hash
from atft_pipeline.walk_forward.checks import judge_walk
from atft_pipeline.walk_forward.page import render
from atft_pipeline.walk_forward.pictures import walk_pictures
from atft_pipeline.walk_forward.spec import WalkSpec

Array = NDArray[np.floating]
Series = Mapping[tuple[str, str, int, int], Array]
"""(model, measure, delay, horizon) -> one value per test date, NaN where undefined."""

MODELS = ("model", *RIVALS, CONSTANT, "oracle")


def write_results(spec: WalkSpec) -> dict[str, Any]:
    """Write scores, daily values, results.json and the page of a walk-forward whose folds are all finished."""
    for k in range(len(spec.folds)):
        rows = read_table(spec.fold(k).scores).filter(_wanted(spec))
        path = spec.path / "scores" / f"fold{k}.parquet"
        write_table(path, rows.select(pl.lit(k, dtype=pl.Int32).alias("fold"), pl.all()), keys=("fold", *SCORE_KEYS))
    daily = daily_values(spec)
    keys = ("fold", "model", "seed", "measure", "delay", "horizon", "date")
    write_table(spec.path / "daily.parquet", daily, keys=keys)
    results = collect(spec, daily)
    verdicts = judge_walk(spec, results)
    results["verdicts"] = {name: {**asdict(v), "details": dict(v.details)} for name, v in verdicts.items()}
    pictures = walk_pictures(results, daily)
    with replacing(spec.path / "page.html") as part:
        part.write_text(render(results, verdicts, pictures), encoding="utf-8")
    write_json(spec.path / "results.json", results)  # last: who finds it finds the rest
    remove_stale_folds(spec)
    return results


def daily_values(spec: WalkSpec) -> pl.DataFrame:
    """Every daily value of the folds with the fold's number, seeds that the walk-forward does not have left out."""
    found = [
        read_table(spec.fold(k).daily).filter(_wanted(spec)).select(pl.lit(k, dtype=pl.Int32).alias("fold"), pl.all())
        for k in range(len(spec.folds))
    ]
    return pl.concat(found)


def collect(spec: WalkSpec, daily: pl.DataFrame) -> dict[str, Any]:
    """The tables: `models`, `differences`, `seeds` and `folds`. Cells hold `all` dates and a list by fold."""
    fold_of, dates = _fold_of_date(spec)
    series = daily_series(daily, dates)
    names = [name for name in MODELS if (name, "rank_ic", 1, HORIZONS[0]) in series]
    return {
        "walk": spec.id,
        "market": spec.market,
        "simulated": bool(spec.market_dir),
        "dataset_hash": spec.dataset_hash,
        "recipe": spec.recipe,
        "source_hash": source_hash(),
        "preset": spec.base.preset,
        "delay": spec.base.delay,
        "settings": dict(spec.walk),
        "folds": [
            {"train_days": fold["index"]["train"][1] - fold["index"]["train"][0], "id": spec.fold_id(k),
             **{name: value for name, value in read_json(spec.fold(k).record).items() if name not in _COUNTS}}
            for k, fold in enumerate(spec.folds)
        ],
        "models": {name: _model(series, name, fold_of) for name in names},
        "seeds": {str(seed): _seed(daily, seed, dates, fold_of) for seed in spec.seeds},
        "differences": {rival: _difference(series, rival, fold_of) for rival in RIVALS},
    }  # fmt: skip


_COUNTS = ("tradable", "scored")


def daily_series(daily: pl.DataFrame, dates: NDArray[np.datetime64]) -> dict[tuple[str, str, int, int], Array]:
    """Daily values on `dates`; of a model with several seeds the mean over its seeds: what one run is worth."""
    mean = daily.group_by("model", "measure", "delay", "horizon", "date").agg(pl.col("value").mean())
    found = {}
    for key, rows in mean.group_by("model", "measure", "delay", "horizon"):
        values = np.full(len(dates), np.nan)
        place = np.searchsorted(dates, rows["date"].to_numpy().astype("datetime64[D]"))
        values[place] = rows["value"].fill_null(float("nan")).to_numpy()
        found[(str(key[0]), str(key[1]), int(str(key[2])), int(str(key[3])))] = values
    return found


def cell(values: Array, lag: int, fold_of: NDArray[np.intp]) -> dict[str, Any]:
    """Mean, Newey-West error and the rest over `all` dates, its bootstrap interval, and the same by fold."""
    return {
        "all": {**metrics.summarise_series(values, lag), "ci95": list(metrics.block_bootstrap(values))},
        "folds": [metrics.summarise_series(values[fold_of == k], lag) for k in range(int(fold_of.max()) + 1)],
    }


def _model(series: Series, name: str, fold_of: NDArray[np.intp]) -> dict[str, Any]:
    """delay -> horizon (and `mean` over horizons by 1/sqrt(h)) -> measure -> cell."""
    found: dict[str, Any] = {}
    for delay in DELAYS:
        cells: dict[str, Any] = {str(h): {} for h in HORIZONS} | {"mean": {}}
        for measure in ("rank_ic", "ic", "oracle_correlation"):
            by_horizon = {h: series[name, measure, delay, h] for h in HORIZONS if (name, measure, delay, h) in series}
            # Score and oracle both move slowly: their correlation is as persistent as a 20-day label.
            lags = {h: (max(HORIZONS) if measure == "oracle_correlation" else h) - 1 for h in by_horizon}
            for h, values in by_horizon.items():
                cells[str(h)][measure] = cell(values, lags[h], fold_of)
            if by_horizon:
                cells["mean"][measure] = cell(metrics.weighted_mean(by_horizon), max(HORIZONS) - 1, fold_of)
        found[f"delay_{delay}"] = cells
    return found


def _seed(
    daily: pl.DataFrame, seed: int, dates: NDArray[np.datetime64], fold_of: NDArray[np.intp]
) -> dict[str, Any]:  # fmt: skip
    """RankIC of one seed's models alone, 1 day and mean, at delay 1."""
    own = daily_series(daily.filter(model="model", seed=seed, measure="rank_ic"), dates)
    by_horizon = {h: own["model", "rank_ic", 1, h] for h in HORIZONS}
    return {
        "1": cell(by_horizon[1], 0, fold_of),
        "mean": cell(metrics.weighted_mean(by_horizon), max(HORIZONS) - 1, fold_of),
    }


def _difference(series: Series, rival: str, fold_of: NDArray[np.intp]) -> dict[str, Any]:
    """Model minus rival in RankIC, day by day, never two separate means."""
    found: dict[str, Any] = {}
    for delay in DELAYS:
        ours = {h: series["model", "rank_ic", delay, h] for h in HORIZONS}
        theirs = {h: series[rival, "rank_ic", delay, h] for h in HORIZONS}
        cells = {str(h): cell(ours[h] - theirs[h], h - 1, fold_of) for h in HORIZONS}
        gap = metrics.weighted_mean(ours) - metrics.weighted_mean(theirs)
        found[f"delay_{delay}"] = cells | {"mean": cell(gap, max(HORIZONS) - 1, fold_of)}
    return found


def summary_table(results: Mapping[str, Any]) -> str:
    """The headline as plain text: RankIC by model, the differences, and the same by fold."""
    lines = [f"{'':<22}{'1 day, delay 1':>20}{'mean, delay 1':>20}{'1 day, delay 0':>20}"]
    places = (("delay_1", "1"), ("delay_1", "mean"), ("delay_0", "1"))
    for name, card in results["models"].items():
        lines.append(f"{name:<22}" + "".join(f"{_pm(card[d][h]['rank_ic']['all']):>20}" for d, h in places))
    for rival, card in results["differences"].items():
        lines.append(f"{'model - ' + rival:<22}" + "".join(f"{_pm(card[d][h]['all']):>20}" for d, h in places))
    dates = [results["models"]["model"][d][h]["rank_ic"]["all"]["n_dates"] for d, h in places]
    lines.append(f"{'test dates':<22}" + "".join(f"{n:>20}" for n in dates))
    lines += ["", f"{'1 day, delay 1':<22}" + "".join(f"{f'fold {k + 1}':>20}" for k in range(len(results["folds"])))]
    for name, card in results["models"].items():
        folds = card["delay_1"]["1"]["rank_ic"]["folds"]
        lines.append(f"{name:<22}" + "".join(f"{_pm(fold):>20}" for fold in folds))
    return "\n".join(lines)


def remove_stale_folds(spec: WalkSpec) -> list[Path]:
    """Remove folds of datasets that are no longer stored: nothing can use them. Returns what was removed."""
    removed = []
    for folder in sorted((walks_dir(Path(spec.lake)) / "folds").iterdir()):
        record = folder / "manifest.json"
        if record.exists() and read_json(record)["dataset_hash"] != spec.dataset_hash:
            shutil.rmtree(folder)
            removed.append(folder)
    return removed


def _fold_of_date(spec: WalkSpec) -> tuple[NDArray[np.intp], NDArray[np.datetime64]]:
    days = [fold["test_dates"] for fold in spec.folds]
    dates = np.array([day for own in days for day in own], dtype="datetime64[D]")
    return np.repeat(np.arange(len(days)), [len(own) for own in days]), dates


def _wanted(spec: WalkSpec) -> pl.Expr:
    """Rows of this walk-forward: a fold may hold seeds of another."""
    return (pl.col("model") != "model") | pl.col("seed").is_in(list(spec.seeds))


def _pm(found: Mapping[str, Any]) -> str:
    mean, se = found["mean"], found["se"]
    if mean is None or not np.isfinite(mean):
        return "undefined"
    return f"{mean:+.4f} +- {se:.4f}" if se is not None and np.isfinite(se) else f"{mean:+.4f}"
