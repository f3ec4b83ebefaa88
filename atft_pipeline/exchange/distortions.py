"""What the faults do to rows: to the whole answer before it is cut into pages, and to the columns of one page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime

import polars as pl

from atft_pipeline.exchange.endpoints import Endpoint
from atft_pipeline.exchange.faults import Fault
from atft_pipeline.exchange.revisions import Revision


def late_splits(faults: Sequence[Fault]) -> list[Revision]:
    """The splits that `split` faults announce, as revisions that hold for this answer."""
    return [
        Revision("split", "bars_daily", datetime.min, fault.date, (("Code", fault.code),), factor=fault.factor)
        for fault in faults
        if fault.kind == "split" and fault.date and fault.code
    ]


def distort_answer(rows: pl.DataFrame, endpoint: Endpoint, faults: Iterable[Fault]) -> pl.DataFrame:
    """Apply the faults that concern the whole answer, before it is cut into pages."""
    for fault in faults:
        if fault.kind == "partial":
            rows = rows.head(math.floor(rows.height * fault.share))
        elif fault.kind == "late":
            rows = rows.filter(~_named(rows, endpoint, fault))
    return rows


def _named(rows: pl.DataFrame, endpoint: Endpoint, fault: Fault) -> pl.Expr:
    """The rows of the fault's date and code; without them every row."""
    named = pl.lit(True)
    if fault.date:
        named &= pl.col(endpoint.date_column) == fault.date.isoformat()
    if fault.code and "Code" in rows.columns:
        named &= pl.col("Code") == fault.code
    return named


def distort_page(page: pl.DataFrame, endpoint: Endpoint, faults: Iterable[Fault]) -> pl.DataFrame:
    """Apply the faults that concern one page's columns and values."""
    for fault in faults:
        if fault.kind == "drop_column":
            page = page.drop(str(fault.column), strict=False)
        elif fault.kind == "extra_column":
            page = page.with_columns(pl.lit("extra").alias(str(fault.column)))
        elif fault.kind == "all_null":
            values = [column for column in page.columns if column not in endpoint.keys]
            page = page.with_columns(pl.lit(None, page.schema[column]).alias(column) for column in values)
        elif fault.kind == "retype":
            page = page.with_columns(_retyped(page, endpoint, fault.column))
    return page


def _retyped(page: pl.DataFrame, endpoint: Endpoint, column: str | None) -> list[pl.Series]:
    """Numbers become strings; where there are none, strings that all read as numbers become numbers ("" is null)."""
    names = [name for name in page.columns if name not in endpoint.keys and column in (None, name)]
    numbers = [page[name].cast(pl.String) for name in names if page.schema[name].is_numeric()]
    if numbers:
        return numbers
    flipped = []
    for name in names:
        text = page[name].cast(pl.String)
        number = text.replace("", None).cast(pl.Float64, strict=False)
        if number.count() and number.count() == text.replace("", None).count():
            flipped.append(number)
    return flipped
