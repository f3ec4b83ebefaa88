"""What a row rule is, and the expressions that rules are written with.

Severity: `error` where a broken row makes what is built from the table wrong; `warn` for oddities that the pipeline
tolerates. `allowed` is the share of rows up to which even an `error` rule only warns: a service with 10 million rows
has a few odd ones, and one of them must not stop every night.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import polars as pl

from atft_pipeline.verdict import Severity

FEW = 1e-5
"""Allowed share of broken rows for identities that the exchange itself guarantees: 100 in 10 million."""


@dataclass(frozen=True)
class Rule:
    """One rule about single rows. `broken` is true on a row that breaks it, null where it does not apply."""

    name: str
    says: str
    why: str
    """What a broken row does to the data, which is also why the severity is what it is."""
    columns: tuple[str, ...]
    broken: pl.Expr
    severity: Severity = "error"
    allowed: float = 0.0
    scope: Literal["declared", "optional"] = "declared"
    """`optional`: the columns come with higher plans only; where they are absent the rule does not apply."""


def number(column: str) -> pl.Expr:
    """The column as a number; text that is none ("-", "*", "") is null, so that a rule does not apply to it."""
    return pl.col(column).cast(pl.Float64, strict=False).fill_nan(None)


def differs(left: pl.Expr, right: pl.Expr, tolerance: float | pl.Expr = 0.5) -> pl.Expr:
    return (left - right).abs() > tolerance


def total(columns: Iterable[str]) -> pl.Expr:
    """The sum of columns; null as soon as one of them is."""
    first, *others = (number(column) for column in columns)
    for other in others:
        first = first + other
    return first


def any_of(*broken: pl.Expr) -> pl.Expr:
    """True where one applies and is broken; null where none applies."""
    return pl.any_horizontal(*broken)


def unknown(column: str, known: Iterable[str]) -> pl.Expr:
    """True where the text is not one of `known`; null text does not count."""
    return ~pl.col(column).is_in(list(known))


def range_broken(open_: str, high: str, low: str, close: str) -> pl.Expr:
    """True where not low <= open, close <= high."""
    o, h, lo, c = number(open_), number(high), number(low), number(close)
    return any_of(lo > o, lo > c, lo > h, h < o, h < c)
