"""`python -m atft_pipeline.lake`: verify, gc and query, on the lake of the present settings or the one named.

verify [--lake DIR] [--json] [--workers N]   read everything; one line per fault; exit status 1 when there is one
gc [--lake DIR] [--dry-run]                  remove what killed processes left, and caches out of use
query [--lake DIR] [--csv] "SELECT ..."      ask the warehouse
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from atft_pipeline.jquants.tables import TABLES
from atft_pipeline.lake.leftovers import collect, find_leftovers
from atft_pipeline.lake.store import LakeError
from atft_pipeline.lake.verify import WORKERS, verify_lake
from atft_pipeline.lake.warehouse import open_warehouse
from atft_pipeline.settings import Settings

PROGRESS_SECONDS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m atft_pipeline.lake", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    verify = commands.add_parser("verify", help="read every value; exit status 1 when something is wrong")
    verify.add_argument("--json", action="store_true", help="print the report as JSON")
    verify.add_argument("--workers", type=int, default=WORKERS)
    gc = commands.add_parser("gc", help="remove what killed processes left, and caches out of use")
    gc.add_argument("--dry-run", action="store_true", help="only list what would go")
    query = commands.add_parser("query", help="ask the warehouse in SQL")
    query.add_argument("sql")
    query.add_argument("--csv", action="store_true", help="print comma-separated values")
    for command in (verify, gc, query):
        command.add_argument("--lake", type=Path, help="default: the lake of the present settings")
    chosen = parser.parse_args(arguments)
    lake: Path = chosen.lake or Settings.from_env().lake
    try:
        if chosen.command == "verify":
            return _verify(lake, chosen.json, chosen.workers)
        if chosen.command == "gc":
            return _collect(lake, chosen.dry_run)
        return _query(lake, chosen.sql, chosen.csv)
    except LakeError as error:
        print(error, file=sys.stderr)
        return 1


def _verify(lake: Path, as_json: bool, workers: int) -> int:
    told = began = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            print(f"{done} of {total} files", file=sys.stderr)

    endpoints = {name: table.path for name, table in TABLES.items()}
    report = verify_lake(lake, endpoints, workers=workers, progress=progress)
    if as_json:
        print(json.dumps(report.to_json(), indent=1))
        return 1 if report.faults else 0
    for fault in report.faults:
        print(fault)
    print(
        f"{lake}: {report.files} files, {report.rows:,} rows, {report.bytes / 1e6:,.1f} MB read in "
        f"{time.monotonic() - began:.1f} s; {len(report.faults)} faults"
        + (f"; {report.leftovers} temporary files (see gc)" if report.leftovers else "")
    )
    return 1 if report.faults else 0


def _collect(lake: Path, dry_run: bool) -> int:
    found = find_leftovers(lake, TABLES) if dry_run else collect(lake, TABLES)
    for leftover in found:
        print(f"{leftover.path}: {leftover.why}, {leftover.size:,} bytes")
    verb = "would be removed" if dry_run else "removed"
    print(f"{len(found)} leftovers {verb}, {sum(leftover.size for leftover in found):,} bytes")
    return 0


def _query(lake: Path, sql: str, as_csv: bool) -> int:
    import duckdb

    with open_warehouse(lake) as connection:
        try:
            answer = connection.sql(sql)
        except duckdb.Error as error:
            print(error, file=sys.stderr)
            return 1
        if answer is None:
            return 0
        if as_csv:
            sys.stdout.write(answer.pl().write_csv())
        else:
            answer.show(max_rows=200)
    return 0


if __name__ == "__main__":
    sys.exit(main())
