"""Adjusted prices as the service shows them on a day: rewritten back to the oldest row by every split so far.

A market stores them as of its last day. Here they are computed again, from the raw values and the factors in force,
for the issues whose splits differ from that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

Splits = Mapping[str, Mapping[str, float]]
"""Code -> ex-date (ISO) -> adjustment factor other than 1."""


def splits_of(bars: pl.DataFrame) -> dict[str, dict[str, float]]:
    """The splits in rows of daily bars."""
    events: dict[str, dict[str, float]] = {}
    rows = bars.filter(pl.col("AdjFactor") != 1.0).select("Code", "Date", "AdjFactor")
    for code, day, factor in rows.iter_rows():
        events.setdefault(code, {})[day] = factor
    return events


def adjusted(bars: pl.DataFrame, splits: Splits, codes: Iterable[str]) -> pl.DataFrame:
    """`bars` with the Adj* columns of `codes` computed anew from `splits`: prices times the product of all later
    factors, volumes divided by it, half up to one decimal."""
    columns = [name for name in bars.columns if "Adj" in name and name != "AdjFactor"]
    hit = bars["Code"].is_in(list(codes))
    if not columns or not hit.any():
        return bars
    rows = bars.with_row_index("at").filter(hit)
    later = np.array([_later(splits.get(code, {}), day) for code, day in rows["Code", "Date"].iter_rows()])
    anew = rows.with_columns(_adjusted_column(rows, name, later) for name in columns)
    rest = bars.with_row_index("at").filter(~hit)
    return pl.concat([rest, anew]).sort("at").drop("at")


def _later(events: Mapping[str, float], day: str) -> float:
    """Product of the factors after `day`, the oldest last, as the market multiplies them."""
    days = sorted(events)
    product = 1.0
    for late in reversed(days[bisect_right(days, day) :]):
        product *= events[late]
    return product


def _adjusted_column(rows: pl.DataFrame, name: str, later: NDArray[np.float64]) -> pl.Series:
    """AdjC from C, MAdjVo from MVo: the raw column's name without Adj."""
    raw = rows[name.replace("Adj", "")].cast(pl.Float64).to_numpy()  # null becomes NaN
    value = raw / later if name.endswith("Vo") else raw * later
    # In numpy, as the market does it: polars multiplies by 0.1 instead of dividing by 10, one bit beside.
    rounded = np.floor(value * 10 + 0.5 + 1e-9) / 10
    return pl.Series(name, rounded, pl.Float64).fill_nan(None)
