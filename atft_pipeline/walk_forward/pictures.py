"""Pictures of a walk-forward as PNG bytes, each small enough (50 KB) for an asset's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from atft_pipeline.evaluation.drawing import COLOURS, TEXT, figure_of, floats, png_of

CUMULATIVE, DIFFERENCES, FOLDS, HORIZONS = (
    "Cumulative RankIC", "Model minus rival, cumulative", "RankIC by fold", "RankIC by horizon"
)  # fmt: skip
GAPS = ("ridge", "lightgbm")


def walk_pictures(results: Mapping[str, Any], daily: pl.DataFrame) -> dict[str, bytes]:
    """Every picture by title."""
    own = (
        daily.filter(measure="rank_ic", delay=1, horizon=1)
        .group_by("model", "fold", "date")
        .agg(pl.col("value").mean())
    )
    return {
        CUMULATIVE: cumulative(results, own),
        DIFFERENCES: differences(results, own),
        FOLDS: by_fold(results),
        HORIZONS: by_horizon(results),
    }


def cumulative(results: Mapping[str, Any], own: pl.DataFrame) -> bytes:
    """Cumulative daily 1-day RankIC of each model over the test dates of all folds."""
    figure, axes = figure_of("Cumulative daily RankIC on test dates, delay 1, horizon 1 day")
    for name, colour in COLOURS.items():
        rows = own.filter(model=name).drop_nulls("value").sort("date")
        if rows.height:
            axes.plot(rows["date"].to_list(), rows["value"].cum_sum().to_list(), color=colour, label=name, lw=1.5)
    axes.set_ylabel("sum of daily RankIC")
    _mark_folds(axes, own)
    figure.autofmt_xdate(rotation=0, ha="center")
    return png_of(figure, axes)


def differences(results: Mapping[str, Any], own: pl.DataFrame) -> bytes:
    """Cumulative daily difference of RankIC between the model and ridge, and the trees: a rise is an edge."""
    figure, axes = figure_of("Model minus rival, cumulative daily RankIC, delay 1, horizon 1 day")
    wide = own.pivot("model", index="date", values="value").sort("date")
    for name in GAPS:
        gap = (wide["model"] - wide[name]).fill_null(0.0)
        axes.plot(wide["date"].to_list(), gap.cum_sum().to_list(), color=COLOURS[name], label=f"model - {name}", lw=1.5)
    axes.set_ylabel("sum of daily differences")
    _mark_folds(axes, own)
    figure.autofmt_xdate(rotation=0, ha="center")
    return png_of(figure, axes)


def by_fold(results: Mapping[str, Any]) -> bytes:
    """Mean 1-day RankIC of each model in each fold, with 2 standard errors."""
    figure, axes = figure_of("Mean daily RankIC by fold, delay 1, horizon 1 day")
    names = [name for name in COLOURS if name in results["models"]]
    for i, name in enumerate(names):
        cells = results["models"][name]["delay_1"]["1"]["rank_ic"]["folds"]
        _dots(axes, cells, (i - (len(names) - 1) / 2) * 0.12, name)
    labels = [f"{k + 1}\n{fold['split']['test'][0]}" for k, fold in enumerate(results["folds"])]
    axes.set_xticks(np.arange(len(labels)), labels)
    axes.set_ylabel("mean RankIC, ±2 SE")
    axes.axhline(0, color=TEXT, lw=0.8)
    return png_of(figure, axes)


def by_horizon(results: Mapping[str, Any]) -> bytes:
    """Mean RankIC per horizon over all test dates, with 2 standard errors."""
    figure, axes = figure_of("Mean daily RankIC by horizon, delay 1")
    names = [name for name in COLOURS if name in results["models"]]
    horizons = [h for h in results["models"]["model"]["delay_1"] if h != "mean"]
    for i, name in enumerate(names):
        cells = [results["models"][name]["delay_1"][h]["rank_ic"]["all"] for h in horizons]
        _dots(axes, cells, (i - (len(names) - 1) / 2) * 0.12, name)
    axes.set_xticks(np.arange(len(horizons)), horizons)
    axes.set_xlabel("horizon, trading days")
    axes.set_ylabel("mean RankIC, ±2 SE")
    axes.axhline(0, color=TEXT, lw=0.8)
    return png_of(figure, axes)


def _dots(axes: Axes, cells: list[Mapping[str, Any]], shift: float, name: str) -> None:
    mean, se = floats([c["mean"] for c in cells]), floats([c["se"] for c in cells])
    place = np.arange(len(cells)) + shift
    axes.errorbar(
        place, mean, yerr=2 * np.nan_to_num(se), fmt="o", ms=4, capsize=2, lw=1.2, color=COLOURS[name], label=name
    )


def _mark_folds(axes: Axes, own: pl.DataFrame) -> None:
    """A line where a fold's test begins."""
    for day in own.group_by("fold").agg(pl.col("date").min())["date"].to_list():
        axes.axvline(day, color=TEXT, lw=0.6, ls=":")
    axes.axhline(0, color=TEXT, lw=0.8)
