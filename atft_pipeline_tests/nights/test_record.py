"""The page of a run, the log of nights, and the account of every session."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

from atft_pipeline.lake.verify import verify_lake
from atft_pipeline.nights.record import (
    Challenge,
    FailedCheck,
    RunRecord,
    StepRecord,
    TableRecord,
    Written,
    account,
    page,
    read_log,
    store,
)

GOOD = RunRecord(
    "run-1", "nightly", True, "2024-01-10 19:30", "2024-01-10 19:40", 600.0, "2024-01-10", "prices are out",
    ("2024-01-09",), (StepRecord("model", "ok", 120.0),), (TableRecord("bars_daily", 4000, 3),),
    (FailedCheck("raw/bars_daily", "fresh", False, "warn", "late | by a day"),), ("1 row changed",),
    Written("2024-01-10", 200, "abcdef"), Challenge("abcdef", "abcdef", True, "no worse"),
)  # fmt: skip
LATE = replace(
    GOOD, run_id="run-0", success=False, predictions=None, checks=(),
    steps=(
        StepRecord("raw__bars_daily", "failed", 2.0, "bars of 2024-01-10 are not out"),
        StepRecord("model", "skipped", 0),
    ),
)  # fmt: skip


def test_the_page_tells_what_ran_and_what_came_of_it() -> None:
    text = page(GOOD)
    for said in (
        "predictions of 2024-01-10: 200 stocks by model abcdef",
        "| bars_daily | 4,000 | 3 |",
        "2024-01-09",
        "prices are out",
        "1 row changed",
        "| raw/bars_daily | fresh | warning | late / by a day |",
    ):
        assert said in text, said
    assert "- model: abcdef (no worse)" in text and "refused" not in text
    failed = page(LATE)
    assert "FAILED" in failed and "no predictions: raw__bars_daily: bars of 2024-01-10 are not out" in failed
    assert "Not run because of them: model" in failed


def test_a_night_with_a_refused_challenger_says_both() -> None:
    refused = replace(GOOD, challenge=Challenge("abcdef", "fedcba", False, "a regression: worse than the champion"))
    said = "champion abcdef stays; challenger fedcba was refused: a regression: worse than the champion"
    assert refused.outcome == f"predictions of 2024-01-10: 200 stocks by model abcdef; {said}"
    assert f"- model: {said}" in page(refused)


def test_a_blocking_check_is_the_reason_and_a_warning_is_not() -> None:
    checks = (FailedCheck("dataset", "null_budget", True, "error", "too many nulls"), *GOOD.checks)
    record = replace(GOOD, success=False, predictions=None, checks=checks)
    assert record.reasons == ("check dataset: null_budget: too many nulls",)
    silent = replace(record, checks=(), failure="the process is gone")
    assert silent.outcome == "no predictions: the process is gone"


def test_a_run_is_logged_once_and_its_files_belong_to_the_lake(tmp_path: Path) -> None:
    store(tmp_path, LATE)
    store(tmp_path, GOOD)
    path = store(tmp_path, GOOD)
    assert [row["run_id"] for row in read_log(tmp_path)] == ["run-0", "run-1"]
    assert path.read_text() == page(GOOD) and verify_lake(tmp_path).faults == []


def test_every_session_without_predictions_has_its_reason(tmp_path: Path) -> None:
    store(tmp_path, replace(LATE, run_id="a", session="2024-01-11", missed=()))
    store(tmp_path, LATE)
    store(tmp_path, GOOD)
    days = [date(2024, 1, day) for day in (5, 9, 10, 11, 12)]
    found = account(days, {days[2]: "abcdef"}, read_log(tmp_path), days[1], days[4])
    assert [(day.day, has) for day, has, _ in found] == [(9, False), (10, True), (11, False), (12, False)]
    reasons = [why for _, _, why in found]
    assert "no run that night" in reasons[0] and "came with the run for 2024-01-10" in reasons[0]
    assert "at try 2: first no predictions" in reasons[1]
    assert "not out" in reasons[2] and "came with" not in reasons[3]
