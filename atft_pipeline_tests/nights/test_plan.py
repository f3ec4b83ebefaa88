"""When a night runs: after the prices are out, once a session, never for a closed day, with what was missed."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pytest

from atft_pipeline.nights.plan import decide, months_in_motion, plan_night
from atft_pipeline.settings import TOKYO

SESSIONS = [date(2024, 1, day) for day in (4, 5, 9, 10, 11, 12, 15, 16)]
"""The 8th is a holiday."""


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2024-01-{text}").replace(tzinfo=TOKYO)


def test_a_session_runs_when_its_prices_are_out_and_once() -> None:
    written = {date(2024, 1, 4)}
    assert not decide(SESSIONS, written, at("05T15:00")).run
    plan = decide(SESSIONS, written, at("05T19:30"))
    assert plan.run and plan.session == date(2024, 1, 5) and plan.missed == ()
    again = decide(SESSIONS, written | {date(2024, 1, 5)}, at("05T21:30"))
    assert not again.run and "2024-01-05" in again.reason


def test_a_holiday_is_skipped_with_its_reason() -> None:
    plan = decide(SESSIONS, {date(2024, 1, 5)}, at("08T19:30"))
    assert not plan.run and "2024-01-08 is no trading day" in plan.reason and "2024-01-05" in plan.reason


def test_a_failed_night_is_tried_again_next_morning_and_on_a_holiday() -> None:
    for moment in ("06T08:30", "08T19:30"):
        plan = decide(SESSIONS, {date(2024, 1, 4)}, at(moment))
        assert plan.run and plan.session == date(2024, 1, 5), moment


def test_after_an_outage_one_run_names_what_was_missed() -> None:
    plan = decide(SESSIONS, {date(2024, 1, 5)}, at("12T19:30"))
    assert plan.session == date(2024, 1, 12)
    assert plan.missed == (date(2024, 1, 9), date(2024, 1, 10), date(2024, 1, 11))
    assert "3 earlier sessions" in plan.reason


def test_a_calendar_that_ends_before_today_is_read_again() -> None:
    plan = decide(SESSIONS, set(SESSIONS), at("17T19:30"))
    assert plan.run and "ends on 2024-01-16" in plan.reason


def test_an_empty_lake_wants_its_history_first(tmp_path: Path) -> None:
    plan = plan_night(tmp_path, at("05T19:30"))
    assert not plan.run and "full_rebuild" in plan.reason


@pytest.mark.parametrize(
    ("stored", "today", "months"),
    [
        (["2023-11", "2023-12", "2024-01"], date(2024, 1, 16), ("2023-12", "2024-01")),
        (["2023-11", "2023-12"], date(2024, 1, 4), ("2023-11", "2024-01")),
        (["2023-09"], date(2024, 1, 16), ("2023-08", "2024-01")),
        (["2024-02"], date(2024, 1, 16), ("2023-12", "2024-01")),
    ],
)
def test_months_reach_back_over_an_outage(stored: list[str], today: date, months: tuple[str, str]) -> None:
    assert months_in_motion(stored, today) == months
