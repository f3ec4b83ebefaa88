"""Checks of stored raw tables, with numbers: keys, schema, and completeness against the calendar and the listed issues.

Ingestion refuses incomplete answers already; these checks re-read what lies in the lake, whoever wrote it. Each takes
the lake, a table and its months ("YYYY-MM"; ignored for the unpartitioned calendar) and returns a `Verdict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from atft_pipeline.jquants.rules import MIN_COVERAGE
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import BUSINESS, CALENDAR, OUTAGE_DAYS, TABLES, partition_path
from atft_pipeline.lake.store import read_record, read_table
from atft_pipeline.verdict import Verdict

PUBLICATION_LAG = timedelta(days=14)
"""A week's investor flows are published on the 4th business day of the next week; holidays can add a few days."""


def check_keys(lake: Path, table: Table, months: Sequence[str]) -> Verdict:
    """Null and repeated keys, over all months together; want 0."""
    missing, paths = _partitions(lake, table, months)
    if missing:
        return _absent(table, missing)
    keys = pl.concat([read_table(path, columns=table.keys) for path in paths])
    nulls = keys.filter(pl.any_horizontal(pl.all().is_null())).height
    repeated = keys.height - keys.n_unique()
    bad = nulls + repeated
    return Verdict(
        passed=bad == 0,
        got=float(bad),
        want=0.0,
        message=f"{table.name}: {nulls} null and {repeated} repeated keys {table.keys} in {keys.height} rows",
        details={"rows": keys.height, "null_keys": nulls, "repeated_keys": repeated},
    )


def check_schema(lake: Path, table: Table, months: Sequence[str]) -> Verdict:
    """Declared columns that every month holds with the declared type; want all of them."""
    missing, paths = _partitions(lake, table, months)
    if missing:
        return _absent(table, missing)
    wrong: dict[str, str] = {}
    extra: set[str] = set()
    for path in paths:
        columns = read_record(path).columns
        for name, dtype in table.schema.items():
            if columns.get(name) != str(dtype):
                wrong[name] = f"{path.stem}: {columns.get(name, 'missing')}, declared {dtype}"
        extra |= set(columns) - set(table.schema) - set(table.optional)
    good = len(table.schema) - len(wrong)
    problems = "".join(f"; {name} in {what}" for name, what in list(wrong.items())[:5])
    return Verdict(
        passed=not wrong,
        got=float(good),
        want=float(len(table.schema)),
        message=f"{table.name}: {good} of {len(table.schema)} columns as declared{problems}",
        details={"wrong": wrong, "undeclared": sorted(extra)},
    )


def check_completeness(lake: Path, table: Table, months: Sequence[str]) -> Verdict:
    """Share of what must be there that is there.

    calendar: days without a gap. master, topix, indices: business days with rows. bars_daily: the worst day's share of
    listed codes. investor_types: weeks published. fin_summary: months (no day must have statements).
    """
    missing, paths = _partitions(lake, table, months)
    if missing:
        return _absent(table, missing)
    if table is CALENDAR:
        return _calendar_days(paths[0])
    if table.covers:
        return _listed_codes(lake, table, months)
    if table.dense:
        return _business_days(lake, table, paths)
    if table.name == "investor_types":
        return _published_weeks(lake, table, paths)
    rows = sum(read_record(path).rows for path in paths)
    share = float(len(paths))
    return Verdict(True, share, share, f"{table.name}: {len(paths)} months, {rows} rows", {"rows": rows})


def _partitions(lake: Path, table: Table, months: Sequence[str]) -> tuple[list[str], list[Path]]:
    wanted = {month: lake / partition_path(table, month) for month in ([""] if table is CALENDAR else months)}
    return [month or "all" for month, path in wanted.items() if not path.exists()], list(wanted.values())


def _absent(table: Table, missing: Sequence[str]) -> Verdict:
    return Verdict(
        passed=False,
        got=float(len(missing)),
        want=0.0,
        message=f"{table.name}: partitions {', '.join(missing[:5])} are not stored; materialise them first",
        details={"missing_partitions": list(missing)},
    )


def _share(table: Table, got: float, want: float, what: str, details: dict[str, object]) -> Verdict:
    return Verdict(got >= want, got, want, f"{table.name}: {what}", details)


