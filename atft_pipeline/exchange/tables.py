"""The endpoints: parameters and their rules, dates, codes, and which rows a valid request selects.

Rows stay in columnar form and a page is turned into JSON only when it is asked for, so that ten years of the full
market load in seconds and a day of 200 rows costs a fraction of a millisecond.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from atft_pipeline.exchange.endpoints import STOCK_CODE, TABLES, Endpoint
from atft_pipeline.exchange.plans import Plan, Window

SUBSCRIPTION_MESSAGE = (
    "Your subscription covers the following dates: {window}. "
    "If you want more data, please check other plans:https://jpx-jquants.com/#dataset"
)
_SUPERSEDED_WITHIN = 150
"""Days in which a later row of the same company and quarter is a change of date, not next year's announcement."""
_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")
_SESSION_COLUMN = re.compile(r"[MA](O|H|L|C|UL|LL|Vo|Va|Adj(O|H|L|C|Vo))")
"""Morning and afternoon columns of the daily bars."""


class BadRequest(ValueError):
    """The API answers 400 with this text."""


class MarketError(RuntimeError):
    """The market folder cannot be served; the text names the file and the remedy."""


@dataclass(frozen=True)
class Query:
    """A request's parameters after validation."""

    day: date | None = None
    first: date | None = None
    last: date | None = None
    code: str | None = None
    scheduled: date | None = None
    """The day for which an earnings date must be scheduled at present."""
    filters: tuple[tuple[str, str], ...] = ()
    """(column, value) pairs."""

    def touches(self, day: date) -> bool:
        """Whether `day` is the requested day or lies in the requested range; a range needs at least one end."""
        if self.day is not None:
            return day == self.day
        if self.first is None and self.last is None:
            return False
        return (self.first is None or day >= self.first) and (self.last is None or day <= self.last)


def parse_query(endpoint: Endpoint, params: Mapping[str, str]) -> Query:
    """Check `params` as the API does; raises `BadRequest`. Unknown and empty parameters are ignored."""
    given = {name: text for name, text in params.items() if text}
    if endpoint.required and not any(name in given for name in endpoint.required):
        names = ",".join(f"'{name}'" for name in endpoint.required)
        raise BadRequest(f"This API requires at least 1 parameter as follows; {names}.")
    if endpoint.exclusive and sum(name in given for name in endpoint.required) > 1:
        raise BadRequest(f"Exactly one of {', '.join(endpoint.required)} must be specified.")
    accepted = {name: text for name, text in given.items() if name in endpoint.params}
    on, since, until = endpoint.dates
    days = {name: _parse_date(name, accepted[name]) for name in endpoint.dates if name in accepted}
    for name in endpoint.lone:
        if name in given and days:
            raise BadRequest(f"'{name}' cannot be combined with '{on}', '{since}' or '{until}'.")
    day = days.get(on)
    first, last = (None, None) if day else (days.get(since), days.get(until))
    if first and last and first > last:
        raise BadRequest(f"'{since}' must not be later than '{until}'.")
    code = _parse_code(endpoint, accepted["code"]) if "code" in accepted else None
    if endpoint.range_needs_code and code is None and (first or last):
        raise BadRequest(f"'{since}' and '{until}' need 'code'.")
    filters = _parse_filters(endpoint, given)
    filters += [
        (column, _parse_date(name, given[name]).isoformat())
        for name, column in endpoint.date_filters.items()
        if name in given
    ]
    scheduled = accepted.get("scheduled_date")
    return Query(
        day, first, last, code, _parse_date("scheduled_date", scheduled) if scheduled else None, tuple(filters)
    )


def _parse_date(name: str, text: str) -> date:
    match = _DATE.fullmatch(text)
    try:
        if match is None or text.count("-") == 1:
            raise ValueError(text)
        return date(*(int(part) for part in match.groups()))
    except ValueError:
        raise BadRequest(f"'{name}' must be an existing date in YYYYMMDD or YYYY-MM-DD format.") from None


def _parse_code(endpoint: Endpoint, text: str) -> str:
    if not endpoint.code.fullmatch(text):
        raise BadRequest("'code' has an invalid format.")
    is_short_stock_code = endpoint.code is STOCK_CODE and len(text) == 4
    return text + "0" if is_short_stock_code else text


