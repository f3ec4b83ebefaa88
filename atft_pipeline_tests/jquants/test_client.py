"""The choke point: what is retried, what is not, how failures read, and that the key shows up nowhere."""

from __future__ import annotations

import logging
import re
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from atft_pipeline.jquants.client import Client, Patience, connect
from atft_pipeline.jquants.errors import ExchangeError
from atft_pipeline.jquants.plans import FREE, LIGHT, PREMIUM, STANDARD, probe_plan, settled_plan
from atft_pipeline.settings import PLAN_RECORD, SettingError, Settings, _recorded_plan
from atft_pipeline_tests.jquants.conftest import Clock
from atft_pipeline_tests.jquants.scripted import API_KEY, CODES, Reply, ScriptedExchange, message

BARS = "/equities/bars/daily"
DAY = "2024-05-14"


def _first(reply: Reply, times: int = 1) -> object:
    """A script that answers `reply` to the first `times` requests of each kind."""
    return lambda path, params, number: reply if number <= times else None


def test_pages_are_put_together(client: Client, exchange: ScriptedExchange) -> None:
    exchange.page_rows = 25
    frame = client.get_eq_bars_daily(date_yyyymmdd=DAY)
    assert sorted(frame["Code"]) == CODES
    assert [params for _, params in exchange.log] == [{"date": DAY}, {"date": DAY, "pagination_key": "25"}]
    assert exchange.keys_seen == {API_KEY}
    assert client.requests_sent == 2


@pytest.mark.parametrize(
    "reply",
    [
        message("slow down", 429),
        message("slow down", 429, Retry_After="1"),
        message("Unexpected error.", 500),
        message("busy", 503),
        Reply(cut=40),
        Reply(body=b'{"data": [{"Date"'),
        Reply(body=b""),
        Reply(body=b"[]"),
        Reply(body=b"{}"),
        Reply(body=b'{"data": null}'),
        Reply(body=b'{"data": "x"}'),
        Reply(body=b'{"data": [], "pagination_key": 7}'),
        Reply(status=210, body=b'{"data": []}'),
    ],
    ids=lambda reply: f"{reply.status}-{(reply.body or b'cut')[:14].decode()}",
)
def test_a_passing_fault_ends_in_success_after_retry(
    client: Client, exchange: ScriptedExchange, clock: Clock, reply: Reply
) -> None:
    exchange.script = _first(reply, 2)  # type: ignore[assignment]
    assert len(client.get_eq_bars_daily(date_yyyymmdd=DAY)) == len(CODES)
    assert client.requests_sent == 3
    assert len(clock.naps) >= 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(client: Client, exchange: ScriptedExchange, clock: Clock, form: str) -> None:
    header = "90" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=95))
    exchange.script = _first(message("slow down", 429, Retry_After=header))  # type: ignore[assignment]
    client.get_eq_bars_daily(date_yyyymmdd=DAY)
    assert max(clock.naps) >= 85


def test_pauses_after_429_outlast_the_five_minute_lockout() -> None:
    patience = Patience()
    assert patience.pause(1, None) < 10 and patience.pause(3, None) > 300
    assert patience.pause(1, 90.0) >= 90
    assert sum(patience.wait(attempt, None) for attempt in range(1, patience.attempts)) < 60


def test_on_a_lockout_everybody_pauses_once(client: Client, exchange: ScriptedExchange, clock: Clock) -> None:
    """Three threads run into the lockout together; after the first pauses one request at a time finds out, and when it
    ends all go on. Without sharing, each thread would wait and ask on its own account."""
    unlocked = clock.now + 300.0
    refused: list[float] = []

    def script(path: str, params: dict[str, str], number: int) -> Reply | None:
        if clock.now >= unlocked:
            return None
        refused.append(clock.now)
        return message("slow down", 429)

    exchange.script = script
    with ThreadPoolExecutor(3) as pool:
        for frame in pool.map(lambda _: client.get_eq_bars_daily(date_yyyymmdd=DAY), range(3)):
            assert len(frame) == len(CODES)
    assert len({round(moment) for moment in refused}) <= 3  # three incidents: 0, about 5 and about 35 s
    assert clock.now < unlocked + 150


