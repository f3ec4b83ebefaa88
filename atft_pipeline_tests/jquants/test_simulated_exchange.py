"""The same ingestion against the project's own exchange, in its own process, with faults switched on there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from atft_pipeline.exchange.process import Exchange, ensure_market, running_exchange
from atft_pipeline.jquants.client import Client, Patience, connect
from atft_pipeline.jquants.errors import ExchangeError
from atft_pipeline.jquants.fetch import ingest_calendar, ingest_month
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import BARS_DAILY, CALENDAR, TABLES
from atft_pipeline.settings import MarketSize
from atft_pipeline_tests.jquants.single_checks import check_completeness, check_keys, check_schema

START, END, MONTH = date(2024, 1, 4), date(2024, 6, 28), "2024-03"
PASSING = (
    "429:bars_daily:date=2024-03-04:times=1",
    "429:bars_daily:date=2024-03-05:times=1:retry_after=0",
    "500:bars_daily:date=2024-03-06:times=1",
    "truncate:bars_daily:date=2024-03-07:times=1",
    "malformed:bars_daily:date=2024-03-08:times=1",
    "null:bars_daily:date=2024-03-11:times=1",
    "reset:bars_daily:date=2024-03-12:times=1",
    "duplicate:bars_daily:date=2024-03-13:times=1",
)
LASTING = (
    ("endless:bars_daily:date=2024-02-13:mode=repeat", "2024-02", "date=2024-02-13: endless pagination"),
    ("endless:bars_daily:date=2024-04-10:mode=change", "2024-04", "date=2024-04-10: endless pagination"),
    ("drop_column:bars_daily:date=2024-05-14:column=AdjFactor", "2024-05", "date=2024-05-14: column AdjFactor missing"),
    ("partial:bars_daily:date=2024-06-13:share=0.5", "2024-06", "date=2024-06-13: .* listed codes have a row"),
)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market") / "market"
    ensure_market(MarketSize(stocks=30, start=START, end=END), folder)
    return folder


@pytest.fixture(scope="module")
def exchange(market: Path) -> Iterator[Exchange]:
    faults = [*PASSING, *(fault for fault, _, _ in LASTING)]
    with running_exchange(market, requests_per_minute=100_000, page_rows=20, faults=faults) as served:
        yield served


@pytest.fixture(scope="module")
def client(exchange: Exchange) -> Client:
    patience = Patience(first_wait=0.01, first_wait_limited=0.02, pages=60)
    return connect(exchange.base_url, exchange.api_key, "standard", 100_000, patience=patience)


@pytest.fixture(scope="module")
def lake(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    ingest_calendar(client, folder, START, END)
    for month in (MONTH, *(month for _, month, _ in LASTING)):
        ingest_month(client, folder, TABLES["master"], month, last_date=END)
    return folder


STANDARD = [table for table in TABLES.values() if table is not CALENDAR and table.plan != "premium"]
PREMIUM = [table for table in TABLES.values() if table.plan == "premium"]


@pytest.mark.parametrize("table", STANDARD, ids=lambda t: t.name)
def test_every_table_lands_whole_in_spite_of_passing_faults(client: Client, lake: Path, table: Table) -> None:
    first = ingest_month(client, lake, table, MONTH, last_date=END)
    assert first.rows > 0
    if table is BARS_DAILY:
        assert first.requests >= 2 * first.days + len(PASSING)  # two pages a day, and each fault cost a retry
    for check in (check_keys, check_schema, check_completeness):
        verdict = check(lake, table, [MONTH])
        assert verdict.passed, verdict.message
    again = ingest_month(client, lake, table, MONTH, last_date=END)
    assert again.requests == 0 and again.content_hash == first.content_hash


@pytest.fixture(scope="module")
def premium_client(market: Path) -> Iterator[Client]:
    with running_exchange(market, plan="premium", requests_per_minute=100_000) as served:
        yield connect(served.base_url, served.api_key, "premium", 100_000)


@pytest.mark.parametrize("table", PREMIUM, ids=lambda t: t.name)
def test_every_premium_table_lands_whole(premium_client: Client, lake: Path, table: Table) -> None:
    assert ingest_month(premium_client, lake, table, MONTH, last_date=END).rows > 0
    for check in (check_keys, check_schema, check_completeness):
        verdict = check(lake, table, [MONTH])
        assert verdict.passed, verdict.message


def test_margin_balances_cost_one_request_a_week(client: Client, lake: Path) -> None:
    report = ingest_month(client, lake, TABLES["margin_interest"], MONTH, last_date=END, refetch=True)
    assert report.units == report.days == 5  # the five Fridays of March 2024


@pytest.mark.parametrize(("month", "text"), [(month, text) for _, month, text in LASTING])
def test_a_lasting_fault_is_one_error_and_stores_no_month(client: Client, lake: Path, month: str, text: str) -> None:
    with pytest.raises(ExchangeError, match=f"^/equities/bars/daily {text}.*nothing of this was stored"):
        ingest_month(client, lake, BARS_DAILY, month, last_date=END)
    assert not (lake / "raw" / "bars_daily" / f"{month}.parquet").exists()


def test_a_key_that_the_exchange_does_not_know_is_refused_with_the_remedy(exchange: Exchange, lake: Path) -> None:
    stranger = connect(exchange.base_url, "another-key", "standard", 100_000)
    with pytest.raises(ExchangeError, match=r"HTTP 403 .*JQUANTS_API_KEY"):
        ingest_month(stranger, lake, TABLES["topix"], "2024-02", last_date=END)


def test_dates_outside_the_plan_are_left_out_and_the_partition_says_so(market: Path, tmp_path: Path) -> None:
    with running_exchange(market, plan="free", requests_per_minute=100_000) as served:
        free = connect(served.base_url, served.api_key, "free", 100_000)
        calendar = ingest_calendar(free, tmp_path, date(2024, 2, 1), date(2024, 10, 26))
        months = [ingest_month(free, tmp_path, BARS_DAILY, f"2024-{m:02}", last_date=date(2024, 4, 30)) for m in (3, 4)]
    assert (calendar.covers, calendar.requests) == ("2024-02-01 to 2024-04-05", 2)
    assert [month.covers for month in months] == ["2024-03-01 to 2024-03-31", "2024-04-01 to 2024-04-05"]
    assert [month.complete for month in months] == [True, False]
