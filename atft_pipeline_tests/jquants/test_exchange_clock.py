"""Ingestion while the exchange's clock moves: half-published days, late filings, corrections; and the rate limit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from atft_pipeline.exchange.process import Exchange, ensure_market, move_clock, running_exchange
from atft_pipeline.exchange.server import create_app
from atft_pipeline.jquants.client import Client, Patience, connect
from atft_pipeline.jquants.errors import ExchangeError
from atft_pipeline.jquants.fetch import ingest_calendar, ingest_month
from atft_pipeline.jquants.tables import TABLES
from atft_pipeline.lake.store import read_table
from atft_pipeline.settings import MarketSize
from atft_pipeline_tests.exchange import wire

START, END, MONTH, DAY = date(2024, 4, 1), date(2024, 6, 28), "2024-05", date(2024, 5, 15)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clock") / "market"
    ensure_market(MarketSize(stocks=30, start=START, end=END, plant="null"), folder)
    return folder


@pytest.fixture(scope="module")
def bar(market: Path) -> dict[str, object]:
    """A traded bar of 2024-05-10."""
    bars = pl.read_parquet(market / "tables" / "bars_daily.parquet")
    return bars.filter((pl.col("Date") == "2024-05-10") & pl.col("C").is_not_null()).row(0, named=True)


@pytest.fixture(scope="module")
def exchange(market: Path, bar: dict[str, object]) -> Iterator[Exchange]:
    fault = f"partial:bars_daily:date={DAY}:share=0.5:until={DAY}T16:45"
    revisions = [
        f"correct:bars_daily:since=2024-05-16T12:00:date=2024-05-10:code={bar['Code']}:column=C:factor=1.1",
        f"split:bars_daily:since=2024-05-17T12:00:date=2024-05-13:code={bar['Code']}:factor=0.5",
    ]
    with running_exchange(market, requests_per_minute=100_000, faults=[fault], revisions=revisions) as served:
        yield served


@pytest.fixture(scope="module")
def client(exchange: Exchange) -> Client:
    return connect(exchange.base_url, exchange.api_key, "standard", 100_000, patience=Patience(attempts=1))


@pytest.fixture
def lake(client: Client, tmp_path: Path) -> Path:
    ingest_calendar(client, tmp_path, START, END)
    return tmp_path


def test_a_day_counts_only_once_it_is_whole_and_corrections_arrive(
    exchange: Exchange, client: Client, lake: Path, bar: dict[str, object]
) -> None:
    def nightly(moment: datetime) -> pl.DataFrame:
        move_clock(exchange, moment)
        for name in ("master", "bars_daily"):
            ingest_month(client, lake, TABLES[name], MONTH, last_date=moment.date(), revisit_days=10)
        return read_table(lake / "raw" / "bars_daily" / f"{MONTH}.parquet")

    path = lake / "raw" / "bars_daily" / f"{MONTH}.parquet"
    with pytest.raises(ExchangeError, match=r"date=2024-05-15: no rows for business day"):
        nightly(datetime(2024, 5, 15, 16, 29))
    with pytest.raises(ExchangeError, match=r"date=2024-05-15: \d+ of \d+ listed codes have a row"):
        nightly(datetime(2024, 5, 15, 16, 44))
    assert not path.exists()
    first = nightly(datetime(2024, 5, 15, 17))
    code = pl.col("Code") == bar["Code"]
    on = pl.col("Date") == date(2024, 5, 10)
    assert first.filter(code & on)["C"].item() == bar["C"] and first["Date"].max() == DAY
    second = nightly(datetime(2024, 5, 16, 17))
    assert second.filter(code & on)["C"].item() == pytest.approx(float(str(bar["C"])) * 1.1, abs=0.051)
    third = nightly(datetime(2024, 5, 17, 17))
    assert third.filter(code & (pl.col("AdjFactor") != 1))["Date"].to_list() == [date(2024, 5, 13)]
    before, after = (frame.filter(code & on)["AdjC"].item() for frame in (second, third))
    assert after == pytest.approx(before / 2, abs=0.051)


def test_filings_appear_with_their_evening(exchange: Exchange, client: Client, lake: Path, market: Path) -> None:
    filings = pl.read_parquet(market / "tables" / "fin_summary.parquet").filter(
        pl.col("DiscDate").is_between(pl.lit("2024-05-01"), pl.lit("2024-05-15"))
    )
    day = date.fromisoformat(filings["DiscDate"].mode().sort()[0])
    sizes = []
    for hour in (17, 18):
        move_clock(exchange, datetime(day.year, day.month, day.day, hour))
        report = ingest_month(client, lake, TABLES["fin_summary"], MONTH, last_date=day, refetch=True)
        sizes.append(report.rows)
    early = filings.filter(pl.col("DiscDate") < day.isoformat()).height
    on_day = filings.filter((pl.col("DiscDate") == day.isoformat()) & (pl.col("DiscTime") <= "18:00:00")).height
    assert on_day > 0 and sizes == [early, early + on_day]


@pytest.mark.parametrize("shared", [True, False], ids=["one limits file", "each its own"])
def test_the_server_s_own_count_proves_or_refutes_a_shared_limit(market: Path, tmp_path: Path, shared: bool) -> None:
    """Two clients take turns under one clock that jumps where they would sleep; the limit is 5 in any minute."""
    now = [1_000_000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    app = create_app(market, plan="free", api_keys={wire.KEY}, clock=lambda: now[0])
    with wire.serving(app) as url:
        clients = [
            connect(
                url,
                wire.KEY,
                "free",
                limits_file=tmp_path / ("limits" if shared else f"limits{n}"),
                patience=Patience(attempts=1),
                clock=lambda: now[0],
                sleep=sleep,
            )
            for n in range(2)
        ]
        refused = 0
        for turn in range(20):
            try:
                clients[turn % 2].get_mkt_calendar()
            except ExchangeError as error:
                assert error.status == 429
                refused += 1
    busiest = app.state.exchange.traffic.report({"general": 5})["busiest_minute"]["general"]
    if shared:
        assert refused == 0 and busiest == {"requests": 5, "limit": 5}
    else:
        assert refused > 0 and busiest["requests"] > 5
