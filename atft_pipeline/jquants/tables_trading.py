"""Declarations of the tables about who trades how: margin balances, short selling and the breakdown of turnover."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

import polars as pl
from jquantsapi import constants

from atft_pipeline.jquants.table import Table, typed

MARGIN_DAILY_SINCE = date(2026, 9, 25)
"""Margin balances have one date a week before, and every business day from here on."""

MARGIN_SESSIONS = 3
"""A week with fewer business days has no margin balance."""

_MARGIN = constants.MKT_MARGIN_INTEREST_COLUMNS_V2
_ALERT = constants.DAILY_MARGIN_INTEREST_COLUMNS_V2
_ALERT_TEXTS = ("Code", "PubReason", "TSEMrgnRegCls")
_ALERT_NUMBERS = [name for name in _ALERT if name not in ("PubDate", "AppDate", *_ALERT_TEXTS)]
_ALERT_MARKED = tuple(name for name in _ALERT_NUMBERS if name.endswith(("Chg", "Ratio")))
_REPORT = (
    "DiscDate CalcDate Code SSName SSAddr DICName DICAddr FundName ShrtPosToSO ShrtPosShares ShrtPosUnits "
    "PrevRptDate PrevRptRatio Notes"
)
_REPORT_TEXTS = "Code SSName SSAddr DICName DICAddr FundName Notes"

MARGIN_INTEREST = Table(
    name="margin_interest",
    path="/markets/margin-interest",
    keys=("Date", "Code"),
    date_column="Date",
    schema=typed("PubDate Date", "Code IssType", " ".join(_MARGIN[4:]), _MARGIN),
    plan="standard",
    unit="day",
    get=lambda client, first, last: client.get_mkt_margin_interest(date_yyyymmdd=first),
    availability=(
        "About 16:30 on the 2nd business day after Date (weekly, up to 2026-09-24); on PubDate, the next business day, "
        "since the balances turned daily on 2026-09-25. Shares are as counted on Date: no split is worked in."
    ),
    days="margin",
    dense=False,
    covers="master",
    among={"Mrgn": ("1", "2")},
    coverage=0.7,
    widths={"Code": 5},
    younger=("PubDate", *(name for name in _MARGIN if name.endswith("Val"))),
)
"""About 4,000 of the 4,200 issues with a margin category have a row; the vendor does not say which have none. A lost
page of three leaves two thirds."""

MARGIN_ALERT = Table(
    name="margin_alert",
    path="/markets/margin-alert",
    keys=("PubDate", "Code", "AppDate"),
    date_column="PubDate",
    schema=typed("PubDate AppDate", " ".join(_ALERT_TEXTS), " ".join(_ALERT_NUMBERS), _ALERT),
    plan="standard",
    unit="day",
    get=lambda client, first, last: client.get_mkt_margin_alert(date_yyyymmdd=first),
    availability="About 16:30 on PubDate; a correction is a further row, the same AppDate with a newer PubDate.",
    dense=False,
    revision="append",
    optional={f"{name}Mark": pl.String() for name in _ALERT_MARKED},
    widths={"Code": 5},
    marked=_ALERT_MARKED,
)
"""Changes are "-" where the issue was not published the day before, shares of what is listed "*" for funds. PubReason
is a nested object and kept as JSON text."""

SHORT_RATIO = Table(
    name="short_ratio",
    path="/markets/short-ratio",
    keys=("Date", "S33"),
    date_column="Date",
    schema=typed("Date", "S33", "SellExShortVa ShrtWithResVa ShrtNoResVa"),
    plan="standard",
    unit="day",
    get=lambda client, first, last: client.get_mkt_short_ratio(date_yyyymmdd=first),
    availability="About 16:30 on the trading day.",
    widths={"S33": 4},
)

SHORT_SALE_REPORT = Table(
    name="short_sale_report",
    path="/markets/short-sale-report",
    keys=("DiscDate", "CalcDate", "Code", "SSName", "FundName", "DICName"),
    date_column="DiscDate",
    schema=typed(
        "DiscDate CalcDate PrevRptDate",
        _REPORT_TEXTS,
        "ShrtPosToSO ShrtPosShares ShrtPosUnits PrevRptRatio",
        _REPORT.split(),
    ),
    plan="standard",
    unit="day",
    get=lambda client, first, last: client.get_mkt_short_sale_report(disclosed_date=first),
    availability="About 17:30 on DiscDate, mostly two business days after CalcDate.",
    dense=False,
    widths={"Code": 5},
)

BREAKDOWN = Table(
    name="breakdown",
    path="/markets/breakdown",
    keys=("Date", "Code"),
    date_column="Date",
    schema=typed("Date", "Code", " ".join(constants.MKT_BREAKDOWN_COLUMNS_V2[2:])),
    plan="premium",
    unit="day",
    get=lambda client, first, last: client.get_mkt_breakdown(date_yyyymmdd=first),
    availability="About 18:00 on the trading day. No rows for issues that did not trade.",
    widths={"Code": 5},
)

TRADING_TABLES = (MARGIN_INTEREST, MARGIN_ALERT, SHORT_RATIO, SHORT_SALE_REPORT, BREAKDOWN)


def margin_week_ends(open_days: Iterable[date], begins: date) -> frozenset[date]:
    """Last business day of each week that has a margin balance, from the calendar's business days.

    How many sessions the week of `begins` had, the calendar's first day, is unknown: its last day is kept.
    """
    weeks: dict[date, list[date]] = {}
    for day in open_days:
        weeks.setdefault(day - timedelta(days=day.weekday()), []).append(day)
    return frozenset(max(days) for monday, days in weeks.items() if len(days) >= MARGIN_SESSIONS or monday < begins)
