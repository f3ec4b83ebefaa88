"""Pictures of an evaluation as PNG bytes, each small enough (50 KB) for an asset's metadata."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from atft_pipeline.evaluation.scorecard import HEADLINE_DELAY, HEADLINE_HORIZON, scorecard_dir
from atft_pipeline.lake.store import read_table

MAX_BYTES = 50_000
COLOURS = {"model": "#1f5fa8", "ridge": "#d9822b", "reversal": "#7a8794", "oracle": "#2e8b57"}
PHASE_COLOURS = ("#9bb7d4", "#6a93bf", "#3d70a8", "#1f4f86", "#0f3057")
GRID, TEXT = "#dfe4ea", "#2b3440"
SIZE = (7.2, 3.4)
DPI = 130
COLOURS_KEPT = 64


def cumulative_rank_ic(daily: pl.DataFrame, *, part: str = "test", delay: int = HEADLINE_DELAY) -> bytes:
    """Cumulative daily RankIC of each model at the headline horizon: a straight rise is a steady signal."""
    figure, axes = _figure(f"Cumulative daily RankIC, {part}, delay {delay}, horizon {HEADLINE_HORIZON} day")
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
    return _png(figure, axes)


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
            place = np.arange(len(horizons)) + (i - (len(names) - 1) / 2) * 0.19
            mean, se = _floats([c["mean"] for c in own]), _floats([c["se"] for c in own])
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
        _style(axes, f"{part}, delay {delay}")
        axes.axhline(0, color=TEXT, lw=0.8)
    panels[0].set_ylabel("mean RankIC, +-2 SE")
    return _png(figure, panels[1])


def decile_returns(card: Mapping[str, Any], *, part: str = "test", delay: int = HEADLINE_DELAY) -> bytes:
    """Mean return of each score decile at the headline horizon, in basis points."""
    figure, axes = _figure(f"Mean {HEADLINE_HORIZON}-day return by score decile, {part}, delay {delay}")
    names = [name for name in ("model", "ridge") if name in card["models"]]
    for i, name in enumerate(names):
        cell = card["models"][name][part][f"delay_{delay}"][str(HEADLINE_HORIZON)]
        values = _floats(cell["deciles"]) * 1e4
        place = np.arange(1, len(values) + 1) + (i - (len(names) - 1) / 2) * 0.38
        axes.bar(place, np.nan_to_num(values), width=0.36, color=COLOURS[name], label=name)
    axes.set_xticks(range(1, 11))
    axes.set_xlabel("decile of the score (10 = highest)")
    axes.set_ylabel("basis points")
    axes.axhline(0, color=TEXT, lw=0.8)
    return _png(figure, axes)


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
            top.errorbar(at, _floats(mean), yerr=_floats(se), fmt="o-", ms=4, lw=1.2, capsize=2, color=colour)
        bottom.plot(
            [i for i, _ in own],
            [r["train"]["total"] for _, r in own],
            "o-",
            ms=4,
            lw=1.2,
            color=colour,
            label=f"{number} {name}",
        )
    _style(top, "Validation RankIC (mean over horizons, +-1 SE) and training loss, per epoch")
    top.set_ylabel("RankIC")
    _style(bottom, "")
    bottom.set_ylabel("loss")
    bottom.set_xlabel("epoch")
    return _png(figure, bottom)


def null_share(coverage: Mapping[str, float]) -> bytes:
    """Share of missing values per feature group after warm-up."""
    figure, axes = _figure("Missing values by feature group, after warm-up")
    axes.bar(list(coverage), [100 * (1 - share) for share in coverage.values()], color=COLOURS["model"])
    axes.set_ylabel("% missing (median column)")
    return _png(figure, None)


def rows_per_date(dates: np.ndarray, rows: Sequence[int]) -> bytes:
    """Rows of the dataset per trading day: steps are listings, gaps are faults."""
    figure, axes = _figure("Dataset rows per trading day")
    axes.plot(dates.astype("datetime64[D]").tolist(), list(rows), color=COLOURS["model"], lw=1.4)
    axes.set_ylabel("rows")
    axes.set_ylim(bottom=0)
    return _png(figure, None)


def null_shares(years: Sequence[str], shares: Mapping[str, Sequence[float]]) -> bytes:
    """Share of nulls per group and year as a heat map: a dark cell in a light row is a fault."""
    figure, axes = _figure("Share of nulls by group and year")
    grid = np.array([shares[group] for group in shares], dtype=float).reshape(len(shares), len(years))
    image = axes.imshow(grid, aspect="auto", cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(years)), years)
    axes.set_yticks(range(len(shares)), list(shares), fontsize=6)
    figure.colorbar(image, ax=axes, fraction=0.03)
    return _png(figure, None)


def columns_by_build(counts: Sequence[int]) -> bytes:
    """Columns of the dataset at each build, oldest first: a step down is a group that was lost."""
    figure, axes = _figure("Columns by build")
    axes.step(range(1, len(counts) + 1), list(counts), where="mid", color=COLOURS["model"], marker="o", ms=3)
    axes.set_xlabel("build")
    axes.set_ylim(bottom=0)
    return _png(figure, None)


def input_histograms(edges: Sequence[float], counts: Mapping[str, Sequence[int]], notes: Mapping[str, str]) -> bytes:
    """One small histogram per fitted input, in fitted units; `notes` stand above each."""
    figure = Figure(figsize=(SIZE[0], 4.6), layout="constrained")
    for panel, (name, own) in zip(figure.subplots(3, 4).flat, list(counts.items())[:12], strict=False):
        panel.stairs(np.log10(np.asarray(own, float) + 1), edges, fill=True, color=COLOURS["model"])
        panel.set_title(f"{name}\n{notes.get(name, '')}", fontsize=6, color=TEXT)
        panel.tick_params(labelsize=5)
    figure.suptitle("Most clipped inputs: log10 of training values per bin, fitted units", fontsize=8, color=TEXT)
    return _png(figure, None)


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
    if (run_dir / "metrics.jsonl").exists():
        pictures["Learning curve"] = learning_curve(run_dir)
    return pictures


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    _style(axes, title)
    return figure, axes


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=TEXT)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT, labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _png(figure: Figure, legend: Axes | None) -> bytes:
    """Rendered bytes in few colours, without a time stamp; a legend only where one is asked for.

    Raises ValueError above 50 KB.
    """
    if legend is not None and legend.get_legend_handles_labels()[0]:
        legend.legend(fontsize=8, frameon=False)
    for axes in figure.axes:
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(COLOURS_KEPT)
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    data = buffer.getvalue()
    if len(data) > MAX_BYTES:
        raise ValueError(f"a picture has {len(data):,} bytes, metadata takes at most {MAX_BYTES:,}; draw fewer points")
    return data
