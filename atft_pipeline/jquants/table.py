"""What the declaration of a raw table says. The declarations themselves are in `tables.py` and its families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import polars as pl

if TYPE_CHECKING:
    import pandas as pd
    from jquantsapi import ClientV2


@dataclass(frozen=True)
class Table:
    """One raw table.

    `unit` is what one request covers: the whole table, a month, or a day; `days` says which days are asked for.
    `dense`: every business day must have rows. `covers`: each day's codes must include those of that table.
    `optional` columns are typed when the plan delivers them; any other undeclared column is kept as text.
    `widths` are fixed code lengths: a code that arrives as a number has lost its leading zeros.
    `marked` numbers may be absent for a reason ("-", "*"): it is kept as text in a further column, `<name>Mark`.
    """

    name: str
    path: str
    keys: tuple[str, ...]
    date_column: str
    schema: Mapping[str, pl.DataType]
    plan: Literal["free", "light", "standard", "premium"]
    unit: Literal["all", "month", "day"]
    get: Callable[[ClientV2, str, str], pd.DataFrame]
    availability: str
    """When a row becomes known (Tokyo time); the panel's as-of rules implement this sentence."""
    days: Literal["business", "calendar", "margin"] = "business"
    """`margin`: the last business day of each week, and every one since the balances turned daily."""
    dense: bool = True
    even: bool = True
    """Days of a dense table have about as many rows as their neighbours; far fewer are a lost page."""
    covers: str = ""
    among: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of the issues of `covers`, only those with one of these values in a column must have a row; none: all."""
    coverage: float = 0.98
    """Share of them that must have one; less is a partial publication, or a lost page."""
    standing: bool = False
    """Contracts: once listed, one has a row every day up to its last trading day `LTD`."""
    revision: Literal["replace", "append"] = "replace"
    """How the service corrects a row: it rewrites it, or appends another one with a newer publication date."""
    optional: Mapping[str, pl.DataType] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    marked: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    """Columns beside the keys of which some row of every day has a value; none: any value will do."""
    younger: tuple[str, ...] = ()
    """Columns that older rows of the service do not have; any other declared column must be in every answer."""

    @property
    def marks(self) -> dict[str, str]:
        """Marked column -> the column that keeps its mark."""
        return {name: f"{name}Mark" for name in self.marked}


def typed(dates: str, texts: str, numbers: str, order: list[str] | None = None) -> dict[str, pl.DataType]:
    """Column -> type from three word lists, in the order given (default: as listed)."""
    types: dict[str, pl.DataType] = {}
    for words, dtype in ((dates, pl.Date()), (texts, pl.String()), (numbers, pl.Float64())):
        types |= dict.fromkeys(words.split(), dtype)
    return {name: types[name] for name in order} if order else types
