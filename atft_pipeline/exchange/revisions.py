"""What the service changes after the fact: corrected rows, appended corrections, restated filings, late splits.

A revision is written `kind:table:since=TIME:date=DATE[:option=value...]`. It acts from `since` (exchange time) on, and
on everything alike: JSON pages, adjusted prices, bulk files. An exchange without a clock stands after all of them.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import polars as pl

from atft_pipeline.exchange.clock import ClockError, parse_moment
from atft_pipeline.exchange.endpoints import TABLES, Endpoint

KINDS: dict[str, str] = {
    "correct": "rewrite values of a row in place (adjusted prices follow)",
    "append": "publish a further row for the same thing: a corrected week, a restated filing; the old row stays",
    "split": "announce a split late: the factor appears on the row of date, adjusted prices before it change",
}
_OPTION = re.compile(r":(?=[A-Za-z])")
"""A colon inside a time is followed by a digit."""


class RevisionError(ValueError):
    """A revision's text or target makes no sense; the message says what is allowed."""


@dataclass(frozen=True)
class Revision:
    """One change of the past. It concerns the rows of `date` that fit `where` (column -> value)."""

    kind: str
    table: str
    since: datetime
    date: date
    where: tuple[tuple[str, str], ...] = ()
    column: str | None = None
    """The column that changes; None: every number of the row, so that sums stay sums."""
    factor: float = 1.0
    """What numbers are multiplied by; for a split the adjustment factor, 0.5 for one share into two."""
    value: str | None = None
    """The new value instead; needs `column`."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RevisionError(f"unknown revision {self.kind!r}; known: {', '.join(KINDS)}")
        if self.table not in TABLES:
            raise RevisionError(f"revision {self.kind}: unknown table {self.table!r}; known: {', '.join(TABLES)}")
        if self.kind == "append" and TABLES[self.table].date_column not in ("PubDate", "DiscDate"):
            raise RevisionError(f"append: rows of {self.table} carry no date of publication; use correct")
        if self.kind == "split":
            if self.table != "bars_daily" or self.factor in (0.0, 1.0) or not self.code:
                raise RevisionError("split needs the table bars_daily, code=CODE and a factor other than 1")
        elif (self.value is None) == (self.factor == 1.0) or (self.value is not None and not self.column):
            raise RevisionError(f"{self.kind}: give factor=NUMBER other than 1, or column=NAME and value=TEXT")

    @property
    def code(self) -> str | None:
        return dict(self.where).get("Code")

    def __str__(self) -> str:
        """The text that `parse_revision` reads back."""
        options = [f"{name}={text}" for name, text in self.where]
        options += [f"column={self.column}"] if self.column else []
        options += [f"factor={self.factor}"] if self.factor != 1.0 else []
        options += [f"value={self.value}"] if self.value is not None else []
        return ":".join([self.kind, self.table, f"since={self.since.isoformat()}", f"date={self.date}", *options])

    def rows(self, frame: pl.DataFrame) -> pl.Expr:
        """The rows of `frame` that it concerns. Raises `RevisionError` for a column that is not there."""
        names = [name for name, _ in self.where] + ([self.column] if self.column else [])
        absent = [name for name in names if name not in frame.columns]
        if absent:
            raise RevisionError(f"revision {self}: {self.table} has no column {', '.join(absent)}")
        hit = pl.col(TABLES[self.table].date_column) == self.date.isoformat()
        for name, text in self.where:
            hit &= pl.col(name) == text
        return hit

    def corrected(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with the concerned rows rewritten (kinds correct and split)."""
        hit = self.rows(frame)
        if self.kind == "split":
            sort = "1" if self.factor < 1 else "2"
            new = {"AdjFactor": pl.lit(self.factor), "ExRT": pl.lit(sort)}
        else:
            new = self._values(frame)
        known = {name: value for name, value in new.items() if name in frame.columns}
        return frame.with_columns(
            pl.when(hit).then(value.cast(frame.schema[name])).otherwise(pl.col(name)).alias(name)
            for name, value in known.items()
        )

    def appended(self, originals: pl.DataFrame) -> pl.DataFrame:
        """The further rows, from the rows that they correct; they carry this revision's own date, time and number."""
        rows = originals.filter(self.rows(originals))
        values = self._values(rows)
        if "CARefNo" in rows.columns:
            values["CARefNo"] = pl.col("RefNo")
        serial = zlib.crc32(str(self).encode())
        numbers = pl.Series(
            [f"{self.since:%Y%m%d}9{(serial + n) % 100_000:05d}" for n in range(rows.height)], dtype=pl.String
        )
        stamp = {
            TABLES[self.table].date_column: pl.lit(self.since.date().isoformat()),
            "DiscTime": pl.lit(self.since.time().isoformat()),
            "PubTime": pl.lit(f"{self.since:%H:%M}"),
            "DiscNo": pl.lit(numbers),
            "RefNo": pl.lit(numbers),
            "StatCode": pl.lit("2"),
        }
        values |= {name: value for name, value in stamp.items() if name in rows.columns}
        return rows.with_columns(value.cast(rows.schema[name]).alias(name) for name, value in values.items())

    def _values(self, frame: pl.DataFrame) -> dict[str, pl.Expr]:
        if self.value is not None:
            assert self.column is not None
            return {self.column: pl.lit(self.value)}
        fixed = {*TABLES[self.table].keys, "AdjFactor"}
        numbers = [name for name in frame.columns if name not in fixed and frame.schema[name].is_numeric()]
        names = [self.column] if self.column else numbers
        if not names:
            raise RevisionError(f"revision {self}: {self.table} writes its numbers as text; name one with column=")
        return {name: _scaled(frame, name, self.factor) for name in names}


