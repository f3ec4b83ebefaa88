"""Delivered JSON rows as a table and back, without loss: which kinds of values a column holds decides how it is stored.

A column of one kind keeps that type. One that mixes kinds ("-" among numbers), or holds objects, is stored as JSON
text; market.json names such columns under `objects`, and the server turns them back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

Kinds = dict[str, set[str]]
"""Column -> kinds of its values: null, flag, whole, number, text, object."""

_TYPES: dict[str, pl.DataType] = {
    "flag": pl.Boolean(),
    "whole": pl.Int64(),
    "number": pl.Float64(),
    "text": pl.String(),
}


def kinds_of(rows: Iterable[Mapping[str, Any]]) -> Kinds:
    """The kinds of values in each column, columns in the order of their first appearance."""
    kinds: Kinds = {}
    for row in rows:
        for name, value in row.items():
            kinds.setdefault(name, set()).add(_kind(value))
    return kinds


def merged(first: Kinds, second: Kinds) -> Kinds:
    """Kinds of two sets of rows together; whole numbers among numbers are numbers."""
    both = {name: first.get(name, set()) | second.get(name, set()) for name in {**first, **second}}
    return {name: seen - {"whole"} if "number" in seen else seen for name, seen in both.items()}


def is_stored_as_json(seen: set[str]) -> bool:
    """Whether a column with these kinds needs JSON text."""
    return "object" in seen or len(seen - {"null"}) > 1


def frame_of(rows: Iterable[Mapping[str, Any]], kinds: Kinds) -> pl.DataFrame:
    """The rows as a frame with the columns of `kinds`; an absent key is null."""
    rows = list(rows)
    columns = []
    for name, seen in kinds.items():
        values = [row.get(name) for row in rows]
        if is_stored_as_json(seen):
            texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
            columns.append(pl.Series(name, texts, pl.String))
        else:
            kind = next(iter(seen - {"null"}), "text")
            columns.append(pl.Series(name, values, _TYPES[kind], strict=kind != "number"))
    return pl.DataFrame(columns)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int):
        return "whole"
    if isinstance(value, float):
        return "number"
    return "text" if isinstance(value, str) else "object"
