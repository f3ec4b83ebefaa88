"""`ev`: when a company last reported, how the stock took it, and when it will report next.

Dates are the disclosure dates of `fin_summary`: a schedule of announcements has no history of its own. The next date is
expected a year after the same quarter's last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.residuals import residual_return
from atft_pipeline.features.statement_documents import read_documents
from atft_pipeline.features.tables import required_table
from atft_pipeline.features.topix import read_topix
from atft_pipeline.panel.asof import as_of
from atft_pipeline.panel.availability import Days, by_disclosure_time, trading_position
from atft_pipeline.panel.operators import Array, elementwise, ts_sum, where
from atft_pipeline.panel.panel import Panel

SINCE_CAP = 250
AROUND = 5
"""Trading days that count as shortly after, or shortly before, a result."""
REACTION_DAYS = 120
COUNT_DAYS = 60
EARLIEST, LATEST = -20, 120
"""Bounds of the days to the expected result: an overdue one says no more after a month."""

LAST_QUARTER = 4


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    documents = _documents_of(panel, required_table(inputs.tables, "fin_summary"))
    results = documents.filter("is_actual")
    joined = as_of(results["available"], results["company"], panel.axes)
    days = panel.calendar.days
    today = np.searchsorted(days, panel.axes.dates).astype(np.float64)[:, None]

    since = elementwise(np.subtract, today, joined.take(np.searchsorted(days, _dates(results["available"]))))
    yield "ev_td_since_earn", elementwise(lambda days: np.fmin(days, SINCE_CAP), since)
    yield "ev_earn_post_5", since <= AROUND
    yield "ev_earn_reaction", where(since <= REACTION_DAYS, joined.take(_reactions(inputs, results)))
    expected = joined.take(trading_position(_dates(expected_dates(results)), days))
    ahead = elementwise(lambda day, today: np.clip(day - today, EARLIEST, LATEST), expected, today)
    yield "ev_td_to_exp_earn", ahead
    yield "ev_exp_earn_pre_5", (ahead >= 0) & (ahead <= AROUND)
    yield "ev_disc_cnt_60", _recent_documents(panel, documents)


def _documents_of(panel: Panel, fin_summary: pl.DataFrame) -> pl.DataFrame:
    """Documents of the panel's companies in the order in which the market learned them."""
    axes = panel.axes
    listed = fin_summary.filter(pl.col("Code").is_in(axes.codes.tolist()))
    documents = read_documents(listed, by_disclosure_time(listed["DiscDate"], listed["DiscTime"], panel.calendar))
    company = axes.code_index(documents["code"])
    return documents.with_columns(company=pl.Series(company, dtype=pl.Int64))


def _reactions(inputs: Inputs, results: pl.DataFrame) -> Array:
    """The market-free return on each result's availability day; null off the panel."""
    panel = inputs.panel
    topix = read_topix(required_table(inputs.tables, "topix"), panel.axes.dates)
    dates, known_on = panel.axes.dates, _dates(results["available"])
    row = np.minimum(np.searchsorted(dates, known_on), len(dates) - 1)
    values = residual_return(panel, topix)[row, results["company"].to_numpy()]
    return np.where(dates[row] == known_on, values, np.nan)


def expected_dates(results: pl.DataFrame) -> pl.Series:
    """Per result, in knowledge order: a year after the first disclosure of the quarter that comes next, a year ago.

    The next quarter follows the newest period reported so far, so that a correction of an old period moves nothing.
    Null where the year-ago document is not known by then.
    """
    expected: list[date | None] = []
    company = None
    newest = (0, 0)
    first: dict[tuple[int, int], date] = {}
    fields = ("company", "year", "quarter", "disclosed")
    for owner, year, quarter, disclosed in results.select(fields).iter_rows():
        if owner != company:
            company, newest, first = owner, (0, 0), {}
        if year is not None and quarter is not None:
            first.setdefault((year, quarter), disclosed)
            newest = max(newest, (year, quarter))
        # `year` counts months: twelve less is the fiscal year before.
        year_ago = (newest[0], 1) if newest[1] == LAST_QUARTER else (newest[0] - 12, newest[1] + 1)
        expected.append(first.get(year_ago))
    return pl.Series("expected", expected, dtype=pl.Date).dt.offset_by("1y")


def _recent_documents(panel: Panel, documents: pl.DataFrame) -> Array:
    """Documents of any type that became available in the last 60 trading days, [T, N]."""
    dates = panel.axes.dates
    known_on = _dates(documents["available"])
    inside = (known_on >= dates[0]) & (known_on <= dates[-1])
    counts = np.zeros(panel.close.shape)
    np.add.at(counts, (np.searchsorted(dates, known_on[inside]), documents["company"].to_numpy()[inside]), 1.0)
    return ts_sum(counts, COUNT_DAYS, 1)


def _dates(column: pl.Series) -> Days:
    return column.to_numpy().astype("datetime64[D]")


_CS = "cross_section"
COLUMNS = (
    Column("ev_td_since_earn", "i16", "trading days since the last result, cap 250", "", "250 if none", "time"),
    Column("ev_earn_post_5", "i8", "ev_td_since_earn <= 5", "", "0", "flag"),
    Column("ev_earn_reaction", "f32", "mb_resid_ret_1d on that day", "181 td", "null if over 120 td old", _CS),
    Column(
        "ev_td_to_exp_earn",
        "i16",
        "trading days to the year-ago date of the next quarter + 1 year, within -20 to 120",
        "",
        "null if no year-ago document is known",
        "time",
    ),
    Column("ev_exp_earn_pre_5", "i8", "0 <= ev_td_to_exp_earn <= 5", "", "0 if null", "flag"),
    Column("ev_disc_cnt_60", "i8", "documents that became available", "60 td", "0", _CS),
)

GROUP = Group(
    name="ev",
    tier="standard",
    tables=("calendar", "master", "bars_daily", "topix", "fin_summary"),
    availability="DiscDate if before 15:00 (half day: 11:30) on a trading day, else the next trading day",
    columns=COLUMNS,
    compute=compute,
)
