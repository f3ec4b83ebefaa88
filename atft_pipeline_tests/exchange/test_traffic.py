"""The request report: the busiest minute over all clients, sizes, and counts that survive the list's own limit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atft_pipeline.exchange.process import running_exchange, traffic_report
from atft_pipeline.exchange.server import create_app
from atft_pipeline.exchange.traffic import RequestRecord, Traffic
from atft_pipeline_tests.exchange import wire


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wire.write_market(tmp_path_factory.mktemp("traffic") / "market")


def test_the_busiest_minute_slides() -> None:
    traffic = Traffic()
    for at in [*range(0, 60, 10), 60.0, 61.0, 62.0, 200.0]:  # 10 to 62 hold eight
        traffic.arrive("general", at)
    assert traffic.report({"general": 7})["busiest_minute"] == {"general": {"requests": 8, "limit": 7}}


def test_several_clients_count_together_and_refusals_count_too(market: Path) -> None:
    seconds = iter(range(1_000))
    app = create_app(
        market, plan="standard", api_keys={wire.KEY, "b"}, requests_per_minute=3, clock=lambda: next(seconds)
    )
    with wire.serving(app) as url:
        for key in (wire.KEY, "b", "unknown"):
            client = wire.official_client(url, key)
            for _ in range(4):
                client._request_session().get(f"{url}/equities/master", headers={"x-api-key": key})
    report = app.state.exchange.traffic.report({"general": 3, "fin_summary": 3})
    assert report["busiest_minute"]["general"] == {"requests": 8, "limit": 3}, "a wrong key reaches no bucket"
    assert report["busiest_minute"]["fin_summary"] == {"requests": 0, "limit": 3}
    assert report["tables"] == {"master": 12} and report["total"] == 12
    assert [record["bucket"] for record in report["requests"]] == ["general"] * 8 + [""] * 4


def test_bytes_are_those_on_the_wire(market: Path) -> None:
    app = create_app(market, plan="standard", api_keys={wire.KEY})
    with wire.serving(app) as url:
        session = wire.official_client(url)._request_session()
        sizes = []
        for encoding in ("gzip", "identity"):
            headers = {"x-api-key": wire.KEY, "Accept-Encoding": encoding}
            reply = session.get(f"{url}/equities/master", headers=headers, stream=True)
            sizes.append(len(reply.raw.read(decode_content=False)))
    assert [record.bytes for record in app.state.exchange.requests] == sizes and sizes[0] < sizes[1]
    assert app.state.exchange.traffic.report({})["bytes"] == sum(sizes)


def test_totals_outlive_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atft_pipeline.exchange.traffic._KEPT_REQUESTS", 2)
    traffic = Traffic()
    for _ in range(5):
        traffic.add(RequestRecord("master", "/equities/master", {"date": "2024-05-10"}, 1, 200, "general", 1.0, 10))
    report = traffic.report({})
    assert (report["total"], report["bytes"], report["tables"], len(report["requests"])) == (5, 50, {"master": 5}, 2)
    assert report["counts"] == [{"table": "master", "date": "2024-05-10", "status": 200, "count": 2}]
    assert "requests" not in traffic.report({}, listed=False) and json.dumps(report)


def test_a_running_exchange_reports_to_its_owner(market: Path) -> None:
    with running_exchange(market) as exchange:
        wire.official_client(exchange.base_url, exchange.api_key).get_eq_master()
        report = traffic_report(exchange)
        assert report["busiest_minute"]["general"] == {"requests": 1, "limit": 120}  # type: ignore[index]
        assert "requests" not in report and len(traffic_report(exchange, listed=True)["requests"]) == 1  # type: ignore[arg-type]
