"""`div`: dividends as announced by each day, their ex-dates ahead and behind, and how they were revised.

An ex-date that is already announced may lie in the future; a notice that comes later is not known. Amounts are per
share of the panel's first day, like adjusted prices, so no split breaks a yield.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.dividend_notices import read_notices
from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.tables import required_table
from atft_pipeline.panel.asof import as_of
from atft_pipeline.panel.availability import trading_position
from atft_pipeline.panel.operators import (
    Array,
    divide,
    elementwise,
    gather,
    largest_over_rows,
    nearest_over_rows,
    sum_over_rows,
    ts_cumsum,
    ts_sum,
    where,
)
from atft_pipeline.panel.panel import Panel

AHEAD_DAYS, YEAR_DAYS, TWO_YEARS_DAYS = 370, 365, 730
"""Calendar days over which dividends are summed."""
YEAR_ROWS = 245
"""Listed rows that count as a year of a code's history."""
EX_CAP, STALENESS_CAP = 250, 500
REVISION_DAYS, COUNT_DAYS = 60, 240
VALID_WITHIN = 250
NEAR_DAYS = 5

Days = NDArray[np.datetime64]


@dataclass(frozen=True)
class Known:
    """What the versions known on each day add up to, [T, N]. Ex-dates are days since 1970, NaN where there is none."""

    ahead: Array
    """Sum of the known amounts with an ex-date in the next 370 days; NaN where none is known."""
    last_year: Array
    year_before: Array
    next_ex: Array
    next_amount: Array
    """Amount of the nearest ex-date ahead; NaN where it is undetermined."""
    next_special: NDArray[np.bool_]
    last_ex: Array


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    notices = read_notices(required_table(inputs.tables, "dividend"), panel)
    newest = as_of(notices["available"], notices["stock"], panel.axes)
    known = _known_each_day(notices, panel)
    to_ex = _trading_days_between(panel, known.next_ex, ahead=True)
    since_ex = _trading_days_between(panel, known.last_ex, ahead=False)
    seen = ts_cumsum(where(panel.axes.listed, 1.0))
    waited = _days_since_first_notice(notices, panel)
    trailing = elementwise(_if_a_year_is_known, known.last_year, seen, waited)
    staleness = elementwise(
        lambda event, days: np.where(event >= 0, np.minimum(days, STALENESS_CAP), STALENESS_CAP),
        newest.index, newest.staleness_td,
    )  # fmt: skip

    yield "div_yield_fwd", divide(known.ahead, panel.c)
    yield "div_yield_ttm", divide(trailing, panel.c)
    yield "div_next_yield", divide(known.next_amount, panel.c)
    yield "div_td_to_ex", to_ex
    yield "div_td_since_ex", since_ex
    yield "div_pre_ex_5", elementwise(_is_near, to_ex)
    yield "div_is_ex", elementwise(lambda days: days == 0, since_ex)
    yield "div_post_ex_5", elementwise(_is_near, since_ex)
    yield "div_is_special", where(known.next_special, 1.0, 0.0)
    yield "div_rev", where(newest.index >= 0, _recent_revision(notices, panel))
    yield "div_rev_net_cnt_240", ts_sum(_revision_signs(notices, panel), COUNT_DAYS, 1)
    yield "div_growth_yoy", elementwise(_growth, known.last_year, known.year_before, seen, waited)
    yield "div_staleness_td", staleness
    yield "div_valid", where(staleness <= VALID_WITHIN, 1.0, 0.0)


def _if_a_year_is_known(amount: Array, seen: Array, waited: Array) -> Array:
    return np.where((seen >= YEAR_ROWS) | (waited >= YEAR_DAYS) | (amount > 0), amount, np.nan)


def _growth(last_year: Array, before: Array, seen: Array, waited: Array) -> Array:
    known = (seen >= 2 * YEAR_ROWS) | (waited >= TWO_YEARS_DAYS)
    return np.where(known, divide(2 * (last_year - before), last_year + before), np.nan)


def _is_near(days: Array) -> NDArray[np.bool_]:
    return (days >= 1) & (days <= NEAR_DAYS)


def _known_each_day(notices: pl.DataFrame, panel: Panel) -> Known:
    """Lay every version over the rows in which it counts.

    Versions are taken in the order in which they became known: a later one moves no earlier row's last digit.
    """
    axes, shape = panel.axes, panel.axes.shape
    versions = notices.filter(~pl.col("deleted") & pl.col("ex").is_not_null() & (pl.col("row") < pl.col("until")))
    ex = versions["ex"].to_numpy().astype("datetime64[D]").astype(np.int64)
    stock, row, until = (versions[name].to_numpy().astype(np.int64) for name in ("stock", "row", "until"))
    amount, special = versions["amount"].fill_null(np.nan).to_numpy(), versions["is_special"].to_numpy()
    soon, on, year, two = (
        axes.first_row_from((ex + gap).astype("datetime64[D]")) for gap in (-AHEAD_DAYS, 0, YEAR_DAYS, TWO_YEARS_DAYS)
    )
    paid = np.isfinite(amount)

    def total(first: NDArray[np.int64], end: NDArray[np.int64], empty: float = 0.0) -> Array:
        rows = (np.maximum(row, first)[paid], np.minimum(until, end)[paid])
        return sum_over_rows(*rows, stock[paid], amount[paid], shape, empty)

    nearest = nearest_over_rows(row, np.minimum(until, on), stock, ex, amount, special, shape)
    return Known(
        ahead=total(soon, on, np.nan),
        last_year=total(on, year),
        year_before=total(year, two),
        next_ex=nearest[0],
        next_amount=nearest[1],
        next_special=nearest[2] == 1,
        last_ex=largest_over_rows(np.maximum(row, on), until, stock, ex, shape),
    )