def _scaled(frame: pl.DataFrame, name: str, factor: float) -> pl.Expr:
    """The column times `factor`; numbers written as text stay text, whole ones whole."""
    number = pl.col(name).cast(pl.Float64, strict=False) * factor
    if frame.schema[name].is_numeric():
        return number.round(1)
    text = number.round(2).cast(pl.String).str.strip_suffix(".0")
    return pl.when(number.is_null()).then(pl.col(name)).otherwise(text)


def parse_revision(text: str) -> Revision:
    """Read `kind:table:since=TIME:date=DATE[:option=value...]`. Raises `RevisionError`.

    Options: code, column, factor, value, and any column of the table (capitalised) that narrows the rows.
    """
    kind, _, rest = text.partition(":")
    table, *options = _OPTION.split(rest)
    given: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        known = name in ("since", "date", "code", "column", "factor", "value") or name[:1].isupper()
        if not equals or not known:
            raise RevisionError(
                f"revision {text!r}: {option!r} is not an option; use since, date, code, column, factor, value or "
                "COLUMN=value"
            )
        given["Code" if name == "code" else name] = value
    try:
        since, day = parse_moment(given.pop("since")), date.fromisoformat(given.pop("date"))
        factor = float(given.pop("factor", "1"))
    except KeyError as error:
        raise RevisionError(f"revision {text!r} needs {error.args[0]}=") from None
    except (ClockError, ValueError) as error:
        raise RevisionError(f"revision {text!r}: {error}") from None
    column, value = given.pop("column", None), given.pop("value", None)
    return Revision(kind, table, since, day, tuple(sorted(given.items())), column, factor, value)


def read_revisions(path: Path) -> list[Revision]:
    """Revisions from a JSON list of texts, or of objects with kind, table and the options. Raises `RevisionError`."""
    try:
        entries = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RevisionError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(entries, list):
        raise RevisionError(f"{path}: expected a list of revisions")
    return [parse_revision(entry if isinstance(entry, str) else _text(path, entry)) for entry in entries]


def _text(path: Path, entry: object) -> str:
    if not isinstance(entry, Mapping) or not {"kind", "table"} <= set(entry):
        raise RevisionError(f"{path}: {entry!r} is neither a text nor an object with kind and table")
    options = [f"{name}={value}" for name, value in entry.items() if name not in ("kind", "table")]
    return ":".join([str(entry["kind"]), str(entry["table"]), *options])


def answer_order(endpoint: Endpoint) -> list[str]:
    """Columns that order an answer after rows were appended."""
    return list(endpoint.order or (endpoint.date_column, *endpoint.keys))
