"""One check of a stored table at a time: keys, schema, completeness. The product judges all of a table in one reading.

Each takes the lake, a table and its months ("YYYY-MM"; ignored for the calendar) and returns a `Verdict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atft_pipeline.jquants.checks.coverage import coverage_of
from atft_pipeline.jquants.checks.scan import Part, absent, missing_months, scan
from atft_pipeline.jquants.checks.structure import Keys, Schema
from atft_pipeline.jquants.table import Table
from atft_pipeline.verdict import Verdict


def check_keys(lake: Path, table: Table, months: Sequence[str]) -> Verdict:
    """Null, repeated and misplaced keys, over all months; want 0."""
    return _single(lake, table, months, Keys(table), "keys_unique")


def check_schema(lake: Path, table: Table, months: Sequence[str]) -> Verdict:
    """Declared columns that every month holds with the declared type; want all of them."""
    return _single(lake, table, months, Schema(table), "schema_as_declared")


def check_completeness(lake: Path, table: Table, months: Sequence[str]) -> Verdict:
    """Share of what must be there by the calendar and the list of issues that is there."""
    return _single(lake, table, months, coverage_of(lake, table), "complete")


def _single(lake: Path, table: Table, months: Sequence[str], part: Part, name: str) -> Verdict:
    missing = missing_months(lake, table, months)
    return absent(table, missing) if missing else scan(lake, table, months, [part])[name]