LASTING = [
    (message("slow down", 429), r"HTTP 429 after 4 attempts .slow down.; .*JQUANTS_REQUESTS_PER_MINUTE", 4),
    (message("Unexpected error.", 500), r"HTTP 500 after 4 attempts .Unexpected error..; .*again later", 4),
    (Reply(body=b"{oops"), r"no usable answer after 4 attempts .malformed body: ", 4),
    (Reply(cut=10), r"no usable answer after 4 attempts .ChunkedEncodingError", 4),
    (message("This API is not available on your subscription.", 403), r"HTTP 403 .*JQUANTS_PLAN", 1),
    (message("The incoming token is invalid or expired.", 403), r"HTTP 403 .*check JQUANTS_API_KEY", 1),
    (
        message("Your subscription covers the following dates: 2014-05-14 ~ 2024-05-01. Upgrade.", 400),
        r"HTTP 400 .*covers 2014-05-14 to 2024-05-01: set ATFT_START",
        1,
    ),
    (
        message("Your subscription covers the following dates: 2024-06-01 ~ . Upgrade.", 400),
        r"covers 2024-06-01 onwards",
        1,
    ),
    (message("Response data is too large", 413), r"HTTP 413", 1),
]


@pytest.mark.parametrize(("reply", "text", "requests"), LASTING, ids=[text[:30] for _, text, _ in LASTING])
def test_a_lasting_fault_is_one_error_with_endpoint_date_and_remedy(
    client: Client, exchange: ScriptedExchange, reply: Reply, text: str, requests: int
) -> None:
    exchange.script = lambda path, params, number: Reply(**vars(reply))
    with pytest.raises(ExchangeError) as caught:
        client.get_eq_bars_daily(date_yyyymmdd=DAY)
    assert re.match(f"{BARS} date={DAY}: ", str(caught.value))
    assert re.search(text, str(caught.value)), str(caught.value)
    assert len(exchange.log) == requests
    assert caught.value.endpoint == BARS


def test_the_covered_dates_are_parsed_for_callers(client: Client, exchange: ScriptedExchange) -> None:
    exchange.script = lambda *_: message("Your subscription covers the following dates: 2015-10-13 ~ 2025-12-31.", 400)
    with pytest.raises(ExchangeError) as caught:
        client.get_eq_bars_daily(date_yyyymmdd=DAY)
    assert caught.value.covered == (date(2015, 10, 13), date(2025, 12, 31))


def test_a_repeated_pagination_key_ends_in_an_error(client: Client, exchange: ScriptedExchange) -> None:
    exchange.script = lambda *_: Reply(body=b'{"data": [], "pagination_key": "same"}')
    with pytest.raises(ExchangeError, match=f"{BARS} date={DAY}: endless pagination, page 2 repeats"):
        client.get_eq_bars_daily(date_yyyymmdd=DAY)
    assert len(exchange.log) == 2


def test_ever_new_pagination_keys_end_at_the_page_limit(client: Client, exchange: ScriptedExchange) -> None:
    exchange.script = lambda *_: Reply(body=b'{"data": [], "pagination_key": "%d"}' % len(exchange.log))
    with pytest.raises(ExchangeError, match="endless pagination, more than 6 pages"):
        client.get_eq_bars_daily(date_yyyymmdd=DAY)
    assert len(exchange.log) == 6


def test_the_same_page_keys_in_two_calls_are_no_repetition(client: Client, exchange: ScriptedExchange) -> None:
    exchange.page_rows = 25
    assert len(client.get_eq_bars_daily(date_yyyymmdd=DAY)) == len(client.get_eq_bars_daily(date_yyyymmdd=DAY))


def test_a_redirect_is_not_followed(client: Client, exchange: ScriptedExchange) -> None:
    exchange.script = lambda *_: Reply(302, b"", {"Location": exchange.base_url + "/elsewhere"})
    with pytest.raises(ExchangeError, match="redirects; the key is sent to the configured host only"):
        client.get_eq_bars_daily(date_yyyymmdd=DAY)
    assert len(exchange.log) == 1


