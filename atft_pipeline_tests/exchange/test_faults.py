"""Every fault as the official client sees it, which requests it hits, and how its text is read."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from jquantsapi import ClientV2
from requests.exceptions import ChunkedEncodingError, ConnectionError, HTTPError, JSONDecodeError
from starlette.applications import Starlette

from atft_pipeline.exchange.faults import KINDS, Fault, FaultSyntaxError, parse_fault
from atft_pipeline.exchange.server import Exchange, create_app
from atft_pipeline_tests.exchange import wire

DAY = "2024-05-10"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Starlette:
    market = wire.write_market(tmp_path_factory.mktemp("faults") / "market")
    return create_app(market, plan="standard", api_keys={wire.KEY}, requests_per_minute=100_000, page_rows=40)


@pytest.fixture(scope="module")
def base_url(app: Starlette) -> Iterator[str]:
    with wire.serving(app) as url:
        yield url


@pytest.fixture
def exchange(app: Starlette) -> Iterator[Exchange]:
    yield app.state.exchange
    app.state.exchange.set_faults([])


@pytest.fixture
def client(base_url: str) -> ClientV2:
    return wire.official_client(base_url)


def inject(exchange: Exchange, *texts: str) -> None:
    exchange.set_faults([parse_fault(text) for text in texts])


def bars(client: ClientV2) -> list[str]:
    return sorted(client.get_eq_bars_daily(date_yyyymmdd=DAY).get("Code", []))


def raw(client: ClientV2, base_url: str, **params: str) -> dict[str, object]:
    return client._get(f"{base_url}/equities/bars/daily", params or {"date": DAY}).json()


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("retry_after", [None, 7])
def test_error_statuses_carry_a_message_and_perhaps_retry_after(
    client: ClientV2, exchange: Exchange, status: int, retry_after: int | None
) -> None:
    inject(exchange, f"{status}:bars_daily" + (f":retry_after={retry_after}" if retry_after else ""))
    with pytest.raises(HTTPError) as caught:
        bars(client)
    response = caught.value.response
    assert response is not None and response.status_code == status and "again later" in response.json()["message"]
    assert response.headers.get("Retry-After") == (None if retry_after is None else "7")


def test_times_and_after_bound_the_fault(client: ClientV2, exchange: Exchange) -> None:
    inject(exchange, "500:bars_daily:after=1:times=2")
    outcomes = []
    for _ in range(4):
        try:
            outcomes.append(len(bars(client)))
        except HTTPError:
            outcomes.append(500)
    assert outcomes == [5, 500, 500, 5]


def test_table_date_code_and_page_select_the_requests(client: ClientV2, exchange: Exchange) -> None:
    inject(exchange, f"500:bars_daily:date={DAY}", "500:bars_daily:code=72030:page=2", "500:topix:date=2024-05-08")
    assert len(client.get_eq_master(date=DAY)) == 5
    assert len(client.get_eq_bars_daily(date_yyyymmdd="20240509")) == 5
    assert len(client.get_idx_bars_daily_topix(from_yyyymmdd="20240509")) > 0
    assert len(client.get_eq_bars_daily(code="13010")) == len(wire.trading_days())
    for call in (
        lambda: client.get_eq_bars_daily(date_yyyymmdd="20240510"),
        lambda: client.get_eq_bars_daily(code="7203"),
        lambda: client.get_idx_bars_daily_topix(from_yyyymmdd="20240501", to_yyyymmdd="20240508"),
    ):
        with pytest.raises(HTTPError):
            call()
    assert exchange.requests[-2].page == 2 and exchange.requests[-2].status == 500


def test_truncated_body(client: ClientV2, exchange: Exchange, capfd: pytest.CaptureFixture[str]) -> None:
    inject(exchange, "truncate:bars_daily")
    with pytest.raises(ChunkedEncodingError, match="IncompleteRead"):
        bars(client)
    assert capfd.readouterr().err == "", "a deliberate fault is no server error"


def test_connection_reset(client: ClientV2, exchange: Exchange) -> None:
    inject(exchange, "reset:bars_daily:times=1")
    with pytest.raises(ConnectionError, match="reset by peer"):
        bars(client)
    assert bars(client) == wire.CODES


def test_malformed_json(client: ClientV2, exchange: Exchange) -> None:
    inject(exchange, "malformed:bars_daily")
    with pytest.raises(JSONDecodeError):
        bars(client)


def test_null_data_reads_as_an_empty_day(client: ClientV2, base_url: str, exchange: Exchange) -> None:
    inject(exchange, "null:bars_daily")
    assert raw(client, base_url) == {"data": None}
    assert bars(client) == []


@pytest.mark.parametrize(("mode", "distinct"), [("repeat", 1), ("change", 4)])
def test_endless_pagination_key(client: ClientV2, base_url: str, exchange: Exchange, mode: str, distinct: int) -> None:
    inject(exchange, f"endless:bars_daily:mode={mode}")
    keys: list[str] = []
    for _ in range(4):
        payload = raw(client, base_url, date=DAY, **({"pagination_key": keys[-1]} if keys else {}))
        assert payload["data"]
        keys.append(str(payload["pagination_key"]))
    assert len(set(keys)) == distinct


def test_dropped_and_extra_columns(client: ClientV2, exchange: Exchange) -> None:
    inject(exchange, "drop_column:bars_daily:column=MktCap", "extra_column:bars_daily:column=NewField")
    columns = client.get_eq_bars_daily(date_yyyymmdd=DAY).columns
    assert "MktCap" not in columns and "NewField" in columns
    inject(exchange, "drop_column:master:column=Mkt")
    with pytest.raises(KeyError, match="Mkt"):
        client.get_eq_master(date=DAY)


def test_numbers_become_strings_and_strings_numbers(client: ClientV2, base_url: str, exchange: Exchange) -> None:
    inject(exchange, "retype:bars_daily:column=C", "retype:fin_summary")
    row = raw(client, base_url)["data"][0]  # type: ignore[index]
    assert isinstance(row["C"], str) and isinstance(row["O"], float) and float(row["C"]) == row["O"]
    filings = client._get(f"{base_url}/fins/summary", {"date": DAY}).json()["data"]
    assert [filing["Sales"] for filing in filings] == [1200.0, 45095325.0, None]
    assert filings[0]["Code"] == "13010", "keys keep their type"


def test_all_null_page_keeps_its_keys(client: ClientV2, base_url: str, exchange: Exchange) -> None:
    inject(exchange, "all_null:bars_daily")
    rows: list[dict[str, object]] = raw(client, base_url)["data"]  # type: ignore[assignment]
    assert [row["Code"] for row in rows] == wire.CODES
    assert all(value is None for row in rows for name, value in row.items() if name not in ("Date", "Code"))


def test_partial_publication_delivers_a_share(client: ClientV2, exchange: Exchange) -> None:
    inject(exchange, "partial:bars_daily:share=0.5:times=1")
    assert bars(client) == wire.CODES[:2]
    assert bars(client) == wire.CODES


@pytest.mark.parametrize("code", ["", "72030"], ids=["a day of one page", "a history of two"])
def test_rows_repeat_across_pages(client: ClientV2, exchange: Exchange, code: str) -> None:
    inject(exchange, "duplicate:bars_daily:rows=2")
    frame = client.get_eq_bars_daily(code=code) if code else client.get_eq_bars_daily(date_yyyymmdd=DAY)
    wanted = len(wire.trading_days()) if code else len(wire.CODES)
    assert len(frame.drop_duplicates()) == wanted < len(frame)


def test_slow_reply_comes_late_but_whole(client: ClientV2, exchange: Exchange) -> None:
    inject(exchange, "slow:bars_daily:seconds=0.2")
    started = time.monotonic()
    assert bars(client) == wire.CODES
    assert time.monotonic() - started >= 0.2


def test_a_fault_s_text_reads_back_the_same() -> None:
    text = f"429:bars_daily:date={DAY}:times=2:retry_after=1"
    fault = parse_fault(text)
    assert (fault.kind, fault.times, fault.retry_after, fault.after) == ("429", 2, 1, 0)
    assert str(fault) == text and parse_fault(str(fault)) == fault
    for kind in KINDS:
        fault = Fault(kind, "master", column="Mkt") if "column" in KINDS[kind] else Fault(kind)
        assert parse_fault(str(fault)) == fault


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("418:bars_daily", "unknown kind '418'; known: 429"),
        ("500:bars", "unknown table 'bars'; known: \\*, calendar"),
        ("500:bars_daily:column=C", "'column=C' is not an option; 500 takes date"),
        ("500:bars_daily:times", "'times' is not an option"),
        ("500:bars_daily:times=two", "times cannot be 'two'"),
        ("500:bars_daily:date=2024-02-30", "date cannot be '2024-02-30'"),
        ("drop_column:bars_daily", "needs column=NAME"),
        ("endless:*:mode=never", "use repeat or change"),
        ("partial:*:share=1.5", "must be in"),
        ("duplicate:*:rows=0", "must be at least 1"),
    ],
)
def test_a_bad_fault_text_is_refused_with_what_is_allowed(text: str, words: str) -> None:
    with pytest.raises(FaultSyntaxError, match=words):
        parse_fault(text)


def test_a_fault_on_a_column_that_does_not_exist_is_refused(exchange: Exchange) -> None:
    with pytest.raises(FaultSyntaxError, match="bars_daily has no column Close"):
        inject(exchange, "drop_column:bars_daily:column=Close")
