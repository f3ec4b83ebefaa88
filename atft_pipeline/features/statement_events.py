"""What each document changes: quarters, trailing years and forecasts as known at that document, one row per document.

Every number is looked up among the documents that came no later (`Vintages`), so a restatement changes what is known
from its own day on and nothing before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.panel.operators import divide

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

NEVER = np.datetime64("NaT", "D")


class Vintages:
    """Versions of named numbers: `at(entity, seq)` is the newest version of the entity known at document `seq`."""

    def __init__(self, entity: Ints, seq: Ints, documents: int) -> None:
        """`entity` and `seq` are non-negative, one per version; `documents` exceeds every seq."""
        self._documents = documents
        key = entity * documents + seq
        self._rows = np.argsort(key, kind="stable")
        self._keys = key[self._rows]

    def at(self, entity: Ints, seq: Ints) -> Ints:
        """Row of the newest version with `seq` or less, or -1."""
        place = np.searchsorted(self._keys, entity * self._documents + seq, side="right") - 1
        found = (place >= 0) & (entity >= 0)
        found[found] = self._keys[place[found]] // self._documents == entity[found]
        return np.where(found, self._rows[np.where(found, place, 0)] if len(self._rows) else 0, -1)


def pick(values: NDArray[np.generic], rows: Ints) -> Array:
    """values[rows], null where the row is -1."""
    if not len(values):
        return np.full(len(rows), np.nan)
    return np.where(rows >= 0, np.asarray(values, np.float64)[np.maximum(rows, 0)], np.nan)


def symmetric_growth(a: Array, b: Array) -> Array:
    """g(a, b) = 2(a - b) / (|a| + |b|), in [-2, 2]; defined through zero and losses."""
    return divide(2 * (a - b), np.abs(a) + np.abs(b))


@dataclass(frozen=True)
class Periods:
    """Where each document leaves its company: the newest fiscal year and quarter known, and that period's target."""

    company: Ints
    seq: Ints
    year: Ints
    """Fiscal year-end in months; -1 before the first result."""
    quarter: Ints


PERIODS_PER_YEAR = 8
"""Slots per fiscal-year month in an entity number; quarters use 1 to 4."""
MONTHS = 12 * 3000


class Actuals:
    """Cumulative results by (fiscal year, quarter), each as known at a given document."""

    def __init__(self, documents: pl.DataFrame, now: Periods, extra: Sequence[str] = ()) -> None:
        """`extra` names further columns of the documents that count by fiscal quarter."""
        self._now = now
        known = documents.filter(pl.col("quarter").is_not_null() & pl.col("year").is_not_null())
        self._columns = {name: known[name].cast(pl.Float64).to_numpy() for name in (*_ACTUAL_COLUMNS, *extra)}
        entity = _period_entity(_ints(known, "company"), _ints(known, "year"), _ints(known, "quarter"))
        self._vintages = Vintages(entity, _ints(known, "seq"), len(documents) + 1)

    def cumulative(self, name: str, years_ago: int, quarter: Ints | int) -> Array:
        """Y(fy - years_ago, quarter)."""
        now = self._now
        quarters = np.broadcast_to(np.asarray(quarter, np.int64), now.seq.shape)
        entity = _period_entity(now.company, now.year - 12 * years_ago, quarters)
        entity = np.where((now.year >= 0) & (quarters >= 1), entity, -1)
        return pick(self._columns[name], self._vintages.at(entity, now.seq))

    def in_year(self, name: str, year: Ints) -> Array:
        """Y(year, 4) for a fiscal year-end in months; null where it is negative."""
        entity = _period_entity(self._now.company, year, np.full_like(year, 4))
        return pick(self._columns[name], self._vintages.at(np.where(year >= 0, entity, -1), self._now.seq))

    def level(self, name: str, years_ago: int = 0) -> Array:
        """A balance-sheet value at the newest period's end, or `years_ago` years before it."""
        return self.cumulative(name, years_ago, self._now.quarter)

    def single_quarter(self, name: str, years_ago: int = 0) -> Array:
        """X(fy, q) = Y(fy, q) - Y(fy, q - 1)."""
        q = self._now.quarter
        total = self.cumulative(name, years_ago, q)
        return np.where(q == 1, total, total - self.cumulative(name, years_ago, q - 1))

    def trailing_year(self, name: str, years_ago: int = 0) -> Array:
        """TTM = Y(fy, q) + Y(fy - 1, 4) - Y(fy - 1, q); at a fiscal year's end simply Y(fy, 4)."""
        q = self._now.quarter
        total = self.cumulative(name, years_ago, q)
        before = self.cumulative(name, years_ago + 1, 4) - self.cumulative(name, years_ago + 1, q)
        return np.where(q == 4, total, total + before)


_ACTUAL_COLUMNS = ("sales", "op", "odp", "np", "cfo", "assets", "equity", "nx_target")


