"""All checks of a table over a small lake: each planted fault between rows, days or tables fires its check."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from atft_pipeline.jquants.checks.coverage import Days, Sectors
from atft_pipeline.jquants.checks.judge import checks_of, judge_table
from atft_pipeline.jquants.checks.publication import (
    PUBLICATIONS,
    TOKYO,
    Publication,
    margin_days,
    newest_due,
)
from atft_pipeline.jquants.checks.scan import Month
from atft_pipeline.jquants.checks.statements import Cumulative
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import BARS_DAILY, CALENDAR, FIN_SUMMARY, MASTER, TABLES, partition_path
from atft_pipeline.lake.store import Record, read_record, read_table, write_table
from atft_pipeline.verdict import Verdict
from atft_pipeline_tests.jquants.checks.sound import SOUND

FIRST, LAST = date(2024, 5, 1), date(2024, 6, 28)
MONTHS = ["2024-05", "2024-06"]
NOW = datetime(2024, 6, 28, 19, 30, tzinfo=TOKYO)
CODES = [f"{n}0" for n in range(1301, 1311)]
SESSIONS = [day for n in range(60) if (day := FIRST + timedelta(days=n)).weekday() < 5 and day <= LAST]
SPLIT = date(2024, 5, 31)
"""The first code splits 1:2 on this day, which has no trade in it: the price shows it on the next."""


def _store(lake: Path, table: Table, frame: pl.DataFrame, month: str = "", end: date = LAST) -> None:
    first = date.fromisoformat(f"{month}-01") if month else FIRST
    last = min(end, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)) if month else end
    source = {"from": f"{first}", "to": f"{last}", "as_of": f"{last}", "complete": "true", "origin": "test"}
    write_table(lake / partition_path(table, month), frame.select(*table.schema), keys=(), source=source)


def _bar(day: date, code: str) -> dict[str, object]:
    wave = 1 + 0.01 * (day.toordinal() % 5)
    price = round(1000 * wave) * (0.5 if code == CODES[0] and day >= SPLIT else 1.0)
    later = 0.5 if code == CODES[0] and day < SPLIT else 1.0
    traded = not (code == CODES[0] and day == SPLIT)
    row: dict[str, object] = {name: None for name in BARS_DAILY.schema}
    row |= {"Date": day, "Code": code, "UL": "0", "LL": "0"}
    row["AdjFactor"] = 0.5 if code == CODES[0] and day == SPLIT else 1.0
    if traded:
        row |= {p: price for p in "OHLC"} | {"Vo": 100.0, "Va": price * 100, "AdjVo": 100.0 / later}
        row |= {f"Adj{p}": price * later for p in "OHLC"}
    return row


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calendar, list of issues and bars of two months, with one split across the months' border."""
    lake = tmp_path_factory.mktemp("judged")
    days = [FIRST + timedelta(days=n) for n in range(120)]
    _store(lake, CALENDAR, pl.DataFrame({"Date": days, "HolDiv": ["1" if d.weekday() < 5 else "0" for d in days]}))
    for month in MONTHS:
        inside = [day for day in SESSIONS if f"{day:%Y-%m}" == month]
        bars = [_bar(day, code) for code in CODES for day in inside]
        _store(lake, BARS_DAILY, pl.DataFrame(bars, schema=dict(BARS_DAILY.schema)), month)
        listed = [
            {"Date": day, "Code": code, "Mkt": "0111", "S33": "0050", "Mrgn": "1"} for day in inside for code in CODES
        ]
        _store(lake, MASTER, pl.DataFrame([{name: row.get(name) for name in MASTER.schema} for row in listed],
                                          schema=dict(MASTER.schema)), month)  # fmt: skip
    return lake


