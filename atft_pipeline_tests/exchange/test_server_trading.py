"""The parameter rules of the margin, short selling and breakdown endpoints, asked with the official client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
from jquantsapi import ClientV2

from atft_pipeline.exchange.server import create_app
from atft_pipeline_tests.exchange import wire


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    market: Path = wire.write_market(tmp_path_factory.mktemp("exchange") / "market")
    app = create_app(market, plan="premium", api_keys={wire.KEY}, requests_per_minute=100_000, page_rows=40)
    with wire.serving(app) as url:
        yield url


@pytest.fixture(scope="module")
def client(base_url: str) -> ClientV2:
    return wire.official_client(base_url)


def ask(base_url: str, path: str, **params: str) -> tuple[int, dict[str, Any]]:
    """Status and body of a request that the official client would not send."""
    session = requests.Session()
    session.trust_env = False
    answer = session.get(base_url + path, params=params, headers={"x-api-key": wire.KEY}, timeout=10)
    return answer.status_code, answer.json()


def test_margin_balances_by_date_by_publication_and_by_code(client: ClientV2) -> None:
    day = client.get_mkt_margin_interest(date_yyyymmdd="2024-05-10")
    assert day["Code"].tolist() == wire.CODES[:2] and day["PubDate"].isna().all()
    published = client.get_mkt_margin_interest(published_date_yyyymmdd="2024-06-28")
    assert set(published["Date"]) == {pd.Timestamp("2024-06-28")} and len(published) == 2
    one = client.get_mkt_margin_interest(code="1301", from_yyyymmdd="20240501", to_yyyymmdd="20240531")
    assert set(one["Code"]) == {"13010"} and one["Date"].dt.weekday.unique().tolist() == [4]


@pytest.mark.parametrize(
    ("path", "params", "said"),
    [
        ("/markets/margin-interest", {}, "at least 1 parameter as follows; 'code','date','published_date'"),
        ("/markets/margin-interest", {"published_date": "20240628", "date": "20240628"}, "cannot be combined"),
        ("/markets/margin-interest", {"published_date": "20240231"}, "'published_date' must be an existing date"),
        ("/markets/margin-interest", {"published_date": "20240628", "from": "20240601"}, "cannot be combined"),
        ("/markets/margin-interest", {"date": "", "from": "20240601"}, "at least 1 parameter"),
        ("/markets/margin-alert", {"from": "20240601"}, "at least 1 parameter as follows; 'date','code'"),
        ("/markets/short-ratio", {"from": "20240601"}, "at least 1 parameter as follows; 's33','date'"),
        ("/markets/short-ratio", {"s33": "0051"}, "'s33' must be one of 0050"),
        ("/markets/short-sale-report", {"disc_date_from": "20240501"}, "'code','disc_date','calc_date'"),
        (
            "/markets/short-sale-report",
            {"calc_date": "20240501", "disc_date_from": "20240501"},
            "'disc_date_from' and 'disc_date_to' need 'code'",
        ),
        (
            "/markets/short-sale-report",
            {"code": "13010", "disc_date_from": "20240531", "disc_date_to": "20240501"},
            "'disc_date_from' must not be later than 'disc_date_to'",
        ),
        ("/markets/breakdown", {"from": "20240601", "to": "20240603"}, "at least 1 parameter as follows"),
    ],
)
def test_missing_or_contradicting_parameters_are_400(
    base_url: str, path: str, params: dict[str, str], said: str
) -> None:
    status, body = ask(base_url, path, **params)
    assert status == 400 and said in body["message"]


def test_alerts_are_asked_for_by_publication_date_and_mix_numbers_with_marks(client: ClientV2) -> None:
    alerts = client.get_mkt_margin_alert(date_yyyymmdd="2024-05-10")
    assert alerts[["PubDate", "AppDate"]].values.tolist() == [["2024-05-10", "2024-05-09"]]
    assert alerts["ShrtOutChg"].tolist() == ["-"] and alerts["LongOutRatio"].tolist() == ["*"]
    assert alerts["PubReason"][0]["DailyPublication"] == "1"


def test_short_ratio_by_sector_or_by_date(client: ClientV2) -> None:
    sector = client.get_mkt_short_ratio(sector_33_code="9999", from_yyyymmdd="20240501", to_yyyymmdd="20240531")
    assert set(sector["S33"]) == {"9999"} and len(sector) == 21
    assert client.get_mkt_short_ratio(date_yyyymmdd="20240510")["S33"].tolist() == ["0050", "9999"]


def test_short_reports_by_disclosure_by_calculation_and_by_code(client: ClientV2) -> None:
    days = [f"{day:%Y-%m-%d}" for day in wire.trading_days()]
    assert client.get_mkt_short_sale_report(disclosed_date=days[5])["SSName"].tolist() == ["House B", "House A"]
    assert client.get_mkt_short_sale_report(calculated_date=days[2])["DiscDate"].nunique() == 2
    one = client.get_mkt_short_sale_report(code="13010", disclosed_date_from=days[5], disclosed_date_to=days[9])
    assert one["SSName"].tolist() == ["House B"] and one["PrevRptDate"].isna().all()


def test_breakdown_has_all_legs(client: ClientV2) -> None:
    frame = client.get_mkt_breakdown(date_yyyymmdd="2024-05-10")
    assert frame.shape == (2, 16)
