"""Adjustment factors against prices: every split shows in the price, and every violent move has a reason."""

from __future__ import annotations

from math import log

import polars as pl

from atft_pipeline.jquants.checks.scan import Month
from atft_pipeline.jquants.table import Table
from atft_pipeline.verdict import Severity, Verdict

LARGE_MOVE = 0.4
"""Daily price limits hold moves below 30 % above 500 yen or so; beyond this a missing factor is the likelier reason."""

TELLING_FACTOR = log(1.3)
"""A factor nearer to 1 than this is not distinguishable from an ordinary day's move."""

UNMATCHED_ALLOWED = 0.1
"""Share of the telling splits that a coincidental move on the ex-date may hide."""


class Splits:
    """Follows each code's traded closes across months; a split between two traded days counts once."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._last = pl.DataFrame(
            schema={"Code": pl.String, "Date": pl.Date, "C": pl.Float64, "AdjC": pl.Float64, "_factor": pl.Float64}
        )
        self._pairs = self._telling = 0
        self._jumps: list[pl.DataFrame] = []
        self._unmatched: list[pl.DataFrame] = []
        self._off = 0

    @property
    def columns(self) -> tuple[str, ...]:
        return ("Date", "Code", "C", "AdjFactor", "AdjC")

    def add(self, month: Month) -> None:
        rows = month.rows.select(self.columns).sort("Code", "Date")
        rows = rows.with_columns(_factor=pl.col("AdjFactor").fill_null(1.0).cum_prod().over("Code"))
        carried = self._last.select("Code", "Date", "C", "AdjC", "_factor")
        traded = pl.concat([carried, rows.filter(pl.col("C") > 0).select(carried.columns)]).sort("Code", "Date")
        before = {name: pl.col(name).shift(1).over("Code") for name in ("C", "AdjC", "_factor", "Date")}
        pairs = traded.with_columns(
            factor=pl.col("_factor") / before["_factor"],
            ratio=pl.col("C") / before["C"],
            adjusted=(pl.col("AdjC") / before["AdjC"]),
            rounding=0.06 / pl.col("AdjC").clip(0.1) + 0.06 / before["AdjC"].clip(0.1),
        ).drop_nulls("ratio")
        pairs = pairs.with_columns(left=pl.col("ratio") / pl.col("factor"))
        split = (pl.col("factor") - 1).abs() > 1e-9
        telling = pl.col("factor").log().abs() > TELLING_FACTOR
        nearer_to_nothing = pl.col("left").log().abs() > pl.col("ratio").log().abs()
        self._pairs += pairs.height
        self._telling += pairs.filter(split & telling).height
        self._unmatched.append(pairs.filter(split & telling & nearer_to_nothing))
        self._jumps.append(pairs.filter(~split & ((pl.col("ratio") - 1).abs() > LARGE_MOVE)))
        # Rows read before a split keep their old adjustment, so both ratios are right.
        off = (pl.col("adjusted") / pl.col("left") - 1).abs() > pl.col("rounding") * 1.1 + 1e-6
        mixed = (pl.col("adjusted") / pl.col("ratio") - 1).abs() <= pl.col("rounding") * 1.1 + 1e-6
        self._off += pairs.filter(off & ~mixed).height
        # The factor up to the month's end, so that one on a day without trades is not lost at the border.
        end = rows.group_by("Code").agg(_end=pl.col("_factor").last())
        last = traded.group_by("Code", maintain_order=True).last().join(end, on="Code", how="left")
        self._last = last.with_columns(_factor=pl.col("_factor") / pl.col("_end").fill_null(1.0)).select(
            carried.columns
        )

    def verdicts(self) -> dict[str, Verdict]:
        return {
            "splits_match_prices": self._matched(),
            "jumps_explained": self._explained(),
            "adjusted_follow_factors": self._followed(),
        }

    def _matched(self) -> Verdict:
        bad = pl.concat(self._unmatched)
        share = bad.height / self._telling if self._telling else 0.0
        message = (
            f"{self._table.name}: {bad.height} of {self._telling} splits larger than 1.3 show no move of the price"
            + _examples(bad)
        )
        details = {"splits": self._telling, "share": share, "allowed_share": UNMATCHED_ALLOWED, "rows": self._pairs}
        severity: Severity = "error" if share > UNMATCHED_ALLOWED else "warn"
        return Verdict(not bad.height, float(bad.height), 0.0, message, details, severity)

    def _explained(self) -> Verdict:
        bad = pl.concat(self._jumps)
        message = (
            f"{self._table.name}: {bad.height} moves beyond {LARGE_MOVE:.0%} between traded days have factor 1"
            + _examples(bad)
        )
        return Verdict(not bad.height, float(bad.height), 0.0, message, {"rows": self._pairs}, "warn")

    def _followed(self) -> Verdict:
        message = (
            f"{self._table.name}: {self._off} of {self._pairs} pairs of days where AdjC does not move as C over the "
            "factor; only a warning: the pipeline adjusts by itself"
        )
        return Verdict(not self._off, float(self._off), 0.0, message, {"rows": self._pairs}, "warn")


def _examples(rows: pl.DataFrame) -> str:
    told = [
        f"{row['Code']} {row['Date']} price x{row['ratio']:.3g} factor {row['factor']:.3g}"
        for row in rows.sort("Date", "Code").head(5).iter_rows(named=True)
    ]
    return f": {'; '.join(told)}" if told else ""
