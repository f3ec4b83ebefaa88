"""Switchable misbehaviour of the exchange: how a fault is written, which requests it hits, what it does to the rows.

A fault is written `kind:table[:option=value...]`, for example `429:bars_daily:date=2024-05-10:times=2:retry_after=1`;
`*` is every table. How a broken reply goes over the wire is in `replies.py`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date

import polars as pl

from atft_pipeline.exchange.endpoints import TABLES, Endpoint
from atft_pipeline.exchange.tables import Query

_SELECTORS = ("date", "code", "page", "times", "after")
KINDS: dict[str, tuple[str, ...]] = {
    "429": ("retry_after",),
    "500": ("retry_after",),
    "503": ("retry_after",),
    "truncate": (),
    "malformed": (),
    "null": (),
    "endless": ("mode",),
    "drop_column": ("column",),
    "extra_column": ("column",),
    "retype": ("column",),
    "slow": ("seconds",),
    "reset": (),
    "duplicate": ("rows",),
    "all_null": (),
    "partial": ("share",),
}
"""Kind -> its own options, beside the selectors date, code, page, times and after."""


class FaultSyntaxError(ValueError):
    """A fault's text or values make no sense; the message says what is allowed."""


@dataclass(frozen=True)
class Fault:
    """One switch: `kind` on requests to `table`, narrowed by the selectors; None selects everything."""

    kind: str
    table: str = "*"
    date: date | None = None
    """Requests for this date, or for a range with an end that contains it."""
    code: str | None = None
    """The code as the server sees it: five characters for stocks."""
    page: int | None = None
    """Page number from 1."""
    times: int | None = None
    """How many matching requests are hit; None: all."""
    after: int = 0
    """How many matching requests are spared first."""
    retry_after: int | None = None
    """Seconds in the Retry-After header; None: no header."""
    column: str | None = None
    """drop_column and extra_column: the column. retype: the column, or None for every value column."""
    seconds: float = 35.0
    """slow: delay before the reply."""
    mode: str = "repeat"
    """endless: `repeat` the same pagination key or `change` it every time."""
    rows: int = 1
    """duplicate: how many rows of this page come again on the next."""
    share: float = 0.5
    """partial: the share of the rows that is already published."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise FaultSyntaxError(f"unknown fault {self.kind!r}; known: {', '.join(KINDS)}")
        if self.table != "*" and self.table not in TABLES:
            raise FaultSyntaxError(f"fault {self.kind}: unknown table {self.table!r}; known: *, {', '.join(TABLES)}")
        if self.kind in ("drop_column", "extra_column") and not self.column:
            raise FaultSyntaxError(f"fault {self.kind} needs column=NAME")
        if self.mode not in ("repeat", "change"):
            raise FaultSyntaxError(f"fault {self.kind}: mode is {self.mode!r}; use repeat or change")
        if not 0 <= self.share < 1:
            raise FaultSyntaxError(f"fault {self.kind}: share is {self.share}; it must be in [0, 1)")
        if self.rows < 1:
            raise FaultSyntaxError(f"fault {self.kind}: rows is {self.rows}; it must be at least 1")

    def __str__(self) -> str:
        """The text that `parse_fault` reads back."""
        options = [
            f"{f.name}={getattr(self, f.name)}"
            for f in fields(self)
            if f.name not in ("kind", "table") and getattr(self, f.name) != f.default
        ]
        return ":".join([self.kind, self.table, *options])

    def matches(self, table: str, query: Query, page: int) -> bool:
        return (
            self.table in ("*", table)
            and (self.date is None or query.touches(self.date))
            and (self.code is None or query.code == self.code)
            and (self.page is None or page == self.page)
        )


def parse_fault(text: str) -> Fault:
    """Read `kind:table[:option=value...]`. Raises `FaultSyntaxError`."""
    kind, _, rest = text.partition(":")
    table, *options = rest.split(":") if rest else ["*"]
    if kind not in KINDS:
        raise FaultSyntaxError(f"fault {text!r}: unknown kind {kind!r}; known: {', '.join(KINDS)}")
    allowed = _SELECTORS + KINDS[kind]
    values: dict[str, object] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or name not in allowed:
            raise FaultSyntaxError(f"fault {text!r}: {option!r} is not an option; {kind} takes {', '.join(allowed)}")
        values[name] = _convert(text, name, value)
    return Fault(kind, table, **values)  # type: ignore[arg-type]


def _convert(text: str, name: str, value: str) -> object:
    try:
        if name == "date":
            return date.fromisoformat(value)
        if name in ("page", "times", "after", "retry_after", "rows"):
            return int(value)
        return float(value) if name in ("seconds", "share") else value
    except ValueError:
        raise FaultSyntaxError(f"fault {text!r}: {name} cannot be {value!r}") from None


class FaultBoard:
    """The faults in force and how many requests each has met."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._mutex = threading.Lock()
        self._faults: list[Fault] = []
        self._met: list[int] = []
        self.replace(faults)

    def replace(self, faults: Iterable[Fault]) -> None:
        """Put `faults` in force instead of the present ones, with fresh counts."""
        with self._mutex:
            self._faults = list(faults)
            self._met = [0] * len(self._faults)

    def take(self, table: str, query: Query, page: int) -> list[Fault]:
        """Faults that hit this request; counts it for every fault that it matches."""
        hit = []
        with self._mutex:
            for at, fault in enumerate(self._faults):
                if not fault.matches(table, query, page):
                    continue
                self._met[at] += 1
                if self._met[at] > fault.after and (fault.times is None or self._met[at] <= fault.after + fault.times):
                    hit.append(fault)
        return hit


def distort_answer(rows: pl.DataFrame, faults: Iterable[Fault]) -> pl.DataFrame:
    """Apply the faults that concern the whole answer, before it is cut into pages."""
    for fault in faults:
        if fault.kind == "partial":
            rows = rows.head(math.floor(rows.height * fault.share))
    return rows


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
