"""`wm`: what is bought and sold on margin in the stock, once a week, as published.

The balances turned daily in September 2026. The windows go on counting weeks: of the daily rows those of a week's last
session are kept. Share counts are brought into split units on the day for which they were counted.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.companies import shares_outstanding
from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.records import days_of, in_first_row_units, in_order, listed_records
from atft_pipeline.features.tables import require_columns, required_table
from atft_pipeline.panel.asof import as_of
from atft_pipeline.panel.availability import TradingCalendar, next_trading_day, trading_days_after
from atft_pipeline.panel.operators import Array, divide, log, ts_lag, ts_zscore, where

STALE_AFTER, VALID_WITHIN = 15, 10
PUBLISHED_AFTER = 2
"""Trading days from the date of a weekly balance to its publication."""
LOT = 100.0
"""Shares added to both sides of a logarithm, so that an empty balance is not infinitely far from a small one."""
PREVIOUS_WEEK = (4, 18)
"""Calendar days between two records that count as neighbouring weeks: a week without a record may lie between."""

FIELDS = ("Code", "Date", "PubDate", "LongVol", "ShrtVol", "LongStdVol", "ShrtStdVol")


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel, table = inputs.panel, required_table(inputs.tables, "margin_interest")
    require_columns("margin_interest", table, FIELDS)
    rows, stock = listed_records("margin_interest", table, panel.axes)
    weekly = is_weekly(rows, panel.calendar)
    rows, stock = rows.filter(pl.Series(weekly)), stock[weekly]
    day = days_of(rows["Date"])
    records = in_order(stock, day, len(panel.axes.codes))
    long, short, long_std, short_std = (in_first_row_units(rows[n], panel, stock, rows["Date"]) for n in FIELDS[3:])

    def before(values: NDArray[np.generic], weeks: int) -> Array:
        return records.of(ts_lag(records.dense(values), weeks))

    gap = day.astype(np.float64) - before(day.astype(np.float64), 1)
    neighbours = np.where((gap >= PREVIOUS_WEEK[0]) & (gap <= PREVIOUS_WEEK[1]), 1.0, np.nan)
    joined = as_of(available_on(rows, panel.calendar), stock, panel.axes, order=[rows["Date"]])
    shares, adv = shares_outstanding(panel, required_table(inputs.tables, "fin_summary")), panel.volume_20

    def known(values: Array) -> Array:
        return joined.take(values, STALE_AFTER)

    def column(values: Array) -> NDArray[np.float32]:
        return joined.column(values, STALE_AFTER)

    yield "wm_long_to_adv20", divide(known(long), adv)
    yield "wm_short_to_adv20", divide(known(short), adv)
    yield "wm_net_to_adv20", divide(known(long - short), adv)
    yield "wm_long_to_shares", divide(known(long), shares)
    yield "wm_short_to_shares", divide(known(short), shares)
    yield "wm_ratio_log", column(log(divide(long + LOT, short + LOT)))
    yield "wm_imbalance", column(divide(long - short, long + short))
    yield "wm_long_chg_1w", divide(known((long - before(long, 1)) * neighbours), 5 * adv)
    yield "wm_short_chg_1w", divide(known((short - before(short, 1)) * neighbours), 5 * adv)
    yield "wm_long_chg_4w", column(log(divide(long + LOT, before(long, 4) + LOT)))
    yield "wm_long_z52", column(records.of(ts_zscore(records.dense(np.log1p(long)), 52, 26)))
    yield "wm_short_z52", column(records.of(ts_zscore(records.dense(np.log1p(short)), 52, 26)))
    yield "wm_std_share_long", column(divide(long_std, long))
    yield "wm_std_share_short", column(divide(short_std, short))
    staleness = where(joined.index >= 0, joined.staleness_td)
    yield "wm_staleness_td", staleness
    yield "wm_valid", where(staleness <= VALID_WITHIN, 1.0, 0.0)


def is_weekly(rows: pl.DataFrame, calendar: TradingCalendar) -> NDArray[np.bool_]:
    """The record is one of the weekly ones, or a daily one (it has a publication date) of its week's last session."""
    day = days_of(rows["Date"])
    monday = day - (day.astype("datetime64[D]").view("int64") + 3) % 7
    ends_week = next_trading_day(day, calendar) - monday >= np.timedelta64(7, "D")
    return rows["PubDate"].is_null().to_numpy() | ends_week


def available_on(rows: pl.DataFrame, calendar: TradingCalendar) -> NDArray[np.datetime64]:
    """The trading day after the publication: PubDate where given, else two trading days after the date."""
    published = days_of(rows["PubDate"])
    weekly = np.isnat(published)
    result = np.empty(len(published), "datetime64[D]")
    result[~weekly] = next_trading_day(published[~weekly], calendar)
    result[weekly] = trading_days_after(days_of(rows["Date"])[weekly], PUBLISHED_AFTER + 1, calendar)
    return result


_CS, _STALE = "cross_section", "null when wm_staleness_td > 15"
COLUMNS = (
    Column("wm_long_to_adv20", "f32", "L/mean20(v), L = long balance", "20/10", "null if mean 0", _CS),
    Column("wm_short_to_adv20", "f32", "S/mean20(v), S = short balance", "20/10", "null if mean 0", _CS),
    Column("wm_net_to_adv20", "f32", "(L - S)/mean20(v)", "20/10", "null if mean 0", _CS),
    Column("wm_long_to_shares", "f32", "L/shares outstanding", "", "null if shares unknown", _CS),
    Column("wm_short_to_shares", "f32", "S/shares outstanding", "", "null if shares unknown", _CS),
    Column("wm_ratio_log", "f32", "ln((L + 100)/(S + 100))", "", _STALE, _CS),
    Column("wm_imbalance", "f32", "(L - S)/(L + S)", "", "null if L + S = 0", _CS),
    Column("wm_long_chg_1w", "f32", "(L - L of the record before)/(5 mean20(v))", "20/10", "one 4-18 days before", _CS),
    Column(
        "wm_short_chg_1w", "f32", "(S - S of the record before)/(5 mean20(v))", "20/10", "one 4-18 days before", _CS
    ),
    Column("wm_long_chg_4w", "f32", "ln((L + 100)/(L four records ago + 100))", "4 weeks", _STALE, _CS),
    Column("wm_long_z52", "f32", "z of ln(1 + L)", "52/26 weeks", "null if sd 0", _CS),
    Column("wm_short_z52", "f32", "z of ln(1 + S)", "52/26 weeks", "null if sd 0", _CS),
    Column("wm_std_share_long", "f32", "standardised part of L", "", "null if L = 0", _CS),
    Column("wm_std_share_short", "f32", "standardised part of S", "", "null if S = 0", _CS),
    Column("wm_staleness_td", "i16", "trading days since the newest record became usable", "", "null if never", "time"),
    Column("wm_valid", "i8", "wm_staleness_td <= 10", "", "0", "flag"),
)

GROUP = Group(
    name="wm",
    tier="standard",
    tables=("calendar", "master", "bars_daily", "fin_summary", "margin_interest"),
    availability="the trading day after PubDate; the 3rd trading day after Date where there is none",
    columns=COLUMNS,
    compute=compute,
    reads={"margin_interest": FIELDS},
)