def _trading_days_between(panel: Panel, ex: Array, *, ahead: bool) -> Array:
    """Trading days to an ex-date ahead, or since one behind, up to the cap; the cap where there is none.

    An ex-date beyond the calendar's end has a distance too, or the newest rows would know less than older ones did.
    """
    if np.isnan(ex).all():
        return np.full(ex.shape, float(EX_CAP))
    days, first = panel.calendar.days, int(np.nanmin(ex))
    dated = np.arange(first, int(np.nanmax(ex)) + 1).astype("datetime64[D]")
    position = trading_position(dated, days).astype(np.float64)
    if not ahead:
        position[dated < days[0]] = np.nan
    there = gather(position, np.where(np.isnan(ex), -1, ex - first).astype(np.int32))
    here = np.searchsorted(days, panel.axes.dates).astype(np.float64)[:, None]
    return elementwise(lambda a, b: np.fmin(a - b, EX_CAP), *((there, here) if ahead else (here, there)))


def _days_since_first_notice(notices: pl.DataFrame, panel: Panel) -> Array:
    """Calendar days from a code's first known notice: how far back its dividends are known, if longer than its rows."""
    first = notices.group_by("stock").agg(pl.col("available", "PubDate").min()).sort("stock")
    joined = as_of(first["available"], first["stock"], panel.axes)
    days = panel.axes.dates.astype(np.int64)[:, None]
    published = first["PubDate"].to_numpy().astype("datetime64[D]").astype(np.int64)
    return elementwise(np.subtract, days, joined.take(published))


def _recent_revision(notices: pl.DataFrame, panel: Panel) -> Array:
    """The newest revision while it is at most 60 trading days old, else 0."""
    revisions = _revisions(notices, panel)
    joined = as_of(revisions["available"], revisions["stock"], panel.axes)
    recent = joined.take(revisions["change"].to_numpy(), REVISION_DAYS)
    return elementwise(lambda change: np.where(np.isnan(change), 0.0, change), recent)


def _revision_signs(notices: pl.DataFrame, panel: Panel) -> Array:
    """Upward minus downward revisions that became known on each row."""
    revisions = _revisions(notices, panel).filter(pl.col("row") < len(panel.axes.dates))
    net = np.zeros(panel.axes.shape)
    np.add.at(
        net,
        (revisions["row"].to_numpy(), revisions["stock"].to_numpy()),
        np.sign(revisions["change"].to_numpy()),
    )
    return net


def _revisions(notices: pl.DataFrame, panel: Panel) -> pl.DataFrame:
    """Notices that revise an amount, from the panel's first day on: no row counts the age of earlier ones."""
    first = pl.lit(panel.axes.dates[0].astype(object))
    return notices.filter(pl.col("change").is_not_null() & (pl.col("PubDate") >= first))


_CS, _T = "cross_section", "time"
COLUMNS = (
    Column("div_yield_fwd", "f32", "known amounts with ExDate in (T, T+370 d] / px_close", "", "null if none", _CS),
    Column(
        "div_yield_ttm",
        "f32",
        "amounts with ExDate in (T-365 d, T] / px_close",
        "",
        "0 if none in a year",
        _CS,
    ),
    Column("div_next_yield", "f32", "amount of the nearest ExDate ahead / px_close", "", "null if none known", _CS),
    Column("div_td_to_ex", "i16", "trading days to the nearest known ExDate, cap 250", "", "250 if none", _T),
    Column("div_td_since_ex", "i16", "trading days since the last ExDate, cap 250", "", "250 if none", _T),
    Column("div_pre_ex_5", "i8", "1 <= div_td_to_ex <= 5", "", "0", "flag"),
    Column("div_is_ex", "i8", "T is the ExDate of a known dividend", "", "0", "flag"),
    Column("div_post_ex_5", "i8", "1 <= div_td_since_ex <= 5", "", "0", "flag"),
    Column("div_is_special", "i8", "the nearest dividend ahead is commemorative or special", "", "0", "flag"),
    Column("div_rev", "f32", "g(new, previous) amount of one dividend", "60 td", "0 if none, null if no notice", _CS),
    Column("div_rev_net_cnt_240", "i8", "upward - downward revisions", "240 td", "0 if none", _CS),
    Column(
        "div_growth_yoy",
        "f32",
        "g(amounts of the last 365 d, of the 365 d before)",
        "",
        "null below 2 years of history",
        _CS,
    ),
    Column("div_staleness_td", "i16", "trading days since the last notice, cap 500", "", "500 if none", _CS),
    Column("div_valid", "i8", "div_staleness_td <= 250", "", "0", "flag"),
)

GROUP = Group(
    name="div",
    tier="premium",
    tables=("calendar", "master", "bars_daily", "dividend"),
    availability="PubDate if before 15:00 (half day: 11:30) on a trading day, else the next trading day",
    columns=COLUMNS,
    compute=compute,
)
