"""Many months of a table: the cheapest way is taken, every way ends in the same bytes, corrections are found again."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from atft_pipeline.jquants.checks.judge import judge_table
from atft_pipeline.jquants.checks.publication import TOKYO
from atft_pipeline.jquants.client import Client, connect
from atft_pipeline.jquants.errors import ExchangeError, IncompleteError, SchemaError
from atft_pipeline.jquants.fetch import ingest_calendar, ingest_month
from atft_pipeline.jquants.ingest import REVISED_A_RUN, ingest_table
from atft_pipeline.jquants.months import MonthReport
from atft_pipeline.jquants.plans import FREE, STANDARD
from atft_pipeline.jquants.revisions import read_revisions
from atft_pipeline.jquants.routes import ROUTES, Need, Way, cheapest, cost
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import (
    BARS_DAILY,
    CALENDAR,
    FIN_SUMMARY,
    INVESTOR_TYPES,
    MASTER,
    TABLES,
    TOPIX,
    partition_path,
)
from atft_pipeline.jquants.tables_trading import SHORT_RATIO
from atft_pipeline.lake.store import read_record, read_table
from atft_pipeline_tests.jquants.scripted import (
    API_KEY,
    CODES,
    DAILY,
    FIRST,
    LAST,
    Bulk,
    Reply,
    Row,
    ScriptedExchange,
    message,
)

JUDGED = datetime(2024, 8, 1, 20, tzinfo=TOKYO)
MONTHS = ["2024-04", "2024-05", "2024-06", "2024-07"]
SERVED = [table for table in TABLES.values() if table is not CALENDAR and table.path in DAILY]


@pytest.fixture
def bulk(exchange: ScriptedExchange) -> Bulk:
    exchange.bulk = Bulk()
    return exchange.bulk


def _ingest(
    client: Client, lake: Path, table: Table = BARS_DAILY, last_date: date = LAST, **options: bool
) -> list[MonthReport]:
    months = [month for month in MONTHS if month <= f"{last_date:%Y-%m}"]
    return list(ingest_table(client, lake, table, months, last_date=last_date, **options))


def _stored(lake: Path, table: Table) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (lake / "raw" / table.name).glob("*.parquet")}


def _asked(exchange: ScriptedExchange) -> list[str]:
    return [path for path, _ in exchange.log]


@pytest.mark.parametrize("table", SERVED, ids=lambda table: table.name)
def test_every_way_ends_in_the_same_bytes(
    client: Client, lake: Path, exchange: ScriptedExchange, bulk: Bulk, table: Table
) -> None:
    by_cheapest = _ingest(client, lake, table)
    assert sum(report.rows for report in by_cheapest) > 0
    stored = _stored(lake, table)
    for month in MONTHS:  # day by day, or month by month, through the API
        ingest_month(client, lake, table, month, last_date=LAST, refetch=True)
    assert _stored(lake, table) == stored
    exchange.forget()
    assert all(report.reused for report in _ingest(client, lake, table))
    assert exchange.log == []


def test_bulk_asks_once_for_the_list_and_once_for_each_file(
    client: Client, lake: Path, exchange: ScriptedExchange, bulk: Bulk
) -> None:
    reports = _ingest(client, lake)
    api = [path for path in _asked(exchange) if not path.startswith("/files/")]
    assert api.count("/bulk/list") == 1 and BARS_DAILY.path not in api
    assert len(api) == sum(report.requests for report in reports) == 1 + 3 + 23
    assert {report.route for report in reports} == {Way.BULK}


def test_one_span_covers_all_months_and_one_sweep_all_sectors(
    client: Client, lake: Path, exchange: ScriptedExchange
) -> None:
    _ingest(client, lake, TOPIX)
    assert len(exchange.log) == 1 and exchange.log[0][1] == {"from": f"{FIRST}", "to": f"{LAST}"}
    exchange.forget()
    reports = _ingest(client, lake, SHORT_RATIO)  # 88 days by date cost more than 34 sectors and the check
    assert len(exchange.log) == 1 + 35 and {report.route for report in reports} == {Way.SECTOR}


def test_a_sector_that_is_not_asked_for_is_noticed(client: Client, lake: Path, exchange: ScriptedExchange) -> None:
    def edit(path: str, rows: list[Row]) -> list[Row]:
        is_day = len({row["Date"] for row in rows}) == 1
        return [*rows, rows[0] | {"S33": "1234"}] if path == SHORT_RATIO.path and is_day else rows

    exchange.edit = edit
    with pytest.raises(IncompleteError, match="1 rows of 2024-07-31 belong to no sector asked for"):
        _ingest(client, lake, SHORT_RATIO)
    assert _stored(lake, SHORT_RATIO) == {}


def test_without_bulk_files_days_are_asked_for(client: Client, lake: Path, exchange: ScriptedExchange) -> None:
    reports = _ingest(client, lake, MASTER)
    assert {report.route for report in reports} == {Way.DAY}
    assert len([path for path in _asked(exchange) if path == MASTER.path]) == 88


def test_each_way_costs_what_the_plan_makes_of_it() -> None:
    ten_years = Need(days=2440, past_months=120, open_days=20)
    assert cheapest(BARS_DAILY, STANDARD, ten_years) is Way.BULK
    assert cost(Way.BULK, BARS_DAILY, ten_years) == 141
    assert cheapest(BARS_DAILY, FREE, Need(days=488, past_months=24)) is Way.DAY
    assert cost(Way.DAY, BARS_DAILY, Need(days=1)) == 3  # pages of 1,500 rows
    assert cheapest(SHORT_RATIO, STANDARD, ten_years) is Way.SECTOR
    assert cheapest(TOPIX, STANDARD, ten_years) is Way.SPAN
    assert cost(Way.SPAN, TOPIX, ten_years) == 2


def test_a_night_reads_the_new_day_and_no_day_that_has_not_changed(
    client: Client, lake: Path, exchange: ScriptedExchange, bulk: Bulk
) -> None:
    bulk.today = date(2024, 7, 30)
    _ingest(client, lake, last_date=date(2024, 7, 30))
    exchange.forget()
    bulk.today = LAST
    _ingest(client, lake)
    assert [path for path in _asked(exchange) if path.startswith("/bulk")] == ["/bulk/list", "/bulk/get"]


def test_a_full_market_night_on_standard_stays_within_forty_requests() -> None:
    """Every table of the plan: one list, one file for the new day; one call where a span covers everything. When the
    day's file is not out yet, the day costs its pages instead."""
    standard = [path for path in ROUTES if path not in PREMIUM_ONLY]
    nightly = sum(1 if ROUTES[path].span else 2 for path in standard)
    assert nightly + 1 <= 40  # and the calendar


