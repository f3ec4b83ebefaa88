"""The calendar and the plant text: exact rules, independent of any simulated market."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from atft_pipeline.exchange.plants import FADE_DAYS, PARTS, PlantError, parse_plant
from atft_pipeline.exchange.sectors import SECTORS, members_per_sector
from atft_pipeline.exchange.tokyo_calendar import business_days, calendar_table, holidays, is_business_day

TRADING_DAYS = {
    2015: 244, 2016: 245, 2017: 247, 2018: 245, 2019: 241, 2020: 243, 2021: 245,
    2022: 244, 2023: 246, 2024: 245, 2025: 243, 2026: 242, 2027: 244,
}  # fmt: skip


@pytest.mark.parametrize("year", TRADING_DAYS)
def test_each_year_has_the_exchanges_own_number_of_trading_days(year: int) -> None:
    assert len(business_days(date(year, 1, 1), date(year, 12, 31))) == TRADING_DAYS[year]


def test_the_ten_day_closure_of_2019_and_the_sandwiched_day_of_2026_are_known() -> None:
    assert business_days(date(2019, 4, 27), date(2019, 5, 6)) == []
    assert date(2026, 9, 22) in holidays(2026)
    closed = [day for day in business_days(date(2026, 9, 18), date(2026, 9, 25))]
    assert closed == [date(2026, 9, 18), date(2026, 9, 24), date(2026, 9, 25)]


def test_year_end_days_and_weekends_are_closed() -> None:
    assert not any(is_business_day(day) for day in (date(2024, 12, 31), date(2025, 1, 2), date(2025, 1, 3)))
    assert not is_business_day(date(2024, 6, 29))
    assert is_business_day(date(2024, 12, 30))


def test_the_calendar_reaches_to_the_end_of_the_next_year() -> None:
    table = calendar_table(date(2021, 7, 1), date(2022, 3, 31))
    assert table["Date"][0] == "2021-07-01"
    assert table["Date"][-1] == "2023-12-31"
    assert table.height == (date(2023, 12, 31) - date(2021, 7, 1)).days + 1
    assert set(table["HolDiv"]) == {"0", "1"}


def test_named_plants_hold_the_parts_they_name() -> None:
    assert set(parse_plant("demo")) == set(PARTS)
    assert parse_plant("null") == {}
    assert list(parse_plant("graph")) == ["graph"]
    assert parse_plant("linear=.05, graph=.03")["graph"].ic == 0.03


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("momentum", "use one of"),
        ("momentum=.05", "the parts are linear"),
        ("linear=much", "is not a number"),
        ("linear=.9", "lies outside"),
        ("linear=.05,linear=.04", "twice"),
        ("linear=.05:stop@2023-01-01", "off, flip, fade"),
        ("linear=.05:off@someday", "is not a date"),
    ],
)
def test_a_plant_that_means_nothing_is_refused_with_the_remedy(text: str, told: str) -> None:
    with pytest.raises(PlantError, match=told):
        parse_plant(text)


def test_a_schedule_switches_on_its_date() -> None:
    days = business_days(date(2023, 1, 4), date(2024, 12, 30))
    since = days[100]
    weight = {
        kind: parse_plant(f"linear=.05:{kind}@{since.isoformat()}")["linear"].schedule(days)
        for kind in ("off", "flip", "fade")
    }
    for kind in weight:
        assert np.all(weight[kind][:100] == 1)
    assert np.all(weight["off"][100:] == 0)
    assert np.all(weight["flip"][100:] == -1)
    assert weight["fade"][100] == 1
    assert np.all(np.diff(weight["fade"][100 : 101 + FADE_DAYS]) < 0)
    assert weight["fade"][100 + FADE_DAYS] == 0


@pytest.mark.parametrize("stocks", [12, 33, 60, 200, 400, 4400])
def test_every_stock_has_a_sector_and_every_sector_a_stock(stocks: int) -> None:
    counts = members_per_sector(stocks)
    assert sum(counts) == stocks
    if stocks >= len(SECTORS):
        assert min(counts) >= 1
    if stocks >= 200:
        assert sum(count >= 5 for count in counts) >= 25
