"""The checks of stored raw tables pass on whole months and count what is missing on broken ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from atft_pipeline.jquants.client import connect
from atft_pipeline.jquants.fetch import ingest_calendar, ingest_month
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import (
    BARS_DAILY,
    CALENDAR,
    INDICES,
    INVESTOR_TYPES,
    MASTER,
    TABLES,
    TOPIX,
    partition_path,
)
from atft_pipeline.lake.store import read_record, read_table, write_table
from atft_pipeline_tests.jquants.scripted import API_KEY, FIRST, LAST, ScriptedExchange
from atft_pipeline_tests.jquants.single_checks import check_completeness, check_keys, check_schema

MONTHS = ["2024-05", "2024-06"]


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with two whole months of every table."""
    lake = tmp_path_factory.mktemp("ingested")
    exchange = ScriptedExchange()
    client = connect(exchange.base_url, API_KEY, "premium", 120_000)
    ingest_calendar(client, lake, FIRST, LAST)
    for table in TABLES.values():
        if table is not CALENDAR:
            for month in MONTHS:
                ingest_month(client, lake, table, month, last_date=date(2024, 6, 28))
    exchange.close()
    return lake


@pytest.fixture
def full_lake(ingested: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may break."""
    return shutil.copytree(ingested, tmp_path / "lake")


def _rewrite(lake: Path, table: Table, change: Callable[[pl.DataFrame], pl.DataFrame], month: str = MONTHS[0]) -> None:
    """Store a broken month, as a bug elsewhere could."""
    path = lake / partition_path(table, "" if table is CALENDAR else month)
    write_table(path, change(read_table(path)), keys=(), source=read_record(path).source)


def _without(day: date, column: str = "Date") -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda frame: frame.filter(pl.col(column) != day)


def test_whole_months_pass_every_check(full_lake: Path) -> None:
    for table in TABLES.values():
        for check in (check_keys, check_schema, check_completeness):
            verdict = check(full_lake, table, MONTHS)
            assert verdict.passed, verdict.message


def test_each_gap_fails_its_check_with_its_number(full_lake: Path) -> None:
    _rewrite(full_lake, TOPIX, _without(date(2024, 5, 14)))
    verdict = check_completeness(full_lake, TOPIX, MONTHS)
    assert not verdict.passed
    assert verdict.got == pytest.approx(42 / 43)
    assert verdict.details["missing_days"] == ["2024-05-14"]

    _rewrite(full_lake, INDICES, _without(date(2024, 5, 15)))
    assert "2024-05-15" in check_completeness(full_lake, INDICES, MONTHS).message

    _rewrite(full_lake, INVESTOR_TYPES, _without(date(2024, 5, 16), "PubDate"))
    weeks = check_completeness(full_lake, INVESTOR_TYPES, MONTHS)
    assert not weeks.passed and weeks.details["missing_weeks"] == ["2024-05-06"]

    _rewrite(full_lake, CALENDAR, _without(date(2024, 5, 12)))
    assert check_completeness(full_lake, CALENDAR, []).got == pytest.approx(121 / 122)


def test_bars_are_measured_against_the_listed_codes_of_the_worst_day(full_lake: Path) -> None:
    thin = (pl.col("Date") != date(2024, 5, 14)) | (pl.col("Code") < "13200")
    _rewrite(full_lake, BARS_DAILY, lambda frame: frame.filter(thin))
    verdict = check_completeness(full_lake, BARS_DAILY, MONTHS)
    assert (verdict.passed, verdict.want) == (False, 0.98)
    assert verdict.got == pytest.approx(19 / 40)
    assert "2024-05-14" in verdict.message

    _rewrite(full_lake, BARS_DAILY, _without(date(2024, 5, 14)))
    assert check_completeness(full_lake, BARS_DAILY, MONTHS).got == 0.0


def test_repeated_and_null_keys_are_counted(full_lake: Path) -> None:
    _rewrite(full_lake, MASTER, lambda frame: pl.concat([frame, frame.head(3)]))
    _rewrite(full_lake, TOPIX, lambda frame: frame.with_columns(Date=pl.lit(None, pl.Date)))
    assert check_keys(full_lake, MASTER, MONTHS).got == 3
    assert not check_keys(full_lake, TOPIX, MONTHS).passed


def test_a_column_of_another_type_or_none_fails_the_schema(full_lake: Path) -> None:
    _rewrite(full_lake, BARS_DAILY, lambda frame: frame.drop("Va").with_columns(pl.col("Vo").cast(pl.Int64)))
    verdict = check_schema(full_lake, BARS_DAILY, MONTHS)
    assert (verdict.passed, verdict.got, verdict.want) == (False, 16.0, 18.0)
    assert "Va in 2024-05: missing" in verdict.message


def test_months_that_are_not_stored_fail_every_check_with_the_remedy(full_lake: Path) -> None:
    for check in (check_keys, check_schema, check_completeness):
        verdict = check(full_lake, MASTER, [*MONTHS, "2024-07"])
        assert not verdict.passed
        assert "2024-07 are not stored; materialise them" in verdict.message
