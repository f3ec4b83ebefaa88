"""Bulk files of the project's own exchange: the same bytes as by date, for every table, and a night's requests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from atft_pipeline.exchange.process import Exchange, ensure_market, running_exchange
from atft_pipeline.jquants.client import Client, connect
from atft_pipeline.jquants.fetch import ingest_calendar, ingest_month
from atft_pipeline.jquants.ingest import ingest_table
from atft_pipeline.jquants.routes import Way, route_of
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import CALENDAR, TABLES, partition_path
from atft_pipeline.settings import MarketSize

SIZE = MarketSize(stocks=30, start=date(2024, 1, 4), end=date(2024, 3, 13))
MONTHS = ["2024-02", "2024-03"]
TONIGHT = 40
"""Most requests of a night on plan Standard."""


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    market = tmp_path_factory.mktemp("bulk") / "market"
    ensure_market(SIZE, market)
    with running_exchange(market, plan="premium", requests_per_minute=1_000_000) as served:
        yield served


@pytest.fixture(scope="module")
def client(exchange: Exchange) -> Client:
    return connect(exchange.base_url, exchange.api_key, "premium", 1_000_000, today=SIZE.end)


@pytest.fixture(scope="module")
def lakes(client: Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two lakes with the calendar: one for files, one for days."""
    by_file, by_date = (tmp_path_factory.mktemp(name) for name in ("by_file", "by_date"))
    for lake in (by_file, by_date):
        ingest_calendar(client, lake, SIZE.start, SIZE.end)
    return by_file, by_date


@pytest.mark.parametrize("table", [table for table in TABLES.values() if table is not CALENDAR], ids=lambda t: t.name)
def test_files_and_days_give_the_same_bytes(client: Client, lakes: tuple[Path, Path], table: Table) -> None:
    by_file, by_date = lakes
    reports = list(ingest_table(client, by_file, table, MONTHS, last_date=SIZE.end))
    if route_of(table).span:
        assert {report.route for report in reports} == {Way.SPAN}
    else:
        assert all(Way.BULK in report.route for report in reports)
    for month in MONTHS:
        ingest_month(client, by_date, table, month, last_date=SIZE.end)
        path = partition_path(table, month)
        assert (by_file / path).read_bytes() == (by_date / path).read_bytes()
    before = client.requests_sent
    assert all(report.reused for report in ingest_table(client, by_file, table, MONTHS, last_date=SIZE.end))
    assert client.requests_sent == before


def test_a_night_on_standard_stays_within_its_requests(exchange: Exchange, tmp_path: Path) -> None:
    """Files, not pages, so the number does not depend on how many issues there are."""
    client = connect(exchange.base_url, exchange.api_key, "standard", 1_000_000, today=SIZE.end)
    ingest_calendar(client, tmp_path, SIZE.start, date(2024, 3, 12))
    nightly = 0
    for last_date in (date(2024, 3, 12), SIZE.end):
        nightly = ingest_calendar(client, tmp_path, SIZE.start, last_date).requests
        for table in TABLES.values():
            if table is not CALENDAR and client.plan.includes(table.plan):
                reports = ingest_table(client, tmp_path, table, MONTHS, last_date=last_date)
                nightly += sum(report.requests for report in reports)
    assert 0 < nightly <= TONIGHT
