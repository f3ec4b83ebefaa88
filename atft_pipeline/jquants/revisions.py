"""What a later reading changed: the difference between two readings of the same days, and the log that keeps it.

One JSON line per changed month in `<lake>/revisions/<table>.jsonl`. A split rewrites the adjusted prices of a code back
to its first row; that is recorded as `restated` but is no news, as everything downstream derives them itself from the
raw prices and `AdjFactor`. Every other difference is a `revision`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl

from atft_pipeline.jquants.routes import route_of
from atft_pipeline.jquants.table import Table
from atft_pipeline.lake.store import content_hash, replacing

EXAMPLES, LISTED = 5, 20


@dataclass(frozen=True)
class Revision:
    """One month read again with another result. `columns`: changed values by column; `codes` and `dates`: the first
    few that are touched; `examples`: single values, old and new."""

    table: str
    month: str
    kind: Literal["revision", "restated"]
    added: int
    removed: int
    changed: int
    columns: dict[str, int]
    codes: list[str]
    dates: list[str]
    examples: list[dict[str, Any]]
    old_hash: str
    new_hash: str

    @property
    def text(self) -> str:
        """In one line, for the run's log."""
        columns = ", ".join(f"{name} {count}" for name, count in list(self.columns.items())[:6])
        return (
            f"{self.table} {self.month}: {self.kind}, {self.added} rows added, {self.removed} removed, "
            f"{self.changed} changed ({columns or 'no column'})"
        )


def facts_hash(table: Table, frame: pl.DataFrame) -> str:
    """Content hash without the columns that the service restates: equal for equal facts."""
    return content_hash(frame.drop([name for name in route_of(table).restated if name in frame.columns]))


def compare(table: Table, month: str, old: pl.DataFrame, new: pl.DataFrame) -> Revision | None:
    """The difference between two readings of the same days; None when there is none."""
    if old.equals(new):
        return None
    keys = list(table.keys)
    removed = old.join(new, on=keys, how="anti")
    added = new.join(old, on=keys, how="anti")
    both = old.join(new, on=keys, how="inner", suffix=" new")
    names = [name for name in new.columns if name not in keys]
    for name in names:
        if name not in old.columns:  # then `name` is the new value
            both = both.rename({name: f"{name} new"}).with_columns(pl.lit(None, new.schema[name]).alias(name))
    differs = both.select(pl.col(name).ne_missing(pl.col(f"{name} new")) for name in names)
    counts = {name: int(count) for name, count in zip(names, differs.sum().row(0), strict=True) if count}
    changed = both.filter(differs.select(pl.any_horizontal(pl.all())).to_series()) if names else both.head(0)
    lost = [name for name in old.columns if name not in new.columns and old[name].null_count() < old.height]
    counts |= {name: int(old[name].is_not_null().sum()) for name in lost}
    if not (removed.height or added.height or counts):
        return None
    restated = not removed.height and not added.height and set(counts) <= set(route_of(table).restated)
    touched = pl.concat([frame.select(keys) for frame in (removed, added, changed)])
    return Revision(
        table=table.name,
        month=month,
        kind="restated" if restated else "revision",
        added=added.height,
        removed=removed.height,
        changed=changed.height,
        columns=counts,
        codes=_first(touched, "Code") if "Code" in keys else [],
        dates=_first(touched, table.date_column),
        examples=_examples(keys, counts, changed, new.columns),
        old_hash=facts_hash(table, old),
        new_hash=facts_hash(table, new),
    )


def appended(table: Table, month: str, old: pl.DataFrame, new: pl.DataFrame) -> Revision | None:
    """Rows of `new` that correct one of `old` by a further row: the same dated thing, published later; None if none.

    A rescheduled earnings date is news, not a correction: what it speaks of has no date in the key.
    """
    what = [name for name in table.keys if name != table.date_column]
    if table.revision != "append" or not any(table.schema[name] == pl.Date() for name in what):
        return None
    further = new.join(old, on=table.keys, how="anti").join(old, on=what, how="semi")
    if not further.height:
        return None
    return Revision(
        table=table.name,
        month=month,
        kind="revision",
        added=further.height,
        removed=0,
        changed=0,
        columns={},
        codes=_first(further, "Code") if "Code" in table.keys else [],
        dates=_first(further, table.date_column),
        examples=[
            {name: _plain(row[name]) for name in table.keys} for row in further.head(EXAMPLES).iter_rows(named=True)
        ],
        old_hash=facts_hash(table, old),
        new_hash=facts_hash(table, new),
    )


def log_revision(lake: Path, revision: Revision, now: datetime | None = None) -> None:
    """Add one line to the table's log, in one rename. The line that a killed run left before it stored the month is
    not written twice."""
    path = lake / "revisions" / f"{revision.table}.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    entry = json.loads(json.dumps(asdict(revision), default=str))
    last = json.loads(text.splitlines()[-1]) if text else {}
    if {name: value for name, value in last.items() if name != "at"} == entry:
        return
    stamp = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    with replacing(path) as part:
        part.write_text(text + json.dumps({"at": stamp, **entry}, ensure_ascii=False) + "\n", encoding="utf-8")


def read_revisions(lake: Path, table: str) -> list[dict[str, Any]]:
    """The logged revisions of a table, oldest first."""
    path = lake / "revisions" / f"{table}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _first(touched: pl.DataFrame, column: str) -> list[str]:
    return [str(value) for value in touched[column].unique().sort().head(LISTED)]


def _examples(
    keys: Sequence[str], counts: dict[str, int], changed: pl.DataFrame, columns: Sequence[str]
) -> list[dict[str, Any]]:
    examples: list[dict[str, Any]] = []
    for name in (name for name in counts if name in columns):
        differs = changed.filter(pl.col(name).ne_missing(pl.col(f"{name} new")))
        for row in differs.head(EXAMPLES - len(examples)).iter_rows(named=True):
            key = {column: _plain(row[column]) for column in keys}
            examples.append({**key, "column": name, "old": _plain(row[name]), "new": _plain(row[f"{name} new"])})
    return examples


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, date) else value
