"""How every picture looks: size, colours, axes, and PNG bytes small enough (50 KB) for an asset's metadata."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

MAX_BYTES = 50_000
COLOURS = {
    "model": "#1f5fa8", "ridge": "#d9822b", "lightgbm": "#b3452c", "reversal": "#7a8794", "momentum": "#b08fc7",
    "oracle": "#2e8b57",
}  # fmt: skip
GRID, TEXT = "#dfe4ea", "#2b3440"
SIZE = (7.2, 3.4)
DPI = 130
COLOURS_KEPT = 64


def figure_of(title: str) -> tuple[Figure, Axes]:
    """A figure of the usual size with one set of axes."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    style(axes, title)
    return figure, axes


def style(axes: Axes, title: str) -> None:
    """The look of all axes; the title says what is drawn."""
    axes.set_title(title, loc="left", fontsize=10, color=TEXT)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT, labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)


def floats(values: Sequence[float | None]) -> np.ndarray:
    """JSON's null is NaN here."""
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def png_of(figure: Figure, legend: Axes | None) -> bytes:
    """Rendered bytes in few colours, without a time stamp; a legend only where one is asked for.

    Raises ValueError above 50 KB.
    """
    handles, labels = legend.get_legend_handles_labels() if legend is not None else ([], [])
    if handles:  # below the axes, where it hides nothing
        figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
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
