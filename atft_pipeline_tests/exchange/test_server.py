"""The unmodified official client reads every table, and the parameter rules answer as the service does."""

from __future__ import annotations

import json
import zlib
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
import requests
from jquantsapi import ClientV2, constants
from requests.exceptions import HTTPError
from starlette.applications import Starlette

from atft_pipeline.exchange.server import create_app
from atft_pipeline.exchange.tables import MarketError
from atft_pipeline_tests.exchange import wire


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wire.write_market(tmp_path_factory.mktemp("exchange") / "market")


@pytest.fixture(scope="module")
def app(market: Path) -> Starlette:
    return create_app(market, plan="standard", api_keys={wire.KEY}, requests_per_minute=100_000, page_rows=40)


@pytest.fixture(scope="module")
def client(base_url: str) -> ClientV2:
    return wire.official_client(base_url)


def refusal(call: object, *args: object, **kwargs: object) -> tuple[int, str]:
    """Status and message of the HTTPError that the client raises."""
    with pytest.raises(HTTPError) as caught:
        call(*args, **kwargs)  # type: ignore[operator]
    assert caught.value.response is not None
    return caught.value.response.status_code, caught.value.response.json()["message"]


def test_calendar_covers_the_future_and_filters_by_division(client: ClientV2) -> None:
    whole = client.get_mkt_calendar()
    assert whole["Date"].max() == pd.Timestamp("2024-12-31")
    closed = client.get_mkt_calendar(holiday_division="0", from_yyyymmdd="20240501", to_yyyymmdd="20240507")
    assert closed["Date"].dt.strftime("%m%d").tolist() == ["0503", "0504", "0505", "0506"]


def test_calendar_comes_in_one_reply(client: ClientV2, app: Starlette) -> None:
    assert len(client.get_mkt_calendar()) > app.state.exchange.page_rows
    assert app.state.exchange.requests[-1].page == 1


def test_master_of_a_day_lists_every_code_with_all_columns(client: ClientV2) -> None:
    frame = client.get_eq_master(date="2024-05-10")
    assert frame["Code"].tolist() == wire.CODES
    assert list(frame.columns) == constants.EQ_MASTER_COLUMNS_V2


@pytest.mark.parametrize(
    ("asked", "answered"),
    [("", "2024-06-28"), ("20240503", "2024-05-07"), ("20240511", "2024-05-13"), ("20250101", "2024-06-28")],
    ids=["no date: latest", "holiday: next business day", "Saturday: Monday", "future: latest"],
)
def test_master_finds_the_business_day(client: ClientV2, asked: str, answered: str) -> None:
    assert set(client.get_eq_master(date=asked)["Date"]) == {pd.Timestamp(answered)}


def test_list_helper_joins_the_client_s_own_sector_names(client: ClientV2) -> None:
    assert client.get_list(date_yyyymmdd="20240510")["S33NmEn"].notna().all()


def test_bars_of_a_day_have_the_non_premium_columns_and_null_together(client: ClientV2) -> None:
    frame = client.get_eq_bars_daily(date_yyyymmdd="20240510")
    assert sorted(frame["Code"]) == wire.CODES
    assert {"MktCap", "ExRT", "AdjFactor"} <= set(frame.columns) and not {"MO", "AO"} & set(frame.columns)
    thin = frame[frame["Code"] == "25935"].iloc[0]
    assert thin[["O", "H", "L", "C", "Vo", "Va", "AdjC"]].isna().all()


def test_both_date_formats_mean_the_same(client: ClientV2) -> None:
    compact, dashed = (client.get_eq_bars_daily(date_yyyymmdd=text) for text in ("20240510", "2024-05-10"))
    pd.testing.assert_frame_equal(compact, dashed)


def test_bars_by_code_follow_from_and_to_inclusively(client: ClientV2) -> None:
    frame = client.get_eq_bars_daily(code="72030", from_yyyymmdd="20240501", to_yyyymmdd="2024-05-08")
    assert frame["Date"].dt.strftime("%m%d").tolist() == ["0501", "0502", "0507", "0508"]


def test_four_characters_mean_the_common_stock(client: ClientV2) -> None:
    assert set(client.get_eq_bars_daily(code="2593")["Code"]) == {"25930"}
    assert set(client.get_eq_bars_daily(code="130A")["Code"]) == {"130A0"}


