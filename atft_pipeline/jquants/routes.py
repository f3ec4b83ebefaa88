"""How each table is asked for, and which way is the cheapest: decided here and nowhere else (docs/ingestion.md).

A way is an API call per day, one call for a whole span, one call per sector for a whole span, or bulk files (one a
month for past months, one a day in the running month). The cost of a way is its number of requests; on equal cost the
earlier one of `Way` wins, as bulk files carry a sign of later corrections. Routes are keyed by endpoint path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from jquantsapi import constants

from atft_pipeline.jquants.plans import Plan
from atft_pipeline.jquants.table import Table

if TYPE_CHECKING:
    import pandas as pd
    from jquantsapi import ClientV2

PAGE_ROWS = 1500
"""Rows of one page: not documented; a full-market day of bars (about 4,200 rows) takes three pages of this size."""

SECTORS = tuple(code for code, *_ in constants.SECTOR_33_DATA)


class Way(StrEnum):
    BULK = "bulk files"
    SPAN = "one span"
    SECTOR = "by sector"
    DAY = "by date"


@dataclass(frozen=True)
class Route:
    """What a table's endpoint offers, and how its rows are corrected.

    `rows`: of a full-market day. `revisit`: newest stored days (of those asked for) that a later run reads again.
    `restated`: columns that the service recomputes without news (adjusted prices after a split).
    """

    rows: int
    revisit: int = 5
    bulk: bool = True
    span: bool = False
    sector: Callable[[ClientV2, str, str, str], pd.DataFrame] | None = None
    restated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Need:
    """What is to be read: days (those read again included), whole months among them that lie in the past, and new days
    of other months. A day read again costs no bulk request unless its file was overwritten."""

    days: int
    past_months: int = 0
    open_days: int = 0


ADJUSTED = tuple(half + name for half in ("", "M", "A") for name in ("AdjO", "AdjH", "AdjL", "AdjC", "AdjVo"))

ROUTES: Mapping[str, Route] = {
    "/equities/master": Route(rows=4450),
    "/equities/bars/daily": Route(rows=4250, restated=ADJUSTED),
    "/equities/valuation": Route(rows=4250, revisit=10),
    "/equities/investor-types": Route(rows=1, revisit=10, span=True),
    "/indices/bars/daily/topix": Route(rows=1, span=True),
    "/indices/bars/daily": Route(rows=80),
    "/fins/summary": Route(rows=100, revisit=10),
    "/fins/details": Route(rows=100, revisit=10),
    "/fins/dividend": Route(rows=50, revisit=10),
    "/fins/earnings-date": Route(rows=150),
    "/markets/short-ratio": Route(
        rows=34,
        sector=lambda client, s33, first, last: client.get_mkt_short_ratio(
            sector_33_code=s33, from_yyyymmdd=first, to_yyyymmdd=last
        ),
    ),
    "/markets/short-sale-report": Route(rows=335, revisit=10),
    "/markets/margin-interest": Route(rows=4200, revisit=7),
    "/markets/margin-alert": Route(rows=300, revisit=7),
    "/markets/breakdown": Route(rows=4000),
    "/derivatives/bars/daily/options/225": Route(rows=3500, revisit=3),
    "/derivatives/bars/daily/futures": Route(rows=200, revisit=3),
    "/derivatives/bars/daily/options": Route(rows=6000, revisit=3),
}
PLAIN = Route(rows=PAGE_ROWS, bulk=False)
"""Of an endpoint that is not listed: by date, as its declaration says."""


def route_of(table: Table) -> Route:
    return ROUTES.get(table.path, PLAIN)


def has_bulk(table: Table, plan: Plan) -> bool:
    """Bulk files come with every paid plan."""
    return route_of(table).bulk and plan.includes("light")


def cost(way: Way, table: Table, need: Need) -> int:
    """Requests of one way."""
    route = route_of(table)
    pages = max(1, math.ceil(route.rows / PAGE_ROWS))
    if way is Way.BULK:
        return 1 + need.past_months + need.open_days
    if way is Way.SPAN:
        return max(1, math.ceil(need.days * route.rows / PAGE_ROWS))
    if way is Way.SECTOR:
        # One more, by date: the check that the list of sectors is whole.
        return 1 + len(SECTORS) * max(1, math.ceil(need.days / PAGE_ROWS))
    return need.days * pages


def cheapest(table: Table, plan: Plan, need: Need, *, bulk: bool = True) -> Way:
    """The way with the fewest requests that the plan and the endpoint allow; `bulk` False leaves files out."""
    route = route_of(table)
    ways: Sequence[tuple[Way, bool]] = (
        (Way.BULK, bulk and has_bulk(table, plan)),
        (Way.SPAN, route.span),
        (Way.SECTOR, route.sector is not None),
        (Way.DAY, table.unit == "day"),
    )
    allowed = [way for way, is_open in ways if is_open]
    return min(allowed or [Way.DAY], key=lambda way: cost(way, table, need))
