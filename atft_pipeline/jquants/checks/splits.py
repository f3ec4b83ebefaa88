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


_CARRIED = {"Code": pl.String(), "Date": pl.Date(), "C": pl.Float64(), "AdjC": pl.Float64(), "pending": pl.Float64()}


class Splits:
    """Follows each code's traded closes across months; a split between two traded days counts once."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._last = pl.DataFrame(schema=_CARRIED)
        self._pairs = self._telling = self._off = 0
        self._jumps: list[pl.DataFrame] = []
        self._unmatched: list[pl.DataFrame] = []

    @property
    def columns(self) -> tuple[str, ...]:
        return ("Date", "Code", "C", "AdjFactor", "AdjC")

    def add(self, month: Month) -> None:
        rows = month.rows.select(
            "Code", "Date", "C", "AdjC", pending=pl.lit(0.0), log_factor=pl.col("AdjFactor").log().fill_null(0.0)
        )
        # Codes as numbers, and one running sum over all of them: only its differences inside a code are used.
        both = pl.concat([self._last.with_columns(log_factor=pl.lit(0.0)), rows])
        both = both.with_columns(code=pl.col("Code").cast(pl.Categorical).to_physical()).sort("code", "Date")
        both = both.with_columns(total=pl.col("log_factor").cum_sum())
        traded = both.filter(pl.col("C") > 0)
        self._judge(_consecutive(traded))
        last_of_code = pl.col("code").ne_missing(pl.col("code").shift(-1))
        ends = both.filter(last_of_code).select("code", end="total")
        last = traded.filter(last_of_code).join(ends, on="code")
        # A factor on a day without trades at the month's end waits for the next traded day.
        waiting = pl.col("pending") + pl.col("end") - pl.col("total")
        self._last = last.with_columns(pending=waiting).select(*_CARRIED)

    def _judge(self, pairs: pl.DataFrame) -> None:
        split = (pl.col("factor") - 1).abs() > 1e-6
        telling = pl.col("factor").log().abs() > TELLING_FACTOR
        nearer_to_nothing = pl.col("left").log().abs() > pl.col("ratio").log().abs()
        # Rows read before a split keep their old adjustment, so AdjC may also move as C does.
        off = [(pl.col("adjusted") / pl.col(how) - 1).abs() > pl.col("rounding") + 1e-6 for how in ("left", "ratio")]
        self._pairs += pairs.height
        self._telling += pairs.filter(split & telling).height
        self._off += pairs.filter(off[0] & off[1]).height
        self._unmatched.append(pairs.filter(split & telling & nearer_to_nothing))
        self._jumps.append(pairs.filter(~split & ((pl.col("ratio") - 1).abs() > LARGE_MOVE)))

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


def _consecutive(traded: pl.DataFrame) -> pl.DataFrame:
    """Each traded row with the one before it of the same code: ratio of closes, factor, and the ratio left over."""
    before = {name: pl.col(name).shift(1) for name in ("code", "C", "AdjC", "pending", "total")}
    rounding = (0.06 / pl.col("AdjC").clip(0.1) + 0.06 / before["AdjC"].clip(0.1)) * 1.1
    return (
        traded.lazy()
        .with_columns(
            same=pl.col("code") == before["code"],
            ratio=pl.col("C") / before["C"],
            factor=(pl.col("total") - before["total"] + before["pending"]).exp(),
            adjusted=pl.col("AdjC") / before["AdjC"],
            rounding=rounding,
        )
        .filter("same")
        .with_columns(left=pl.col("ratio") / pl.col("factor"))
        .collect()
    )


def _examples(rows: pl.DataFrame) -> str:
    told = [
        f"{row['Code']} {row['Date']} price x{row['ratio']:.3g} factor {row['factor']:.3g}"
        for row in rows.sort("Date", "Code").head(5).iter_rows(named=True)
    ]
    return f": {'; '.join(told)}" if told else ""