@pytest.mark.parametrize("day", ["20240503", "20240511", "20250106"], ids=["holiday", "Saturday", "not yet"])
def test_days_without_trading_are_empty_not_errors(client: ClientV2, base_url: str, day: str) -> None:
    reply = client._get(f"{base_url}/equities/bars/daily", {"date": day})
    assert (reply.status_code, reply.json()) == (200, {"data": []})
    assert client.get_eq_bars_daily(date_yyyymmdd=day).empty


def test_topix_by_range(client: ClientV2) -> None:
    frame = client.get_idx_bars_daily_topix(from_yyyymmdd="20240501", to_yyyymmdd="20240507")
    assert len(frame) == 3 and list(frame.columns) == ["Date", "O", "H", "L", "C"]
    assert len(client.get_idx_bars_daily_topix()) == len(wire.trading_days())


def test_indices_by_date_and_by_code(client: ClientV2) -> None:
    assert client.get_idx_bars_daily(date_yyyymmdd="20240510")["Code"].tolist() == wire.INDEX_CODES
    assert set(client.get_idx_bars_daily(code="002A")["Code"]) == {"002A"}


def test_statements_keep_every_filing_of_a_day_in_document_order(client: ClientV2, base_url: str) -> None:
    with pytest.warns(DeprecationWarning):
        frame = client.get_fin_summary(date_yyyymmdd="20240510")
    assert list(frame.columns) == constants.FIN_SUMMARY_COLUMNS_V2 and len(frame) == 3
    assert frame["Sales"].tolist() == ["45095325", "1200", ""]
    rows = client._get(f"{base_url}/fins/summary", {"date": "20240510"}).json()["data"]
    assert [row["DiscNo"][-1] for row in rows] == ["1", "2", "3"]


def test_statements_of_a_saturday_exist_and_a_code_returns_its_history(client: ClientV2) -> None:
    assert client.get_fin_summary_cursor(date_yyyymmdd="20240511")[0]["Code"].tolist() == ["25930"]
    assert len(client.get_fin_summary_cursor(code="1301")[0]) == 2


def test_investor_types_by_section_and_publication_date(client: ClientV2) -> None:
    assert len(client.get_eq_investor_types()) == 4
    frame = client.get_eq_investor_types(section="TSEPrime", from_yyyymmdd="20240510", to_yyyymmdd="20240520")
    assert frame["PubDate"].tolist() == [pd.Timestamp("2024-05-16")]
    assert list(frame.columns) == constants.EQ_INVESTOR_TYPES_COLUMNS_V2


def test_pages_join_to_the_whole_table_without_gap_or_repeat(client: ClientV2, base_url: str) -> None:
    keys, rows, params = [], [], {"code": "72030"}
    while True:
        payload = client._get(f"{base_url}/equities/bars/daily", params).json()
        rows += payload["data"]
        if "pagination_key" not in payload:
            break
        keys.append(payload["pagination_key"])
        params = params | {"pagination_key": keys[-1]}
    assert [row["Date"] for row in rows] == [day.isoformat() for day in wire.trading_days()]
    assert len(rows) > 40 and len(set(keys)) == len(keys) >= 1
    assert len(client.get_eq_bars_daily(code="72030")) == len(rows)


def test_pagination_key_is_refused_when_unknown_or_made_for_another_query(client: ClientV2, base_url: str) -> None:
    url = f"{base_url}/equities/bars/daily"
    key = client._get(url, {"code": "72030"}).json()["pagination_key"]
    for params in ({"code": "72030", "pagination_key": "x" + key}, {"code": "13010", "pagination_key": key}):
        assert refusal(client._get, url, params) == (400, "'pagination_key' is invalid.")


@pytest.mark.parametrize(
    ("path", "params", "words"),
    [
        ("/equities/bars/daily", {}, "requires at least 1 parameter as follows; 'date','code'"),
        ("/equities/bars/daily", {"from": "20240501", "to": "20240510"}, "requires at least 1 parameter"),
        ("/indices/bars/daily", {}, "requires at least 1 parameter"),
        ("/fins/summary", {}, "requires at least 1 parameter"),
        ("/equities/bars/daily", {"date": "20240230"}, "'date' must be an existing date"),
        ("/equities/bars/daily", {"date": "2024-0510"}, "'date' must be an existing date"),
        ("/equities/bars/daily", {"code": "72030", "from": "20241301"}, "'from' must be an existing date"),
        ("/equities/bars/daily", {"code": "toyota"}, "'code' has an invalid format"),
        ("/indices/bars/daily/topix", {"from": "20240510", "to": "20240509"}, "'from' must not be later"),
        ("/markets/calendar", {"hol_div": "9"}, "'hol_div' must be one of"),
        ("/fins/summary", {"date": "20240510", "cursor": "x"}, "'cursor' is not available"),
    ],
)
def test_bad_parameters_are_400_with_a_reason(
    client: ClientV2, base_url: str, path: str, params: dict[str, str], words: str
) -> None:
    status, message = refusal(client._get, base_url + path, params)
    assert status == 400 and words in message


