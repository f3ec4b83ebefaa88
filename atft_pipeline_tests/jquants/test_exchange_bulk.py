"""Bulk files of the exchange through our own reader: what a day's pages say, in spite of passing faults."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from atft_pipeline.exchange.process import Exchange, ensure_market, running_exchange
from atft_pipeline.jquants.bulk import BulkFile, fetch_file, list_files
from atft_pipeline.jquants.client import Client, Patience, connect
from atft_pipeline.jquants.errors import ExchangeError
from atft_pipeline.jquants.fetch import fetch_unit
from atft_pipeline.jquants.tables import BARS_DAILY, TABLES
from atft_pipeline.jquants.units import Unit
from atft_pipeline.settings import MarketSize

SIZE = MarketSize(stocks=30, start=date(2024, 2, 1), end=date(2024, 6, 14), plant="null")
FAULTS = (
    "503:bulk:times=1",
    "expired:bars_daily:date=2024-03-15:times=1",
    "cut_file:bars_daily:date=2024-03-15:times=1",
    "cut_file:bars_daily:date=2024-02-15",
    "rewrite:bars_daily:date=2024-04-10:after=1",
)


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    folder = tmp_path_factory.mktemp("bulk") / "market"
    ensure_market(SIZE, folder)
    with running_exchange(folder, plan="premium", requests_per_minute=100_000, faults=FAULTS) as served:
        yield served


@pytest.fixture(scope="module")
def client(exchange: Exchange) -> Client:
    return connect(exchange.base_url, exchange.api_key, "premium", 100_000, patience=Patience(first_wait=0.01))


@pytest.fixture(scope="module")
def files(client: Client) -> dict[str, BulkFile]:
    return {file.unit.name: file for file in list_files(client, BARS_DAILY)}


def test_a_month_s_file_holds_the_rows_of_its_days_in_spite_of_passing_faults(
    client: Client, files: dict[str, BulkFile], tmp_path: Path
) -> None:
    unit = Unit(date(2024, 3, 1), date(2024, 3, 31))
    _, rows = fetch_file(client, BARS_DAILY, files[unit.name], tmp_path)
    for day in (date(2024, 3, 1), date(2024, 3, 15), date(2024, 3, 29)):
        assert rows.filter(rows["Date"] == day).equals(fetch_unit(client, BARS_DAILY, Unit(day, day)))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_always_breaks_off_is_one_error(client: Client, files: dict[str, BulkFile], tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match="after 4 attempts"):
        fetch_file(client, BARS_DAILY, files["2024-02-01_2024-02-29"], tmp_path)


def test_a_file_written_anew_has_another_signature(client: Client, files: dict[str, BulkFile]) -> None:
    again = {file.unit.name: file.signature for file in list_files(client, BARS_DAILY)}
    assert {name for name in files if files[name].signature != again[name]} == {"2024-04-01_2024-04-30"}


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if table.unit == "day"])
def test_the_running_month_has_a_file_for_each_day_with_rows(client: Client, name: str, tmp_path: Path) -> None:
    table = TABLES[name]
    days = [file for file in list_files(client, table) if not file.is_month]
    for file in days[-2:]:
        _, rows = fetch_file(client, table, file, tmp_path)
        assert rows.height > 0 and rows.equals(fetch_unit(client, table, file.unit))