def _parse_filters(endpoint: Endpoint, given: Mapping[str, str]) -> list[tuple[str, str]]:
    pairs = []
    for name, (column, allowed) in endpoint.filters.items():
        if name not in given:
            continue
        if allowed and given[name] not in allowed:
            raise BadRequest(f"'{name}' must be one of {', '.join(allowed)}.")
        pairs.append((column, given[name]))
    return pairs


class ServedTable:
    """One table in memory, ordered by date, with the row range of every date."""

    def __init__(self, endpoint: Endpoint, frame: pl.DataFrame) -> None:
        self.endpoint = endpoint
        ordered = frame.sort(endpoint.date_column, *endpoint.order, maintain_order=True)
        sizes = ordered.group_by(endpoint.date_column, maintain_order=True).len()
        self.frame = ordered
        self.days = [date.fromisoformat(text) for text in sizes[endpoint.date_column]]
        self._starts = [0, *sizes["len"].cum_sum().to_list()]

    def select(self, query: Query, window: Window) -> pl.DataFrame:
        """Rows of a valid request, never outside `window`. Raises `BadRequest` for a date that the plan lacks."""
        for day in (query.day, query.first, query.last):
            if day is not None and not window.covers(day):
                raise BadRequest(SUBSCRIPTION_MESSAGE.format(window=window))
        if self.endpoint.table == "master":
            rows = self._master_on(query.day, window)
        elif query.day is not None:
            rows = self._between(query.day, query.day)
        else:
            first = max(filter(None, (query.first, window.first)), default=None)
            last = min(filter(None, (query.last, window.last)), default=None)
            rows = self._between(first, last)
        if query.code is not None and "Code" in rows.columns:
            rows = rows.filter(pl.col("Code") == query.code)
        for column, value in query.filters:
            rows = rows.filter(pl.col(column) == value)
        if query.scheduled is not None:
            rows = _scheduled_for(rows, query.scheduled)
        return rows.sort(self.endpoint.order) if self.endpoint.order else rows

    def _between(self, first: date | None, last: date | None) -> pl.DataFrame:
        low = 0 if first is None else bisect_left(self.days, first)
        high = len(self.days) if last is None else bisect_right(self.days, last)
        return self.frame.slice(self._starts[low], max(0, self._starts[max(low, high)] - self._starts[low]))

    def _master_on(self, day: date | None, window: Window) -> pl.DataFrame:
        """The list of `day`; on a holiday the next business day's; without a date, or after the end, the latest."""
        newest = (len(self.days) if window.last is None else bisect_right(self.days, window.last)) - 1
        if newest < 0:
            return self.frame.head(0)
        at = newest if day is None else min(bisect_left(self.days, day), newest)
        return self._between(self.days[at], self.days[at])


def _scheduled_for(rows: pl.DataFrame, day: date) -> pl.DataFrame:
    """Earnings dates that are scheduled for `day` and were not moved since."""
    published = pl.col("PubDate").str.to_date()
    wait = (published.shift(-1).over("Code", "FQName", "FYE", order_by="PubDate") - published).dt.total_days()
    superseded = (wait < _SUPERSEDED_WITHIN).fill_null(False)
    return rows.filter((pl.col("SchDate") == day.isoformat()) & ~superseded)


def load_tables(market_dir: Path, plan: Plan) -> dict[str, ServedTable]:
    """Read the tables of the plan. Raises `MarketError` when the folder is incomplete."""
    served = {}
    for name in sorted(plan.tables):
        path = market_dir / "tables" / f"{name}.parquet"
        if not path.is_file():
            raise MarketError(
                f"{path} is missing; remove {market_dir} and run `python -m atft_pipeline.exchange generate` again"
            )
        try:
            frame = pl.read_parquet(path)
        except pl.exceptions.PolarsError as error:
            raise MarketError(f"{path} cannot be read ({error}); remove {market_dir} and generate it again") from error
        endpoint = TABLES[name]
        absent = [column for column in endpoint.keys if column not in frame.columns]
        if absent:
            raise MarketError(f"{path} lacks the column {', '.join(absent)}; generate the market again")
        if name == "bars_daily" and not plan.is_premium:
            frame = frame.drop([column for column in frame.columns if _SESSION_COLUMN.fullmatch(column)])
        served[name] = ServedTable(endpoint, frame)
    return served
