"""Ingestion from the loopback exchange: bulk files over the whole span, day by day over its last year, and the official
client's own range helper over that year, with and without one failing day.

    python benchmarks/ingest.py [--stocks 4400] [--start 2014-07-01] [--end 2024-06-28] [--plan PLAN]
        [--market FOLDER]

Each part runs in a process of its own, so that its peak memory is its own. One JSON line per part: rows a second
(downloaded, decoded, checked and stored; for the helper: downloaded and concatenated), requests, and what was lost.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

from jquantsapi import ClientV2

from atft_pipeline.exchange.process import Exchange, ensure_market, running_exchange
from atft_pipeline.jquants.client import Client, connect
from atft_pipeline.jquants.fetch import ingest_calendar
from atft_pipeline.jquants.ingest import ingest_table
from atft_pipeline.jquants.tables import BARS_DAILY, MASTER
from atft_pipeline.settings import MarketSize

REQUESTS_PER_MINUTE = 1_000_000
PAGE_ROWS = 1500


def months_between(first: date, last: date) -> list[str]:
    numbers = range(first.year * 12 + first.month - 1, last.year * 12 + last.month)
    return [f"{number // 12}-{number % 12 + 1:02}" for number in numbers]


def connected(exchange: Exchange, size: MarketSize, plan: str) -> Client:
    return connect(exchange.base_url, exchange.api_key, plan, REQUESTS_PER_MINUTE, today=size.end)


def ingest(market: Path, size: MarketSize, first: date, plan: str, bulk: bool) -> dict[str, Any]:
    """Bars from `first` to the market's end, through the list of issues that they are judged against."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_exchange(market, plan=plan, requests_per_minute=REQUESTS_PER_MINUTE, page_rows=PAGE_ROWS) as served,
    ):
        lake, client, months = Path(folder), connected(served, size, plan), months_between(first, size.end)
        ingest_calendar(client, lake, first.replace(day=1), size.end)
        found: dict[str, Any] = {}
        for table in (MASTER, BARS_DAILY):
            before = resource.getrusage(resource.RUSAGE_SELF)
            began = time.perf_counter()
            reports = list(ingest_table(client, lake, table, months, last_date=size.end, bulk=bulk))
            seconds = time.perf_counter() - began
            after = resource.getrusage(resource.RUSAGE_SELF)
            rows = sum(report.rows for report in reports)
            found[table.name] = {
                "rows": rows,
                "seconds": round(seconds, 2),
                "rows_per_second": round(rows / seconds),
                "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
                "requests": sum(report.requests for report in reports),
                "routes": sorted({report.route for report in reports}),
            }
        began = time.perf_counter()
        again = [report for table in (MASTER, BARS_DAILY) for report in
                 ingest_table(client, lake, table, months, last_date=size.end, bulk=bulk)]  # fmt: skip
        found["again"] = {
            "requests": sum(report.requests for report in again),
            "seconds": round(time.perf_counter() - began, 2),
        }
        return found


class Counted(ClientV2):
    """The official client as it is, but for the address and a count of its requests."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(api_key=exchange.api_key)
        self.JQUANTS_API_BASE = exchange.base_url
        self.requests = 0

    def _get(self, url: str, params: dict[str, Any] | None = None) -> Any:
        self.requests += 1
        return super()._get(url, params)


def range_helper(market: Path, size: MarketSize, first: date, plan: str, failing: str) -> dict[str, Any]:
    """`get_eq_bars_daily_range` over the same window; `failing`: a date that answers 500."""
    faults = [f"500:bars_daily:date={failing}"] if failing else []
    with running_exchange(
        market, plan=plan, requests_per_minute=REQUESTS_PER_MINUTE, page_rows=PAGE_ROWS, faults=faults
    ) as served:
        client = Counted(served)
        began = time.perf_counter()
        rows, error = 0, ""
        try:
            rows = len(client.get_eq_bars_daily_range(_moment(first), _moment(size.end)))
        except OSError as problem:  # requests' errors; every row that was fetched is lost with it
            error = f"{type(problem).__name__}"
        seconds = time.perf_counter() - began
        return {
            "rows": rows,
            "seconds": round(seconds, 2),
            "rows_per_second": round(rows / seconds),
            "requests": client.requests,
            "error": error,
        }


def _moment(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)


def _measured(work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], out: Any) -> None:
    found = work(*arguments)
    out.put(found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024})


def in_a_process(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """`work` in a fresh process; its result with the peak memory in MB. Raises `RuntimeError` when it fails."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    child = context.Process(target=_measured, args=(work, arguments, out))
    child.start()
    while child.is_alive() and out.empty():
        child.join(0.2)
    if out.empty():
        raise RuntimeError(f"{work.__name__}{arguments[2:]} ended with exit code {child.exitcode}")
    found: dict[str, Any] = out.get()
    child.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stocks", type=int, default=200)
    parser.add_argument("--start", type=date.fromisoformat, default=date(2022, 7, 1))
    parser.add_argument("--end", type=date.fromisoformat, default=date(2024, 6, 28))
    parser.add_argument(
        "--plan", default="standard", help="premium bars have 44 columns, others 18 (default: standard)"
    )
    parser.add_argument("--market", type=Path, help="where the market lies or is to be written (default: temporary)")
    options = parser.parse_args()
    size = MarketSize(stocks=options.stocks, start=options.start, end=options.end)
    year = max(size.start, date(size.end.year - 1, size.end.month, 1))
    failing = date(size.end.year, size.end.month, 3)
    while failing.weekday() > 4:
        failing = failing.replace(day=failing.day + 1)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    with tempfile.TemporaryDirectory() as folder:
        market = options.market or Path(folder) / "market"
        ensure_market(size, market)
        parts: list[tuple[str, date, tuple[Any, ...]]] = [
            ("bulk", size.start, (ingest, market, size, size.start, options.plan, True)),
            ("by date", year, (ingest, market, size, year, options.plan, False)),
            ("range helper", year, (range_helper, market, size, year, options.plan, "")),
            ("range helper, one failing day", year, (range_helper, market, size, year, options.plan, str(failing))),
        ]
        for name, first, work in parts:
            about = {"plan": options.plan, "stocks": size.stocks, "start": str(first), "end": str(size.end)}
            print(
                json.dumps({"benchmark": "ingest", "part": name, **about, **in_a_process(*work), **machine}), flush=True
            )


if __name__ == "__main__":
    main()
