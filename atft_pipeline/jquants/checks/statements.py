"""Statements over a fiscal year: results are cumulative, so sales may not shrink from quarter to quarter."""

from __future__ import annotations

import polars as pl

from atft_pipeline.jquants.checks.scan import Month
from atft_pipeline.jquants.table import Table
from atft_pipeline.verdict import Verdict

_ORDER = {"1Q": 1, "2Q": 2, "3Q": 3, "4Q": 4, "5Q": 5, "FY": 6}

SHRINKING_ALLOWED = 0.05
"""Negative revenue lines and changed accounting make a few shrink; beyond this the column is not cumulative sales."""


class Cumulative:
    """Sales of consecutive periods of one fiscal year, per company and accounting scope; the newest document counts."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._slim: list[pl.DataFrame] = []

    @property
    def columns(self) -> tuple[str, ...]:
        return ("Code", "DiscDate", "DiscTime", "DiscNo", "DocType", "CurPerType", "CurFYEn", "Sales")

    def add(self, month: Month) -> None:
        results = month.rows.select(self.columns).filter(
            pl.col("DocType").str.contains("FinancialStatements")
            & pl.col("CurFYEn").is_not_null()
            & (pl.col("Sales") >= 0)
        )
        scope = pl.col("DocType").str.extract(r"_(NonConsolidated|Consolidated)_").alias("scope")
        self._slim.append(results.with_columns(scope))

    def verdicts(self) -> dict[str, Verdict]:
        year = ["Code", "scope", "CurFYEn"]
        results = pl.concat(self._slim).with_columns(
            order=pl.col("CurPerType").replace_strict(_ORDER, default=None, return_dtype=pl.Int8)
        )
        newest = (
            results.drop_nulls("order")
            .sort("DiscDate", "DiscTime", "DiscNo")
            .group_by(*year, "order", maintain_order=True)
            .last()
            .sort(*year, "order")
        )
        pairs = newest.with_columns(before=pl.col("Sales").shift(1).over(year)).drop_nulls("before")
        shrunk = pairs.filter(pl.col("Sales") < pl.col("before"))
        share = shrunk.height / pairs.height if pairs.height else 0.0
        told = [f"{row['Code']} {row['CurFYEn']} {row['CurPerType']}" for row in shrunk.head(5).iter_rows(named=True)]
        message = (
            f"{self._table.name}: cumulative sales shrink between {shrunk.height} of {pairs.height} consecutive periods"
            + (f": {'; '.join(told)}" if told else "")
        )
        details = {"pairs": pairs.height, "share": share, "allowed_share": SHRINKING_ALLOWED}
        too_many = share > SHRINKING_ALLOWED
        passed = not shrunk.height
        verdict = Verdict(passed, float(shrunk.height), 0.0, message, details, "error" if too_many else "warn")
        return {"sales_cumulative": verdict}
