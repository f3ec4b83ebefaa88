"""The raw tables, declared once each: endpoint, keys, typed schema, plan, fetch unit, availability and row rules.

Column meanings follow the official v2 specification pages. Everything that ingestion, checks and docs say about a raw
table is derived from here; nothing here does any I/O.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import polars as pl
from jquantsapi import constants

from atft_pipeline.jquants.table import Table, typed
from atft_pipeline.jquants.tables_events import EVENT_TABLES
from atft_pipeline.jquants.tables_trading import TRADING_TABLES

if TYPE_CHECKING:
    pass

OUTAGE_DAYS = frozenset({date(2020, 10, 1)})
"""Business days on which the exchange could not open: bars are all null, index values may be absent."""

BUSINESS = ("1", "2")
"""HolDiv of a day with a stock session; 2 is a half day. 3 has derivatives trading only."""

_SESSION = "O H L C UL LL Vo Va AdjO AdjH AdjL AdjC AdjVo"
_BARS = "Date Code O H L C UL LL Vo Va AdjFactor AdjO AdjH AdjL AdjC AdjVo MktCap ExRT"
_STATEMENT_DATES = "DiscDate CurPerSt CurPerEn CurFYSt CurFYEn NxtFYSt NxtFYEn"
_STATEMENT_TEXTS = "DiscTime Code DiscNo DocType CurPerType MatChgSub SigChgInC ChgByASRev ChgNoASRev ChgAcEst RetroRst"
_STATEMENT_NUMBERS = " ".join(
    name
    for name in constants.FIN_SUMMARY_COLUMNS_V2
    if name not in _STATEMENT_DATES.split() and name not in _STATEMENT_TEXTS.split()
)
_FLOW_NUMBERS = " ".join(constants.EQ_INVESTOR_TYPES_COLUMNS_V2[4:])

CALENDAR = Table(
    name="calendar",
    path="/markets/calendar",
    keys=("Date",),
    date_column="Date",
    schema=typed("Date", "HolDiv", ""),
    plan="free",
    unit="all",
    get=lambda client, first, last: client.get_mkt_calendar(from_yyyymmdd=first, to_yyyymmdd=last),
    availability="Known in advance; the next year is added around the end of March.",
    days="calendar",
)

MASTER = Table(
    name="master",
    path="/equities/master",
    keys=("Date", "Code"),
    date_column="Date",
    schema=typed("Date", " ".join(constants.EQ_MASTER_COLUMNS_V2[1:]), ""),
    plan="free",
    unit="day",
    get=lambda client, first, last: client.get_eq_master(date=first),
    availability="About 17:30 for the next business day, refreshed about 08:00 on the day itself.",
    widths={"Code": 5, "S33": 4, "Mkt": 4},
)

BARS_DAILY = Table(
    name="bars_daily",
    path="/equities/bars/daily",
    keys=("Date", "Code"),
    date_column="Date",
    schema=typed(
        "Date",
        "Code UL LL ExRT",
        "O H L C Vo Va AdjFactor AdjO AdjH AdjL AdjC AdjVo MktCap",
        _BARS.split(),
    ),
    plan="free",
    unit="day",
    get=lambda client, first, last: client.get_eq_bars_daily(date_yyyymmdd=first),
    availability="About 16:30 on the trading day. AdjO to AdjVo are rewritten back to the oldest row at every split.",
    covers="master",
    optional={
        half + name: pl.String() if name in ("UL", "LL") else pl.Float64() for half in "MA" for name in _SESSION.split()
    },
    widths={"Code": 5},
)

TOPIX = Table(
    name="topix",
    path="/indices/bars/daily/topix",
    keys=("Date",),
    date_column="Date",
    schema=typed("Date", "", "O H L C"),
    plan="light",
    unit="month",
    get=lambda client, first, last: client.get_idx_bars_daily_topix(from_yyyymmdd=first, to_yyyymmdd=last),
    availability="About 16:30 on the trading day.",
)

INDICES = Table(
    name="indices",
    path="/indices/bars/daily",
    keys=("Date", "Code"),
    date_column="Date",
    schema=typed("Date", "Code", "O H L C"),
    plan="standard",
    unit="day",
    get=lambda client, first, last: client.get_idx_bars_daily(date_yyyymmdd=first),
    availability="About 16:30 on the trading day.",
    widths={"Code": 4},
)

FIN_SUMMARY = Table(
    name="fin_summary",
    path="/fins/summary",
    keys=("DiscDate", "Code", "DiscNo"),
    date_column="DiscDate",
    schema=typed(_STATEMENT_DATES, _STATEMENT_TEXTS, _STATEMENT_NUMBERS, constants.FIN_SUMMARY_COLUMNS_V2),
    plan="free",
    unit="day",
    get=lambda client, first, last: client.get_fin_summary_cursor(date_yyyymmdd=first)[0],
    availability="At DiscDate and DiscTime; the service has it from about 18:00, final about 24:30.",
    days="calendar",  # companies disclose on weekends too, and the endpoint takes no range
    dense=False,
    widths={"Code": 5},
    given=("DocType",),
)

INVESTOR_TYPES = Table(
    name="investor_types",
    path="/equities/investor-types",
    keys=("PubDate", "Section", "StDate"),
    date_column="PubDate",
    schema=typed("PubDate StDate EnDate", "Section", _FLOW_NUMBERS, constants.EQ_INVESTOR_TYPES_COLUMNS_V2),
    plan="light",
    unit="month",
    get=lambda client, first, last: client.get_eq_investor_types(from_yyyymmdd=first, to_yyyymmdd=last),
    availability="About 16:30 on PubDate, the 4th business day after the week; corrections are appended rows.",
    days="calendar",
    dense=False,
    revision="append",
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        CALENDAR, MASTER, BARS_DAILY, TOPIX, INDICES, FIN_SUMMARY, INVESTOR_TYPES,
        *TRADING_TABLES,
        *EVENT_TABLES,
    )
}  # fmt: skip


def partition_path(table: Table, month: str = "") -> str:
    """Where a month of `table` lies below the lake's root: `raw/bars_daily/2024-05.parquet`."""
    return f"raw/{table.name}/{month or 'all'}.parquet"