class Forecasts:
    """One forecast item (op, np or dps) by (company, target year-end), its versions and their revisions."""

    def __init__(self, documents: pl.DataFrame, item: str, stream: str) -> None:
        rows = (
            pl.concat(
                documents.filter(stream).select(
                    "company",
                    "seq",
                    "available",
                    "split_available",
                    target=f"{source}_target",
                    value=f"{source}_{item}",
                )
                for source in ("f", "nx")
            )
            .drop_nulls(["target", "value"])
            .sort("company", "target", "seq", maintain_order=True)
        )
        self.rows = rows.with_columns(
            previous=pl.col("value").shift(1).over("company", "target"),
            previous_split=pl.col("split_available").shift(1).over("company", "target"),
        )
        self._size = len(documents) + 1
        entity = _ints(rows, "company") * MONTHS + _ints(rows, "target")
        self._vintages = Vintages(entity, _ints(rows, "seq"), self._size)

    def at(self, now: Periods, target: Ints) -> Ints:
        """Row of the newest forecast for each document's target year-end, or -1."""
        return self._vintages.at(np.where(target >= 0, now.company * MONTHS + target, -1), now.seq)

    def revisions(self, across_splits: bool = True) -> pl.DataFrame:
        """Versions that changed the number for the same target year-end: company, seq, available, change = g(new, old).

        A per-share number is not comparable across a split: with `across_splits` False such a change is null.
        """
        split_between = pl.col("split_available") != pl.col("previous_split")
        moved = pl.col("value") != pl.col("previous")
        changed = self.rows.filter(moved if across_splits else moved | split_between).sort("company", "seq", "target")
        change = symmetric_growth(changed["value"].to_numpy(), changed["previous"].to_numpy())
        if not across_splits:
            change = np.where(changed.select(split_between).to_series().to_numpy(), np.nan, change)
        return changed.select("company", "seq", "available", change=pl.Series(change, dtype=pl.Float64))

    def last_revision(self, now: Periods, across_splits: bool = True) -> tuple[Array, NDArray[np.datetime64]]:
        """The newest revision known at each document, of any target year: its change and the day it became usable."""
        revisions = self.revisions(across_splits)
        rows = Vintages(_ints(revisions, "company"), _ints(revisions, "seq"), self._size).at(now.company, now.seq)
        days = revisions["available"].to_numpy().astype("datetime64[D]")
        when = np.full(len(rows), NEVER)
        when[rows >= 0] = days[rows[rows >= 0]]
        return pick(revisions["change"].to_numpy(), rows), when


