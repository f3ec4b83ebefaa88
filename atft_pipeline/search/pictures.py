"""Pictures of a search as PNG bytes, each small enough (50 KB) for an asset's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from atft_pipeline.evaluation.drawing import COLOURS, TEXT, figure_of, png_of, style
from atft_pipeline.search.space import SPACE

GOOD, SOFT, BAD = COLOURS["model"], COLOURS["reversal"], "#b3261e"
HISTORY, IMPORTANCE, SLICES, PARALLEL = "History", "Importance", "Slices", "Parallel coordinates"


def search_pictures(results: Mapping[str, Any]) -> dict[str, bytes]:
    """Those that can be drawn: history always, the others where a trial is complete."""
    found = {HISTORY: history(results)}
    if results["importance"]:
        found[IMPORTANCE] = importance(results["importance"])
    if results["best"]:
        found[SLICES] = slices(results)
        found[PARALLEL] = parallel(results)
    return found


def history(results: Mapping[str, Any]) -> bytes:
    """The objective in the order of the trials, the best so far as a line; pruned ones at what they last showed."""
    figure, axes = figure_of("Objective by trial")
    rows = sorted(results["trials"], key=lambda row: row["trial"])
    done = [(r["trial"], r["value"]) for r in rows if r["outcome"] == "complete"]
    pruned = [(r["trial"], r["phases"][-1]) for r in rows if r["outcome"] == "pruned" and r["phases"]]
    failed = [r["trial"] for r in rows if r["outcome"] == "failed"]
    if done:
        x, y = np.array(done).T
        axes.plot(x, y, "o", ms=4, color=GOOD, label="complete")
        axes.step(x, np.maximum.accumulate(y), where="post", lw=1.4, color=GOOD, alpha=0.6, label="best so far")
    if pruned:
        x, y = np.array(pruned).T
        axes.plot(x, y, "o", ms=4, mfc="none", color=SOFT, label="pruned, at its last phase")
    if failed:  # they have no value: marks on the axis
        axes.plot(failed, [0.02] * len(failed), "x", ms=5, color=BAD, label="failed, no value",
                  transform=axes.get_xaxis_transform())  # fmt: skip
    axes.axhline(0, color=TEXT, lw=0.8)
    axes.set_xlabel("trial")
    axes.set_ylabel("mean RankIC - SE / 2")
    return png_of(figure, axes)


def importance(shares: Mapping[str, float]) -> bytes:
    """Bars, largest on top."""
    figure, axes = figure_of("Which parameter tells good trials from the others (PED-ANOVA)")
    names = sorted(shares, key=lambda name: shares[name])
    axes.barh(names, [shares[name] for name in names], color=GOOD, height=0.6)
    axes.grid(axis="x", color="#dfe4ea")
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share")
    return png_of(figure, None)


def slices(results: Mapping[str, Any]) -> bytes:
    """The objective of complete trials against each parameter."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    panels = figure.subplots(2, (len(SPACE) + 1) // 2, sharey=True).ravel()
    done = [row for row in results["trials"] if row["outcome"] == "complete"]
    best = results["best"]
    for axes, parameter in zip(panels, SPACE, strict=False):
        style(axes, parameter.name)
        axes.plot([r["params"][parameter.name] for r in done], [r["value"] for r in done], "o", ms=3, color=GOOD)
        axes.plot([best["params"][parameter.name]], [best["value"]], "o", ms=7, mfc="none", color=COLOURS["ridge"])
        if parameter.scale == "log":
            axes.set_xscale("log")
    for axes in panels[len(SPACE) :]:
        axes.set_visible(False)
    figure.supylabel("objective", fontsize=9, color=TEXT)
    return png_of(figure, None)


def parallel(results: Mapping[str, Any]) -> bytes:
    """Each complete trial as a line through its parameters, scaled to their bounds; darker is better."""
    figure, axes = figure_of("Complete trials across the parameters: darker is better, the best in orange")
    done = [row for row in results["trials"] if row["outcome"] == "complete"][::-1]  # the best drawn last
    places = np.arange(len(SPACE))
    for i, row in enumerate(done):
        heights = [_share(row["params"][p.name], p.bounds, p.scale) for p in SPACE]
        strength = (i + 1) / len(done)
        last = i == len(done) - 1
        axes.plot(places, heights, lw=1.8 if last else 1.1, alpha=1.0 if last else 0.15 + 0.6 * strength,
                  color=COLOURS["ridge"] if last else GOOD)  # fmt: skip
    axes.set_xticks(places, [f"{p.name}\n{p.bounds[0]:g} to {p.bounds[-1]:g}" for p in SPACE], fontsize=6.5)
    axes.set_yticks([])
    return png_of(figure, None)


def _share(value: float, bounds: tuple[float, ...], scale: str) -> float:
    low, high = bounds[0], bounds[-1]
    if scale == "linear":
        return (value - low) / (high - low)
    return float(np.log(value / low) / np.log(high / low))  # the choices double, too
