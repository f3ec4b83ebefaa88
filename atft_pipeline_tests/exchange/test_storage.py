"""Tables span by span: sources that agree with themselves, files by months, and reading without the whole."""

from __future__ import annotations

import itertools
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from atft_pipeline.exchange.drawing import Market, draw_market
from atft_pipeline.exchange.sources import SOURCES
from atft_pipeline.exchange.storage import BlockCache, StoredTable, in_order, months, write_groups
from atft_pipeline.settings import MarketSize

SIZE = MarketSize(stocks=24, start=date(2022, 3, 1), end=date(2022, 7, 15), seed=4, plant="null")
END = date(2023, 12, 31)
"""Past the market's end: the calendar goes on."""


@pytest.fixture(scope="module")
def market() -> Market:
    return draw_market(SIZE)


def rows(days: int, first: date = date(2024, 1, 10)) -> pl.DataFrame:
    dates = [(first + timedelta(days=n)).isoformat() for n in range(days)]
    return pl.DataFrame(
        {"Date": [d for d in dates for _ in "ab"], "Code": ["10010", "10020"] * days, "C": range(2 * days)}
    )


def by_months(frame: pl.DataFrame) -> list[pl.DataFrame]:
    return [part for _, part in frame.group_by(pl.col("Date").str.slice(0, 7), maintain_order=True)]


@pytest.mark.parametrize("name", SOURCES)
def test_consecutive_spans_are_the_table_of_the_whole(market: Market, name: str) -> None:
    table = SOURCES[name](market)
    whole = table(SIZE.start, END)
    cuts = [date(2022, 3, 1), date(2022, 3, 2), date(2022, 4, 3), date(2022, 4, 29), date(2022, 6, 30), END]
    spans = [(a, b - timedelta(days=1)) for a, b in itertools.pairwise(cuts)] + [(END, END)]
    parts = [table(*span) for span in reversed(spans)][::-1]
    assert whole.height
    assert pl.concat(parts).equals(whole)
    again = SOURCES[name](market)
    assert again(date(2022, 5, 9), date(2022, 5, 20)).equals(table(date(2022, 5, 9), date(2022, 5, 20)))


def test_months_cover_a_span_without_gap() -> None:
    spans = list(months(date(2023, 12, 15), date(2024, 2, 29)))
    assert spans == [
        (date(2023, 12, 15), date(2023, 12, 31)),
        (date(2024, 1, 1), date(2024, 1, 31)),
        (date(2024, 2, 1), date(2024, 2, 29)),
    ]


def test_work_ahead_keeps_its_order_and_its_errors() -> None:
    assert list(in_order(lambda n: n * n, range(20))) == [n * n for n in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda n: 1 // n, [1, 0, 1]))


def test_each_month_is_a_row_group_and_no_column_may_change(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    frame = rows(60)
    assert write_groups(path, by_months(frame)) == 120
    groups = pq.ParquetFile(path)
    assert [groups.metadata.row_group(n).num_rows for n in range(groups.num_row_groups)] == [44, 58, 18]
    assert pl.read_parquet(path).equals(frame)
    with pytest.raises(ValueError, match=r"bars\.parquet: columns change"):
        write_groups(path, [frame, frame.drop("C")])


def test_a_stored_table_reads_the_months_that_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    frame = rows(60)
    write_groups(path, by_months(frame))
    cache = BlockCache()
    stored = StoredTable(path, "Date", cache=cache)
    assert (stored.first, stored.last, stored.height) == (date(2024, 1, 10), date(2024, 3, 9), 120)
    assert cache.size == 0
    one = stored.between(date(2024, 2, 2), date(2024, 2, 2))
    assert one["Date"].to_list() == ["2024-02-02"] * 2
    assert 0 < cache.size < frame.estimated_size()
    assert stored.between(None, None).equals(frame)
    assert stored.between(date(2024, 1, 31), date(2024, 2, 1))["C"].to_list() == [42, 43, 44, 45]
    assert stored.between(date(2025, 1, 1), None).height == 0
    for first, last in ((None, None), (date(2024, 2, 1), date(2024, 2, 20))):
        expected = frame.filter(pl.col("Code") == "10020")
        if first and last:
            expected = expected.filter(pl.col("Date").is_between(pl.lit(str(first)), pl.lit(str(last))))
        assert stored.of_code("10020", first, last).equals(expected)
    found = stored.matching(pl.col("C") > 100, ["Date", "C"], last=date(2024, 3, 1))
    assert found["C"].to_list() == [101, 102, 103]
    assert (stored.day_from(date(2023, 1, 1)), stored.day_from(date(2024, 3, 10))) == (date(2024, 1, 10), None)
    assert (stored.day_until(None), stored.day_until(date(2024, 1, 9))) == (date(2024, 3, 9), None)


def test_the_cache_forgets_the_oldest_month_first(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    write_groups(path, by_months(rows(60)))
    limit = 2000
    cache = BlockCache(limit)
    stored = StoredTable(path, "Date", cache=cache)
    whole = BlockCache()
    StoredTable(path, "Date", cache=whole).between(None, None)
    assert whole.size > limit
    for _ in range(2):
        stored.between(None, None)
        assert 0 < cache.size <= limit


def test_groups_that_share_dates_are_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    frame = rows(60)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1)
    for written in (frame, shuffled):
        written.write_parquet(path, row_group_size=31)  # cuts a date in two
        stored = StoredTable(path, "Date", ["Code"])
        assert stored.between(None, None).equals(frame)
        assert stored.between(date(2024, 1, 25), date(2024, 1, 25))["C"].to_list() == [30, 31]
        assert stored.of_code("10010", None, None).height == 60


def test_hidden_columns_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    write_groups(path, by_months(rows(30)))
    stored = StoredTable(path, "Date", hidden=lambda name: name == "C")
    assert stored.columns == stored.between(None, None).columns == ["Date", "Code"]
    assert stored.of_code("10010", None, None).columns == ["Date", "Code"]
