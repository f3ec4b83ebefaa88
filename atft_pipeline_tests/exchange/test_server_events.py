"""The event and derivative endpoints on the wire: parameter rules, objects, cursors, scheduled dates."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from jquantsapi import ClientV2
from requests.exceptions import HTTPError

from atft_pipeline.exchange.server import create_app
from atft_pipeline_tests.exchange import wire
from atft_pipeline_tests.exchange.wire_events import CORRECTION, FIRST_NOTICE


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientV2]:
    market = wire.write_market(tmp_path_factory.mktemp("events") / "market")
    app = create_app(market, plan="premium", api_keys={wire.KEY}, requests_per_minute=1000)
    with wire.serving(app) as url:
        yield wire.official_client(url)


def status(client: ClientV2, path: str, **params: str) -> int:
    try:
        return int(client._get(f"{client.JQUANTS_API_BASE}{path}", params).status_code)
    except HTTPError as error:
        assert error.response is not None
        return error.response.status_code


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/fins/details", {}),
        ("/fins/dividend", {"from": "20240501", "to": "20240531"}),
        ("/fins/earnings-date", {}),
        ("/fins/earnings-date", {"code": "13010", "date": "20240426"}),
        ("/fins/earnings-date", {"date": "20240426", "scheduled_date": "20240510"}),
        ("/fins/earnings-date", {"scheduled_date": "20240230"}),
        ("/derivatives/bars/daily/options/225", {}),
        ("/derivatives/bars/daily/futures", {"category": "TOPIXF"}),
    ],
)
def test_missing_doubled_or_impossible_parameters_are_400(client: ClientV2, path: str, params: dict[str, str]) -> None:
    assert status(client, path, **params) == 400


def test_a_statement_is_an_object_of_labels(client: ClientV2) -> None:
    frame, cursor = client.get_fin_details_cursor(date_yyyymmdd="20240510")
    assert frame["FS"][0] == {
        "Assets": "1200000000",
        "Net sales": "900000000.0",
        "Document type, DEI": "第３号参考様式",
    }
    assert frame["FS"][1] == {"Assets (IFRS)": "5"}
    assert cursor and client.get_fin_details_cursor(date_yyyymmdd="20240510", cursor=cursor)[0].empty


def test_notices_come_by_code_with_a_range_or_by_date(client: ClientV2) -> None:
    both = client.get_fin_dividend(code="1301", from_yyyymmdd="20240501", to_yyyymmdd="20240531")
    assert both["RefNo"].tolist() == [FIRST_NOTICE, CORRECTION]
    assert both["DivRate"].tolist() == ["-", "50.0"]
    assert client.get_fin_dividend(date_yyyymmdd="20240513")["CARefNo"].tolist() == [FIRST_NOTICE]


def test_a_scheduled_date_counts_only_while_it_stands(client: ClientV2) -> None:
    assert client.get_fin_earnings_date(scheduled_date_yyyymmdd="20240513").empty  # moved to the 10th
    assert sorted(client.get_fin_earnings_date(scheduled_date_yyyymmdd="20240510")["Code"]) == ["13010", "72030"]
    history = client.get_fin_earnings_date(code="72030")
    assert history["SchDate"].isna().tolist() == [True, False]


def test_derivatives_come_by_date_and_futures_by_category_and_flag(client: ClientV2) -> None:
    assert len(client.get_drv_bars_daily_opt_225("2024-05-10")) == 2
    assert client.get_drv_bars_daily_opt_225("2024-05-11").empty
    assert client.get_drv_bars_daily_fut("2024-05-10", category="TOPIXF")["Code"].tolist() == ["164090005"]
    assert client.get_drv_bars_daily_fut("2024-05-10", contract_flag="0")["ProdCat"].tolist() == ["NK225F"]
