"""Pictures of an evaluation as PNG bytes, each small enough (50 KB) for an asset's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from atft_pipeline.evaluation.drawing import COLOURS, SIZE, TEXT, figure_of, floats, png_of, style
from atft_pipeline.evaluation.plots_detail import detail_plots
from atft_pipeline.evaluation.scorecard import HEADLINE_DELAY, HEADLINE_HORIZON, scorecard_dir
from atft_pipeline.lake.store import read_table

PREVIEWS = ("Cumulative RankIC, validation", "RankIC by delay", "RankIC by month", "Books, test", "Learning curve")
"""Pictures that go into the asset's metadata, where each event keeps its own; the report has all of them."""
PHASE_COLOURS = ("#9bb7d4", "#6a93bf", "#3d70a8", "#1f4f86", "#0f3057")


def cumulative_rank_ic(daily: pl.DataFrame, *, part: str = "test", delay: int = HEADLINE_DELAY) -> bytes:
    """Cumulative daily RankIC of each model at the headline horizon: a straight rise is a steady signal."""
    figure, axes = figure_of(f"Cumulative daily RankIC, {part}, delay {delay}, horizon {HEADLINE_HORIZON} day")
    chosen = daily.filter(
        (pl.col("measure") == "rank_ic") & (pl.col("part") == part) & (pl.col("delay") == delay)
        & (pl.col("horizon") == HEADLINE_HORIZON)
    ).sort("date")  # fmt: skip
    for name, colour in COLOURS.items():
        own = chosen.filter(pl.col("model") == name).drop_nulls("value")
        if own.height:
            axes.plot(own["date"].to_list(), own["value"].cum_sum().to_list(), color=colour, label=name, lw=1.6)
    axes.set_ylabel("sum of daily RankIC")
    axes.axhline(0, color=TEXT, lw=0.8)
    figure.autofmt_xdate(rotation=0, ha="center")
    return png_of(figure, axes)


def ic_by_horizon(card: Mapping[str, Any], *, part: str = "test") -> bytes:
    """Mean RankIC per horizon with 2 standard errors, delays side by side."""
    figure = Figure(figsize=SIZE, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = [name for name in COLOURS if name in card["models"]]
    for axes, delay in zip(panels, (1, 0), strict=True):
        cells = card["models"]["model"][part][f"delay_{delay}"]
        horizons = [h for h in cells if h != "mean"]
        for i, name in enumerate(names):
            own = [card["models"][name][part][f"delay_{delay}"][h]["rank_ic"] for h in horizons]
            place = np.arange(len(horizons)) + (i - (len(names) - 1) / 2) * 0.13
            mean, se = floats([c["mean"] for c in own]), floats([c["se"] for c in own])
            axes.errorbar(
                place,
                mean,
                yerr=2 * np.nan_to_num(se),
                fmt="o",
                ms=4,
                capsize=2,
                lw=1.2,
                color=COLOURS[name],
                label=name,
            )
        axes.set_xticks(np.arange(len(horizons)), horizons)
        axes.set_xlabel("horizon, trading days")
        style(axes, f"{part}, delay {delay}")
        axes.axhline(0, color=TEXT, lw=0.8)
    panels[0].set_ylabel("mean RankIC, +-2 SE")
    return png_of(figure, panels[1])


def decile_returns(card: Mapping[str, Any], *, part: str = "test", delay: int = HEADLINE_DELAY) -> bytes:
    """Mean return of each score decile at the headline horizon, in basis points."""
    figure, axes = figure_of(f"Mean {HEADLINE_HORIZON}-day return by score decile, {part}, delay {delay}")
    names = [name for name in ("model", "ridge", "lightgbm") if name in card["models"]]
    for i, name in enumerate(names):
        cell = card["models"][name][part][f"delay_{delay}"][str(HEADLINE_HORIZON)]
        values = floats(cell["deciles"]) * 1e4
        place = np.arange(1, len(values) + 1) + (i - (len(names) - 1) / 2) * 0.27
        axes.bar(place, np.nan_to_num(values), width=0.25, color=COLOURS[name], label=name)
    axes.set_xticks(range(1, 11))
    axes.set_xlabel("decile of the score (10 = highest)")
    axes.set_ylabel("basis points")
    axes.axhline(0, color=TEXT, lw=0.8)
    return png_of(figure, axes)


def learning_curve(run_dir: Path) -> bytes:
    """Validation RankIC and training loss per epoch, coloured by phase."""
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines() if line.strip()]
    figure = Figure(figsize=SIZE, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    phases = sorted({(r["phase"], r["phase_name"]) for r in records})
    for k, (number, name) in enumerate(phases):
        own = [(i, r) for i, r in enumerate(records, start=1) if r["phase"] == number]
        colour = PHASE_COLOURS[k % len(PHASE_COLOURS)]
        judged = [(i, r["rank_ic"], r.get("rank_ic_se")) for i, r in own if r.get("rank_ic") is not None]
        if judged:
            at, mean, se = zip(*judged, strict=True)
            top.errorbar(at, floats(mean), yerr=floats(se), fmt="o-", ms=4, lw=1.2, capsize=2, color=colour)
        bottom.plot(
            [i for i, _ in own],
            [r["train"]["total"] for _, r in own],
            "o-",
            ms=4,
            lw=1.2,
            color=colour,
            label=f"{number} {name}",
        )
    style(top, "Validation RankIC (mean over horizons, +-1 SE) and training loss, per epoch")
    top.set_ylabel("RankIC")
    style(bottom, "")
    bottom.set_ylabel("loss")
    bottom.set_xlabel("epoch")
    return png_of(figure, bottom)


def null_share(coverage: Mapping[str, float]) -> bytes:
    """Share of missing values per feature group after warm-up."""
    figure, axes = figure_of("Missing values by feature group, after warm-up")
    axes.bar(list(coverage), [100 * (1 - share) for share in coverage.values()], color=COLOURS["model"])
    axes.set_ylabel("% missing (median column)")
    return png_of(figure, None)


def rows_per_date(dates: np.ndarray, rows: Sequence[int]) -> bytes:
    """Rows of the dataset per trading day: steps are listings, gaps are faults."""
    figure, axes = figure_of("Dataset rows per trading day")
    axes.plot(dates.astype("datetime64[D]").tolist(), list(rows), color=COLOURS["model"], lw=1.4)
    axes.set_ylabel("rows")
    axes.set_ylim(bottom=0)
    return png_of(figure, None)


def null_shares(years: Sequence[str], shares: Mapping[str, Sequence[float]]) -> bytes:
    """Share of nulls per group and year as a heat map: a dark cell in a light row is a fault."""
    figure, axes = figure_of("Share of nulls by group and year")
    grid = np.array([shares[group] for group in shares], dtype=float).reshape(len(shares), len(years))
    image = axes.imshow(grid, aspect="auto", cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(years)), years)
    axes.set_yticks(range(len(shares)), list(shares), fontsize=6)
    figure.colorbar(image, ax=axes, fraction=0.03)
    return png_of(figure, None)


