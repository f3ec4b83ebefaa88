"""The implied-volatility surface of each day, read at constant maturities from the option table.

Between two expiries total variance (sigma^2 x time) is linear in time, so a flat surface is flat at every maturity. At
time 0 it is 0: below the first expiry the volatility is that expiry's. The table has monthly expiries only (weekly
options are not in it), so with the nearest ones left out, on one day in five none lies within 30 days.
"""

from __future__ import annotations

import polars as pl

from atft_pipeline.features.tables import require_columns

FIELDS = ("Date", "EmMrgnTrgDiv", "SQD", "PCDiv", "Strike", "UnderPx", "IV", "Vo", "OI")
NORMAL, PUT, CALL = "002", "1", "2"

SHORTEST_DAYS = 7
"""Expiries nearer than this are left out: their volatility is mostly that of the last hours."""
LONGEST_FIRST = 45
"""Days to the first expiry up to which it speaks for shorter maturities: five weeks to the next month's, and those left
out before it; further away, a month is missing."""
COUNTED_DAYS = 100
"""Expiries up to this count in the put-call ratios."""
WING = 0.05
WING_REACH = 0.015
"""A strike counts for a wing when it lies at most this share from it."""


def daily_surface(options: pl.DataFrame) -> pl.DataFrame:
    """One row per Date, ascending: level (the index), iv_30, iv_60, put_30 and call_30 (as fractions, null where
    they cannot be read), and put/call interest and volume. Raises ContractBroken when a column is missing.
    """
    require_columns("options_225", options, FIELDS)
    regular = options.filter(pl.col("EmMrgnTrgDiv") == NORMAL)
    days = regular.group_by("Date").agg(level=pl.col("UnderPx").filter(pl.col("UnderPx") > 0).median()).sort("Date")
    left = (pl.col("SQD") - pl.col("Date")).dt.total_days()
    rows = (
        regular.select(FIELDS)
        .join(days, on="Date", how="left")
        .with_columns(left=left, money=(pl.col("Strike") / pl.col("level")).log(), sigma=pl.col("IV") / 100)
        .filter(pl.col("left") >= SHORTEST_DAYS)
    )
    quoted = rows.filter(((pl.col("Vo") > 0) | (pl.col("OI") > 0)) & (pl.col("sigma") > 0))
    is_put = pl.col("PCDiv") == PUT
    smiles = quoted.group_by("Date", "left").agg(
        middle=_at_the_money(),
        put=_wing(is_put & (pl.col("money") < 0), 1 - WING),
        call=_wing(~is_put & (pl.col("money") > 0), 1 + WING),
    )
    counted = rows.filter(pl.col("left") <= COUNTED_DAYS)
    sides = {"put": is_put, "call": ~is_put}
    ratios = counted.group_by("Date").agg(
        *(pl.col("OI").filter(side).sum().alias(f"{name}_interest") for name, side in sides.items()),
        *(pl.col("Vo").filter(side).sum().alias(f"{name}_volume") for name, side in sides.items()),
    )
    for name, column, maturity in (
        ("iv_30", "middle", 30),
        ("iv_60", "middle", 60),
        ("put_30", "put", 30),
        ("call_30", "call", 30),
    ):
        days = days.join(_constant_maturity(smiles, column, maturity).rename({"value": name}), on="Date", how="left")
    return days.join(ratios, on="Date", how="left").sort("Date").cast({pl.Float64: pl.Float64})


def _at_the_money() -> pl.Expr:
    """Out-of-the-money volatilities, puts below the index and calls from it on, interpolated in ln(K/U) at 0."""
    put = (pl.col("PCDiv") == PUT) & (pl.col("money") < 0)
    call = (pl.col("PCDiv") == CALL) & (pl.col("money") >= 0)
    below, above = pl.col("money").filter(put).max(), pl.col("money").filter(call).min()
    low = pl.col("sigma").filter(put).sort_by(pl.col("money").filter(put)).last()
    high = pl.col("sigma").filter(call).sort_by(pl.col("money").filter(call)).first()
    return pl.when(above == 0).then(high).otherwise(low + (high - low) * (-below) / (above - below))


def _wing(side: pl.Expr, place: float) -> pl.Expr:
    """Volatility at strike `place` x U: linear in ln(K/U) between the strikes around it that lie within reach."""
    ratio = pl.col("money").exp() / place
    near = side & ((ratio - 1).abs() <= WING_REACH)
    lower, upper = near & (ratio <= 1), near & (ratio >= 1)
    target = pl.lit(place).log()
    below, above = pl.col("money").filter(lower).max(), pl.col("money").filter(upper).min()
    low = pl.col("sigma").filter(lower).sort_by(pl.col("money").filter(lower)).last()
    high = pl.col("sigma").filter(upper).sort_by(pl.col("money").filter(upper)).first()
    between = low + (high - low) * (target - below) / (above - below)
    return pl.when(above == below).then(low).otherwise(pl.coalesce(between, low, high))


def _constant_maturity(smiles: pl.DataFrame, column: str, maturity: int) -> pl.DataFrame:
    """Date and `value`: the volatility at `maturity` days, null unless two expiries (or one exactly) bracket it, or
    the first one lies beyond it by no more than a month's gap."""
    known = smiles.filter(pl.col(column).is_not_null()).sort("Date", "left")
    total = pl.col(column) ** 2 * pl.col("left")
    before, after = pl.col("left") <= maturity, pl.col("left") >= maturity
    ends = known.group_by("Date").agg(
        first=pl.col("left").filter(before).last(),
        last=pl.col("left").filter(after).first(),
        early=total.filter(before).last(),
        late=total.filter(after).first(),
    )
    nothing_before = pl.col("first").is_null() & (pl.col("last") <= LONGEST_FIRST)
    ends = ends.with_columns(pl.when(nothing_before).then(0).otherwise(pl.col(c)).alias(c) for c in ("first", "early"))
    first, last = pl.col("first"), pl.col("last")
    slope = pl.when(last == first).then(0.0).otherwise((pl.col("late") - pl.col("early")) / (last - first))
    variance = (pl.col("early") + slope * (maturity - first)) / maturity
    return ends.select("Date", value=pl.when(first.is_not_null() & last.is_not_null()).then(variance.sqrt()))
