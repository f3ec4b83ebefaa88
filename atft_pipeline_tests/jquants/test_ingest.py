"""Ingesting a month: whole or not at all, nothing fetched twice without need, every fault one clear error."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from atft_pipeline.jquants.client import Client, connect
from atft_pipeline.jquants.errors import ExchangeError, IncompleteError, SchemaError
from atft_pipeline.jquants.fetch import MonthReport, ingest_calendar, ingest_month
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
from atft_pipeline.lake.store import LakeError, read_record, read_table, verify_table
from atft_pipeline_tests.jquants.scripted import (
    API_KEY,
    CODES,
    FIRST,
    LAST,
    Reply,
    Script,
    ScriptedExchange,
    message,
    rows_of,
)

MAY, DAY, END = "2024-05", "2024-05-14", date(2024, 6, 28)
MONTHLY = [table for table in TABLES.values() if table is not CALENDAR]


def _ingest(
    client: Client, lake: Path, table: Table = BARS_DAILY, last_date: date = END, **options: bool
) -> MonthReport:
    return ingest_month(client, lake, table, MAY, last_date=last_date, **options)


def _files(lake: Path, table: Table) -> dict[str, bytes]:
    """The partitions of `table`; the manifest beside them says when they were fetched, so it may change."""
    return {path.name: path.read_bytes() for path in (lake / "raw" / table.name).glob("*.parquet")}


@pytest.mark.parametrize("table", MONTHLY, ids=[table.name for table in MONTHLY])
def test_a_month_lands_typed_keyed_verified_and_says_where_it_came_from(
    client: Client, lake: Path, table: Table
) -> None:
    report = _ingest(client, lake, table)
    path = lake / partition_path(table, MAY)
    frame = read_table(path)
    assert dict(frame.schema) == dict(table.schema) | dict.fromkeys(table.marks.values(), pl.String())
    assert frame.height == report.rows > 0
    assert frame.select(table.keys).equals(frame.select(table.keys).sort(table.keys))
    record = verify_table(path)
    assert {name: text for name, text in record.source.items() if name != "facts_hash"} == {
        "endpoint": table.path, "origin": "127.0.0.1", "from": "2024-05-01", "to": "2024-05-31",
        "as_of": "2024-06-28", "complete": "true",
    }  # fmt: skip
    assert report.complete and not report.reused
    assert not (path.parent / "_staging" / MAY).exists()


@pytest.mark.parametrize("table", MONTHLY, ids=[table.name for table in MONTHLY])
def test_a_second_run_makes_no_request_and_changes_no_byte(
    client: Client, lake: Path, exchange: ScriptedExchange, table: Table
) -> None:
    first = _ingest(client, lake, table)
    before = _files(lake, table)
    exchange.forget()
    again = _ingest(client, lake, table)
    assert again.reused and again.requests == 0 and exchange.log == []
    assert (again.rows, again.days, again.content_hash) == (first.rows, first.days, first.content_hash)
    assert _files(lake, table) == before


def test_equal_content_gives_equal_bytes_whatever_the_order_of_arrival(
    client: Client, lake: Path, exchange: ScriptedExchange
) -> None:
    _ingest(client, lake)
    before = _files(lake, BARS_DAILY)
    exchange.page_rows = 13
    ingest_month(client, lake, BARS_DAILY, MAY, last_date=END, refetch=True, workers=3)
    assert _files(lake, BARS_DAILY) == before


def test_only_trading_days_are_asked_for_and_statements_on_every_day(
    client: Client, lake: Path, exchange: ScriptedExchange
) -> None:
    _ingest(client, lake, MASTER)
    asked = {params["date"] for _, params in exchange.log}
    assert len(asked) == 23 and "2024-05-11" not in asked
    exchange.forget()
    report = _ingest(client, lake, FIN_SUMMARY)
    assert len({params["date"] for _, params in exchange.log}) == 31
    assert report.rows == 2  # disclosed on Saturday, 11 May


def _only(path: str, fault: Callable[[int], Reply | None], day: str = DAY) -> Script:
    """A script that plants `fault` on the bars of one day."""
    return lambda asked, params, number: fault(number) if asked == path and params.get("date") == day else None


PASSING = {
    "429 with Retry-After": message("slow down", 429, Retry_After="1"),
    "429 without Retry-After": message("slow down", 429),
    "500": message("Unexpected error.", 500),
    "truncated body": Reply(cut=50),
    "malformed JSON": Reply(body=b'{"data": [{'),
}


@pytest.mark.parametrize("reply", PASSING.values(), ids=PASSING)
def test_a_passing_fault_leaves_the_same_month_as_none(
    client: Client, lake: Path, exchange: ScriptedExchange, reply: Reply
) -> None:
    exchange.page_rows = 25
    clean = _ingest(client, lake)
    exchange.forget()
    exchange.script = _only(BARS_DAILY.path, lambda number: Reply(**vars(reply)) if number <= 2 else None)
    after = _ingest(client, lake, refetch=True)
    assert after.content_hash == clean.content_hash
    assert after.requests == clean.requests + 4  # two pages, each refused twice


def _endless(number: int) -> Reply:
    return Reply(body=b'{"data": [], "pagination_key": "again"}')


def _ever_new(number: int) -> Reply:
    _ever_new.count = getattr(_ever_new, "count", 0) + 1  # type: ignore[attr-defined]
    return Reply(body=b'{"data": [], "pagination_key": "k%d"}' % _ever_new.count)  # type: ignore[attr-defined]


LASTING: dict[str, tuple[Callable[[int], Reply | None], str]] = {
    "429 with Retry-After": (lambda n: message("slow", 429, Retry_After="1"), "JQUANTS_REQUESTS_PER_MINUTE"),
    "429 without Retry-After": (lambda n: message("slow", 429), "JQUANTS_REQUESTS_PER_MINUTE"),
    "500": (lambda n: message("Unexpected error.", 500), "again later"),
    "truncated body": (lambda n: Reply(cut=50), "run the same command again"),
    "malformed JSON": (lambda n: Reply(body=b"{"), "run the same command again"),
    "endless pagination, same key": (_endless, "endless pagination"),
    "endless pagination, new keys": (_ever_new, "endless pagination"),
    "a date refused that the plan covers": (
        lambda n: message("Your subscription covers the following dates: 2024-01-04 ~ .", 400),
        "set ATFT_START",
    ),
    "wrong key": (lambda n: message("The incoming token is invalid or expired.", 403), "check JQUANTS_API_KEY"),
    "empty answer on a business day": (lambda n: Reply(body=b'{"data": []}'), "no rows for business day 2024-05-14"),
}


@pytest.mark.parametrize(("fault", "remedy"), LASTING.values(), ids=LASTING)
@pytest.mark.parametrize("had_content", [False, True], ids=["nothing stored", "month stored"])
def test_a_lasting_fault_is_one_error_and_stores_nothing(
    client: Client,
    lake: Path,
    exchange: ScriptedExchange,
    fault: Callable[[int], Reply | None],
    remedy: str,
    had_content: bool,
) -> None:
    half = date(2024, 5, 15)
    if had_content:
        _ingest(client, lake, last_date=half)
    before = _files(lake, BARS_DAILY)
    exchange.script = _only(BARS_DAILY.path, fault)
    with pytest.raises(ExchangeError) as caught:
        _ingest(client, lake, last_date=half, refetch=True)
    text = str(caught.value)
    assert text.startswith(f"/equities/bars/daily date={DAY}: ")
    assert remedy in text and "nothing of this was stored" in text
    assert _files(lake, BARS_DAILY) == before


@pytest.mark.parametrize("column", ["AdjC", "Code"])
def test_a_dropped_column_is_named_and_nothing_is_stored(
    client: Client, lake: Path, exchange: ScriptedExchange, column: str
) -> None:
    _ingest(client, lake)
    before = _files(lake, BARS_DAILY)
    exchange.edit = lambda path, rows: [{k: v for k, v in row.items() if k != column} for row in rows]
    with pytest.raises(SchemaError, match=rf"/bars/daily date=2024-05-\d\d: column {column} missing .*official"):
        _ingest(client, lake, refetch=True)
    assert _files(lake, BARS_DAILY) == before


@pytest.mark.parametrize("table", [MASTER, FIN_SUMMARY, INVESTOR_TYPES], ids=lambda table: table.name)
def test_a_column_that_the_official_client_stumbles_over_is_named_too(
    client: Client, lake: Path, exchange: ScriptedExchange, table: Table
) -> None:
    column = list(table.schema)[-1]
    exchange.edit = lambda path, rows: [{k: v for k, v in row.items() if k != column} for row in rows]
    with pytest.raises(SchemaError, match=rf"{table.path} .*=2024-05-\d\d.*: .*column {column} missing"):
        _ingest(client, lake, table)
    assert _files(lake, table) == {}


def test_rows_repeated_across_pages_once_are_read_again(client: Client, lake: Path, exchange: ScriptedExchange) -> None:
    exchange.page_rows = 25
    second_page = rows_of(BARS_DAILY.path, {"date": DAY})[24:]  # the first page ended with row 24 already
    overlap = json.dumps({"data": second_page}).encode()

    def script(path: str, params: dict[str, str], number: int) -> Reply | None:
        is_planted = params.get("date") == DAY and "pagination_key" in params and number == 1
        return Reply(body=overlap) if is_planted else None

    exchange.script = script
    report = _ingest(client, lake)
    assert report.rows == 23 * len(CODES)
    assert report.requests == 2 * 23 + 2


def test_rows_that_stay_repeated_are_one_error(client: Client, lake: Path, exchange: ScriptedExchange) -> None:
    exchange.edit = lambda path, rows: [*rows, rows[0]] if rows and rows[0].get("Date") == DAY else rows
    with pytest.raises(SchemaError, match=r"/equities/bars/daily date=2024-05-14: 1 rows repeat the key Date, Code"):
        _ingest(client, lake)
    assert _files(lake, BARS_DAILY) == {}


def test_an_interrupted_month_goes_on_where_it_stopped(client: Client, lake: Path, exchange: ScriptedExchange) -> None:
    exchange.script = _only(BARS_DAILY.path, lambda number: message("no", 403), "2024-05-20")
    with pytest.raises(ExchangeError):
        ingest_month(client, lake, BARS_DAILY, MAY, last_date=END, workers=1)
    fetched = {params["date"] for _, params in exchange.log} - {"2024-05-20"}
    assert "2024-05-17" in fetched
    assert _files(lake, BARS_DAILY) == {}
    exchange.script = lambda *_: None
    exchange.forget()
    report = _ingest(client, lake)
    assert {params["date"] for _, params in exchange.log}.isdisjoint(fetched)
    assert report.requests == len(exchange.log) == 23 - len(fetched)
    assert report.rows == 23 * len(CODES)
    assert not (lake / "raw/bars_daily/_staging" / MAY).exists()


KILLED = """
from datetime import date
from pathlib import Path
from atft_pipeline.jquants import fetch, staging, tables
from atft_pipeline.jquants.client import connect
staging.FLUSH_SECONDS = 0.0  # the second that a kill may cost would be this whole month
client = connect({url!r}, "key", "standard", 100_000)
fetch.ingest_month(client, Path({lake!r}), tables.BARS_DAILY, "2024-05", last_date=date(2024, 6, 28), workers=2)
"""


def test_after_kill_9_no_staged_day_is_fetched_twice(client: Client, lake: Path, exchange: ScriptedExchange) -> None:
    reached = threading.Event()

    def hang(path: str, params: dict[str, str], number: int) -> Reply | None:
        if params.get("date") == "2024-05-20" and not reached.is_set():
            reached.set()
            time.sleep(30)
        return None

    exchange.script = hang
    program = KILLED.format(url=exchange.base_url, lake=str(lake))
    child = subprocess.Popen([sys.executable, "-c", program])
    assert reached.wait(60)
    child.kill()
    child.wait()
    assert _files(lake, BARS_DAILY) == {}
    before = [params["date"] for _, params in exchange.log]
    exchange.forget()
    report = _ingest(client, lake)
    again = {params["date"] for _, params in exchange.log} & set(before)
    assert len(before) >= 13 and len(again) <= 2  # only what was open when the kill came
    assert report.rows == 23 * len(CODES)


def test_the_first_failure_stops_the_requests_that_have_not_begun(
    client: Client, lake: Path, exchange: ScriptedExchange
) -> None:
    exchange.script = lambda *_: message("The incoming token is invalid or expired.", 403)
    with pytest.raises(ExchangeError):
        ingest_month(client, lake, BARS_DAILY, MAY, last_date=END, workers=3)
    assert len(exchange.log) < 10


def test_a_damaged_staged_file_is_fetched_again(client: Client, lake: Path, exchange: ScriptedExchange) -> None:
    staging = lake / "raw/bars_daily/_staging" / MAY
    staging.mkdir(parents=True)
    (staging / f"{DAY}.parquet").write_bytes(b"half a file")
    assert _ingest(client, lake).rows == 23 * len(CODES)


def test_the_open_month_fetches_missing_days_and_reads_the_newest_again(
    client: Client, lake: Path, exchange: ScriptedExchange
) -> None:
    open_month = _ingest(client, lake, last_date=date(2024, 5, 15))
    assert not open_month.complete and open_month.days == 11
    exchange.forget()
    assert _ingest(client, lake, last_date=date(2024, 5, 15)).reused
    assert exchange.log == []
    exchange.edit = lambda path, rows: [row | {"Vo": 7} for row in rows]  # a correction of everything
    report = _ingest(client, lake, last_date=date(2024, 5, 17))
    asked = sorted(params["date"][-2:] for _, params in exchange.log)
    assert asked == ["09", "10", "13", "14", "15", "16", "17"]
    assert report.days == 13
    volumes = read_table(lake / partition_path(BARS_DAILY, MAY)).group_by("Date").agg(pl.col("Vo").first()).sort("Date")
    assert volumes["Vo"].to_list() == [1200.0] * 6 + [7.0] * 7


def test_a_month_that_was_stored_on_its_last_day_is_settled_once(
    client: Client, lake: Path, exchange: ScriptedExchange
) -> None:
    assert _ingest(client, lake, last_date=date(2024, 5, 31)).complete
    exchange.forget()
    _ingest(client, lake, last_date=date(2024, 6, 10))
    assert len(exchange.log) == 5
    exchange.forget()
    assert _ingest(client, lake, last_date=date(2024, 6, 11)).reused
    assert exchange.log == []


def test_refetch_reads_everything_anew(client: Client, lake: Path, exchange: ScriptedExchange) -> None:
    _ingest(client, lake)
    exchange.forget()
    assert not _ingest(client, lake, refetch=True).reused
    assert len(exchange.log) == 23


def test_another_market_behind_the_server_is_fetched_anew(lake: Path, exchange: ScriptedExchange) -> None:
    for number, origin in enumerate(["seed 7", "seed 7", "seed 8"]):
        client = connect(exchange.base_url, API_KEY, "standard", 100_000, origin=origin)
        ingest_calendar(client, lake, FIRST, LAST)
        assert _ingest(client, lake, TOPIX).reused is (number == 1)


def test_a_calendar_that_is_stored_is_not_asked_for_again(
    client: Client, lake: Path, exchange: ScriptedExchange
) -> None:
    assert ingest_calendar(client, lake, FIRST, LAST).reused
    assert ingest_calendar(client, lake, date(2024, 5, 1), date(2024, 5, 31)).reused
    assert exchange.log == []


def test_a_longer_calendar_keeps_the_days_before(client: Client, tmp_path: Path) -> None:
    ingest_calendar(client, tmp_path, FIRST, date(2024, 5, 31))
    ingest_calendar(client, tmp_path, date(2024, 5, 1), LAST)
    assert read_table(tmp_path / partition_path(CALENDAR)).height == (LAST - FIRST).days + 1


def test_a_calendar_with_a_gap_is_refused(client: Client, tmp_path: Path, exchange: ScriptedExchange) -> None:
    exchange.edit = lambda path, rows: [row for row in rows if row["Date"] != DAY]
    with pytest.raises(IncompleteError, match=r"/markets/calendar from=2024-04-01 to=2024-07-31: 121 days between"):
        ingest_calendar(client, tmp_path, FIRST, LAST)
    assert _files(tmp_path, CALENDAR) == {}


def test_a_market_that_begins_inside_a_month_is_ingested_from_its_first_day(
    client: Client, tmp_path: Path, exchange: ScriptedExchange
) -> None:
    exchange.edit = lambda path, rows: [row for row in rows if row["Date"] >= DAY]
    for reused in (False, True):
        assert ingest_calendar(client, tmp_path, date(2024, 5, 1), LAST).reused is reused
    assert _ingest(client, tmp_path, TOPIX).days == 14
    assert _ingest(client, tmp_path, TOPIX).reused
    with pytest.raises(IncompleteError, match="days between 2024-05-14"):
        ingest_calendar(client, tmp_path, date(2024, 4, 1), LAST)


def test_without_a_calendar_the_error_says_what_to_build(client: Client, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="build the asset that writes it first"):
        _ingest(client, tmp_path)


def test_a_month_beyond_the_calendar_is_refused_with_its_dates(client: Client, lake: Path) -> None:
    with pytest.raises(IncompleteError, match="the stored calendar covers 2024-04-01 to 2024-07-31"):
        ingest_month(client, lake, BARS_DAILY, "2024-09", last_date=date(2024, 9, 30))


def test_bars_that_miss_listed_codes_are_a_partial_publication(
    client: Client, lake: Path, exchange: ScriptedExchange
) -> None:
    _ingest(client, lake, MASTER)
    exchange.edit = lambda path, rows: rows[:-1] if rows and rows[0]["Date"] == DAY else rows
    with pytest.raises(IncompleteError, match=rf"date={DAY}: 39 of 40 listed codes have a row .want 98%.*ATFT_END"):
        _ingest(client, lake)
    assert _files(lake, BARS_DAILY) == {}


def test_a_day_far_thinner_than_the_others_is_refused_and_asked_for_again(
    client: Client, lake: Path, exchange: ScriptedExchange
) -> None:
    exchange.edit = lambda path, rows: rows[:20] if rows and rows[0]["Date"] == DAY else rows
    with pytest.raises(IncompleteError, match=rf"/equities/master date={DAY}: 20 rows, less than 80% of the median"):
        _ingest(client, lake, MASTER)
    assert _files(lake, MASTER) == {}
    exchange.edit = lambda path, rows: rows
    exchange.forget()
    assert _ingest(client, lake, MASTER).rows == 23 * len(CODES)
    assert {params["date"] for _, params in exchange.log} == {DAY}


def test_topix_must_have_every_business_day(client: Client, lake: Path, exchange: ScriptedExchange) -> None:
    exchange.edit = lambda path, rows: [row for row in rows if row["Date"] != DAY]
    with pytest.raises(IncompleteError, match=rf"from=2024-05-01 to=2024-05-31: no rows for business day {DAY}"):
        _ingest(client, lake, TOPIX)


def test_rows_of_another_day_are_refused(client: Client, lake: Path, exchange: ScriptedExchange) -> None:
    exchange.edit = lambda path, rows: [row | {"Date": "2024-05-15"} for row in rows]
    with pytest.raises(IncompleteError, match="the answer holds rows of 2024-05-15"):
        _ingest(client, lake, MASTER)


def test_a_table_outside_the_plan_costs_no_request(lake: Path, exchange: ScriptedExchange) -> None:
    client = connect(exchange.base_url, API_KEY, "free", 1000)
    with pytest.raises(ExchangeError, match="topix needs plan light, JQUANTS_PLAN is free"):
        _ingest(client, lake, TOPIX)
    assert exchange.log == []


def test_the_key_is_in_no_file(client: Client, lake: Path, exchange: ScriptedExchange) -> None:
    exchange.script = _only(BARS_DAILY.path, lambda number: message(f"no {API_KEY}", 500) if number < 3 else None)
    for table in MONTHLY:
        _ingest(client, lake, table)
    files = [path for path in lake.rglob("*") if path.is_file()]
    partitions = [path for path in files if path.suffix == ".parquet"]
    assert len(partitions) == len(TABLES)
    assert not [path for path in files if API_KEY.encode() in path.read_bytes()]
    assert all(API_KEY not in str(read_record(path)) for path in partitions)