def columns_by_build(counts: Sequence[int]) -> bytes:
    """Columns of the dataset at each build, oldest first: a step down is a group that was lost."""
    figure, axes = figure_of("Columns by build")
    axes.step(range(1, len(counts) + 1), list(counts), where="mid", color=COLOURS["model"], marker="o", ms=3)
    axes.set_xlabel("build")
    axes.set_ylim(bottom=0)
    return png_of(figure, None)


def input_histograms(edges: Sequence[float], counts: Mapping[str, Sequence[int]], notes: Mapping[str, str]) -> bytes:
    """One small histogram per fitted input, in fitted units; `notes` stand above each."""
    figure = Figure(figsize=(SIZE[0], 4.6), layout="constrained")
    for panel, (name, own) in zip(figure.subplots(3, 4).flat, list(counts.items())[:12], strict=False):
        panel.stairs(np.log10(np.asarray(own, float) + 1), edges, fill=True, color=COLOURS["model"])
        panel.set_title(f"{name}\n{notes.get(name, '')}", fontsize=6, color=TEXT)
        panel.tick_params(labelsize=5)
    figure.suptitle("Most clipped inputs: log10 of training values per bin, fitted units", fontsize=8, color=TEXT)
    return png_of(figure, None)


def evaluation_plots(lake: Path, card: Mapping[str, Any], run_dir: Path) -> dict[str, bytes]:
    """Every picture of a run's evaluation by title; a run without epochs on record has no learning curve."""
    daily = read_table(scorecard_dir(lake, str(card["run_id"])) / "daily.parquet")
    pictures = {
        "Cumulative RankIC, validation": cumulative_rank_ic(daily, part="valid"),
        "Cumulative RankIC, test": cumulative_rank_ic(daily, part="test"),
        "RankIC by horizon and delay, validation": ic_by_horizon(card, part="valid"),
        "RankIC by horizon and delay, test": ic_by_horizon(card, part="test"),
        "Decile returns, test": decile_returns(card),
    }
    books = read_table(scorecard_dir(lake, str(card["run_id"])) / "books.parquet")
    pictures |= detail_plots(card, daily, books)
    if (run_dir / "metrics.jsonl").exists():
        pictures["Learning curve"] = learning_curve(run_dir)
    return pictures