Change = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.fixture
def broken(lake: Path, tmp_path: Path) -> Callable[..., dict[str, Verdict]]:
    """Judge a copy of the lake whose month of bars (or of another table) a test has changed."""

    def judge(change: Change, table: Table = BARS_DAILY, month: str = "2024-05", **how: object) -> dict[str, Verdict]:
        for stored in (CALENDAR, MASTER, BARS_DAILY):
            for name in [""] if stored is CALENDAR else MONTHS:
                path = tmp_path / partition_path(stored, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.hardlink_to(lake / partition_path(stored, name))
        path = tmp_path / partition_path(table, month)
        write_table(path, change(read_table(path)), keys=(), source=read_record(path).source)
        return judge_table(tmp_path, table, MONTHS, **({"now": NOW, "end": None} | how))  # type: ignore[arg-type]

    return judge


def failed(verdicts: dict[str, Verdict]) -> dict[str, str]:
    return {name: verdict.severity for name, verdict in verdicts.items() if not verdict.passed}


@pytest.mark.parametrize("table", [CALENDAR, MASTER, BARS_DAILY], ids=lambda table: table.name)
def test_a_sound_table_passes_every_declared_check(lake: Path, table: Table) -> None:
    verdicts = judge_table(lake, table, MONTHS, now=NOW)
    assert [check.name for check in checks_of(table)] == sorted(verdicts, key=[c.name for c in checks_of(table)].index)
    assert failed(verdicts) == {}


def test_the_split_was_seen(lake: Path) -> None:
    verdict = judge_table(lake, BARS_DAILY, MONTHS, now=NOW)["splits_match_prices"]
    assert verdict.details["splits"] == 1


def _at(day: date, code: str = CODES[0]) -> pl.Expr:
    return (pl.col("Date") == day) & (pl.col("Code") == code)


def _when(condition: pl.Expr, **values: object) -> Change:
    return lambda frame: frame.with_columns(
        **{name: pl.when(condition).then(value).otherwise(pl.col(name)) for name, value in values.items()}
    )


def test_a_lost_factor_leaves_an_unexplained_jump(broken: Callable[..., dict[str, Verdict]]) -> None:
    assert failed(broken(_when(_at(SPLIT), AdjFactor=1.0))) == {
        "jumps_explained": "warn",
        "adjusted_follow_factors": "warn",
    }


def test_a_factor_without_a_move_is_an_error(broken: Callable[..., dict[str, Verdict]]) -> None:
    verdicts = broken(_when(_at(date(2024, 5, 14), CODES[3]), AdjFactor=0.2))
    assert failed(verdicts) == {"splits_match_prices": "error"}
    assert f"{CODES[3]} 2024-05-14" in verdicts["splits_match_prices"].message


def test_adjusted_prices_that_do_not_follow_only_warn(broken: Callable[..., dict[str, Verdict]]) -> None:
    adjusted = {f"Adj{p}": pl.col(f"Adj{p}") * 0.7 for p in "OHLC"} | {"AdjVo": pl.col("AdjVo") / 0.7}
    assert failed(broken(_when(_at(date(2024, 5, 14), CODES[3]), **adjusted))) == {"adjusted_follow_factors": "warn"}


def test_rows_read_before_a_split_may_keep_their_adjustment(broken: Callable[..., dict[str, Verdict]]) -> None:
    before = {f"Adj{p}": pl.col(p) for p in "OHLC"} | {"AdjVo": pl.col("Vo")}
    assert failed(broken(_when(pl.col("Code") == CODES[0], **before))) == {}


def test_a_short_day_is_an_error_and_a_long_one_a_warning(broken: Callable[..., dict[str, Verdict]]) -> None:
    day = date(2024, 6, 12)
    fewer = broken(lambda f: f.filter((pl.col("Date") != day) | (pl.col("Code") < CODES[7])), MASTER, "2024-06")
    assert failed(fewer) == {"rows_per_day": "error"}
    assert fewer["rows_per_day"].got == pytest.approx(0.7)
    assert fewer["rows_per_day"].details["days_with_few_rows"] == ["2024-06-12"]


def test_many_rows_on_a_day_warn(broken: Callable[..., dict[str, Verdict]]) -> None:
    extra = pl.concat([pl.DataFrame({"Date": [date(2024, 6, 12)], "Code": [f"900{n}0"]}) for n in range(4)])
    more = broken(lambda f: pl.concat([f, extra], how="diagonal"), MASTER, "2024-06")
    assert failed(more) == {"rows_per_day": "warn"}


def test_an_issue_without_a_row_and_a_row_without_an_issue_warn(broken: Callable[..., dict[str, Verdict]]) -> None:
    verdicts = broken(_when(_at(date(2024, 5, 14), CODES[9]), Code=pl.lit("99990")))
    assert failed(verdicts)["codes_match_listing"] == "warn"
    details = verdicts["codes_match_listing"].details
    assert (details["listed_without_row"], details["rows_not_listed"]) == (1, 1)


def test_rows_in_the_wrong_months_file_are_found(broken: Callable[..., dict[str, Verdict]]) -> None:
    verdicts = broken(lambda f: f.with_columns(Date=pl.col("Date").dt.offset_by("1mo")))
    assert verdicts["keys_unique"].details["rows_of_other_months"] == len(CODES) * 23


def test_repeated_keys_of_a_table_without_a_date_in_them_are_found_across_months(tmp_path: Path, lake: Path) -> None:
    dated = Table("notices", "/n", ("RefNo",), "PubDate", {"PubDate": pl.Date(), "RefNo": pl.String()}, "premium",
                  "day", lambda c, a, b: None, "", dense=False)  # fmt: skip
    _copy_calendar(lake, tmp_path)
    for month, day in zip(MONTHS, (date(2024, 5, 14), date(2024, 6, 14)), strict=True):
        _store(tmp_path, dated, pl.DataFrame({"PubDate": [day], "RefNo": ["7"]}), month)
    verdict = judge_table(tmp_path, dated, MONTHS, now=NOW)["keys_unique"]
    assert not verdict.passed and verdict.got == 1


def test_a_missing_month_fails_every_check_with_the_remedy(lake: Path) -> None:
    verdicts = judge_table(lake, BARS_DAILY, [*MONTHS, "2024-07"], now=NOW)
    assert set(verdicts) == {check.name for check in checks_of(BARS_DAILY)}
    assert all("2024-07 are not stored; materialise" in v.message and not v.passed for v in verdicts.values())


# --- freshness -------------------------------------------------------------------------------------------------


def test_bars_are_late_an_hour_after_they_were_due(lake: Path, broken: Callable[..., dict[str, Verdict]]) -> None:
    without_last: Change = lambda f: f.filter(pl.col("Date") < LAST)  # noqa: E731
    early = datetime(2024, 6, 28, 17, 0, tzinfo=TOKYO)
    assert judge_table(lake, BARS_DAILY, MONTHS, now=NOW)["fresh"].passed
    late = broken(without_last, month="2024-06")["fresh"]
    assert (late.passed, late.severity, late.got) == (False, "warn", 1.0)
    assert "due by 2024-06-28 19:30 JST: 2024-06-28" in late.message
    assert judge_table(lake, BARS_DAILY, ["2024-05"], now=early)["fresh"].details["due"] == "2024-06-27"


def test_a_market_that_ended_is_fresh_at_its_end(lake: Path) -> None:
    years_later = datetime(2026, 1, 1, tzinfo=TOKYO)
    assert judge_table(lake, BARS_DAILY, MONTHS, now=years_later, end=LAST)["fresh"].passed
    assert not judge_table(lake, BARS_DAILY, MONTHS, now=years_later)["fresh"].passed


@pytest.mark.parametrize(
    ("table", "now", "due"),
    [
        ("bars_daily", "2024-06-24 17:29", "2024-06-21"),  # Monday, before the grace has passed
        ("bars_daily", "2024-06-24 17:30", "2024-06-24"),
        ("options_225", "2024-06-24 17:30", "2024-06-21"),  # the night after
        ("options_225", "2024-06-25 05:00", "2024-06-24"),
        ("investor_types", "2024-06-27 18:00", "2024-06-14"),  # the 4th business day, one hour of grace
        ("investor_types", "2024-06-27 19:00", "2024-06-21"),
        ("margin_interest", "2024-06-24 17:30", "2024-06-14"),  # two business days after the week
        ("margin_interest", "2024-06-25 17:30", "2024-06-21"),
    ],
)
def test_what_is_due_follows_the_publication_times(table: str, now: str, due: str) -> None:
    clock = datetime.fromisoformat(now).replace(tzinfo=TOKYO)
    assert newest_due(PUBLICATIONS[table], SESSIONS, clock) == date.fromisoformat(due)


def test_nothing_is_due_beyond_the_calendar() -> None:
    assert newest_due(Publication(5, datetime.min.time()), SESSIONS[:3], NOW) is None


# --- cadences --------------------------------------------------------------------------------------------------


def test_margin_balances_are_weekly_then_daily() -> None:
    holidays = {date(2026, 9, 21), date(2026, 9, 22), date(2026, 9, 23)}
    days = [date(2026, 9, 7) + timedelta(days=n) for n in range(26)]
    sessions = [day for day in days if day.weekday() < 5 and day not in holidays]
    # The week of 21 September has two sessions, hence no weekly balance; from the 25th each session has one.
    assert [f"{day:%m-%d}" for day in margin_days(sessions)] == [
        "09-11", "09-18", "09-25", "09-28", "09-29", "09-30", "10-01", "10-02",
    ]  # fmt: skip


def _month(rows: pl.DataFrame) -> Month:
    source = {"from": "2024-05-01", "to": "2024-05-31"}
    return Month("2024-05", Record(rows.height, {}, (), "", source), rows)


def test_a_missing_week_of_margin_balances_is_named(lake: Path) -> None:
    table = Table("margin_interest", "/m", ("Date", "Code"), "Date", {}, "standard", "day", lambda c, a, b: None, "")
    part = Days(lake, table, lambda sessions: margin_days(sessions))
    fridays = [day for day in SESSIONS if day.weekday() == 4 and day.month == 5]
    part.add(_month(pl.DataFrame({"Date": [day for day in fridays if day.day != 17]})))
    verdict = part.verdicts()["complete"]
    assert not verdict.passed and verdict.details["missing_days"] == ["2024-05-17"]
    part.add(_month(pl.DataFrame({"Date": fridays})))
    assert part.verdicts()["complete"].passed


def test_balances_that_are_not_out_yet_are_not_missed(lake: Path) -> None:
    table = Table("margin_interest", "/m", ("Date", "Code"), "Date", {}, "standard", "day", lambda c, a, b: None, "")
    part = Days(lake, table, lambda sessions: margin_days(sessions))
    fridays = [day for day in SESSIONS if day.weekday() == 4 and day.month == 5]
    part.add(_month(pl.DataFrame({"Date": fridays[:-1]})))  # Friday, 31 May: out on 4 June
    verdict = part.verdicts()["complete"]
    assert verdict.passed and "4 of 4" in verdict.message


def test_a_day_without_all_33_sectors_is_incomplete(lake: Path) -> None:
    table = Table("short_ratio", "/s", ("Date", "S33"), "Date", {}, "standard", "day", lambda c, a, b: None, "")
    sectors = SOUND["short_ratio"]()["S33"]
    days = [day for day in SESSIONS if day.month == 5]
    rows = pl.DataFrame({"Date": days}).join(pl.DataFrame({"S33": [*sectors, "9999"]}), how="cross")
    whole, holed = Sectors(lake, table), Sectors(lake, table)
    whole.add(_month(rows))
    holed.add(_month(rows.filter((pl.col("Date") != days[3]) | (pl.col("S33") != "3700"))))
    assert whole.verdicts()["complete"].passed
    verdict = holed.verdicts()["complete"]
    assert (verdict.passed, verdict.got, verdict.want) == (False, 32.0, 33.0)
    assert str(days[3]) in verdict.message


# --- statements ------------------------------------------------------------------------------------------------


def _cumulative(frame: pl.DataFrame) -> Verdict:
    part = Cumulative(FIN_SUMMARY)
    part.add(_month(frame))
    return part.verdicts()["sales_cumulative"]


def test_sales_grow_over_the_fiscal_year() -> None:
    sound = SOUND["fin_summary"]()
    assert _cumulative(sound).passed and _cumulative(sound).details["pairs"] == 3
    shrunk = _cumulative(sound.with_columns(Sales=pl.Series([100.0, 220.0, 110.0, 460.0])))
    assert (shrunk.passed, shrunk.severity, shrunk.got) == (False, "error", 1.0)
    assert "13010 2024-03-31 3Q" in shrunk.message


def test_a_corrected_statement_replaces_the_one_before() -> None:
    wrong = SOUND["fin_summary"]().with_columns(Sales=pl.Series([100.0, 220.0, 110.0, 460.0]))
    corrected = wrong[2:3].with_columns(DiscNo=pl.lit("20240099"), Sales=330.0, DiscDate=pl.date(2024, 2, 20))
    assert _cumulative(pl.concat([wrong, corrected])).passed


def test_a_few_shrinking_sales_only_warn() -> None:
    sound = SOUND["fin_summary"]()
    many = pl.concat([sound.with_columns(Code=pl.lit(f"{n}0")) for n in range(1000, 1020)])
    bad = pl.when((pl.col("Code") == "10000") & (pl.col("CurPerType") == "FY")).then(1.0).otherwise(pl.col("Sales"))
    assert (verdict := _cumulative(many.with_columns(Sales=bad))).severity == "warn" and not verdict.passed


# --- declarations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_check_names_are_unique_and_warnings_do_not_block(table: Table) -> None:
    checks = checks_of(table)
    assert len({check.name for check in checks}) == len(checks) >= 4
    assert {"keys_unique", "schema_as_declared", "complete"} <= {check.name for check in checks if check.blocking}
    assert "fresh" in {check.name for check in checks if not check.blocking}


def _copy_calendar(lake: Path, other: Path) -> None:
    path = other / partition_path(CALENDAR)
    path.parent.mkdir(parents=True)
    path.hardlink_to(lake / partition_path(CALENDAR))
