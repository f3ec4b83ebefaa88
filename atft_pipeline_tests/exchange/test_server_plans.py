"""Plans: endpoints, covered dates, Premium columns and cursor; and the rate limits under a clock of our own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from jquantsapi import ClientV2
from requests.exceptions import HTTPError

from atft_pipeline.exchange.plans import PLANS, RateEmulator, parse_burst, years_before
from atft_pipeline.exchange.server import create_app
from atft_pipeline_tests.exchange import wire


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wire.write_market(tmp_path_factory.mktemp("plans") / "market", session_columns=True)


class Clock:
    """Seconds that move only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def status_of(call: Callable[[], object]) -> tuple[int, str]:
    try:
        call()
    except HTTPError as error:
        assert error.response is not None
        return error.response.status_code, error.response.json()["message"]
    return 200, ""


def gated_calls(client: ClientV2) -> dict[str, Callable[[], object]]:
    return {
        "bars_daily": lambda: client.get_eq_bars_daily(code="72030"),
        "fin_summary": lambda: client.get_fin_summary_cursor(code="72030"),
        "topix": client.get_idx_bars_daily_topix,
        "investor_types": client.get_eq_investor_types,
        "indices": lambda: client.get_idx_bars_daily(code="0000"),
        "margin_interest": lambda: client.get_mkt_margin_interest(code="72030"),
        "margin_alert": lambda: client.get_mkt_margin_alert(code="72030"),
        "short_ratio": lambda: client.get_mkt_short_ratio(sector_33_code="0050"),
        "short_sale_report": lambda: client.get_mkt_short_sale_report(code="72030"),
        "breakdown": lambda: client.get_mkt_breakdown(code="72030"),
        "earnings_date": lambda: client.get_fin_earnings_date(code="72030"),
        "options_225": lambda: client.get_drv_bars_daily_opt_225("2024-05-10"),
        "fin_details": lambda: client.get_fin_details_cursor(code="72030"),
        "dividend": lambda: client.get_fin_dividend(code="72030"),
        "futures": lambda: client.get_drv_bars_daily_fut("2024-05-10"),
    }


STANDARD_ONLY = {"indices", "margin_interest", "margin_alert", "short_ratio", "short_sale_report", "options_225"}
PREMIUM_ONLY = {"breakdown", "fin_details", "dividend", "futures"}


@pytest.mark.parametrize(
    ("plan", "outside"),
    [
        ("free", {"topix", "investor_types", "earnings_date"} | STANDARD_ONLY | PREMIUM_ONLY),
        ("light", STANDARD_ONLY | PREMIUM_ONLY),
        ("standard", PREMIUM_ONLY),
        ("premium", set()),
    ],
)
def test_endpoints_outside_the_plan_are_403(market: Path, plan: str, outside: set[str]) -> None:
    app = create_app(market, plan=plan, api_keys={wire.KEY}, requests_per_minute=1000)
    with wire.serving(app) as url:
        answers = {name: status_of(call) for name, call in gated_calls(wire.official_client(url)).items()}
    assert {name for name, (status, _) in answers.items() if status != 200} == outside
    assert all(answers[name] == (403, "This API is not available on your subscription.") for name in outside)


def test_windows_end_at_the_market_s_end() -> None:
    today = date(2024, 6, 28)
    windows = {name: str(plan.window(today)) for name, plan in PLANS.items()}
    assert windows == {
        "free": "2022-04-05 ~ 2024-04-05",
        "light": "2019-06-28 ~ ",
        "standard": "2014-06-28 ~ ",
        "premium": " ~ ",
    }
    assert years_before(date(2024, 2, 29), 5) == date(2019, 2, 28)


@pytest.mark.parametrize(
    ("plan", "day", "covered"),
    [
        ("free", "2024-04-08", "2022-04-05 ~ 2024-04-05"),
        ("free", "2022-04-04", "2022-04-05 ~ 2024-04-05"),
        ("light", "2019-06-27", "2019-06-28 ~ "),
        ("standard", "2014-06-27", "2014-06-28 ~ "),
    ],
)
def test_dates_outside_the_plan_are_400_and_name_the_covered_dates(
    market: Path, plan: str, day: str, covered: str
) -> None:
    app = create_app(market, plan=plan, api_keys={wire.KEY}, requests_per_minute=1000)
    with wire.serving(app) as url:
        client = wire.official_client(url)
        calls = [
            lambda: client.get_eq_bars_daily(date_yyyymmdd=day),
            lambda: client.get_eq_master(date=day),
            lambda: client.get_fin_summary_cursor(date_yyyymmdd=day),
            lambda: client.get_mkt_calendar(from_yyyymmdd=day, to_yyyymmdd=day),
        ]
        answers = [status_of(call) for call in calls]
    for status, message in answers:
        assert status == 400
        assert message.startswith(f"Your subscription covers the following dates: {covered}. If you want")


def test_a_free_user_sees_nothing_of_the_last_twelve_weeks(market: Path) -> None:
    app = create_app(market, plan="free", api_keys={wire.KEY})
    with wire.serving(app) as url:
        client = wire.official_client(url)
        assert client.get_eq_bars_daily(code="72030").empty
        assert client.get_eq_master().empty
        assert client.get_fin_summary_cursor(code="13010")[0].empty


