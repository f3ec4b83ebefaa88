"""From the client's pandas frame to a typed Polars frame, by a table's declared schema.

The API mixes numbers, numbers as text, "", "-", "*" and null, and an all-null page has no type at all; here every
value becomes the declared type or null, and a column that cannot be decoded is an error, never a guess.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from atft_pipeline.jquants.errors import NOTHING_STORED, SchemaError
from atft_pipeline.jquants.tables import Table

MISSING = ("", "-", "－", "*", "＊")
"""How the API writes an absent number or date, besides null."""


def decode(table: Table, frame: pd.DataFrame, request: str) -> pl.DataFrame:
    """Every delivered column, typed: declared columns in declared order, then optional ones, then others as text.

    Raises `SchemaError` when a declared column is missing, a value cannot be decoded, a key is null or a code has lost
    its leading zeros. A frame without rows gives the declared columns without rows.
    """
    if frame.empty:
        return pl.DataFrame(schema=dict(table.schema))
    missing = [name for name in table.schema if name not in frame.columns]
    if missing:
        have = len(table.schema) - len(missing)
        raise _wrong(table, request, f"column {', '.join(missing)} missing (have {have} of {len(table.schema)})")
    types = dict(table.schema) | {name: kind for name, kind in table.optional.items() if name in frame.columns}
    types |= {str(name): pl.String() for name in frame.columns if name not in types}
    columns: dict[str, pl.Series] = {}
    for name, dtype in types.items():
        try:
            columns[name] = _column(frame[name], dtype)
        except ValueError as error:
            raise _wrong(table, request, f"column {name}: {error}") from None
    decoded = pl.DataFrame(columns)
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


def _column(values: pd.Series, dtype: pl.DataType) -> pl.Series:
    if dtype == pl.Date:
        return _dates(values)
    if dtype == pl.Float64:
        return _numbers(values)
    return pl.Series([_text(value) for value in values.tolist()], dtype=pl.String)


def _dates(values: pd.Series) -> pl.Series:
    if values.dtype.kind == "M":
        return pl.Series(values.to_numpy().astype("datetime64[D]"))
    # A time of day, if any, is midnight: it is dropped.
    texts = pl.Series([_text(value) for value in values.tolist()], dtype=pl.String).str.strip_chars()
    texts = _without_missing(texts).str.slice(0, 10).str.replace_all("-", "")
    dates = texts.str.to_date("%Y%m%d", strict=False)
    return _all_decoded(texts, dates, "date")


def _numbers(values: pd.Series) -> pl.Series:
    if values.dtype.kind in "iuf":
        numbers = pl.Series(values.to_numpy().astype(np.float64)).fill_nan(None)
        if numbers.is_infinite().any():
            raise ValueError("infinite values")
        return numbers
    texts = pl.Series([_text(value) for value in values.tolist()], dtype=pl.String).str.strip_chars()
    texts = _without_missing(texts)
    numbers = texts.cast(pl.Float64, strict=False)
    numbers = pl.select(pl.when(numbers.is_finite()).then(numbers)).to_series()
    return _all_decoded(texts, numbers, "number")


def _without_missing(texts: pl.Series) -> pl.Series:
    return pl.select(pl.when(~texts.is_in(MISSING)).then(texts)).to_series()


def _all_decoded(texts: pl.Series, decoded: pl.Series, kind: str) -> pl.Series:
    bad = texts.filter(texts.is_not_null() & decoded.is_null())
    if bad.len():
        raise ValueError(f"{bad[0]!r} is not a {kind} ({bad.len()} of {texts.len()} rows)")
    return decoded


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