@pytest.mark.parametrize(
    ("key", "message"),
    [("wrong", "The incoming api key is invalid or expired."), (None, "The api key is required.")],
)
def test_wrong_and_missing_keys_are_403(base_url: str, key: str | None, message: str) -> None:
    headers = {} if key is None else {"x-api-key": key}
    with requests.Session() as session:
        session.trust_env = False
        reply = session.get(f"{base_url}/equities/master", headers=headers)
    assert (reply.status_code, reply.json()) == (403, {"message": message})


@pytest.mark.parametrize("path", ["/equities/nothing", "/equities/master/", "/../equities/master"])
def test_unknown_paths_are_403_not_404(client: ClientV2, base_url: str, path: str) -> None:
    assert refusal(client._get, base_url + path) == (403, "The requested endpoint does not exist.")


def test_replies_are_compressed_only_when_accepted_and_sized_exactly(base_url: str) -> None:
    url, headers = f"{base_url}/equities/bars/daily?date=20240510", {"x-api-key": wire.KEY}
    with requests.Session() as session:
        session.trust_env = False
        bodies = []
        for encoding in ("gzip", "identity"):
            reply = session.get(url, headers=headers | {"Accept-Encoding": encoding}, stream=True)
            bodies.append(reply.raw.read(decode_content=False))
            assert int(reply.headers["Content-Length"]) == len(bodies[-1])
            assert ("Content-Encoding" in reply.headers) == (encoding == "gzip")
    assert zlib.decompress(bodies[0], 31) == bodies[1]
    assert len(json.loads(bodies[1])["data"]) == len(wire.CODES)


def test_the_server_counts_requests_for_holders_of_the_key(market: Path) -> None:
    app = create_app(market, plan="standard", api_keys={wire.KEY})
    with wire.serving(app) as url:
        client = wire.official_client(url)
        client.get_eq_bars_daily(date_yyyymmdd="20240510")
        client.get_eq_bars_daily(date_yyyymmdd="20240510")
        client.get_idx_bars_daily_topix(from_yyyymmdd="20240501", to_yyyymmdd="20240510")
        report_url = url.removesuffix("/v2") + "/_exchange/requests"
        report = client._get(report_url).json()
        assert refusal(wire.official_client(url, "wrong")._get, report_url)[0] == 403
    assert report["counts"] == [
        {"table": "bars_daily", "date": "20240510", "status": 200, "count": 2},
        {"table": "topix", "date": "20240501..20240510", "status": 200, "count": 1},
    ]
    assert report["total"] == 3 and wire.KEY not in json.dumps(report)


def test_an_incomplete_market_is_refused_with_the_remedy(market: Path, tmp_path: Path) -> None:
    with pytest.raises(MarketError, match="holds no market; run"):
        create_app(tmp_path, plan="standard", api_keys={wire.KEY})
    broken = wire.write_market(tmp_path / "market")
    (broken / "tables" / "topix.parquet").unlink()
    with pytest.raises(MarketError, match=r"topix\.parquet is missing; remove"):
        create_app(broken, plan="light", api_keys={wire.KEY})
    with pytest.raises(ValueError, match="unknown plan 'gold'"):
        create_app(market, plan="gold", api_keys={wire.KEY})
    with pytest.raises(ValueError, match="at least one API key"):
        create_app(market, plan="light", api_keys=set())


def test_an_unexpected_error_is_the_api_s_500(market: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(market, plan="standard", api_keys={wire.KEY})
    monkeypatch.setattr(app.state.exchange, "tables", {})
    with wire.serving(app) as url:
        status, message = refusal(wire.official_client(url).get_eq_master)
    assert (status, message) == (500, "Unexpected error. Please try again later.")


def test_the_market_s_end_is_today(app: Starlette) -> None:
    assert app.state.exchange.today == date(2024, 6, 28)
