"""Pictures of a search as PNG bytes, each small enough (50 KB) for an asset's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from atft_pipeline.evaluation.drawing import COLOURS, TEXT, figure_of, png_of, style
from atft_pipeline.search.space import SPACE

GOOD, SOFT, BAD = COLOURS["model"], COLOURS["reversal"], "#b3261e"
LINES = 8
"""Lines in the parallel coordinates: more would be neither readable nor small enough."""
SHOWN = 400
"""Trials in history and slices: the newest, and the best."""
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
    rows = sorted(results["trials"], key=lambda row: row["trial"])[-SHOWN:]
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
    done = [row for row in results["trials"] if row["outcome"] == "complete"][:SHOWN]
    best = results["best"]
    for axes, parameter in zip(panels, SPACE, strict=False):
        style(axes, parameter.name)
        axes.plot([r["params"][parameter.name] for r in done], [r["value"] for r in done], "o", ms=3, color=GOOD)
        axes.plot([best["params"][parameter.name]], [best["value"]], "o", ms=7, mfc="none", color=COLOURS["ridge"])
        if parameter.scale == "log":
            axes.set_xscale("log")
        ends = parameter.bounds  # in so small axes a decade's own labels would overlap
        axes.set_xlim(*((ends[0] * 0.8, ends[-1] * 1.25) if ends[0] > 0 else (ends[0] - 0.02, ends[-1] + 0.02)))
        axes.set_xticks(ends, [f"{end:g}" for end in ends])
        axes.minorticks_off()
    for axes in panels[len(SPACE) :]:
        axes.set_visible(False)
    figure.supylabel("objective", fontsize=9, color=TEXT)
    return png_of(figure, None)


def parallel(results: Mapping[str, Any]) -> bytes:
    """The best complete trials as lines through their parameters, scaled to their bounds; the best in orange."""
    figure, axes = figure_of(f"The best {LINES} complete trials across the parameters, the best in orange")
    done = [row for row in results["trials"] if row["outcome"] == "complete"][:LINES]
    places = np.arange(len(SPACE))
    for i in reversed(range(len(done))):  # the best drawn last
        heights = [_share(done[i]["params"][p.name], p.bounds, p.scale) for p in SPACE]
        axes.plot(places, heights, lw=1.2 if i else 2.0, color="#9bb7d4" if i else COLOURS["ridge"])
    axes.set_xticks(places, [f"{p.name}\n{p.bounds[0]:g} to {p.bounds[-1]:g}" for p in SPACE], fontsize=6.5)
    axes.set_yticks([])
    return png_of(figure, None)


def _share(value: float, bounds: tuple[float, ...], scale: str) -> float:
    low, high = bounds[0], bounds[-1]
    if scale == "linear":
        return (value - low) / (high - low)
    return float(np.log(value / low) / np.log(high / low))  # the choices double, too
