"""From raw tables to dense arrays: the axes, the quotes and the ids, on every cell that the tables give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.panel.availability import TradingCalendar
from atft_pipeline.panel.axes import Axes, rows_of
from atft_pipeline.panel.element_operators import on_every_core
from atft_pipeline.panel.ids import MARGIN_IDS, MARKET_IDS, SCALE_IDS, SECTOR17_IDS, SECTOR33_IDS
from atft_pipeline.verdict import ContractBroken

OUTAGE_DAYS = np.array(["2020-10-01"], "datetime64[D]")
"""Business days on which the exchange could not open: no quotes, and index bars that repeat the previous close."""

MAX_UNLISTED_BARS = 0.01
"""Largest share of bars without a listed issue; above it the join of the two tables is broken."""

QUOTES: Mapping[str, str] = {
    "open": "O",
    "high": "H",
    "low": "L",
    "close": "C",
    "volume": "Vo",
    "turnover": "Va",
    "factor": "AdjFactor",
    "upper": "UL",
    "lower": "LL",
}
"""Panel array -> field of bars_daily."""

IDS: Mapping[str, tuple[str, Mapping[str, int], int]] = {
    "market": ("Mkt", MARKET_IDS, -1),
    "sector17": ("S17", SECTOR17_IDS, -1),
    "sector33": ("S33", SECTOR33_IDS, -1),
    "scale": ("ScaleCat", SCALE_IDS, 0),
    "margin": ("Mrgn", MARGIN_IDS, 0),
}
"""Panel array -> field of master, its dictionary and the id of a missing or unknown text."""

SOURCES: Mapping[str, tuple[str, ...]] = {
    "calendar": ("Date", "HolDiv"),
    "master": ("Date", "Code", *(source for source, _, _ in IDS.values())),
    "bars_daily": ("Date", "Code", *QUOTES.values()),
}
"""Raw table -> the columns that the panel is made of."""


def dense_arrays(calendar: pl.DataFrame, master: pl.DataFrame, bars: pl.DataFrame) -> dict[str, NDArray[Any]]:
    """Every stored array of the panel by name. Raises ContractBroken where the tables do not fit each other."""
    for (table, columns), frame in zip(SOURCES.items(), (calendar, master, bars), strict=True):
        _require_columns(table, frame, columns)
    days = TradingCalendar.from_frame(calendar)
    dates = _date_axis(days, master, bars)
    on_axis = _row(master, dates) >= 0
    master = master if on_axis.all() else master.filter(pl.Series(on_axis))
    codes = np.array(master["Code"].unique().sort().to_list(), dtype="<U5")
    shape = (len(dates), len(codes))
    cells = _cells("master", _row(master, dates), _column(master, codes), shape)
    listed = np.zeros(shape, np.bool_)
    listed.reshape(-1)[cells] = True
    arrays: dict[str, NDArray[Any]] = {
        "dates": dates,
        "codes": codes,
        "listed": listed,
        "calendar_days": days.days,
        "calendar_half_days": days.half_days,
    }

    def grid_of_ids(source: str, ids: Mapping[str, int], missing: int) -> NDArray[np.int8]:
        grid = np.full(shape, missing, np.int8)
        known = master[source].replace_strict(ids, default=missing, return_dtype=pl.Int8)
        grid.reshape(-1)[cells] = known.fill_null(missing).to_numpy()
        return grid

    arrays.update(zip(IDS, on_every_core(grid_of_ids, *zip(*IDS.values(), strict=True)), strict=True))
    arrays.update(_quotes(bars, Axes(dates, codes, listed)))
    return arrays


def _require_columns(table: str, frame: pl.DataFrame, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ContractBroken(f"{table} lacks the columns {', '.join(missing)}; ingest it again")


def _date_axis(days: TradingCalendar, master: pl.DataFrame, bars: pl.DataFrame) -> NDArray[np.datetime64]:
    """Trading days from the first to the last date that both tables have. Raises on a day that either lacks."""
    held = [frame["Date"].unique().sort().to_numpy().astype("datetime64[D]") for frame in (master, bars)]
    if not all(len(h) for h in held):
        raise ContractBroken("master or bars_daily is empty; ingest them for the wanted dates first")
    first, last = max(h[0] for h in held), min(h[-1] for h in held)
    dates = days.days[(days.days >= first) & (days.days <= last)]
    dates = dates[~np.isin(dates, OUTAGE_DAYS)]
    for table, h in zip(("master", "bars_daily"), held, strict=True):
        absent = np.setdiff1d(dates, h)
        if len(absent):
            raise ContractBroken(
                f"{table} has no row on {len(absent)} trading days from {absent[0]} to {absent[-1]}; ingest these"
            )
    if not len(dates):
        raise ContractBroken(f"no trading day from {first} to {last} in the calendar; ingest the calendar")
    return dates


def _row(frame: pl.DataFrame, dates: NDArray[np.datetime64]) -> NDArray[np.int64]:
    return rows_of(frame["Date"].to_numpy(), dates)


def _column(frame: pl.DataFrame, codes: NDArray[np.str_]) -> NDArray[np.int64]:
    """Column of each record's code, -1 for a code that is not on the axis."""
    place = pl.Series(np.arange(len(codes)))
    known = pl.Series(codes.tolist(), dtype=pl.String)
    return frame["Code"].replace_strict(known, place, default=-1, return_dtype=pl.Int64).to_numpy()


def _cells(table: str, row: NDArray[np.int64], column: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Flat [T, N] position of each record, all of them on the axes. Raises on a repeated key."""
    cells = row * shape[1] + column
    seen = np.zeros(shape[0] * shape[1], np.bool_)
    seen[cells] = True
    if int(seen.sum()) != len(cells):
        raise ContractBroken(f"{table} holds {len(cells) - int(seen.sum())} rows with a repeated (Date, Code)")
    return cells


def _quotes(bars: pl.DataFrame, axes: Axes) -> dict[str, NDArray[np.float64]]:
    """Quote arrays on the listed cells. Bars of issues that are not listed on their date are left out, if few."""
    row, column = _row(bars, axes.dates), _column(bars, axes.codes)
    on_axis = (row >= 0) & (column >= 0)
    cells = _cells("bars_daily", row[on_axis], column[on_axis], axes.shape)
    kept = axes.listed.reshape(-1)[cells]
    in_range = int((row >= 0).sum())
    unlisted = 1 - int(kept.sum()) / max(in_range, 1)
    if unlisted > MAX_UNLISTED_BARS:
        raise ContractBroken(
            f"bars_daily: {unlisted:.1%} of the bars belong to no listed issue of their date (allowed "
            f"{MAX_UNLISTED_BARS:.0%}); check that master and bars_daily cover the same dates and write codes alike"
        )
    on_axis[on_axis] = kept
    cells = cells[kept]

    def grid_of(source: str) -> NDArray[np.float64]:
        grid = np.full(axes.shape, np.nan)
        values = bars[source].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        grid.reshape(-1)[cells] = values if len(values) == len(cells) else values[on_axis]
        return grid

    return dict(zip(QUOTES, on_every_core(grid_of, QUOTES.values()), strict=True))
