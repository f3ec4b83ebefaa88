"""When companies say that they will report: announced dates, dates left open, and changes of dates.

The last date said before a report is the date on which it comes out (see `filings.py`), so the schedule agrees with
/fins/summary.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.accounts import Ints
from atft_pipeline.exchange.disclosures import accounts_of
from atft_pipeline.exchange.drawing import Market
from atft_pipeline.exchange.filings import due_days
from atft_pipeline.exchange.tokyo_calendar import business_days

if TYPE_CHECKING:
    from atft_pipeline.exchange.sources import SpanTable

COLUMNS = ("PubDate", "SchDate", "FQName", "FYE", "Code", "CoName", "CoNameEn")

_UNDECIDED, _MOVED = 0.03, 0.07
"""Shares of the announcements without a date, and with a date that changes."""
_LATEST_NOTICE = 14
"""Days after the end of a quarter by which its date is announced."""
_AHEAD = timedelta(days=200)

Bools = NDArray[np.bool_]


def earnings_dates(market: Market) -> SpanTable:
    """The schedule of every result that is due from the first day to some weeks after the last."""
    rng = np.random.default_rng([market.size.seed, 51])
    accounts = accounts_of(market)
    days = np.array(
        [*market.business, *business_days(market.size.end + timedelta(days=1), market.size.end + _AHEAD)],
        dtype="datetime64[D]",
    )
    shape = accounts.quarter_end.shape
    told = np.searchsorted(days, due_days(accounts, market.size.seed), side="right") - 1
    wanted = accounts.quarter_end + rng.integers(2, _LATEST_NOTICE + 1, shape).astype("timedelta64[D]")
    first = np.searchsorted(days, wanted)
    fate, luck = rng.random(shape), rng.random(shape)
    moved_from = np.maximum(told + rng.choice([-5, -3, -2, -1, 1, 2, 5], shape), first + 2)
    undecided = fate < _UNDECIDED
    moved = ~undecided & (fate < _UNDECIDED + _MOVED) & (moved_from != told) & (moved_from < len(days))
    latest = np.where(moved, np.minimum(told, moved_from), told)
    change = first + 1 + np.floor(luck * np.maximum(latest - first - 1, 0)).astype(np.int64)
    changes = (undecided | moved) & (change < latest)
    issue = np.broadcast_to(np.arange(shape[0])[:, None], shape)
    universe = market.universe

    def published(place: Ints) -> Bools:
        listed = (place >= universe.first[issue]) & (place < universe.last[issue])
        return listed & universe.common[issue] & (place < len(market.business))

    known = (wanted >= days[0]) & (first < told)
    opening = known & published(first)
    correcting = known & changes & published(change)
    planned = np.where(moved & changes, moved_from, told)
    fields = [
        _rows(market, accounts.quarter_end, opening, first, np.where(undecided & changes, -1, planned), days),
        _rows(market, accounts.quarter_end, correcting, change, told, days),
    ]
    table = pl.concat(fields).sort("PubDate", "Code", "FQName", "FYE")

    def rows(begin: date, end: date) -> pl.DataFrame:
        return table.filter(pl.col("PubDate").is_between(pl.lit(begin.isoformat()), pl.lit(end.isoformat())))

    return rows


def _rows(
    market: Market,
    quarter_end: NDArray[np.datetime64],
    where: Bools,
    published: Ints,
    scheduled: Ints,
    days: NDArray[np.datetime64],
) -> pl.DataFrame:
    """One row per announcement in `where`; a negative `scheduled` is a date left open."""
    issue, quarter = np.nonzero(where)
    names = market.universe
    year_end = quarter_end[issue, quarter // 4 * 4 + 3]
    texts = np.datetime_as_string(days)
    place = scheduled[where]
    return pl.DataFrame(
        {
            "PubDate": texts[published[where]].astype(str),
            "SchDate": np.where(place < 0, "", texts[np.maximum(place, 0)]).astype(str),
            "FQName": np.array(["1Q", "2Q", "3Q", "FY"])[quarter % 4],
            "FYE": [str(day)[5:].replace("-", "") for day in year_end],
            "Code": np.array(names.codes)[issue],
            "CoName": pl.Series(names.names).gather(issue),
            "CoNameEn": pl.Series(names.english).gather(issue),
        },
        schema_overrides=dict.fromkeys(COLUMNS, pl.String),
    ).select(COLUMNS)
