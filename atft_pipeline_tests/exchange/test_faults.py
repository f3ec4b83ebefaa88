"""Every fault as the official client sees it, which requests it hits, and how its text is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from jquantsapi import ClientV2
from requests.exceptions import ChunkedEncodingError, ConnectionError, HTTPError, JSONDecodeError
from starlette.applications import Starlette

from atft_pipeline.exchange.faults import KINDS, Fault, FaultSyntaxError, parse_fault
from atft_pipeline.exchange.server import Exchange, create_app
from atft_pipeline_tests.exchange import wire

DAY = "2024-05-10"


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wire.write_market(tmp_path_factory.mktemp("faults") / "market")


@pytest.fixture(scope="module")
def app(market: Path) -> Starlette:
    return create_app(market, plan="standard", api_keys={wire.KEY}, requests_per_minute=100_000, page_rows=40)


def inject(exchange: Exchange, *texts: str) -> None:
    exchange.set_faults([parse_fault(text) for text in texts])


def bars(client: ClientV2) -> list[str]:
    return sorted(client.get_eq_bars_daily(date_yyyymmdd=DAY).get("Code", []))


def statuses(client: ClientV2, *calls: Callable[[], object]) -> list[int]:
    answers = []
    for call in calls:
        try:
            call()
            answers.append(200)
        except HTTPError as error:
            assert error.response is not None
            answers.append(error.response.status_code)
    return answers


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


def test_a_fault_can_refuse_by_plan(client: ClientV2, exchange: Exchange) -> None:
    inject(exchange, f"400:bars_daily:date={DAY}", "403:topix", "413:master")
    answers = []
    for call in (lambda: bars(client), client.get_idx_bars_daily_topix, client.get_eq_master):
        with pytest.raises(HTTPError) as caught:
            call()
        assert caught.value.response is not None
        answers.append((caught.value.response.status_code, caught.value.response.json()["message"]))
    assert [status for status, _ in answers] == [400, 403, 413]
    assert answers[0][1].startswith("Your subscription covers the following dates: 2014-06-28 ~ .")
    assert "not available on your subscription" in answers[1][1] and "too large" in answers[2][1]


def test_a_lockout_spreads_to_every_table_and_ends(market: Path) -> None:
    clock = SimpleNamespace(now=0.0)
    fault = parse_fault(f"lockout:bars_daily:date={DAY}:times=1:seconds=20")
    app = create_app(market, plan="standard", api_keys={wire.KEY}, faults=[fault], clock=lambda: clock.now)
    with wire.serving(app) as url:
        client = wire.official_client(url)
        assert statuses(client, lambda: bars(client), client.get_eq_master) == [429, 429]
        clock.now += 19.9
        assert statuses(client, client.get_eq_master) == [429]
        clock.now += 0.2
        assert statuses(client, client.get_eq_master, lambda: bars(client)) == [200, 200]


def test_a_burst_within_the_limit_per_minute_locks_out(market: Path) -> None:
    clock = SimpleNamespace(now=0.0)
    fault = parse_fault("burst:master:requests=3:seconds=12")
    app = create_app(market, plan="standard", api_keys={wire.KEY}, faults=[fault], clock=lambda: clock.now)
    with wire.serving(app) as url:
        client = wire.official_client(url)
        assert statuses(client, *[client.get_eq_master] * 3) == [200] * 3
        clock.now += 12
        assert statuses(client, *[client.get_eq_master] * 4) == [200, 200, 200, 429]
        clock.now += 299
        assert statuses(client, client.get_mkt_calendar) == [429], "it outlasts a pause of a minute"


@pytest.mark.parametrize(("kind", "error"), [("array", AttributeError), ("210", JSONDecodeError)])
def test_bodies_that_are_no_envelope(client: ClientV2, exchange: Exchange, kind: str, error: type[Exception]) -> None:
    inject(exchange, f"{kind}:bars_daily")
    with pytest.raises(error):
        bars(client)
    assert exchange.requests[-1].status == (210 if kind == "210" else 200)


@pytest.mark.parametrize(
    ("text", "body"), [("text", {"data": "x"}), ("object", {}), ("210:*:body=data", {"data": []})], ids=str
)
def test_bodies_that_read_as_an_empty_day(
    client: ClientV2, base_url: str, exchange: Exchange, text: str, body: dict[str, object]
) -> None:
    inject(exchange, text)
    assert raw(client, base_url) == body
    assert bars(client) == []


def test_late_rows_and_partial_days_end_at_an_exchange_time(client: ClientV2, exchange: Exchange) -> None:
    inject(
        exchange,
        f"late:fin_summary:date={DAY}:until=2024-05-13T09:00",
        f"partial:bars_daily:date={DAY}:share=0.5:until={DAY}T16:45",
    )

    def sizes() -> tuple[int, int]:
        return len(client.get_fin_summary_cursor(date_yyyymmdd=DAY)[0]), len(bars(client))

    assert sizes() == (3, 5), "an exchange without a clock is past every time"
    try:
        exchange.clock.set(datetime(2024, 5, 10, 16, 44))
        assert sizes()[1] == 2
        exchange.clock.set(datetime(2024, 5, 13, 8, 59))
        assert sizes() == (0, 5)
        exchange.clock.set(datetime(2024, 5, 13, 9, 0))
        assert sizes() == (3, 5)
    finally:
        exchange.clock.set(None)


def test_late_rows_are_missing_however_they_are_asked_for(client: ClientV2, exchange: Exchange) -> None:
    inject(exchange, f"late:bars_daily:date={DAY}:code=72030:after=0")
    assert bars(client) == [code for code in wire.CODES if code != "72030"]
    assert len(client.get_eq_bars_daily(code="72030")) == len(wire.trading_days()) - 1
    assert len(client.get_eq_bars_daily(code="13010")) == len(wire.trading_days())


def test_a_late_split_rewrites_the_adjusted_history(client: ClientV2, exchange: Exchange) -> None:
    inject(exchange, f"split:bars_daily:code=72030:date={DAY}:factor=0.2:after=1")
    before, after = (client.get_eq_bars_daily(code="72030").set_index("Date") for _ in range(2))
    early = before.index < DAY
    assert (before["AdjFactor"] == 1).all() and after["AdjFactor"][DAY] == 0.2 and after["ExRT"][DAY] == "1"
    assert after["AdjC"][early].round(6).tolist() == (before["C"][early] * 0.2).round(1).tolist()
    assert (after["AdjVo"][early] == before["Vo"][early] * 5).all()
    assert (after["AdjC"][~early] == before["AdjC"][~early]).all() and (after["C"] == before["C"]).all()
    assert len(client.get_eq_bars_daily(code="13010")) == len(before)


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
    for name, kind in KINDS.items():
        if name == "split":
            fault = Fault(name, "bars_daily", date=date(2024, 5, 10), code="72030", factor=0.2)
        elif "column" in kind.options:
            fault = Fault(name, "master", column="Mkt", date=date(2024, 5, 10))
        else:
            fault = Fault(name, seconds=3.5 if "seconds" in kind.options else None, until=datetime(2024, 5, 10, 16, 45))
        assert parse_fault(str(fault)) == fault


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("418:bars_daily", "unknown kind '418'; known: 400, 403, 413, 429"),
        ("500:bars", "unknown table 'bars'; known: \\*, calendar"),
        ("500:bars_daily:column=C", "'column=C' is not an option; 500 takes date"),
        ("500:bars_daily:times", "'times' is not an option"),
        ("500:bars_daily:times=two", "times cannot be 'two'"),
        ("500:bars_daily:date=2024-02-30", "date cannot be '2024-02-30'"),
        ("drop_column:bars_daily", "needs column=NAME"),
        ("endless:*:mode=never", "use repeat or change"),
        ("partial:*:share=1.5", "must be in"),
        ("duplicate:*:rows=0", "must be at least 1"),
        ("210:*:body=none", "use empty or data"),
        ("split:bars_daily:code=72030", "date=EX-DATE"),
        ("late:fin_summary:until=18:00", "until cannot be '18:00'"),
    ],
)
def test_a_bad_fault_text_is_refused_with_what_is_allowed(text: str, words: str) -> None:
    with pytest.raises(FaultSyntaxError, match=words):
        parse_fault(text)


def test_a_fault_on_a_column_that_does_not_exist_is_refused(exchange: Exchange) -> None:
    with pytest.raises(FaultSyntaxError, match="bars_daily has no column Close"):
        inject(exchange, "drop_column:bars_daily:column=Close")
