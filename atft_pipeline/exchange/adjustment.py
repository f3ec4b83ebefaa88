"""Adjusted prices as the service shows them on a day: rewritten back to the oldest row by every split so far.

A market stores them as of its last day. Here they are computed again, from the raw values and the factors in force,
for the issues whose splits differ from that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

import polars as pl

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
    later = pl.Series("later", [_later(splits.get(code, {}), day) for code, day in bars["Code", "Date"].iter_rows()])
    rows = bars.with_columns(later, hit.alias("hit"))
    return rows.with_columns(
        pl.when("hit").then(_half_up(_adjusted_value(name))).otherwise(name).alias(name) for name in columns
    ).drop("later", "hit")


def _later(events: Mapping[str, float], day: str) -> float:
    """Product of the factors after `day`, the oldest last, as the market multiplies them."""
    days = sorted(events)
    product = 1.0
    for late in reversed(days[bisect_right(days, day) :]):
        product *= events[late]
    return product


def _adjusted_value(name: str) -> pl.Expr:
    """AdjC from C, MAdjVo from MVo: the raw column's name without Adj."""
    raw = pl.col(name.replace("Adj", ""))
    return raw / pl.col("later") if name.endswith("Vo") else raw * pl.col("later")


def _half_up(value: pl.Expr) -> pl.Expr:
    return (value * 10 + 0.5 + 1e-9).floor() / 10