def test_loopback_ignores_a_proxy_of_the_environment(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert len(client.get_eq_bars_daily(date_yyyymmdd=DAY)) == len(CODES)


def test_nobody_listening_is_one_error_that_names_the_setting(clock: Clock) -> None:
    client = connect("http://127.0.0.1:9/v2", API_KEY, "light", 100_000, sleep=clock.sleep, clock=clock)
    with pytest.raises(ExchangeError, match=r"after 7 attempts .ConnectionError.*JQUANTS_BASE_URL"):
        client.get_mkt_calendar(from_yyyymmdd=DAY, to_yyyymmdd=DAY)


def test_a_broken_configuration_file_of_the_official_client_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jquants-api.toml").write_text("not [ toml")
    monkeypatch.chdir(tmp_path)
    assert connect("", API_KEY, "free").JQUANTS_API_BASE == "https://api.jquants.com/v2"


def test_without_a_key_the_error_says_where_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JQUANTS_API_KEY", raising=False)
    with pytest.raises(ExchangeError, match="set JQUANTS_API_KEY"):
        connect("", "", "free")
    monkeypatch.setenv("JQUANTS_API_KEY", API_KEY)
    assert connect("", "", "free")._base_headers()["x-api-key"] == API_KEY


def test_the_key_is_in_no_error_log_or_repr_even_if_the_server_echoes_it(
    client: Client, exchange: ScriptedExchange, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = [repr(client), str(client)]
    for reply in (
        message(f"token {API_KEY} is limited", 429),
        message(f"token {API_KEY} is invalid", 403),
        Reply(500, f"<html>{API_KEY}</html>".encode()),
        Reply(cut=30),
        Reply(body=API_KEY.encode()),
    ):
        exchange.script = lambda *_, planned=reply: Reply(**vars(planned))
        with pytest.raises(ExchangeError) as caught:
            client.get_eq_bars_daily(date_yyyymmdd=DAY)
        texts += ["".join(traceback.format_exception(caught.value)), repr(vars(caught.value))]
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
    assert API_KEY not in "\n".join(texts)
    assert API_KEY not in caplog.text
    assert "trying again" in caplog.text


def test_an_answer_holds_no_headers(client: Client, exchange: ScriptedExchange) -> None:
    page = client._get(f"{client.JQUANTS_API_BASE}{BARS}", {"date": DAY})
    assert API_KEY not in repr(vars(page))
    assert len(page.headers) == 0


@pytest.mark.parametrize(
    ("refused", "plan"),
    [
        ((), PREMIUM),
        (("/fins/details",), STANDARD),
        (("/fins/details", "/indices/bars/daily"), LIGHT),
        (("/fins/details", "/indices/bars/daily", "/equities/investor-types"), FREE),
    ],
)
def test_the_plan_is_found_by_what_is_refused(
    client: Client, exchange: ScriptedExchange, refused: tuple[str, ...], plan: object
) -> None:
    exchange.script = lambda path, *_: (
        message("not on your plan", 403) if path in refused else Reply(body=b'{"data": []}')
    )
    assert probe_plan(client, date(2024, 6, 28)) is plan


def test_a_wrong_key_is_not_taken_for_a_plan(client: Client, exchange: ScriptedExchange) -> None:
    exchange.script = lambda *_: message("The incoming token is invalid or expired.", 403)
    with pytest.raises(ExchangeError, match="JQUANTS_API_KEY"):
        probe_plan(client, date(2024, 6, 28))


def _on_plan(exchange: ScriptedExchange, *refused: str) -> None:
    exchange.script = lambda path, *_: (
        message("not on your plan", 403) if path in refused else Reply(body=b'{"data": []}')
    )


def test_the_plan_is_asked_once_a_run_and_recorded(client: Client, exchange: ScriptedExchange, tmp_path: Path) -> None:
    said: list[str] = []
    record = tmp_path / "jquants" / PLAN_RECORD
    environment = {"JQUANTS_API_KEY": "k", "ATFT_DATA_DIR": str(tmp_path)}
    assert (Settings.from_env(environment).plan, Settings.from_env(environment).plan_is_set) == ("standard", False)
    _on_plan(exchange, "/fins/details", "/indices/bars/daily")
    with pytest.raises(SettingError, match="plan is light, but the tables of plan standard are loaded: set JQUANTS_PL"):
        settled_plan(client, record, "standard", "run 1", date(2024, 6, 28), said.append)
    _recorded_plan.cache_clear()  # a new process
    assert Settings.from_env(environment).plan == "light"
    assert settled_plan(client, record, "light", "run 2", date(2024, 6, 28), said.append) is LIGHT
    exchange.forget()
    assert settled_plan(client, record, "light", "run 2", date(2024, 6, 28), said.append) is LIGHT
    assert exchange.log == []
    _on_plan(exchange)
    assert settled_plan(client, record, "light", "run 3", date(2024, 6, 28), said.append) is PREMIUM
    assert "plan premium has more tables than the loaded plan light" in said[-1]
    assert Settings.from_env(environment).plan == "light"  # what is loaded does not change while it runs
    assert Settings.from_env(environment | {"JQUANTS_PLAN": "free"}).plan_is_set
    _recorded_plan.cache_clear()


def test_a_broken_record_of_the_plan_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "jquants").mkdir()
    (tmp_path / "jquants" / PLAN_RECORD).write_text('{"plan": "gold"}')
    with pytest.raises(SettingError, match="plan.json does not name a plan; remove it, or set JQUANTS_PLAN"):
        Settings.from_env({"JQUANTS_API_KEY": "k", "ATFT_DATA_DIR": str(tmp_path)})


def test_plan_windows_and_tiers() -> None:
    assert FREE.window(date(2024, 6, 28)) == (date(2022, 4, 5), date(2024, 4, 5))
    assert STANDARD.window(date(2024, 2, 29)) == (date(2014, 2, 28), date(2024, 2, 29))
    assert STANDARD.includes("light") and not LIGHT.includes("standard")
