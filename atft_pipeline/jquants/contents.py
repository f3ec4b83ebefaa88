"""What the raw tables of a lake hold, as one short description: the version that everything downstream rests on.

It changes exactly when a stored fact changes: a new day, a correction, a month taken away. Rows that were read again
without news, and prices that the service merely restated after a split, leave it as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from atft_pipeline.jquants.table import Table
from atft_pipeline.lake.store import read_record


@dataclass(frozen=True)
class Contents:
    """One table: its stored months, their rows, the dates from the first to the last, and the hash of its facts."""

    table: str
    months: int
    rows: int
    first: str
    last: str
    facts: str


def table_contents(lake: Path, table: Table) -> Contents:
    """Read from the files' own records, without reading rows."""
    digest, rows, dates = hashlib.sha256(), 0, []
    paths = sorted((lake / "raw" / table.name).glob("*.parquet"))
    for path in paths:
        record = read_record(path)
        source = record.source
        digest.update(f"{path.stem} {source.get('facts_hash', record.content_hash)}\n".encode())
        rows += record.rows
        if source["from"] <= source["to"]:
            dates += [source["from"], source["to"]]
    return Contents(table.name, len(paths), rows, min(dates, default=""), max(dates, default=""), digest.hexdigest())


def version(contents: Iterable[Contents]) -> str:
    """One hash over the facts of all tables."""
    text = "\n".join(f"{item.table} {item.facts}" for item in sorted(contents, key=lambda item: item.table))
    return hashlib.sha256(text.encode()).hexdigest()
