"""Keys, schema and rows per day: what must hold in any table, from its declaration alone."""

from __future__ import annotations

from datetime import date

import polars as pl

from atft_pipeline.jquants.checks.scan import Month
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import OUTAGE_DAYS
from atft_pipeline.verdict import Verdict

TRAILING_DAYS = 20
"""A day's rows are compared with the median of this many days before it."""

BAND = (0.8, 1.25)
"""Rows of a day over that median. The list of issues moves by a few percent a year; a lost page takes far more."""

BANDS = {"margin_alert": (0.4, 2.5), "options_225": (0.4, 2.5), "futures": (0.5, 2.0)}
"""Tables whose number of rows really moves: names under regulation, listed strikes, contracts."""


class Keys:
    """Null and repeated keys, and rows that lie in the wrong month.

    A key that contains the date can only repeat inside a month; other keys are compared over all months.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._rows = self._nulls = self._repeated = self._misplaced = 0
        self._dated = table.date_column in table.keys
        self._others: list[pl.DataFrame] = []

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self._table.keys, self._table.date_column)

    def add(self, month: Month) -> None:
        keys = month.rows.select(self._table.keys)
        self._rows += keys.height
        self._nulls += keys.filter(pl.any_horizontal(pl.all().is_null())).height
        if self._dated:
            self._repeated += keys.height - keys.n_unique()
        else:
            self._others.append(keys)
        if month.name != "all":
            days = month.rows[self._table.date_column]
            self._misplaced += int(days.dt.strftime("%Y-%m").ne(month.name).sum())

    def verdicts(self) -> dict[str, Verdict]:
        if self._others:
            keys = pl.concat(self._others)
            self._repeated = keys.height - keys.n_unique()
        bad = self._nulls + self._repeated + self._misplaced
        details = {
            "rows": self._rows,
            "null_keys": self._nulls,
            "repeated_keys": self._repeated,
            "rows_of_other_months": self._misplaced,
        }
        message = (
            f"{self._table.name}: {self._nulls} null and {self._repeated} repeated keys {self._table.keys}, "
            f"{self._misplaced} rows of another month, in {self._rows} rows"
        )
        return {"keys_unique": Verdict(bad == 0, float(bad), 0.0, message, details)}


class Schema:
    """Declared columns that every month holds with the declared type."""

    columns: tuple[str, ...] = ()

    def __init__(self, table: Table) -> None:
        self._table = table
        self._wrong: dict[str, str] = {}
        self._extra: set[str] = set()

    def add(self, month: Month) -> None:
        stored = month.record.columns
        for name, dtype in self._table.schema.items():
            if stored.get(name) != str(dtype):
                self._wrong[name] = f"{month.name}: {stored.get(name, 'missing')}, declared {dtype}"
        self._extra |= set(stored) - set(self._table.schema) - set(self._table.optional)

    def verdicts(self) -> dict[str, Verdict]:
        want = len(self._table.schema)
        good = want - len(self._wrong)
        problems = "".join(f"; {name} in {what}" for name, what in list(self._wrong.items())[:5])
        message = f"{self._table.name}: {good} of {want} columns as declared{problems}"
        details = {"wrong": self._wrong, "undeclared": sorted(self._extra)}
        return {"schema_as_declared": Verdict(not self._wrong, float(good), float(want), message, details)}


class RowsPerDay:
    """Days with far fewer or more rows than the days before them.

    Too few is an error (rows were lost, and what is computed across stocks is wrong); too many only warns.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._band = BANDS.get(table.name, BAND)
        self._counts: list[pl.DataFrame] = []

    @property
    def columns(self) -> tuple[str, ...]:
        return (self._table.date_column,)

    def add(self, month: Month) -> None:
        day = self._table.date_column
        self._counts.append(month.rows.group_by(day).len("rows").rename({day: "day"}))

    def verdicts(self) -> dict[str, Verdict]:
        low, high = self._band
        counts = pl.concat(self._counts).group_by("day").agg(pl.col("rows").sum()).sort("day")
        counts = counts.filter(~pl.col("day").is_in(sorted(OUTAGE_DAYS)))
        typical = pl.col("rows").shift(1).rolling_median(TRAILING_DAYS, min_samples=5)
        judged = counts.with_columns(ratio=pl.col("rows") / typical).drop_nulls("ratio")
        few, many = judged.filter(pl.col("ratio") < low), judged.filter(pl.col("ratio") > high)
        least = _number(judged["ratio"].min())
        details: dict[str, object] = {
            "days": counts.height,
            "rows_of_the_newest_day": counts["rows"][-1] if counts.height else 0,
            "median_rows": _number(counts["rows"].median()),
            "days_with_few_rows": [str(day) for day in few["day"][:20]],
            "days_with_many_rows": [str(day) for day in many["day"][:20]],
            "largest_ratio": _number(judged["ratio"].max()),
        }
        message = f"{self._table.name}: rows of a day over the median of the {TRAILING_DAYS} before: least {least:.2f}"
        if few.height or many.height:
            odd = few if few.height else many
            message += (
                f"; {few.height} days below {low}, {many.height} above {high}, e.g. {odd['day'][0]} with "
                f"{odd['rows'][0]} rows; read that month again (refetch) if rows were lost"
            )
        passed = not few.height and not many.height
        return {"rows_per_day": Verdict(passed, least, low, message, details, "error" if few.height else "warn")}


def _number(value: object) -> float:
    """A statistic of a column as a number; 1 where there was nothing to compare."""
    return float(value) if isinstance(value, int | float) else 1.0


def days_of(rows: pl.DataFrame, column: str) -> set[date]:
    return set(rows[column].unique().drop_nulls())
