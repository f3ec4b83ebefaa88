"""When a row becomes visible at the exchange: one rule per path, after the vendor's own table of update times.

Only the exchange reads this. Ingestion and the panel declare what they believe on their own (`jquants/tables.py`), so
that a mistake there meets an independent opinion here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from atft_pipeline.exchange.endpoints import Endpoint

MARGIN_DAILY = date(2026, 9, 25)
"""From this application date on, margin balances come every business day instead of weekly."""
STATEMENTS_AT_ONCE = date(2026, 6, 8)
"""From this date on, Premium shows statements at the minute of their disclosure."""


@dataclass(frozen=True)
class Moment:
    """One point in exchange time. `business` are all business days, ascending."""

    now: datetime
    business: Sequence[date]
    premium: bool = False

    def through(self, hour: int, minute: int = 0, lag: int = 0) -> date:
        """Newest date whose rows are out, when rows of a date come at hour:minute, `lag` business days after it.

        The hour may exceed 24 (27 is three in the morning of the next day). Lag -1: one business day before.
        """
        day = (self.now - timedelta(hours=hour, minutes=minute)).date()
        known = bisect_right(self.business, day)
        if lag == 0:
            return day
        if lag < 0:
            return self.business[min(known - lag - 1, len(self.business) - 1)] if self.business else day
        return self.business[known - lag] - timedelta(days=1) if known >= lag else date.min


Rule = Callable[[Endpoint, Moment], pl.Expr]


def daily(hour: int, minute: int = 0, lag: int = 0) -> Rule:
    """Rows of a date come at hour:minute, `lag` business days later (see `Moment.through`)."""

    def rule(endpoint: Endpoint, moment: Moment) -> pl.Expr:
        return _date(endpoint) <= moment.through(hour, minute, lag).isoformat()

    return rule


def _date(endpoint: Endpoint) -> pl.Expr:
    return pl.col(endpoint.date_column)


def _calendar(endpoint: Endpoint, moment: Moment) -> pl.Expr:
    """The next year is added at the end of March."""
    last = moment.now.year + (moment.now.date() >= date(moment.now.year, 3, 31))
    return _date(endpoint) <= date(last, 12, 31).isoformat()


def _statements(endpoint: Endpoint, moment: Moment) -> pl.Expr:
    """A first pass at 18:00 with what was disclosed by then, the rest at 24:30; Premium at once since 2026-06-08."""
    day, at = _date(endpoint), pl.col("DiscTime")
    flash = (day <= moment.through(18).isoformat()) & (at <= "18:00:00")
    visible = (day <= moment.through(24, 30).isoformat()) | flash
    if not moment.premium:
        return visible
    told = (day < moment.now.date().isoformat()) | (
        (day == moment.now.date().isoformat()) & (at <= moment.now.time().isoformat())
    )
    return visible | (told & (day >= STATEMENTS_AT_ONCE.isoformat()))


def _margin_interest(endpoint: Endpoint, moment: Moment) -> pl.Expr:
    """Weekly balances on the second business day after their Friday, daily ones on the next business day; 16:30."""
    weekly = _date(endpoint) <= moment.through(16, 30, lag=2).isoformat()
    every_day = _date(endpoint) <= moment.through(16, 30, lag=1).isoformat()
    return pl.when(_date(endpoint) < MARGIN_DAILY.isoformat()).then(weekly).otherwise(every_day)


def _dividend(endpoint: Endpoint, moment: Moment) -> pl.Expr:
    """On the hour from 12:00 to 19:00."""
    at = moment.now if moment.now.hour >= 12 else moment.now.replace(hour=23) - timedelta(days=1)
    hour, day = f"{min(at.hour, 19)}:00", at.date().isoformat()
    return (_date(endpoint) < day) | ((_date(endpoint) == day) & (pl.col("PubTime").str.slice(0, 5) <= hour))


RULES: dict[str, Rule] = {
    "/markets/calendar": _calendar,
    "/equities/master": daily(17, 30, lag=-1),
    "/equities/bars/daily": daily(16, 30),
    "/equities/bars/daily/am": daily(12),
    "/equities/bars/minute": daily(16, 30),
    "/equities/valuation": daily(16, 30),
    "/equities/investor-types": daily(16, 30),  # by PubDate, the 4th business day after the week
    "/equities/earnings-calendar": daily(19, lag=-1),
    "/fins/summary": _statements,
    "/fins/details": _statements,
    "/fins/dividend": _dividend,
    "/fins/earnings-date": daily(10, 5),
    "/markets/short-ratio": daily(16, 30),
    "/markets/short-sale-report": daily(17, 30),
    "/markets/margin-interest": _margin_interest,
    "/markets/margin-alert": daily(16, 30),
    "/markets/breakdown": daily(18),
    "/indices/bars/daily": daily(16, 30),
    "/indices/bars/daily/topix": daily(16, 30),
    "/derivatives/bars/daily/futures": daily(27),
    "/derivatives/bars/daily/options": daily(27),
    "/derivatives/bars/daily/options/225": daily(27),
}
"""Path -> rule. All times are Tokyo time and the vendor's usual ones; `through` reads the rows' own date column."""


def published(endpoint: Endpoint, moment: Moment) -> pl.Expr:
    """Condition on rows of `endpoint`, ISO dates as text: true where the row is out at `moment`."""
    return RULES[endpoint.path](endpoint, moment)
