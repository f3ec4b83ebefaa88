"""Company documents of `fin_summary` in the order in which the market learned them, one row per document.

Here a delivered row becomes what the formulas speak of: which streams the document feeds, fiscal year and quarter,
cumulative flows, balance-sheet levels, shares, and forecasts by target year-end. What follows from several documents
together (quarters, trailing years, revisions) is in `statement_events`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.tables import require_columns

RESULT = "FinancialStatements"
FORECAST_REVISION = "EarnForecastRevision"
DIVIDEND_REVISION = "DividendForecastRevision"

QUARTERS = {"1Q": 1, "2Q": 2, "3Q": 3, "FY": 4}
"""Cumulative periods that a fiscal year is made of; 4Q, 5Q and other periods belong to no regular year."""

LENGTH_TOLERANCE = 10
"""Days by which a period may differ from its share of a year before its flows count as null."""

QUARTER_DAYS = 365.25 / 4

ACTUALS = ("Sales", "OP", "OdP", "NP", "TA", "Eq")
KEYS = ("DiscDate", "DiscTime", "Code", "DiscNo", "DocType", "CurPerType", "CurPerSt", "CurPerEn", "CurFYSt")
FIELDS = (
    *KEYS,
    "CurFYEn",
    "NxtFYEn",
    *ACTUALS,
    *(f"NC{name}" for name in ACTUALS),
    "CFO",
    "ShOutFY",
    "TrShFY",
    *("FOP", "FNP", "FDivAnn", "FNCOP", "FNCNP"),
    *("NxFOP", "NxFNp", "NxFDivAnn", "NxFNCOP", "NxFNCNP"),
)
"""The columns of `fin_summary` that the formulas read."""


def months(day: pl.Expr) -> pl.Expr:
    """A date's month, counted from year 0: twelve less is the same fiscal year-end a year earlier."""
    return day.dt.year().cast(pl.Int64) * 12 + day.dt.month()


def read_documents(fin_summary: pl.DataFrame, available: Sequence[object] | NDArray[np.generic]) -> pl.DataFrame:
    """Documents by (code, knowledge order), with `seq`, their row number in that order.

    `available` is the first trading day on which each row may be used; rows without one are dropped. Raises
    ContractBroken when a column is missing.
    """
    require_columns("fin_summary", fin_summary, FIELDS)
    ordered = (
        fin_summary.select(FIELDS)
        .with_columns(available=pl.Series(available, dtype=pl.Date))
        .filter(pl.col("available").is_not_null())
        .with_columns(DiscTime=pl.col("DiscTime").replace("", None))
        .sort("Code", "available", "DiscDate", "DiscTime", "DiscNo", nulls_last=True)
        .with_row_index("seq")
    )
    return ordered.select(
        pl.col("Code").alias("code"),
        "available",
        pl.col("DiscDate").alias("disclosed"),
        pl.col("DiscNo").alias("number"),
        pl.col("seq").cast(pl.Int64),
        _is_regular().alias("is_regular"),
        *_streams(),
        *_periods(),
        *_actuals(),
        *_forecasts("f", "F", "NP", pl.col("CurFYEn")),
        *_forecasts("nx", "NxF", "Np", pl.col("NxtFYEn").fill_null(pl.col("CurFYEn").dt.offset_by("1y"))),
    )


def _streams() -> list[pl.Expr]:
    """Results feed all three streams; each kind of revision feeds its own and leaves the results alone."""
    kind = pl.col("DocType")
    result = kind.str.contains(RESULT, literal=True)
    return [
        result.alias("is_actual"),
        (result | kind.str.contains(FORECAST_REVISION, literal=True)).alias("is_forecast"),
        (result | kind.str.contains(DIVIDEND_REVISION, literal=True)).alias("is_dividend"),
    ]


def _quarter() -> pl.Expr:
    is_result = pl.col("DocType").str.contains(RESULT, literal=True)
    quarter = pl.col("CurPerType").replace_strict(QUARTERS, default=None, return_dtype=pl.Int64)
    return pl.when(is_result).then(quarter)


def _periods() -> list[pl.Expr]:
    return [
        months(pl.col("CurFYEn")).alias("year"),
        _quarter().alias("quarter"),
        pl.col("CurPerEn").alias("period_end"),
    ]


def _is_regular() -> pl.Expr:
    """The period and its fiscal year have the lengths that their names promise, within ten days."""
    period = (pl.col("CurPerEn") - pl.col("CurPerSt")).dt.total_days() + 1
    year = (pl.col("CurFYEn") - pl.col("CurFYSt")).dt.total_days() + 1
    return ((period - _quarter() * QUARTER_DAYS).abs() <= LENGTH_TOLERANCE) & (
        (year - 4 * QUARTER_DAYS).abs() <= LENGTH_TOLERANCE
    )


def _consolidated_first(names: Sequence[str], fallback: Sequence[str]) -> list[pl.Expr]:
    """The consolidated fields, or the non-consolidated ones of a document that fills no consolidated field.

    The choice is made per document: a group that leaves one field blank must not borrow its parent's.
    """
    reports = pl.any_horizontal(pl.col(name).is_not_null() for name in names)
    return [pl.when(reports).then(name).otherwise(other) for name, other in zip(names, fallback, strict=True)]


def _actuals() -> list[pl.Expr]:
    sales, op, odp, np_, assets, equity = _consolidated_first(ACTUALS, [f"NC{name}" for name in ACTUALS])
    flows = {"sales": sales, "op": op, "odp": odp, "np": np_, "cfo": pl.col("CFO")}
    regular = _is_regular()
    return [
        *(pl.when(regular).then(flow).alias(name) for name, flow in flows.items()),
        assets.alias("assets"),
        equity.alias("equity"),
        (pl.col("ShOutFY") - pl.col("TrShFY")).alias("shares"),
    ]


def _forecasts(prefix: str, field: str, profit: str, year_end: pl.Expr) -> list[pl.Expr]:
    """Full-year forecasts and their target year-end. The API spells the next year's profit Np, not NP."""
    op, np_ = _consolidated_first([f"{field}OP", f"{field}{profit}"], [f"{field}NCOP", f"{field}NCNP"])
    return [
        months(year_end).alias(f"{prefix}_target"),
        op.alias(f"{prefix}_op"),
        np_.alias(f"{prefix}_np"),
        pl.col(f"{field}DivAnn").alias(f"{prefix}_dps"),
    ]
