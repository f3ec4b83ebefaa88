"""Pictures of what goes on inside a training: gates, gradients per block, and how busy the machine was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atft_pipeline.evaluation.drawing import COLOURS, SIZE, floats, png_of, style

GATES = {"alpha": "graph (alpha)", "fan_gate_abs_mean": "FAN (mean size)", "san_gate_abs_mean": "SAN (mean size)"}
BLOCKS = ("selection", "static", "temporal", "fusion", "heads", "gates", "forecasters", "graph")
BLOCK_COLOURS = ("#0f3057", "#6a93bf", "#1f5fa8", "#2e8b57", "#7a8794", "#d9822b", "#b08fc7", "#b3452c")


def gates_and_gradients(run_dir: Path) -> bytes:
    """Per epoch: the three gates (FAN's and SAN's start at 0, alpha at one half), and the median gradient norm of each
    block that trained. A block without a point was frozen; one far below the others is dying."""
    records = _records(run_dir)
    figure = Figure(figsize=SIZE, layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = np.arange(1, len(records) + 1)
    for (name, label), colour in zip(GATES.items(), ("#b3452c", "#1f5fa8", "#d9822b"), strict=True):
        left.plot(
            epochs, floats([r["model"].get(name) for r in records]), "o-", ms=3, lw=1.2, label=label, color=colour
        )
    style(left, "Gates")
    for block, colour in zip(BLOCKS, BLOCK_COLOURS, strict=True):
        norms = floats([r["model"]["grad_norm"].get(block) for r in records])
        if np.isfinite(norms).any():
            right.plot(epochs, norms, "o-", ms=3, lw=1.2, label=block, color=colour)
    style(right, "Gradient norm per block (median over steps)")
    right.set_yscale("log")
    for axes in (left, right):
        _phases(axes, records)
    left.legend(fontsize=7, frameon=False)
    return png_of(figure, right)


def utilisation(run_dir: Path) -> bytes:
    """Per epoch: windows trained per second, and how busy processor (100 % is one core) and GPU were meanwhile."""
    records = _records(run_dir)
    figure = Figure(figsize=SIZE, layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = np.arange(1, len(records) + 1)
    throughput = [r["throughput"] for r in records]
    left.plot(epochs, [t["windows_per_s"] for t in throughput], "o-", ms=3, lw=1.2, color=COLOURS["model"])
    style(left, "Windows per second")
    left.set_ylim(bottom=0)
    for name, label, colour in (("cpu_percent", "processor", "#1f5fa8"), ("gpu_percent", "GPU", "#2e8b57")):
        busy = floats([t.get(name) for t in throughput])
        if np.isfinite(busy).any():
            right.plot(epochs, busy, "o-", ms=3, lw=1.2, label=label, color=colour)
    style(right, "Busy, %")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        _phases(axes, records)
    return png_of(figure, right)


def _records(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines() if line.strip()]


def _phases(axes: Axes, records: list[dict[str, Any]]) -> None:
    """A line where a phase begins."""
    axes.set_xlabel("epoch; a line where a phase begins")
    for place in range(1, len(records)):
        if records[place]["phase"] != records[place - 1]["phase"]:
            axes.axvline(place + 0.5, color="#9aa5b1", lw=0.8, ls=":")
