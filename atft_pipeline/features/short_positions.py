"""The open short positions of each stock, day by day, from the reports of their holders.

A holder's state is its newest report known: below 0.5 % the position is closed, and a holder who has been silent for
240 trading days is forgotten. Sums run over whole numbers, so that they do not depend on who else reports later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.records import days_of, in_first_row_units, listed_records
from atft_pipeline.features.tables import require_columns
from atft_pipeline.panel.asof import as_of
from atft_pipeline.panel.availability import next_trading_day
from atft_pipeline.panel.operators import Array, divide, elementwise
from atft_pipeline.panel.panel import Panel

THRESHOLD = 0.005
SILENT_AFTER = 240
STALENESS_CAP = 250
HOLDERS_AT_ONCE = 2000
"""Holders expanded to daily states together: 2,440 days of them take about 100 MB."""

_RATIO_UNIT, _SHARE_UNIT = 1e-8, 1e-2
_HOLDER = ("stock", "SSName", "DICName", "FundName")
FIELDS = ("Code", "DiscDate", "CalcDate", *_HOLDER[1:], "ShrtPosToSO", "ShrtPosShares")


@dataclass(frozen=True)
class Positions:
    """Open positions per stock, arrays [T, N]; all 0 where there is none."""

    total: Array
    count: Array
    largest: Array
    concentration: Array
    """Sum of the squared shares of the total."""
    shares: Array
    """In first-row units."""
    staleness: Array
    """Trading days since the newest report of any holder, at most STALENESS_CAP; that without one."""


def open_positions(panel: Panel, reports: pl.DataFrame) -> Positions:
    """The state of all holders on each day. Raises ContractBroken when a column is missing."""
    require_columns("short_sale_report", reports, FIELDS)
    every = _known_reports(panel, reports)
    since = as_of(days_of(every["available"]), every["stock"].to_numpy(), panel.axes, order=[every["CalcDate"]])
    rows = _states(every)
    staleness = elementwise(
        lambda event, days: np.where(event >= 0, np.minimum(days, STALENESS_CAP), STALENESS_CAP),
        since.index, since.staleness_td,
    )  # fmt: skip
    total, count, largest, squares, shares = (np.zeros(panel.axes.shape) for _ in range(5))
    for part in _parts(rows):
        holder = part["holder"].to_numpy() - part["holder"][0]
        joined = as_of(days_of(part["available"]), holder, panel.axes, int(holder[-1]) + 1, order=[part["CalcDate"]])
        ratio = _whole(joined.take(part["ratio"].to_numpy(), SILENT_AFTER - 1))
        is_open = ratio >= round(THRESHOLD / _RATIO_UNIT)
        ratio = np.where(is_open, ratio, 0)
        held = np.where(is_open, _whole(joined.take(part["shares"].to_numpy(), SILENT_AFTER - 1)), 0)
        owner = part.group_by("holder", maintain_order=True).agg(pl.col("stock").first())["stock"].to_numpy()
        starts = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
        at = owner[starts]
        total[:, at] = np.add.reduceat(ratio, starts, axis=1) * _RATIO_UNIT
        count[:, at] = np.add.reduceat(is_open.astype(np.int64), starts, axis=1)
        largest[:, at] = np.maximum.reduceat(ratio, starts, axis=1) * _RATIO_UNIT
        squares[:, at] = np.add.reduceat(ratio**2, starts, axis=1) * _RATIO_UNIT**2
        shares[:, at] = np.add.reduceat(held, starts, axis=1) * _SHARE_UNIT
    concentration = elementwise(
        lambda n, squares, total: np.where(n > 0, divide(squares, total**2), 0.0), count, squares, total
    )
    return Positions(total, count, largest, concentration, shares, staleness)


def _known_reports(panel: Panel, reports: pl.DataFrame) -> pl.DataFrame:
    """Reports by holder in the order known, with `stock`, `available`, `ratio` and `shares` in whole units."""
    rows, stock = listed_records("short_sale_report", reports, panel.axes)
    shares = in_first_row_units(rows["ShrtPosShares"], panel, stock, rows["CalcDate"])
    return rows.with_columns(
        pl.col(_HOLDER[1:]).fill_null(""),
        stock=pl.Series(stock, dtype=pl.Int64),
        available=pl.Series(next_trading_day(rows["DiscDate"], panel.calendar), dtype=pl.Date),
        ratio=(pl.col("ShrtPosToSO") / _RATIO_UNIT).round(),
        shares=pl.Series(np.rint(shares / _SHARE_UNIT)),
    ).sort(*_HOLDER, "available", "CalcDate", "DiscDate")


def _states(reports: pl.DataFrame) -> pl.DataFrame:
    """The reports that set a holder's state, with `holder`: one for an older day than the holder's newest one, a late
    correction, changes no state."""
    rows = reports.filter(pl.col("CalcDate") >= pl.col("CalcDate").cum_max().over(_HOLDER))
    return rows.with_columns(holder=pl.struct(_HOLDER).rle_id().cast(pl.Int64))


def _parts(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The rows in parts of about HOLDERS_AT_ONCE holders, each stock in one part."""
    if not rows.height:
        return
    first_holder = rows.group_by("stock", maintain_order=True).agg(pl.col("holder").first())
    number = (first_holder["holder"] // HOLDERS_AT_ONCE).rename("part")
    numbered = rows.join(first_holder.select("stock", number), on="stock", maintain_order="left")
    for _, part in numbered.group_by("part", maintain_order=True):
        yield part


def _whole(values: Array) -> NDArray[np.int64]:
    """Whole numbers; a null is 0."""
    return np.nan_to_num(values).astype(np.int64)
