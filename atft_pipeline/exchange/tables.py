"""The endpoints: parameters and their rules, dates, codes, and which rows a valid request selects.

Rows stay on disk until a request needs their month, in columnar form, and a page is turned into JSON only when it is
asked for: ten years of the full market are served at once and within bounded memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa

from atft_pipeline.exchange.endpoints import STOCK_CODE, TABLES, Endpoint
from atft_pipeline.exchange.plans import Plan, Window
from atft_pipeline.exchange.storage import BlockCache, StoredTable

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
    """One table of the market folder, read from disk as requests need it."""

    def __init__(self, endpoint: Endpoint, stored: StoredTable) -> None:
        self.endpoint = endpoint
        self.stored = stored

    @property
    def columns(self) -> list[str]:
        return self.stored.columns

    def select(self, query: Query, window: Window) -> pl.DataFrame:
        """Rows of a valid request, never outside `window`. Raises `BadRequest` for a date that the plan lacks."""
        for day in (query.day, query.first, query.last):
            if day is not None and not window.covers(day):
                raise BadRequest(SUBSCRIPTION_MESSAGE.format(window=window))
        is_span = query.first is not None or query.last is not None
        if self.endpoint.table == "master" and not is_span:
            at = self._master_day(query.day, window)
            rows = self.stored.between(at, at) if at else self.stored.between(date.min, date.min)
        elif query.day is not None:
            rows = self.stored.between(query.day, query.day)
        else:
            first = max(filter(None, (query.first, window.first)), default=None)
            last = min(filter(None, (query.last, window.last)), default=None)
            if query.code is not None and "Code" in self.columns:
                rows = self.stored.of_code(query.code, first, last)
            else:
                rows = self.stored.between(first, last)
        if query.code is not None and "Code" in rows.columns:
            rows = rows.filter(pl.col("Code") == query.code)
        for column, value in query.filters:
            rows = rows.filter(pl.col(column) == value)
        if query.scheduled is not None:
            rows = _scheduled_for(rows, query.scheduled)
        return rows.sort(self.endpoint.order) if self.endpoint.order else rows

    def _master_day(self, day: date | None, window: Window) -> date | None:
        """The list of `day`; on a holiday the next business day's; without a date, or after the end, the latest."""
        newest = self.stored.day_until(window.last)
        if newest is None or day is None:
            return newest
        following = self.stored.day_from(day)
        return newest if following is None else min(following, newest)


def _scheduled_for(rows: pl.DataFrame, day: date) -> pl.DataFrame:
    """Earnings dates that are scheduled for `day` and were not moved since."""
    published = pl.col("PubDate").str.to_date()
    wait = (published.shift(-1).over("Code", "FQName", "FYE", order_by="PubDate") - published).dt.total_days()
    superseded = (wait < _SUPERSEDED_WITHIN).fill_null(False)
    return rows.filter((pl.col("SchDate") == day.isoformat()) & ~superseded)


def load_tables(market_dir: Path, plan: Plan) -> dict[str, ServedTable]:
    """Open the tables of the plan. Raises `MarketError` when the folder is incomplete."""
    cache = BlockCache()
    served = {}
    for name in sorted(plan.tables):
        path = market_dir / "tables" / f"{name}.parquet"
        if not path.is_file():
            raise MarketError(
                f"{path} is missing; remove {market_dir} and run `python -m atft_pipeline.exchange generate` again"
            )
        endpoint = TABLES[name]
        is_reduced = name == "bars_daily" and not plan.is_premium
        hidden = is_session_column if is_reduced else (lambda column: False)
        try:
            stored = StoredTable(path, endpoint.date_column, endpoint.order, hidden, cache)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise MarketError(f"{path} cannot be read ({error}); remove {market_dir} and generate it again") from error
        absent = [column for column in endpoint.keys if column not in stored.columns]
        if absent:
            raise MarketError(f"{path} lacks the column {', '.join(absent)}; generate the market again")
        served[name] = ServedTable(endpoint, stored)
    return served


def is_session_column(name: str) -> bool:
    """Whether a column of the daily bars belongs to the morning or afternoon session, which only Premium has."""
    return _SESSION_COLUMN.fullmatch(name) is not None
