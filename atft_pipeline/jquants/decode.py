"""From delivered values to a typed Polars frame, by a table's declared schema: the client's pandas frame, or CSV text.

The API mixes numbers, numbers as text, "", "-", "*" and null, and an all-null page has no type at all; here every
value becomes the declared type or null, and a column that cannot be decoded is an error, never a guess. Both entries
give the same frame for the same facts. CSV cannot tell "" from null, so an empty text is null, except in a key, where
an absent part (a report without a fund, say) is "".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from atft_pipeline.jquants.errors import NOTHING_STORED, SchemaError
from atft_pipeline.jquants.table import Table

MISSING = ("", "-", "－", "*", "＊")
"""How the API writes an absent number or date, besides null."""
_MARKS = {"-": "-", "－": "-", "*": "*", "＊": "*"}


def decode(table: Table, frame: pd.DataFrame, request: str) -> pl.DataFrame:
    """Every delivered column, typed: declared columns in declared order, then optional ones, then others as text.

    Raises `SchemaError` when a declared column is missing, a value cannot be decoded, a key is null or a code has lost
    its leading zeros. A frame without rows gives the declared columns without rows.
    """
    if frame.empty:
        return pl.DataFrame(schema=dict(table.schema))
    types = _types(table, [str(name) for name in frame.columns], request)
    if table.marked:
        frame = frame.copy()
        for name, mark in table.marks.items():
            frame[mark] = [_mark(value) for value in frame[name]]
    decoded = pl.DataFrame(_columns(table, frame, types, request), schema=types, nan_to_null=True)
    return _checked(table, decoded, request)


def decode_text(table: Table, frame: pl.DataFrame, request: str) -> pl.DataFrame:
    """The same for a frame of text columns, as a CSV file gives them, column by column and not value by value."""
    if not frame.height:
        return pl.DataFrame(schema=dict(table.schema))
    types = _types(table, frame.columns, request)
    frame = frame.with_columns(
        pl.col(name).str.strip_chars().replace_strict(_MARKS, default=None, return_dtype=pl.String).alias(mark)
        for name, mark in table.marks.items()
    )
    columns = []
    for name, dtype in types.items():
        try:
            columns.append(_VECTORS[dtype](frame[name]).alias(name))
        except ValueError as error:
            raise _wrong(table, request, f"column {name}: {error}") from None
    return _checked(table, pl.DataFrame(columns), request)


def _types(table: Table, names: Sequence[str], request: str) -> dict[str, pl.DataType]:
    """Delivered columns and their types: declared ones in declared order, optional ones, then the others as text."""
    missing = [name for name in table.schema if name not in names]
    if missing:
        have = len(table.schema) - len(missing)
        raise _wrong(table, request, f"column {', '.join(missing)} missing (have {have} of {len(table.schema)})")
    given = [*names, *table.marks.values()]
    types = dict(table.schema) | {name: kind for name, kind in table.optional.items() if name in given}
    return types | {name: pl.String() for name in names if name not in types}


def _checked(table: Table, decoded: pl.DataFrame, request: str) -> pl.DataFrame:
    """Empty text made null (in a key without a fixed length: null made empty), and the rules of keys and lengths."""
    texts = [name for name, dtype in decoded.schema.items() if dtype == pl.String]
    open_keys = [name for name in texts if name in table.keys and name not in table.widths]
    emptied = [
        pl.col(name).replace("", None) for name in texts if name not in open_keys and (decoded[name] == "").any()
    ]
    decoded = decoded.with_columns(*emptied, pl.col(open_keys).fill_null(""))
    for key in table.keys:
        if decoded[key].null_count():
            raise _wrong(table, request, f"column {key} is null or no date in {decoded[key].null_count()} rows")
    for name, width in table.widths.items():
        odd = decoded[name].filter(decoded[name].str.len_chars() != width)
        if odd.len():
            raise _wrong(table, request, f"column {name}: {odd[0]!r} does not have {width} characters")
    return decoded


def _wrong(table: Table, request: str, what: str) -> SchemaError:
    return SchemaError(
        f"{table.path} {request}: {what}; the API may have changed: compare atft_pipeline/jquants/tables.py "
        f"({table.name}) with the official specification, and the jquants-api-client version; {NOTHING_STORED}",
        endpoint=table.path,
        request=request,
        status=200,
    )


def _columns(
    table: Table, frame: pd.DataFrame, types: Mapping[str, pl.DataType], request: str
) -> dict[str, np.ndarray | list[Any]]:
    """Column values ready for Polars: arrays where pandas has a numeric or time type, else decoded one by one.

    Everything untyped is taken out of pandas at once: with 111 columns, one access each would take most of the time.
    """
    fast = [
        name
        for name, dtype in zip(frame.columns, frame.dtypes, strict=True)
        if (dtype.kind in "iuf" and types[name] == pl.Float64) or (dtype.kind == "M" and types[name] == pl.Date)
    ]
    slow = [name for name in frame.columns if name not in set(fast)]
    objects = frame[slow].to_numpy(dtype=object)
    columns: dict[str, np.ndarray | list[Any]] = {}
    try:
        for name in fast:
            values = frame[name].to_numpy()
            columns[name] = values.astype("datetime64[D]") if types[name] == pl.Date else _finite(values)
        for position, name in enumerate(slow):
            parse = _PARSERS[types[name]]
            columns[name] = [parse(value) for value in objects[:, position].tolist()]
    except ValueError as error:
        raise _wrong(table, request, f"column {name}: {error}") from None
    return {name: columns[name] for name in types}


def _finite(values: np.ndarray) -> np.ndarray:
    numbers = values.astype(np.float64)
    if np.isinf(numbers).any():
        raise ValueError("infinite values")
    return numbers


def _number(value: Any) -> float | None:
    """A number, a number as text, or null; raises `ValueError` for anything else."""
    text = _text(value)
    if text is None or text.strip() in MISSING:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in text:  # Python reads 1_000
        raise ValueError(f"{text!r} is not a number")
    return number


def _mark(value: Any) -> str | None:
    """The mark that stands in place of a number, "-" or "*"; null where there is a number or nothing at all."""
    text = (_text(value) or "").strip()
    return _MARKS.get(text)


def _date(value: Any) -> date | None:
    """A date, a date as text (dashes or not; a time of day, if any, is midnight and dropped), or null."""
    text = _text(value)
    if text is None or text.strip() in MISSING:
        return None
    try:
        return date.fromisoformat(text.strip()[:10])
    except ValueError:
        raise ValueError(f"{text!r} is not a date") from None


def _text(value: Any) -> str | None:
    """A delivered scalar as text: whole numbers without ".0", flags as JSON writes them, null as None."""
    if isinstance(value, str):
        return value
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if np.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, pd.Timestamp):
        return str(value.date())
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return str(value)


_PARSERS: Mapping[pl.DataType, Callable[[Any], Any]] = {pl.Date(): _date, pl.Float64(): _number, pl.String(): _text}


def _number_column(text: pl.Series) -> pl.Series:
    """Floats; whatever does not read as one at once goes through the rule for single values."""
    numbers = text.cast(pl.Float64, strict=False)
    left = text.filter((numbers.is_null() & text.is_not_null()) | ~numbers.is_finite()).unique()
    rest = {value: _number(value) for value in left}
    return numbers if not any(value is not None for value in rest.values()) else _patched(text, numbers, rest)


def _date_column(text: pl.Series) -> pl.Series:
    dates = text.str.to_date("%Y-%m-%d", strict=False)
    left = text.filter(dates.is_null() & text.is_not_null()).unique()
    rest = {value: _date(value) for value in left}
    return dates if not any(value is not None for value in rest.values()) else _patched(text, dates, rest)


def _text_column(text: pl.Series) -> pl.Series:
    """Text as it is; an object is written as the other entry writes it."""
    objects = text.filter(text.str.starts_with("{")).unique()
    rest: dict[str, str] = {}
    for value in objects:
        try:
            rest[value] = json.dumps(json.loads(value), ensure_ascii=False, sort_keys=True)
        except ValueError:
            rest[value] = value  # text that only begins like an object
    return _patched(text, text, rest) if rest else text


def _patched(text: pl.Series, decoded: pl.Series, rest: Mapping[str, Any]) -> pl.Series:
    """`decoded`, with the values of `rest` where the text is one of its keys."""
    given = pl.Series(list(rest.values()), dtype=decoded.dtype)
    found = text.replace_strict(pl.Series(list(rest), dtype=pl.String), given, default=None, return_dtype=decoded.dtype)
    return decoded.zip_with(~text.is_in(list(rest)).fill_null(False), found)


_VECTORS: Mapping[pl.DataType, Callable[[pl.Series], pl.Series]] = {
    pl.Date(): _date_column,
    pl.Float64(): _number_column,
    pl.String(): _text_column,
}
