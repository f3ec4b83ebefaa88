"""The raw tables as groups ask for them: a missing table or column stops the build and says which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from atft_pipeline.verdict import ContractBroken


def required_table(tables: Mapping[str, pl.DataFrame], name: str) -> pl.DataFrame:
    """The raw table of that name. Raises ContractBroken when it was not given."""
    if name not in tables:
        raise ContractBroken(f"raw table {name} is missing; ingest it, or build for a plan that does without it")
    return tables[name]


def require_columns(name: str, table: pl.DataFrame, columns: Iterable[str]) -> None:
    """Raise ContractBroken unless the table has all these columns."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ContractBroken(
            f"{name} lacks the columns {', '.join(missing)}; ingest it again, or check the API's field names"
        )
