"""The Tokyo calendar by rule: national holidays, the exchange's business days, and the calendar table.

Holidays follow the Act on National Holidays with its substitute day (a Sunday holiday moves to the next weekday that is
not a holiday) and its sandwiched day (a day between two holidays), and the special laws of 2019 to 2021.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from atft_pipeline.exchange.drawing import Market
    from atft_pipeline.exchange.sources import SpanTable

OUTAGES: tuple[date, ...] = (date(2020, 10, 1),)
"""Business days on which the whole exchange stood still: every quote of the day is null."""

_DAY = timedelta(days=1)


def _nth_monday(year: int, month: int, n: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(-first.weekday()) % 7 + 7 * (n - 1))


def _equinox(year: int, offset: float) -> int:
    """Day of the month of an equinox, 1980-2099, by the usual approximation."""
    return int(offset + 0.242194 * (year - 1980) - (year - 1980) // 4)


def _statutory(year: int) -> set[date]:
    """Named national holidays of a year, before substitute and sandwiched days."""
    days = {
        date(year, 1, 1),
        _nth_monday(year, 1, 2),
        date(year, 2, 11),
        date(year, 3, _equinox(year, 20.8431)),
        date(year, 4, 29),
        date(year, 5, 3),
        date(year, 5, 4),
        date(year, 5, 5),
        _nth_monday(year, 9, 3),
        date(year, 9, _equinox(year, 23.2488)),
        date(year, 11, 3),
        date(year, 11, 23),
    }
    if year <= 2018:
        days.add(date(year, 12, 23))
    elif year >= 2020:
        days.add(date(year, 2, 23))
    else:
        days |= {date(2019, 5, 1), date(2019, 10, 22)}  # accession and enthronement
    moved = {  # Marine, Sports and Mountain Day around the Olympic Games
        2020: {date(2020, 7, 23), date(2020, 7, 24), date(2020, 8, 10)},
        2021: {date(2021, 7, 22), date(2021, 7, 23), date(2021, 8, 8)},
    }
    usual = {_nth_monday(year, 7, 3), _nth_monday(year, 10, 2)} | ({date(year, 8, 11)} if year >= 2016 else set())
    return days | moved.get(year, usual)


@lru_cache(maxsize=64)
def holidays(year: int) -> frozenset[date]:
    """All national holidays of `year`."""
    named = _statutory(year)
    days = set(named)
    for day in named:
        if day.weekday() == 6:
            substitute = day + _DAY
            while substitute in named:
                substitute += _DAY
            days.add(substitute)
    sandwiched = {day + _DAY for day in named if day + 2 * _DAY in named and day + _DAY not in days}
    return frozenset(days | {day for day in sandwiched if day.weekday() < 6})


def is_business_day(day: date) -> bool:
    """Whether the Tokyo Stock Exchange opens: weekdays that are no holiday and not 31 December to 3 January."""
    year_end = (day.month, day.day) in {(12, 31), (1, 1), (1, 2), (1, 3)}
    return day.weekday() < 5 and not year_end and day not in holidays(day.year)


def business_days(start: date, end: date) -> list[date]:
    """Business days in [start, end]."""
    span = (end - start).days + 1
    return [day for day in (start + timedelta(days=i) for i in range(span)) if is_business_day(day)]


def trading_calendar(market: Market) -> SpanTable:
    """Source of /markets/calendar: from the market's first day to the end of the year after its last."""
    table = calendar_table(market.size.start, market.size.end)

    def rows(first: date, last: date) -> pl.DataFrame:
        return table.filter(pl.col("Date").is_between(pl.lit(first.isoformat()), pl.lit(last.isoformat())))

    return rows


def calendar_table(start: date, end: date) -> pl.DataFrame:
    """Date and HolDiv ("1" business day, "0" closed) of every day from `start` to the end of the year after `end`."""
    last = date(end.year + 1, 12, 31)
    days = [start + timedelta(days=i) for i in range((last - start).days + 1)]
    return pl.DataFrame(
        {
            "Date": [day.isoformat() for day in days],
            "HolDiv": ["1" if is_business_day(day) else "0" for day in days],
        }
    )


def sq_day(year: int, month: int) -> date:
    """The day of the special quotation: the second Friday, or the last business day before it when it is closed."""
    first = date(year, month, 1)
    day = first + timedelta(days=(4 - first.weekday()) % 7 + 7)
    while not is_business_day(day):
        day -= _DAY
    return day


def business_day_before(day: date) -> date:
    """The last business day before `day`."""
    day -= _DAY
    while not is_business_day(day):
        day -= _DAY
    return day