def current_periods(documents: pl.DataFrame) -> Periods:
    """The newest (fiscal year, quarter) known at each document; a late document on an old period moves nothing."""
    code = pl.col("year") * PERIODS_PER_YEAR + pl.col("quarter")
    newest = documents.select(code.cum_max().forward_fill().over("company").fill_null(-1)).to_series().to_numpy()
    return Periods(
        company=_ints(documents, "company"),
        seq=_ints(documents, "seq"),
        year=np.where(newest >= 0, newest // PERIODS_PER_YEAR, -1),
        quarter=np.where(newest >= 0, newest % PERIODS_PER_YEAR, 0),
    )


def derive_events(documents: pl.DataFrame) -> pl.DataFrame:
    """One row per document, same order: everything that steps at events.

    `documents` are those of `read_documents` plus `company` (int), and the stock's split index on the day the document
    became usable (`split_available`) and at its period's end (`split_period`), both 1 where unknown.
    """
    now = current_periods(documents)
    actuals = Actuals(documents, now)
    values = {**_result_values(actuals), **_outlook_values(documents, now, actuals)}
    frame = pl.DataFrame({name: np.asarray(value) for name, value in values.items()})
    keys = documents.select("code", "available", "company")
    return pl.concat([keys, last_known(documents), frame], how="horizontal")


def _result_values(a: Actuals) -> dict[str, Array]:
    op, odp = (symmetric_growth(a.single_quarter(n), a.single_quarter(n, 1)) for n in ("op", "odp"))
    sales, op_ttm, np_ttm = (a.trailing_year(name) for name in ("sales", "op", "np"))
    margin, margin_before = (positive_ratio(a.trailing_year("op", y), a.trailing_year("sales", y)) for y in (0, 1))
    margin, margin_before = np.clip(margin, -2, 2), np.clip(margin_before, -2, 2)
    mean_equity = (a.level("equity") + a.level("equity", 1)) / 2
    mean_assets = (a.level("assets") + a.level("assets", 1)) / 2
    return {
        "fs_sales_q_yoy": symmetric_growth(a.single_quarter("sales"), a.single_quarter("sales", 1)),
        "fs_op_q_yoy": np.where(np.isnan(a.level("op")), odp, op),  # banks and insurers report no operating profit
        "fs_np_q_yoy": symmetric_growth(a.single_quarter("np"), a.single_quarter("np", 1)),
        "fs_sales_ttm_yoy": symmetric_growth(sales, a.trailing_year("sales", 1)),
        "fs_op_ttm_yoy": symmetric_growth(op_ttm, a.trailing_year("op", 1)),
        "fs_op_margin_ttm": margin,
        "fs_op_margin_ttm_chg": margin - margin_before,
        "fs_roe_ttm": np.clip(positive_ratio(np_ttm, mean_equity), -3, 3),
        "fs_roa_ttm": divide(np_ttm, mean_assets),
        "fs_equity_ratio": divide(a.level("equity"), a.level("assets")),
        "sales_ttm": sales,
        "np_ttm": np_ttm,
        "equity": a.level("equity"),
    }


def _outlook_values(documents: pl.DataFrame, now: Periods, a: Actuals) -> dict[str, NDArray[np.generic]]:
    full_year = np.where(now.quarter == 4, now.year, np.where(now.year >= 0, now.year - 12, -1))
    next_target = a.level("nx_target")
    target = np.where(now.quarter == 4, np.where(np.isnan(next_target), -1, next_target).astype(np.int64), now.year)
    op, np_ = (Forecasts(documents, item, "is_forecast") for item in ("op", "np"))
    dps = Forecasts(documents, "dps", "is_dividend")
    f_op, f_np = (pick(f.rows["value"].to_numpy(), f.at(now, target)) for f in (op, np_))
    dps_rows = dps.at(now, target)
    earned = np.where(now.quarter < 4, a.cumulative("op", 0, now.quarter), np.nan)
    usual = positive_ratio(a.cumulative("op", 1, now.quarter), a.cumulative("op", 1, 4))
    progress = np.clip(positive_ratio(earned, f_op), -3, 3)
    closed = newest_full_year(documents)
    rev_op, rev_op_on = op.last_revision(now)
    rev_np, rev_np_on = np_.last_revision(now)
    rev_dps, rev_dps_on = dps.last_revision(now, across_splits=False)
    return {
        "fs_accruals_fy": divide(
            a.in_year("np", closed) - a.in_year("cfo", closed),
            a.in_year("assets", closed),
        ),
        "fs_fc_op_progress": progress,
        "fs_fc_op_progress_gap": progress - usual,
        "fs_fc_op_growth": symmetric_growth(f_op, a.in_year("op", full_year)),
        "f_op": f_op,
        "f_np": f_np,
        "f_dps": pick(dps.rows["value"].to_numpy(), dps_rows),
        "f_dps_split": pick(dps.rows["split_available"].to_numpy(), dps_rows),
        "rev_op": rev_op,
        "rev_np": rev_np,
        "rev_dps": rev_dps,
        "rev_op_on": rev_op_on,
        "rev_np_on": rev_np_on,
        "rev_dps_on": rev_dps_on,
    }


def newest_full_year(documents: pl.DataFrame) -> Ints:
    """The newest fiscal year-end, in months, whose full-year result each document's company has told; -1 for none."""
    closed = pl.when(pl.col("quarter") == 4).then("year")
    newest = documents.select(closed.cum_max().forward_fill().over("company").fill_null(-1))
    return newest.to_series().to_numpy().astype(np.int64)


def last_known(documents: pl.DataFrame) -> pl.DataFrame:
    """When the last result became usable, and the newest period's share count in the units of the first panel day."""
    counted = pl.when(pl.col("is_actual") & pl.col("shares").is_not_null()).then(pl.col("period_end"))
    state = documents.select(
        actual_on=pl.when("is_actual").then("available").forward_fill().over("company"),
        counted=counted.dt.epoch("d").cum_max().forward_fill().over("company").fill_null(-1).cast(pl.Int64),
    )
    sources = documents.filter(counted.is_not_null())
    days = 1 << 17
    entity = _ints(sources, "company") * days + sources["period_end"].dt.epoch("d").cast(pl.Int64).to_numpy()
    wanted = state["counted"].to_numpy()
    company = _ints(documents, "company")
    rows = Vintages(entity, _ints(sources, "seq"), len(documents) + 1).at(
        np.where(wanted >= 0, company * days + wanted, -1), _ints(documents, "seq")
    )
    shares = pick((sources["shares"] * sources["split_period"]).to_numpy(), rows)
    return state.select("actual_on").with_columns(base_shares=pl.Series(shares, dtype=pl.Float64))


def positive_ratio(numerator: Array, denominator: Array) -> Array:
    """The quotient; null unless the denominator is above 0."""
    return divide(numerator, np.where(denominator > 0, denominator, np.nan))


def _period_entity(company: Ints, year: Ints, quarter: Ints) -> Ints:
    return (company * MONTHS + year) * PERIODS_PER_YEAR + quarter


def _ints(frame: pl.DataFrame, name: str) -> Ints:
    return frame[name].cast(pl.Int64).to_numpy()