PREMIUM_ONLY = {
    "/fins/details", "/fins/dividend", "/markets/breakdown", "/derivatives/bars/daily/futures",
    "/derivatives/bars/daily/options",
}  # fmt: skip


def test_an_overwritten_file_of_a_past_month_is_read_the_next_night_and_the_difference_is_logged(
    client: Client, lake: Path, exchange: ScriptedExchange, bulk: Bulk
) -> None:
    bulk.today = date(2024, 7, 30)
    _ingest(client, lake, last_date=date(2024, 7, 30))
    before = read_record(lake / partition_path(BARS_DAILY, "2024-04"))

    def corrected(path: str, rows: list[Row]) -> list[Row]:
        return [row | ({"Vo": 7} if row["Date"] == "2024-04-09" and row["Code"] == CODES[3] else {}) for row in rows]

    exchange.edit = lambda path, rows: corrected(path, rows) if path == BARS_DAILY.path else rows
    exchange.forget()
    bulk.today = LAST
    reports = list(ingest_table(client, lake, BARS_DAILY, ["2024-07"], last_date=LAST))
    assert [report.month for report in reports] == ["2024-07", "2024-04"]
    (entry,) = read_revisions(lake, "bars_daily")
    assert (entry["month"], entry["changed"], entry["columns"]) == ("2024-04", 1, {"Vo": 1})
    assert (entry["added"], entry["removed"], entry["kind"]) == (0, 0, "revision")
    assert (entry["codes"], entry["dates"]) == ([CODES[3]], ["2024-04-09"])
    assert entry["examples"] == [{"Date": "2024-04-09", "Code": CODES[3], "column": "Vo", "old": 1200.0, "new": 7.0}]
    after = read_record(lake / partition_path(BARS_DAILY, "2024-04"))
    assert before.source["facts_hash"] != after.source["facts_hash"] == reports[1].facts_hash
    assert reports[1].revision is not None and reports[0].revision is None


