"""One pass over a table's months, shared by all of its checks.

Each month is read once, with the columns that any check needs, and handed to every `Part`; memory holds one month.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

import polars as pl

from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import CALENDAR, partition_path
from atft_pipeline.lake.store import Record, read_record, read_table
from atft_pipeline.verdict import Verdict


@dataclass(frozen=True)
class Month:
    """One stored month: its name ("all" for the calendar), its record and the rows in the columns asked for."""

    name: str
    record: Record
    rows: pl.DataFrame

    @property
    def span(self) -> tuple[date, date]:
        """First and last date that the month says it covers."""
        source = self.record.source
        return date.fromisoformat(source["from"]), date.fromisoformat(source["to"])


class Part(Protocol):
    """A check, or several that need the same rows."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns to read; one that a month lacks is simply not there."""

    def add(self, month: Month) -> None: ...

    def verdicts(self) -> Mapping[str, Verdict]:
        """Check name -> verdict, after the last month."""


def scan(lake: Path, table: Table, months: Sequence[str], parts: Sequence[Part]) -> dict[str, Verdict]:
    """Give every stored month to every part. `months` are "YYYY-MM", ignored for the calendar; all must be stored.

    Months that lie outside the plan's dates are left out: nothing can be missing there.
    """
    wanted = tuple(dict.fromkeys(column for part in parts for column in part.columns))
    names = [""] if table is CALENDAR else sorted(months)
    records = {month: read_record(lake / partition_path(table, month)) for month in names}
    inside = [month for month, record in records.items() if record.source["from"] <= record.source["to"]]
    for month in inside or names[-1:]:
        path, record = lake / partition_path(table, month), records[month]
        present = [column for column in wanted if column in record.columns]
        rows = read_table(path, columns=present) if present else pl.DataFrame()
        for part in parts:
            part.add(Month(month or "all", record, rows))
    found: dict[str, Verdict] = {}
    for part in parts:
        found |= part.verdicts()
    return found


def missing_months(lake: Path, table: Table, months: Sequence[str]) -> list[str]:
    """Months that are not stored."""
    wanted = [""] if table is CALENDAR else months
    return [month or "all" for month in wanted if not (lake / partition_path(table, month)).exists()]


def absent(table: Table, missing: Sequence[str]) -> Verdict:
    """The verdict of every check of a table whose months are not all stored."""
    return Verdict(
        passed=False,
        got=float(len(missing)),
        want=0.0,
        message=f"{table.name}: partitions {', '.join(missing[:5])} are not stored; materialise them first",
        details={"missing_partitions": list(missing)},
    )
