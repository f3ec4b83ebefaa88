"""What the exchange shows at a time: each path's rule to the minute, and the whole server under a moving clock."""

from __future__ import annotations

import inspect
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from jquantsapi import ClientV2
from requests.exceptions import HTTPError
from starlette.applications import Starlette

from atft_pipeline.exchange.clock import ClockError, MarketClock, parse_moment
from atft_pipeline.exchange.endpoints import ENDPOINTS, Endpoint
from atft_pipeline.exchange.plans import PLANS
from atft_pipeline.exchange.process import ensure_market, move_clock, running_exchange
from atft_pipeline.exchange.publication import RULES, Moment, published
from atft_pipeline.exchange.server import Exchange, create_app
from atft_pipeline.exchange.tables import Query
from atft_pipeline.settings import MarketSize
from atft_pipeline_tests.exchange import wire

WEEKDAYS = [day for day in wire.all_days(date(2026, 5, 1), date(2026, 10, 30)) if day.weekday() < 5]


def test_every_endpoint_has_a_rule() -> None:
    assert set(ENDPOINTS) <= set(RULES)


@pytest.mark.parametrize(
    ("path", "row", "out"),
    [
        ("/equities/bars/daily", {"Date": "2026-09-04"}, "2026-09-04T16:30"),
        ("/indices/bars/daily/topix", {"Date": "2026-09-04"}, "2026-09-04T16:30"),
        ("/equities/bars/daily/am", {"Date": "2026-09-04"}, "2026-09-04T12:00"),
        ("/equities/master", {"Date": "2026-09-07"}, "2026-09-04T17:30"),
        ("/equities/investor-types", {"PubDate": "2026-09-10"}, "2026-09-10T16:30"),
        ("/equities/earnings-calendar", {"Date": "2026-09-07"}, "2026-09-04T19:00"),
        ("/markets/short-sale-report", {"DiscDate": "2026-09-04"}, "2026-09-04T17:30"),
        ("/markets/breakdown", {"Date": "2026-09-04"}, "2026-09-04T18:00"),
        ("/markets/margin-interest", {"Date": "2026-09-04"}, "2026-09-08T16:30"),
        ("/markets/margin-interest", {"Date": "2026-10-02"}, "2026-10-05T16:30"),
        ("/markets/calendar", {"Date": "2027-01-04"}, "2026-03-31T00:00"),
        ("/derivatives/bars/daily/options/225", {"Date": "2026-09-04"}, "2026-09-05T03:00"),
        ("/fins/earnings-date", {"PubDate": "2026-09-04"}, "2026-09-04T10:05"),
        ("/fins/summary", {"DiscDate": "2026-05-14", "DiscTime": "15:30:00"}, "2026-05-14T18:00"),
        ("/fins/summary", {"DiscDate": "2026-05-14", "DiscTime": "18:10:00"}, "2026-05-15T00:30"),
        ("/fins/details", {"DiscDate": "2026-05-16", "DiscTime": "09:00:00"}, "2026-05-16T18:00"),
        ("/fins/dividend", {"PubDate": "2026-09-04", "PubTime": "09:10"}, "2026-09-04T12:00"),
        ("/fins/dividend", {"PubDate": "2026-09-04", "PubTime": "15:00"}, "2026-09-04T15:00"),
        ("/fins/dividend", {"PubDate": "2026-09-04", "PubTime": "15:01"}, "2026-09-04T16:00"),
        ("/fins/dividend", {"PubDate": "2026-09-04", "PubTime": "19:30"}, "2026-09-05T12:00"),
    ],
)
def test_a_row_is_out_from_its_minute_on(path: str, row: dict[str, str], out: str) -> None:
    column = next(iter(row))
    endpoint = ENDPOINTS.get(path) or Endpoint("x", path, column, (column,))
    moment, frame = datetime.fromisoformat(out), pl.DataFrame([row])

    def is_out(now: datetime) -> bool:
        return frame.filter(published(endpoint, Moment(now, WEEKDAYS))).height == 1

    assert not is_out(moment - timedelta(minutes=1)) and is_out(moment) and is_out(moment + timedelta(days=300))


def test_premium_shows_statements_at_their_minute_since_june_2026() -> None:
    frame = pl.DataFrame({"DiscDate": ["2026-06-05", "2026-06-08"], "DiscTime": ["15:30:00", "15:30:00"]})
    seen = {}
    for premium in (False, True):
        for now in (datetime(2026, 6, 5, 16), datetime(2026, 6, 8, 15, 29), datetime(2026, 6, 8, 15, 30)):
            rule = published(ENDPOINTS["/fins/summary"], Moment(now, WEEKDAYS, premium))
            seen[premium, now.day, now.minute] = frame.filter(rule)["DiscDate"].to_list()
    assert seen[False, 8, 30] == seen[True, 8, 29] == ["2026-06-05"]
    assert seen[True, 8, 30] == ["2026-06-05", "2026-06-08"] and seen[True, 5, 0] == []


