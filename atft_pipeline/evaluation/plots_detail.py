"""Pictures of a scorecard's detail: when and where the signal lives, and what its books earn. PNG, each under 50 KB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from atft_pipeline.evaluation.drawing import COLOURS, GRID, SIZE, TEXT, figure_of, floats, png_of, style

PARTS = {"valid": "validation", "test": "test"}
PART_COLOURS = {"valid": "#1f5fa8", "test": "#d9822b"}
DELAY_COLOURS = {"0": "#c3ccd6", "1": "#1f5fa8", "2": "#6a93bf", "5": "#d9822b"}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
FEWEST_DATES = 10
"""A mean of fewer dates is not drawn; the scorecard has it."""
SLICES = ("year", "size", "liquidity", "volatility")


def detail_plots(card: Mapping[str, Any], daily: pl.DataFrame, books: pl.DataFrame) -> dict[str, bytes]:
    """Every picture of the detail by title."""
    horizon, delay = card["detail"]["horizon"], card["detail"]["delay"]
    return {
        "RankIC by delay": delay_decay(card),
        "RankIC by month": monthly_map(daily, horizon, delay),
        "RankIC by slice": slice_bars(card),
        "RankIC by sector": sector_bars(card),
        "RankIC after plain factors, and exposures": neutral_bars(card),
        "Books, validation": book_curves(books, "valid"),
        "Books, test": book_curves(books, "test"),
        "Sharpe by cost": cost_curve(card),
    }


def delay_decay(card: Mapping[str, Any]) -> bytes:
    """Mean RankIC by horizon at delays of 0, 1, 2 and 5 days: an honest signal fades with delay."""
    figure = Figure(figsize=SIZE, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, part in zip(panels, PARTS, strict=True):
        for delay, cells in card["detail"][part]["delays"].items():
            mean, se = (floats([cell[name] for cell in cells.values()]) for name in ("mean", "se"))
            place = np.arange(len(mean)) + 0.06 * (list(card["detail"][part]["delays"]).index(delay) - 1.5)
            axes.errorbar(
                place, mean, yerr=2 * np.nan_to_num(se), fmt="o-", ms=3.5, capsize=2, lw=1.3,
                color=DELAY_COLOURS[delay], label=f"delay {delay}",
            )  # fmt: skip
        axes.set_xticks(range(len(cells)), list(cells))
        axes.set_xlabel("horizon, trading days")
        style(axes, f"Decay with delay, {PARTS[part]}")
        axes.axhline(0, color=TEXT, lw=0.8)
    panels[0].set_ylabel("mean RankIC, ±2 SE")
    return png_of(figure, panels[0])


def monthly_map(daily: pl.DataFrame, horizon: int, delay: int) -> bytes:
    """Mean daily RankIC of each month of validation and test: one good month must not carry the rest."""
    own = daily.filter(model="model", measure="rank_ic", delay=delay, horizon=horizon).drop_nulls("value")
    months = own.group_by(pl.col("date").dt.year().alias("year"), pl.col("date").dt.month().alias("month")).agg(
        pl.col("value").mean()
    )
    years = sorted(months["year"].unique().to_list()) or [0]
    grid = np.full((len(years), 12), np.nan)
    for year, month, value in months.iter_rows():
        grid[years.index(year), month - 1] = value
    figure = Figure(figsize=(SIZE[0], 1.3 + 0.45 * len(years)), layout="constrained")
    axes = figure.subplots()
    limit = max(float(np.nanmax(np.abs(grid), initial=0.0)), 1e-6)
    axes.imshow(grid, aspect="auto", cmap="RdBu", vmin=-limit, vmax=limit)
    for row, column in np.argwhere(np.isfinite(grid)):
        strong = abs(grid[row, column]) > 0.6 * limit
        axes.text(column, row, f"{100 * grid[row, column]:+.1f}", ha="center", va="center", fontsize=8,
                  color="white" if strong else TEXT)  # fmt: skip
    axes.set_xticks(range(12), MONTHS)
    axes.set_yticks(range(len(years)), [str(year) for year in years])
    style(axes, f"Mean RankIC by month, per cent (horizon {horizon}, delay {delay}; validation, then test)")
    axes.grid(False)
    return png_of(figure, None)


def slice_bars(card: Mapping[str, Any]) -> bytes:
    """RankIC inside years and thirds of the market, with two standard errors."""
    found = {
        f"{name} {key}" if name != "year" else key: (name, key)
        for part in PARTS
        for name in SLICES
        for key, cell in card["detail"][part]["slices"].get(name, {}).items()
        if cell["n_dates"] >= FEWEST_DATES
    }
    labels = sorted(found, key=lambda label: (SLICES.index(found[label][0]), _order(found[label][1])))
    cells = {part: [card["detail"][part]["slices"].get(found[x][0], {}).get(found[x][1]) for x in labels]
             for part in PARTS}  # fmt: skip
    return _dots(
        labels, cells, f"RankIC by slice, horizon {card['detail']['horizon']}, ±2 SE", 1.2 + 0.24 * len(labels)
    )


def sector_bars(card: Mapping[str, Any]) -> bytes:
    """RankIC inside each sector; few stocks make wide errors."""
    keys = {key for part in PARTS for key in card["detail"][part]["slices"]["sector"]}
    known = {
        key for key in keys for part in PARTS
        if card["detail"][part]["slices"]["sector"].get(key, {}).get("n_dates", 0) >= FEWEST_DATES
    }  # fmt: skip
    labels = sorted(known, key=int)
    cells = {part: [card["detail"][part]["slices"]["sector"].get(key) for key in labels] for part in PARTS}
    height = 1.2 + 0.15 * len(labels)
    return _dots([f"sector {key}" for key in labels], cells, "RankIC inside sectors (33 by number), ±2 SE", height)


def neutral_bars(card: Mapping[str, Any]) -> bytes:
    """What plain factors leave of the RankIC, and the score's own correlation with them."""
    figure = Figure(figsize=SIZE, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name, title in ((left, "neutral", "RankIC left"), (right, "exposures", "Score's rank corr. with")):
        labels = list(card["detail"]["valid"][name])
        for i, part in enumerate(PARTS):
            _row(axes, [card["detail"][part][name].get(label) for label in labels], part, i)
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        style(axes, title)
        axes.grid(axis="x", color=GRID)
        axes.axvline(0, color=TEXT, lw=0.8)
    return png_of(figure, left)


def book_curves(books: pl.DataFrame, part: str) -> bytes:
    """Compounded curves of the books, and how far the dollar-neutral one lies below its peak."""
    own = books.filter(part=part).sort("date")
    figure = Figure(figsize=SIZE, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    days = own["date"].to_list()
    market = np.nan_to_num(own["market"].to_numpy())
    curves = {
        "dollar-neutral, gross": (own["gross"].to_numpy(), "#9bb7d4"),
        "dollar-neutral, net": (own["net"].to_numpy(), COLOURS["model"]),
        "long only minus market, net": (own["long_net"].to_numpy() - market, COLOURS["oracle"]),
        "equal-weight market": (market, COLOURS["reversal"]),
    }
    for name, (returns, colour) in curves.items():
        top.plot(days, 100 * (np.cumprod(1 + np.nan_to_num(returns)) - 1), color=colour, lw=1.4, label=name)
    equity = np.cumprod(1 + np.nan_to_num(own["net"].to_numpy()))
    sunk = 100 * (equity / np.maximum.accumulate(np.concatenate([[1.0], equity]))[1:] - 1)
    bottom.fill_between(days, sunk, 0, color=COLOURS["model"], alpha=0.35, lw=0)
    style(top, f"Books, {PARTS[part]}: compounded return, per cent; below: drawdown of the net book")
    style(bottom, "")
    top.axhline(0, color=TEXT, lw=0.8)
    figure.autofmt_xdate(rotation=0, ha="center")
    return png_of(figure, top)


def cost_curve(card: Mapping[str, Any]) -> bytes:
    """Annualised Sharpe of the dollar-neutral book over the one-way cost."""
    figure, axes = figure_of(f"Sharpe of the {card['detail']['horizon']}-day book by one-way cost")
    for part, colour in PART_COLOURS.items():
        books = card["detail"][part]["books"]
        axes.plot(1e4 * floats(books["costs"]), floats(books["sharpe_at_cost"]), "o-", color=colour, label=PARTS[part])
    axes.set_xlabel("basis points of traded value")
    axes.set_ylabel("Sharpe, annualised")
    axes.axhline(0, color=TEXT, lw=0.8)
    return png_of(figure, axes)


def _dots(labels: list[str], cells: Mapping[str, list[Any]], title: str, height: float) -> bytes:
    figure = Figure(figsize=(SIZE[0], height), layout="constrained")
    axes = figure.subplots()
    for i, part in enumerate(PARTS):
        _row(axes, cells[part], part, i)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    style(axes, title)
    axes.grid(axis="x", color=GRID)
    axes.axvline(0, color=TEXT, lw=0.8)
    return png_of(figure, axes)


def _row(axes: Any, cells: list[Any], part: str, place: int) -> None:
    """One part's points and errors, a little above or below the line's middle."""
    known = [(i, cell) for i, cell in enumerate(cells) if cell and cell["n_dates"] >= FEWEST_DATES]
    at = np.array([i for i, _ in known], float) + (place - 0.5) * 0.3
    mean, se = (floats([cell[name] for _, cell in known]) for name in ("mean", "se"))
    axes.errorbar(mean, at, xerr=2 * np.nan_to_num(se), fmt="o", ms=4, capsize=2, lw=1.2, color=PART_COLOURS[part],
                  label=PARTS[part])  # fmt: skip


def _order(key: str) -> tuple[int, str]:
    return (("low", "middle", "high").index(key) if key in ("low", "middle", "high") else 0), key
