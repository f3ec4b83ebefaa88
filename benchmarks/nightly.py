"""A night on plan Standard: requests, seconds and bytes, as the exchange counted them, over several processes.

    python benchmarks/nightly.py [--stocks 4400] [--start 2024-03-01] [--end 2024-05-31] [--night 2024-05-15]
        [--at 03:30] [--processes 3]

The night before, everything is stored; then the exchange's clock moves to the morning after `--night`, when that day's
options are out as the last of its tables, and `--processes` processes that
share one limits file bring the months in motion up to date, a few tables each, at the plan's real pace. One JSON line:
requests by table, seconds, bytes on the wire, and the busiest sliding minute against the limit. Exit status 1 above 40
requests or above the limit.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from atft_pipeline.exchange.process import ensure_market, move_clock, running_exchange, traffic_report
from atft_pipeline.jquants.client import connect
from atft_pipeline.jquants.fetch import ingest_calendar
from atft_pipeline.jquants.ingest import ingest_table
from atft_pipeline.jquants.plans import STANDARD
from atft_pipeline.jquants.tables import CALENDAR, TABLES
from atft_pipeline.settings import MarketSize

MOST_REQUESTS = 40
PAGE_ROWS = 1500
CALENDAR_AHEAD = timedelta(days=120)
NAMES = [table.name for table in TABLES.values() if STANDARD.includes(table.plan) and table is not CALENDAR]


def months_in_motion(night: date) -> list[str]:
    """The month of `night` and the one before it, as the nightly job takes them."""
    before = night.replace(day=1) - timedelta(days=1)
    return [f"{before:%Y-%m}", f"{night:%Y-%m}"]


def bring_up_to_date(
    url: str, key: str, lake: Path, names: list[str], night: date, start: date, pace: int | None
) -> None:
    """One process's share of the night."""
    client = connect(url, key, STANDARD.name, pace, limits_file=lake / "requests.json", today=night)
    end = (night + CALENDAR_AHEAD + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    ingest_calendar(client, lake, start, end)
    for name in names:
        list(ingest_table(client, lake, TABLES[name], months_in_motion(night), last_date=night))


def measure(size: MarketSize, night: date, at: str, processes: int, folder: Path) -> dict[str, Any]:
    ensure_market(size, folder / "market")
    lake, evening = folder / "lake", night - timedelta(days=1)
    earlier = datetime.fromisoformat(f"{night}T{at}")
    with running_exchange(folder / "market", requests_per_minute=100_000, page_rows=PAGE_ROWS, today=earlier) as served:
        bring_up_to_date(served.base_url, served.api_key, lake, NAMES, evening, size.start, 100_000)
    with running_exchange(folder / "market", page_rows=PAGE_ROWS, today=earlier) as served:
        move_clock(served, earlier + timedelta(days=1))
        # The list of issues first: bars are held against it.
        shares = [NAMES[n::processes] for n in range(processes)]
        began = time.perf_counter()
        bring_up_to_date(served.base_url, served.api_key, lake, ["master"], night, size.start, None)
        context = multiprocessing.get_context("spawn")
        workers = [
            context.Process(
                target=bring_up_to_date,
                args=(served.base_url, served.api_key, lake, share, night, size.start, None),
            )
            for share in shares
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds = time.perf_counter() - began
        report: dict[str, Any] = traffic_report(served)
    return {
        "market": size.name,
        "night": f"{night}, read at {at} of the next day",
        "processes": processes,
        "failed_processes": sum(worker.exitcode != 0 for worker in workers),
        "requests": report["total"],
        "by_table": report["tables"],
        "bytes": report["bytes"],
        "seconds": round(seconds, 1),
        "busiest_minute": report["busiest_minute"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stocks", type=int, default=4400)
    parser.add_argument("--start", type=date.fromisoformat, default=date(2024, 3, 1))
    parser.add_argument("--end", type=date.fromisoformat, default=date(2024, 5, 31))
    parser.add_argument("--night", type=date.fromisoformat, default=date(2024, 5, 15))
    parser.add_argument("--at", default="03:30")
    parser.add_argument("--processes", type=int, default=3)
    options = parser.parse_args()
    size = MarketSize(stocks=options.stocks, start=options.start, end=options.end, plant="null")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(size, options.night, options.at, options.processes, Path(folder))
    print(json.dumps(found))
    too_fast = any(bucket["requests"] > bucket["limit"] for bucket in found["busiest_minute"].values())
    return 1 if found["failed_processes"] or found["requests"] > MOST_REQUESTS or too_fast else 0


if __name__ == "__main__":
    sys.exit(main())