@pytest.mark.parametrize("plan", ["standard", "premium"])
def test_only_premium_carries_the_session_columns(market: Path, plan: str) -> None:
    app = create_app(market, plan=plan, api_keys={wire.KEY})
    with wire.serving(app) as url:
        columns = set(wire.official_client(url).get_eq_bars_daily(date_yyyymmdd="20240510").columns)
    assert columns & set(wire.SESSION_COLUMNS) == (set(wire.SESSION_COLUMNS) if plan == "premium" else set())
    assert {"MktCap", "AdjFactor", "AdjO"} <= columns


def test_premium_cursor_comes_on_the_last_page_and_returns_only_newer_documents(market: Path) -> None:
    app = create_app(market, plan="premium", api_keys={wire.KEY}, page_rows=2)
    with wire.serving(app) as url:
        client = wire.official_client(url)
        first_page = client._get(f"{url}/fins/summary", {"date": "20240510"}).json()
        assert "cursor" not in first_page and "pagination_key" in first_page
        frame, cursor = client.get_fin_summary_cursor(date_yyyymmdd="20240510")
        assert len(frame) == 3 and cursor
        again, same = client.get_fin_summary_cursor(date_yyyymmdd="20240510", cursor=cursor)
        assert again.empty and same == cursor
        assert status_of(lambda: client.get_fin_summary_cursor(date_yyyymmdd="20240510", cursor="bad"))[0] == 400


def test_other_plans_get_no_cursor(market: Path) -> None:
    app = create_app(market, plan="standard", api_keys={wire.KEY})
    with wire.serving(app) as url:
        assert wire.official_client(url).get_fin_summary_cursor(date_yyyymmdd="20240510")[1] is None


@pytest.mark.parametrize(("plan", "limit"), [("free", 5), ("light", 60), ("standard", 120), ("premium", 500)])
def test_the_window_admits_the_plan_s_requests_and_slides(plan: str, limit: int) -> None:
    clock = Clock()
    rates = RateEmulator(PLANS[plan], clock=clock)
    assert all(rates.admit("k", "bars_daily") for _ in range(limit))
    assert not rates.admit("k", "bars_daily")
    clock.now += 59.9
    assert not rates.admit("k", "bars_daily")
    clock.now += 0.1
    assert rates.admit("k", "bars_daily")


def test_statements_have_their_own_sixty_per_minute() -> None:
    rates = RateEmulator(PLANS["standard"], clock=Clock())
    assert [rates.admit("k", "fin_summary") for _ in range(61)] == [True] * 60 + [False]
    assert rates.admit("k", "bars_daily")


def test_keys_are_counted_apart() -> None:
    rates = RateEmulator(PLANS["free"], clock=Clock())
    assert [rates.admit("a", "master") for _ in range(6)][-1] is False
    assert rates.admit("b", "master")


def test_a_significant_excess_locks_everything_for_five_minutes() -> None:
    clock = Clock()
    rates = RateEmulator(PLANS["free"], clock=clock)
    assert [rates.admit("k", "master") for _ in range(10)].count(True) == 5
    clock.now += 120
    assert not rates.admit("k", "fin_summary"), "the lockout spans the buckets and outlasts the window"
    clock.now += 181
    assert rates.admit("k", "master")


def test_a_slight_excess_does_not_lock() -> None:
    clock = Clock()
    rates = RateEmulator(PLANS["standard"], clock=clock)
    assert [rates.admit("k", "master") for _ in range(125)].count(False) == 5
    clock.now += 60
    assert rates.admit("k", "master")


def test_statements_and_their_details_are_counted_apart() -> None:
    rates = RateEmulator(PLANS["premium"], clock=Clock())
    for table in ("fin_summary", "fin_details"):
        assert [rates.admit("k", table) for _ in range(61)] == [True] * 60 + [False]
    assert rates.admit("k", "bars_daily")


def test_the_burst_rule_locks_out_a_client_that_keeps_the_limit_per_minute() -> None:
    clock = Clock()
    rates = RateEmulator(PLANS["premium"], clock=clock, burst=parse_burst("30"))
    answers = []
    for _ in range(35):
        answers.append(rates.admit("k", "master"))
        clock.now += 0.39
    assert answers == [True] * 30 + [False] * 5
    clock.now += 20
    assert not rates.admit("k", "calendar"), "it outlasts a short pause"
    clock.now += 300
    assert rates.admit("k", "calendar")


@pytest.mark.parametrize("spacing", [0.41, 0.5])
def test_the_burst_rule_lets_a_slower_client_through(spacing: float) -> None:
    clock = Clock()
    rates = RateEmulator(PLANS["premium"], clock=clock, burst=parse_burst("30/12"))
    for _ in range(100):
        assert rates.admit("k", "master")
        clock.now += spacing


def test_the_client_sees_429_past_the_limit_and_recovers(market: Path) -> None:
    clock = Clock()
    app = create_app(market, plan="standard", api_keys={wire.KEY}, requests_per_minute=3, clock=clock)
    with wire.serving(app) as url:
        client = wire.official_client(url)
        answers = [status_of(client.get_eq_master) for _ in range(4)]
        assert [status for status, _ in answers] == [200, 200, 200, 429]
        assert "Rate limit exceeded" in answers[-1][1]
        clock.now += 60
        assert status_of(client.get_eq_master)[0] == 200
    assert [record.status for record in app.state.exchange.requests] == [200, 200, 200, 429, 200]
