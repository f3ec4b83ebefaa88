"""A recording served again is the service that was recorded: same rows, same types, same plan; and it can go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from atft_pipeline.evaluation.oracle import load_oracle
from atft_pipeline.exchange import __main__ as command
from atft_pipeline.exchange.faults import parse_fault
from atft_pipeline.exchange.plans import PLANS
from atft_pipeline.exchange.process import (
    Exchange,
    RecordedMarketError,
    ensure_market,
    running_exchange,
    traffic_report,
)
from atft_pipeline.exchange.record import Order, record
from atft_pipeline.exchange.recorded import frame_of, kinds_of, merged
from atft_pipeline.exchange.server import create_app
from atft_pipeline.exchange.tables import MarketError
from atft_pipeline.jquants.client import Client, Patience, connect
from atft_pipeline.jquants.errors import ExchangeError
from atft_pipeline.jquants.tables import TABLES
from atft_pipeline.settings import MarketSize
from atft_pipeline_tests.exchange import wire

SIZE = MarketSize(stocks=30, start=date(2024, 4, 1), end=date(2024, 6, 7), seed=3, plant="null")
START, END = date(2024, 5, 24), date(2024, 6, 5)


def client_of(url: str, key: str = wire.KEY, plan: str = "premium") -> Client:
    return connect(url, key, plan, 100_000, patience=Patience(attempts=1))


def served(table: str) -> bool:
    return table in PLANS["premium"].tables


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    folder = tmp_path_factory.mktemp("original") / "market"
    ensure_market(SIZE, folder)
    with running_exchange(folder, plan="premium", requests_per_minute=100_000, page_rows=400) as exchange:
        yield exchange


@pytest.fixture(scope="module")
def recording(original: Exchange, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "market"
    tables = [name for name in TABLES if served(name)]
    record(client_of(original.base_url, original.api_key), folder, Order(tables, START, END))
    return folder


def test_a_recording_replays_every_table_byte_for_byte(recording: Path, tmp_path: Path) -> None:
    tables = [name for name in TABLES if served(name)]
    app = create_app(recording, plan="premium", api_keys={wire.KEY}, requests_per_minute=100_000, page_rows=1500)
    with wire.serving(app) as url:
        record(client_of(url), tmp_path / "again", Order(tables, START, END))
    for name in tables:
        first, again = (
            {path.name: path.read_bytes() for path in (folder / "recording" / name).glob("*.gz")}
            for folder in (recording, tmp_path / "again")
        )
        assert first == again and len(first) == (1 if name == "calendar" else 2), name
        about = json.loads((recording / "market.json").read_text())["tables"][name]
        assert about == json.loads((tmp_path / "again" / "market.json").read_text())["tables"][name]
        assert about["rows"] > 0 or not TABLES[name].dense, name


def test_it_says_what_it_is(recording: Path, original: Exchange) -> None:
    about = json.loads((recording / "market.json").read_text())
    assert about["recorded"] is True and about["oracle"] is None and about["plan"] == "premium"
    assert about["window"] == ["2024-05-24", "2024-06-05"] and "Do not redistribute" in about["terms"]
    assert load_oracle(recording, [START], ["13010"], [0], [1]) is None
    text = "".join(path.read_text(errors="replace") for path in recording.rglob("*.json"))
    assert original.api_key not in text


def test_a_simulated_market_never_takes_its_place(recording: Path, tmp_path: Path) -> None:
    before = (recording / "market.json").read_bytes()
    with pytest.raises(RecordedMarketError, match="holds a recorded market"):
        ensure_market(SIZE, recording)
    assert command.main(["generate", "--out", str(recording)]) == 2
    assert (recording / "market.json").read_bytes() == before
    simulated = wire.write_market(tmp_path / "market")
    with pytest.raises(MarketError, match="holds a simulated market"):
        record(client_of("http://127.0.0.1:9/v2"), simulated, Order(["topix"], START, END))


def test_an_interrupted_recording_goes_on_where_it_stopped(tmp_path: Path) -> None:
    market = wire.write_market(tmp_path / "market")
    fault = parse_fault("500:bars_daily:date=2024-05-17:times=1")
    app = create_app(market, plan="standard", api_keys={wire.KEY}, requests_per_minute=100_000, faults=[fault])
    order = Order(["bars_daily", "topix"], date(2024, 5, 1), date(2024, 5, 31))
    with wire.serving(app) as url:
        client = client_of(url, plan="standard")
        with pytest.raises(ExchangeError, match="date=2024-05-17.*the same command goes on from there"):
            record(client, tmp_path / "out", order)
        assert not (tmp_path / "out" / "market.json").exists()
        before = len(app.state.exchange.requests)
        about = record(client, tmp_path / "out", order)
        asked = [request.date for request in list(app.state.exchange.requests)[before:]]
        assert asked[0] == "2024-05-17" and asked[-1] == "2024-05-01..2024-05-31" and len(asked) == 11 + 1
        assert about["tables"]["bars_daily"]["rows"] == 5 * 21
        count = len(app.state.exchange.requests)
        assert record(client, tmp_path / "out", order)["tables"] == about["tables"]
        assert len(app.state.exchange.requests) == count, "a finished recording asks for nothing"
        (tmp_path / "out" / "bulk").mkdir()
        longer = Order(order.tables, order.start, date(2024, 6, 7))
        assert record(client, tmp_path / "out", longer)["tables"]["bars_daily"]["rows"] == 5 * 26
        assert not (tmp_path / "out" / "bulk").exists(), "files made of the old rows are gone"


def test_a_day_that_is_not_out_yet_is_no_recording(tmp_path: Path) -> None:
    market = wire.write_market(tmp_path / "market")
    fault = parse_fault("late:bars_daily:date=2024-05-17")
    app = create_app(market, plan="standard", api_keys={wire.KEY}, requests_per_minute=100_000, faults=[fault])
    with wire.serving(app) as url, pytest.raises(MarketError, match="date=2024-05-17: no rows for a business day"):
        record(
            client_of(url, plan="standard"),
            tmp_path / "out",
            Order(["bars_daily"], date(2024, 5, 1), date(2024, 5, 31)),
        )


def test_values_of_mixed_kinds_and_objects_come_back_as_they_were(tmp_path: Path) -> None:
    """As margin alerts have them: "-" among numbers, an object of flags."""
    rows = [
        {"a": 1, "b": 1.5, "c": "-", "d": {"x": "1"}, "e": None, "f": True},
        {"a": 2, "b": 2, "c": 12.5, "d": {"y": "0"}, "e": None, "f": None},
        {"a": None, "b": None, "c": None, "d": None, "e": None, "f": False},
    ]
    kinds = merged(kinds_of(rows[:1]), kinds_of(rows[1:]))
    frame = frame_of(rows, kinds)
    assert dict(frame.schema) == {
        "a": pl.Int64, "b": pl.Float64, "c": pl.String, "d": pl.String, "e": pl.String, "f": pl.Boolean,
    }  # fmt: skip
    market = wire.write_market(tmp_path / "market")
    days = [day.isoformat() for day in wire.trading_days()[:3]]
    frame.insert_column(0, pl.Series("Date", days)).write_parquet(market / "tables" / "topix.parquet")
    about = json.loads((market / "market.json").read_text()) | {"objects": {"topix": ["c", "d"]}}
    (market / "market.json").write_text(json.dumps(about))
    app = create_app(market, plan="standard", api_keys={wire.KEY})
    with wire.serving(app) as url:
        answer = wire.official_client(url)._get(f"{url}/indices/bars/daily/topix", {}).json()["data"]
    assert [{name: row[name] for name in "abcdef"} for row in answer] == rows
    assert isinstance(answer[1]["c"], float) and answer[1]["d"] == {"y": "0"}


def test_the_command_records_and_serves_with_the_recorded_plan(
    original: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JQUANTS_BASE_URL", original.base_url)
    monkeypatch.setenv("JQUANTS_API_KEY", original.api_key)
    monkeypatch.setenv("JQUANTS_REQUESTS_PER_MINUTE", "100000")
    monkeypatch.setenv("ATFT_DATA_DIR", str(tmp_path / "data"))
    span = ["--start", "2024-05-30", "--end", "2024-06-05", "--plan", "light"]
    out = tmp_path / "market"
    assert command.main(["record", "--out", str(out), "--tables", "topix", "master", *span]) == 0
    assert "do not redistribute" in capsys.readouterr().out
    with running_exchange(out, plan="light", requests_per_minute=1000) as replay:
        client = wire.official_client(replay.base_url, replay.api_key)
        assert len(client.get_idx_bars_daily_topix()) == 5
        session = client._request_session()
        refused = session.get(f"{replay.base_url}/equities/bars/daily", headers={"x-api-key": replay.api_key})
        assert refused.status_code == 403, "what was not recorded is outside the plan"
    assert traffic_report(original)["total"]
    bad = ["record", "--out", str(out), "--tables", "bars", *span]
    assert command.main(bad) == 2 and "unknown table bars" in capsys.readouterr().err