def test_a_clock_stands_in_its_market_and_moves_forward() -> None:
    clock = MarketClock(wire.START, wire.END)
    assert clock.now is None and clock.today == wire.END
    with pytest.raises(ClockError, match="set a time before advancing"):
        clock.advance(1)
    clock.set(parse_moment("2024-05-10"))
    clock.advance(1)
    assert clock.now == datetime(2024, 5, 11, 0, 0, 59) and clock.today == date(2024, 5, 11)
    with pytest.raises(ClockError, match="cannot go back"):
        clock.advance(-1)
    with pytest.raises(ClockError, match="the market runs from 2024-04-25 to 2024-06-28"):
        clock.set(datetime(2024, 4, 24))
    for text in ("18:00", "2024-02-30", "2024-05-10T16:30+09:00"):
        with pytest.raises(ClockError, match="Tokyo time"):
            parse_moment(text)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25930 splits 1:2 on 2024-05-20; its stored adjusted prices know it from the first row on."""
    folder = wire.write_market(tmp_path_factory.mktemp("clock") / "market", session_columns=True)
    path = folder / "tables" / "bars_daily.parquet"
    split = (pl.col("Code") == "25930") & (pl.col("Date") == "2024-05-20")
    before = (pl.col("Code") == "25930") & (pl.col("Date") < "2024-05-20")
    halved = [
        pl.when(before)
        .then((pl.col(c) * (2 if c.endswith("Vo") else 0.5) * 10 + 0.5).floor() / 10)
        .otherwise(c)
        .alias(c)
        for c in ("AdjO", "AdjH", "AdjL", "AdjC", "AdjVo")
    ]
    bars = pl.read_parquet(path)
    bars.with_columns(
        pl.when(split).then(0.5).otherwise("AdjFactor").alias("AdjFactor"),
        pl.when(split).then(pl.lit("1")).otherwise("ExRT").alias("ExRT"),
        *halved,
    ).write_parquet(path)
    return folder


@pytest.fixture(scope="module")
def app(market: Path) -> Starlette:
    return create_app(market, plan="standard", api_keys={wire.KEY}, requests_per_minute=100_000)


def test_tables_grow_with_the_clock(client: ClientV2, exchange: Exchange) -> None:
    def newest(moment: str) -> tuple[str, str, str, int]:
        exchange.clock.set(datetime.fromisoformat(moment))
        bars, flows = client.get_eq_bars_daily(code="72030"), client.get_eq_investor_types()
        filings = client.get_fin_summary_cursor(date_yyyymmdd="20240510")[0]
        days = [str(frame.iloc[-1, 0])[:10] for frame in (bars, client.get_eq_master(), flows)]
        return days[0], days[1], days[2], len(filings)

    assert newest("2024-05-10T16:29") == ("2024-05-09", "2024-05-10", "2024-05-09", 0)
    assert newest("2024-05-10T16:30") == ("2024-05-10", "2024-05-10", "2024-05-09", 0)
    assert newest("2024-05-10T17:30") == ("2024-05-10", "2024-05-13", "2024-05-09", 0)
    assert newest("2024-05-10T18:00") == ("2024-05-10", "2024-05-13", "2024-05-09", 3)
    assert newest("2024-05-16T16:30") == ("2024-05-16", "2024-05-16", "2024-05-16", 3)


def test_an_unpublished_day_is_empty_and_an_unpublished_list_is_the_newest(
    client: ClientV2, exchange: Exchange
) -> None:
    exchange.clock.set(datetime(2024, 5, 10, 12))
    assert client.get_eq_bars_daily(date_yyyymmdd="20240510").empty
    assert client.get_idx_bars_daily_topix(from_yyyymmdd="20240510").empty
    assert set(client.get_eq_master(date="20240520")["Date"].astype(str)) == {"2024-05-10"}
    assert set(client.get_eq_master(date="20240503")["Date"].astype(str)) == {"2024-05-07"}


def test_a_split_rewrites_adjusted_prices_only_once_it_happened(client: ClientV2, exchange: Exchange) -> None:
    final = client.get_eq_bars_daily(code="25930").set_index("Date")
    exchange.clock.set(datetime(2024, 5, 20, 16, 29))
    eve = client.get_eq_bars_daily(code="25930").set_index("Date")
    assert (eve["AdjC"] == eve["C"]).all() and (eve["AdjVo"] == eve["Vo"]).all() and (eve["AdjFactor"] == 1).all()
    exchange.clock.set(datetime(2024, 5, 20, 16, 30))
    known = client.get_eq_bars_daily(code="25930").set_index("Date")
    assert known.equals(final.loc[:"2024-05-20"]), "then they are what the whole market says"
    assert (known["AdjC"].iloc[:-1] < known["C"].iloc[:-1]).all()
    other = client.get_eq_bars_daily(code="72030")
    assert (other["AdjC"] == other["C"]).all()


def test_a_cursor_finds_what_came_later_even_under_a_smaller_number(tmp_path: Path) -> None:
    folder = wire.write_market(tmp_path / "market")
    path = folder / "tables" / "fin_summary.parquet"
    late = pl.when(pl.col("DiscNo") == "20240510500001").then(pl.lit("18:30:00")).otherwise("DiscTime")
    pl.read_parquet(path).with_columns(late.alias("DiscTime")).write_parquet(path)
    app = create_app(folder, plan="premium", api_keys={wire.KEY}, now=datetime(2024, 5, 10, 18))
    with wire.serving(app) as url:
        client = wire.official_client(url)
        first, cursor = client.get_fin_summary_cursor(date_yyyymmdd="20240510")
        assert first["DiscNo"].tolist() == ["20240510500002", "20240510500003"]
        assert client.get_fin_summary_cursor(date_yyyymmdd="20240510", cursor=cursor)[0].empty
        app.state.exchange.clock.set(datetime(2024, 5, 11, 0, 30))
        then, cursor = client.get_fin_summary_cursor(date_yyyymmdd="20240510", cursor=cursor)
        assert then["DiscNo"].tolist() == ["20240510500001"]
        assert client.get_fin_summary_cursor(date_yyyymmdd="20240510", cursor=cursor)[0].empty


def test_plan_windows_follow_the_clock(market: Path) -> None:
    app = create_app(market, plan="free", api_keys={wire.KEY}, requests_per_minute=1000)
    with wire.serving(app) as url:
        client = wire.official_client(url)
        with pytest.raises(HTTPError, match="2022-04-05 ~ 2024-04-05"):
            client.get_eq_bars_daily(date_yyyymmdd="20240510")
        app.state.exchange.clock.set(datetime(2024, 7, 8, 12))
        with pytest.raises(HTTPError, match="2022-04-15 ~ 2024-04-15"):
            client.get_eq_bars_daily(date_yyyymmdd="20240510")


def test_the_clock_of_a_running_exchange_is_moved_by_its_owner_only(market: Path) -> None:
    with running_exchange(market, today=date(2024, 5, 9)) as exchange:
        client = wire.official_client(exchange.base_url, exchange.api_key)
        assert client.get_eq_bars_daily(date_yyyymmdd="20240510").empty
        move_clock(exchange, datetime(2024, 5, 10, 17))
        assert len(client.get_eq_bars_daily(date_yyyymmdd="20240510")) == 5
        with pytest.raises(ValueError, match="the market runs from"):
            move_clock(exchange, datetime(2030, 1, 1))
        url = exchange.base_url.removesuffix("/v2") + "/_exchange/clock"
        session = client._request_session()
        assert session.post(url, json={"now": None}, headers={"x-api-key": "another"}).status_code == 403
        owner = {"x-api-key": exchange.api_key}
        assert session.post(url, json={"advance_minutes": 90}, headers=owner).json()["now"] == "2024-05-10T18:30:00"
        assert session.post(url, json={"later": 1}, headers=owner).status_code == 400
        assert session.get(url, headers=owner).json() == {"now": "2024-05-10T18:30:00", "today": "2024-05-10"}


def test_nothing_but_the_exchange_reads_the_publication_rules() -> None:
    package = Path(inspect.getfile(Exchange)).parents[1]
    readers = [path for path in package.rglob("*.py") if "exchange.publication" in path.read_text()]
    assert readers and {path.parent.name for path in readers} == {"exchange"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Exchange:
    """All tables of a generated market."""
    folder = tmp_path_factory.mktemp("drawn") / "market"
    ensure_market(MarketSize(stocks=30, start=date(2024, 1, 4), end=date(2024, 6, 28), seed=3, plant="null"), folder)
    return create_app(folder, plan="premium", api_keys={wire.KEY}).state.exchange


@pytest.mark.parametrize("table", sorted(PLANS["premium"].tables))
def test_every_table_ends_where_the_clock_stands_and_is_whole_in_the_end(drawn: Exchange, table: str) -> None:
    column = drawn.tables[table].endpoint.date_column
    query = Query(first=date(2024, 1, 4), last=date(2024, 12, 31))
    whole = drawn.view.rows(table, query)
    try:
        drawn.clock.set(datetime(2024, 5, 15, 17))
        then = drawn.view.rows(table, query)
        drawn.clock.set(datetime(2024, 7, 12))
        late = drawn.view.rows(table, query)
    finally:
        drawn.clock.set(None)
    ahead = {"calendar": "2024-12-31", "master": "2024-05-15"}
    assert then.height > 0 and then[column].max() <= ahead.get(table, "2024-05-15")
    assert late.equals(whole)
    if table not in ("bars_daily", "master"):  # adjusted prices are as of the day; the list is one day's
        assert then.join(whole, on=whole.columns, how="semi", nulls_equal=True).height == then.height