def test_only_so_many_overwritten_months_are_read_in_one_run(
    client: Client, tmp_path: Path, exchange: ScriptedExchange, bulk: Bulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atft_pipeline.jquants.ingest.REVISED_A_RUN", 2)
    ingest_calendar(client, tmp_path, FIRST, LAST)
    bulk.today = date(2024, 7, 29)
    _ingest(client, tmp_path, last_date=date(2024, 7, 29))
    bulk.modified = {entry["Key"]: "2024-08-01T00:00:00+00:00" for entry in bulk.listed(BARS_DAILY.path, exchange.edit)}
    read: list[list[str]] = []
    for last_date in (date(2024, 7, 30), LAST):
        bulk.today = last_date
        reports = list(ingest_table(client, tmp_path, BARS_DAILY, ["2024-07"], last_date=last_date))
        read.append([report.month for report in reports])
    assert read == [["2024-07", "2024-06", "2024-05"], ["2024-07", "2024-04"]]
    assert REVISED_A_RUN > 0


def test_restated_adjusted_prices_are_recorded_but_are_no_news(
    client: Client, lake: Path, exchange: ScriptedExchange, bulk: Bulk
) -> None:
    _ingest(client, lake)
    path = lake / partition_path(BARS_DAILY, "2024-05")
    before = read_record(path)
    split = {"AdjO": 1.0, "AdjC": 2.0}
    exchange.edit = lambda path, rows: [row | split if row.get("Code") == CODES[0] else row for row in rows]
    bulk.modified = {entry["Key"]: "2024-08-02T00:00:00+00:00" for entry in bulk.listed(BARS_DAILY.path, exchange.edit)}
    reports = _ingest(client, lake, refetch=True)
    assert {report.revision.kind for report in reports if report.revision} == {"restated"}
    after = read_record(path)
    assert after.source["facts_hash"] == before.source["facts_hash"] and after.content_hash != before.content_hash
    assert read_table(path).filter(pl.col("Code") == CODES[0])["AdjC"].unique().to_list() == [2.0]


def test_appended_tables_keep_every_vintage(client: Client, lake: Path, exchange: ScriptedExchange) -> None:
    _ingest(client, lake, INVESTOR_TYPES, last_date=date(2024, 5, 20))
    path = lake / partition_path(INVESTOR_TYPES, "2024-05")
    held = read_table(path)
    exchange.edit = lambda _, rows: [row for row in rows if row.get("PubDate") != "2024-05-09"]
    _ingest(client, lake, INVESTOR_TYPES, last_date=date(2024, 5, 31))
    assert held.join(read_table(path), on=held.columns, how="anti", nulls_equal=True).height == 0


Fault = Callable[[int], Reply | None]
PASSING: dict[str, tuple[str, Fault]] = {
    "expired address": ("/files/", lambda n: Reply(403, b"<Error>Request has expired</Error>") if n == 1 else None),
    "cut file": ("/files/", lambda n: Reply(200, b"\x1f\x8b\x08\x00half") if n == 1 else None),
    "no address": ("/bulk/get", lambda n: Reply(body=b"{}") if n == 1 else None),
    "limited list": ("/bulk/list", lambda n: Reply(429, b'{"message": "slow down"}') if n == 1 else None),
}


def _plant(exchange: ScriptedExchange, where: str, fault: Fault) -> None:
    exchange.script = lambda path, params, number: (
        fault(number) if path.startswith(where) and ("202405" in f"{path}{params}" or where == "/bulk/list") else None
    )


@pytest.mark.parametrize(("where", "fault"), PASSING.values(), ids=PASSING)
def test_a_passing_fault_of_a_file_leaves_the_same_month(
    client: Client, lake: Path, exchange: ScriptedExchange, bulk: Bulk, where: str, fault: Fault
) -> None:
    _ingest(client, lake, last_date=date(2024, 6, 3))
    clean = _stored(lake, BARS_DAILY)["2024-05.parquet"]
    (lake / partition_path(BARS_DAILY, "2024-05")).unlink()
    exchange.forget()
    _plant(exchange, where, fault)
    _ingest(client, lake, last_date=date(2024, 6, 3))
    assert _stored(lake, BARS_DAILY)["2024-05.parquet"] == clean
    assert not list((lake / "raw/bars_daily/_downloads").glob(".*"))


def _zipped(rows: list[Row]) -> Reply:
    return Reply(body=Bulk._file(BARS_DAILY.path, date(2024, 5, 1), date(2024, 5, 31), lambda *_: rows))


LASTING: dict[str, tuple[str, Fault, str, type[ExchangeError]]] = {
    "cut file": ("/files/", lambda n: Reply(200, b"\x1f\x8b\x08\x00half"), "8 of .* bytes, after 4", ExchangeError),
    "expired": ("/files/", lambda n: Reply(403, b"<Error/>"), "HTTP 403 from the file's address", ExchangeError),
    "no address": ("/bulk/get", lambda n: Reply(body=b"{}"), "the service gave no address", ExchangeError),
    "server error": ("/bulk/list", lambda n: Reply(500, b'{"message": "Unexpected"}'), "HTTP 500", ExchangeError),
}


@pytest.mark.parametrize(("where", "fault", "text", "kind"), LASTING.values(), ids=LASTING)
def test_a_lasting_fault_of_a_file_is_one_error_and_leaves_the_old_month(
    client: Client,
    lake: Path,
    exchange: ScriptedExchange,
    bulk: Bulk,
    where: str,
    fault: Fault,
    text: str,
    kind: type[ExchangeError],
) -> None:
    _ingest(client, lake, last_date=date(2024, 6, 3))
    before = _stored(lake, BARS_DAILY)
    _plant(exchange, where, fault)
    with pytest.raises(kind, match=text) as caught:
        _ingest(client, lake, refetch=True)
    assert "nothing of this was stored" in str(caught.value) and "files/" not in str(caught.value)
    assert _stored(lake, BARS_DAILY)["2024-05.parquet"] == before["2024-05.parquet"]
    assert not list((lake / "raw/bars_daily/_downloads").glob(".*"))


BROKEN: dict[str, tuple[Callable[[list[Row]], list[Row]], str]] = {
    "another month's rows": (
        lambda rows: [row | {"Date": "2024-06-03"} for row in rows],
        "it holds rows of 2024-06-03",
    ),
    "a repeated row": (lambda rows: [*rows, rows[0]], "1 rows repeat the key Date, Code"),
    "a missing column": (lambda rows: [{k: v for k, v in row.items() if k != "C"} for row in rows], "column C missing"),
    "a word for a number": (lambda rows: [row | {"O": "n/a"} for row in rows], "column O: 'n/a' is not a number"),
}


@pytest.mark.parametrize(("change", "text"), BROKEN.values(), ids=BROKEN)
def test_a_wrong_file_is_refused_with_its_name(
    client: Client,
    lake: Path,
    exchange: ScriptedExchange,
    bulk: Bulk,
    change: Callable[[list[Row]], list[Row]],
    text: str,
) -> None:
    def edit(path: str, rows: list[Row]) -> list[Row]:
        return change(rows) if rows and str(rows[0].get("Date")).startswith("2024-05") else rows

    exchange.edit = edit
    with pytest.raises(SchemaError, match=rf"/equities/bars/daily .*equities_bars_daily_202405.csv.gz: {text}"):
        _ingest(client, lake)
    assert "2024-05.parquet" not in _stored(lake, BARS_DAILY)


def test_a_file_that_is_a_day_behind_is_completed_by_date(
    client: Client, lake: Path, exchange: ScriptedExchange, bulk: Bulk
) -> None:
    def edit(path: str, rows: list[Row]) -> list[Row]:
        is_file = len({row.get("Date") for row in rows}) > 1
        return [row for row in rows if not (is_file and row.get("Date") == "2024-05-31")]

    exchange.edit = edit
    reports = _ingest(client, lake)
    assert reports[1].days == 23
    assert [params for path, params in exchange.log if path == BARS_DAILY.path] == [{"date": "2024-05-31"}]


KILLED = """
from datetime import date, datetime
from pathlib import Path
from atft_pipeline.jquants import ingest, tables
from atft_pipeline.jquants.client import connect
client = connect({url!r}, "key", "standard", 100_000)
months = ingest.ingest_table(
    client, Path({lake!r}), tables.BARS_DAILY, ["2024-05"], last_date=date(2024, 7, 31), refetch=True
)
list(months)
"""


def test_a_kill_in_the_middle_of_a_download_leaves_the_old_content(
    client: Client, lake: Path, exchange: ScriptedExchange, bulk: Bulk
) -> None:
    _ingest(client, lake)
    before = _stored(lake, BARS_DAILY)
    reached = threading.Event()

    def hang(path: str, params: dict[str, str], number: int) -> Reply | None:
        if path.startswith("/files/") and not reached.is_set():
            reached.set()
            time.sleep(30)
        return None

    exchange.script = hang
    child = subprocess.Popen([sys.executable, "-c", KILLED.format(url=exchange.base_url, lake=str(lake))])
    assert reached.wait(60)
    child.kill()
    child.wait()
    assert _stored(lake, BARS_DAILY) == before
    exchange.script = lambda *_: None
    exchange.forget()
    assert all(report.reused for report in _ingest(client, lake)) and exchange.log == []


def test_statements_of_weekends_come_with_the_month_file(
    client: Client, lake: Path, exchange: ScriptedExchange, bulk: Bulk
) -> None:
    _ingest(client, lake, FIN_SUMMARY)
    assert read_table(lake / partition_path(FIN_SUMMARY, "2024-05"))["DiscDate"].unique().to_list() == [
        date(2024, 5, 11)
    ]
    assert FIN_SUMMARY.path not in {path for path, params in exchange.log if "2024-05" in str(params)}


def test_a_bulk_file_is_asked_for_without_the_key(
    client: Client, lake: Path, exchange: ScriptedExchange, bulk: Bulk
) -> None:
    _ingest(connect(exchange.base_url, API_KEY, "standard", 100_000), lake, MASTER)
    assert (exchange.keys_seen, exchange.keys_of_files) == ({API_KEY}, {""})


OUTSIDE = "Your subscription covers the following dates: 2024-05-15 ~ . If you want more data, please check other plans"


def _window_from_15_may(path: str, params: dict[str, str], number: int) -> Reply | None:
    asked = [params[name] for name in ("date", "from") if name in params]
    return message(OUTSIDE, 400) if asked and min(asked) < "2024-05-15" else None


@pytest.mark.parametrize("table", [MASTER, FIN_SUMMARY, TOPIX, INVESTOR_TYPES, SHORT_RATIO], ids=lambda t: t.name)
@pytest.mark.parametrize("has_bulk", [False, True], ids=["by API", "bulk listed"])
def test_dates_outside_the_window_are_left_out_and_not_asked_for_again(
    client: Client, lake: Path, exchange: ScriptedExchange, table: Table, has_bulk: bool
) -> None:
    exchange.bulk = Bulk() if has_bulk else None
    if exchange.bulk:  # months that the plan does not show have no file
        exchange.bulk.hidden = ("202404", "202405")
    exchange.script = _window_from_15_may
    outside, edge, inside, _ = _ingest(client, lake, table)
    assert (outside.outside, outside.complete, outside.rows) == (True, False, 0)
    assert edge.covers == "2024-05-15 to 2024-05-31" and edge.complete and inside.covers.startswith("2024-06-01")
    newer = connect(exchange.base_url, API_KEY, client.plan.name, 100_000)  # it has not heard of the window
    exchange.forget()
    assert all(report.reused for report in list(ingest_table(newer, lake, table, MONTHS[:3], last_date=LAST)))
    assert exchange.log == []
    judged = {check: verdict for check, verdict in judge_table(lake, table, MONTHS, now=JUDGED, end=LAST).items()}
    assert judged["complete"].passed, judged["complete"].message


def test_a_larger_plan_asks_again_for_what_was_outside(client: Client, lake: Path, exchange: ScriptedExchange) -> None:
    exchange.script = _window_from_15_may
    smaller = connect(exchange.base_url, API_KEY, "light", 100_000, origin=client.origin)
    assert _ingest(smaller, lake, TOPIX)[0].outside
    exchange.script = lambda *_: None
    larger = connect(exchange.base_url, API_KEY, "premium", 100_000, origin=client.origin)
    assert [report.days for report in _ingest(larger, lake, TOPIX)][:2] == [20, 23]


def test_stored_rows_stay_when_the_window_has_moved_past_them(
    client: Client, lake: Path, exchange: ScriptedExchange
) -> None:
    _ingest(client, lake, MASTER, last_date=date(2024, 5, 2))
    held = read_table(lake / partition_path(MASTER, "2024-04"))
    exchange.script = _window_from_15_may
    _ingest(client, lake, MASTER)
    assert read_table(lake / partition_path(MASTER, "2024-04")).equals(held)
    days = read_table(lake / partition_path(MASTER, "2024-05"))["Date"].unique().sort().to_list()
    assert days[:3] == [date(2024, 5, 1), date(2024, 5, 2), date(2024, 5, 15)]