def _calendar_days(path: Path) -> Verdict:
    days = read_table(path, columns=["Date"])["Date"].sort()
    expected = (days[-1] - days[0]).days + 1
    return _share(
        CALENDAR,
        days.n_unique() / expected,
        1.0,
        f"{days.n_unique()} of {expected} days from {days[0]} to {days[-1]}",
        {"first": str(days[0]), "last": str(days[-1])},
    )


def _business(lake: Path, paths: Sequence[Path]) -> list[date]:
    """Business days within the dates that the partitions say they cover."""
    calendar = read_table(lake / partition_path(CALENDAR), columns=["Date", "HolDiv"])
    open_days = calendar.filter(pl.col("HolDiv").is_in(BUSINESS))["Date"]
    spans = [_span(path) for path in paths]
    return sorted(day for day in open_days if any(first <= day <= last for first, last in spans))


def _span(path: Path) -> tuple[date, date]:
    source = read_record(path).source
    return date.fromisoformat(source["from"]), date.fromisoformat(source["to"])


def _business_days(lake: Path, table: Table, paths: Sequence[Path]) -> Verdict:
    have = {day for path in paths for day in read_table(path, columns=["Date"])["Date"].unique()}
    wanted = [day for day in _business(lake, paths) if day not in OUTAGE_DAYS]
    absent = [day for day in wanted if day not in have]
    share = 1.0 - len(absent) / len(wanted) if wanted else 1.0
    return _share(
        table,
        share,
        1.0,
        f"{len(wanted) - len(absent)} of {len(wanted)} business days have rows"
        + (f"; missing: {', '.join(map(str, absent[:5]))}" if absent else ""),
        {"missing_days": [str(day) for day in absent]},
    )


def _listed_codes(lake: Path, table: Table, months: Sequence[str]) -> Verdict:
    """The worst day's share of the listed codes that have a row; a business day without rows counts as 0."""
    other = TABLES[table.covers]
    missing, others = _partitions(lake, other, months)
    if missing:
        return _absent(other, missing)
    paths = _partitions(lake, table, months)[1]
    shares: list[pl.DataFrame] = []
    for path, listing in zip(paths, others, strict=True):
        have = read_table(path, columns=["Date", "Code"]).with_columns(found=pl.lit(1.0))
        joined = read_table(listing, columns=["Date", "Code"]).join(have, on=["Date", "Code"], how="left")
        shares.append(joined.group_by("Date").agg(pl.col("found").fill_null(0.0).mean()))
    by_day = {day: share for day, share in pl.concat(shares).iter_rows()}
    wanted = _business(lake, paths)
    worst = min(wanted, key=lambda day: by_day.get(day, 0.0), default=None)
    got = by_day.get(worst, 0.0) if worst else 1.0
    mean = sum(by_day.get(day, 0.0) for day in wanted) / len(wanted) if wanted else 1.0
    return _share(
        table,
        got,
        MIN_COVERAGE,
        f"worst day {worst} has {got:.1%} of the listed codes; mean over {len(wanted)} business days {mean:.2%}",
        {"worst_day": str(worst), "mean_share": mean, "business_days": len(wanted)},
    )


def _published_weeks(lake: Path, table: Table, paths: Sequence[Path]) -> Verdict:
    """Weeks with a session whose publication falls well inside the covered dates, and those found among the rows."""
    rows = pl.concat([read_table(path, columns=["PubDate", "StDate"]) for path in paths])
    have = {_monday(day) for day in rows["StDate"].unique()}
    spans = [_span(path) for path in paths]
    begin, end = min(first for first, _ in spans), max(last for _, last in spans)
    sessions = {_monday(day) for day in _sessions_between(lake, begin, end)}
    due = sorted(week for week in sessions if week >= begin and week + timedelta(days=4) + PUBLICATION_LAG <= end)
    absent = [week for week in due if week not in have]
    share = 1.0 - len(absent) / len(due) if due else 1.0
    return _share(
        table,
        share,
        1.0,
        f"{len(due) - len(absent)} of {len(due)} weeks published, {rows.height} rows"
        + (f"; missing weeks of {', '.join(map(str, absent[:5]))}" if absent else ""),
        {"missing_weeks": [str(week) for week in absent]},
    )


def _sessions_between(lake: Path, begin: date, end: date) -> list[date]:
    calendar = read_table(lake / partition_path(CALENDAR), columns=["Date", "HolDiv"])
    return list(calendar.filter(pl.col("HolDiv").is_in(BUSINESS) & pl.col("Date").is_between(begin, end))["Date"])


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())
