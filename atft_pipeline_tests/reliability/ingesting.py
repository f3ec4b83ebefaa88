"""A process that has everything imported and forks ingesting children on demand: what the kill test shoots at.

Reads one order a line, `{"url": ..., "lake": ..., "bulk": ...}`, forks, and prints the child's id; then, when the child
is gone, its wait status. It computes nothing itself, so no thread exists when it forks.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

from atft_pipeline.jquants import staging
from atft_pipeline.jquants.client import connect
from atft_pipeline.jquants.fetch import ingest_calendar
from atft_pipeline.jquants.ingest import ingest_table
from atft_pipeline.jquants.tables import TABLES
from atft_pipeline_tests.exchange import wire
from atft_pipeline_tests.reliability.small_market import PLAN, SIZE

MONTHS = ["2024-04", "2024-05"]
TABLE_NAMES = ("master", "bars_daily", "margin_interest")


def ingest(url: str, lake: Path, bulk: bool) -> None:
    """The calendar and three tables. Each fetched unit is kept at once, as it is at the pace of the real service."""
    staging.FLUSH_SECONDS = 0.0
    client = connect(url, wire.KEY, PLAN, 1_000_000, today=SIZE.end)
    ingest_calendar(client, lake, SIZE.start, SIZE.end + timedelta(days=120))
    for name in TABLE_NAMES:
        list(ingest_table(client, lake, TABLES[name], MONTHS, last_date=SIZE.end, bulk=bulk, workers=1))


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                ingest(order["url"], Path(order["lake"]), order["bulk"])
                code = 0
            finally:
                os._exit(code)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
