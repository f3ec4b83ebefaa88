"""`fs`: results, guidance and valuation as known on each day.

Documents become events (`statement_events`); one as-of join brings them to the panel; what depends on the day's price
or on the age of a revision is computed here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.companies import STALE_AFTER, Known, panel_documents
from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.statement_events import Forecasts, derive_events
from atft_pipeline.features.tables import required_table
from atft_pipeline.panel.asof import as_of
from atft_pipeline.panel.operators import Array, divide, elementwise, log, ts_sum, where
from atft_pipeline.panel.panel import Panel

VALID_WITHIN = 100
STALENESS_CAP = 500
REVISION_DAYS = 60
COUNT_DAYS = 240

STEPPING = (
    "fs_sales_q_yoy",
    "fs_op_q_yoy",
    "fs_np_q_yoy",
    "fs_sales_ttm_yoy",
    "fs_op_ttm_yoy",
    "fs_op_margin_ttm",
    "fs_op_margin_ttm_chg",
    "fs_roe_ttm",
    "fs_roa_ttm",
    "fs_equity_ratio",
)
"""Columns that change at events only, in contract order up to the first daily one."""


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    documents = panel_documents(panel, required_table(inputs.tables, "fin_summary"))
    events = derive_events(documents)
    known = Known(panel, events, as_of(events["available"], events["company"], panel.axes))
    age = known.age("actual_on")
    staleness = elementwise(lambda age: np.fmin(age, STALENESS_CAP), age)
    fresh = staleness <= STALE_AFTER
    yield from _values(known.only(fresh), fresh, documents)
    yield "fs_staleness_td", staleness
    yield "fs_valid", elementwise(_is_valid, staleness, known.value("sales_ttm"))


def _is_valid(staleness: Array, sales: Array) -> NDArray[np.bool_]:
    return (staleness <= VALID_WITHIN) & np.isfinite(sales)


def _values(
    known: Known, fresh: NDArray[np.bool_], documents: pl.DataFrame
) -> Iterator[tuple[str, NDArray[np.floating]]]:
    """Every column but the flags, from what is known of fresh companies."""
    panel, value = known.panel, known.value
    shares = value("base_shares")
    mcap = elementwise(np.multiply, panel.c, shares)  # both in the units of the panel's first day
    has_op, has_np, has_dps = (np.isfinite(value(name)) for name in ("f_op", "f_np", "f_dps"))
    for name in STEPPING:
        yield name, known.column(name)
    yield "fs_share_turnover_20", divide(panel.volume_20, shares)
    for name in ("fs_accruals_fy", "fs_fc_op_progress", "fs_fc_op_progress_gap", "fs_fc_op_growth"):
        yield name, known.column(name)
    yield "fs_fc_rev_op", _recent_revision(known, "rev_op", has_op)
    yield "fs_fc_rev_np", _recent_revision(known, "rev_np", has_np)
    yield "fs_fc_rev_net_cnt_240", where(fresh, _net_revisions(panel, documents))
    yield "fs_fc_dps_rev", _recent_revision(known, "rev_dps", has_dps)
    yield "fs_log_mcap", log(mcap)
    yield "fs_earnings_yield_ttm", divide(value("np_ttm"), mcap)
    yield "fs_book_to_price", divide(value("equity"), mcap)
    yield "fs_fc_earnings_yield", divide(value("f_np"), mcap)
    same_units = panel.split == value("f_dps_split")
    yield "fs_fc_div_yield", where(same_units, divide(value("f_dps"), panel.close))


def _recent_revision(known: Known, name: str, has_forecast: NDArray[np.bool_]) -> Array:
    """The newest change of a forecast while it is at most 60 trading days old, 0 after that; null without forecast."""
    recent = known.age(f"{name}_on") <= REVISION_DAYS
    return where(has_forecast, where(recent, known.value(name), 0.0))


def _net_revisions(panel: Panel, documents: pl.DataFrame) -> Array:
    """Upward minus downward revisions of the operating profit forecast in the last 240 trading days, [T, N]."""
    revisions = Forecasts(documents, "op", "is_forecast").revisions()
    dates = panel.axes.dates
    days = revisions["available"].to_numpy().astype("datetime64[D]")
    inside = (days >= dates[0]) & (days <= dates[-1])
    net = np.zeros(panel.close.shape)
    place = (np.searchsorted(dates, days[inside]), revisions["company"].to_numpy()[inside])
    np.add.at(net, place, np.sign(revisions["change"].to_numpy()[inside]))
    return ts_sum(net, COUNT_DAYS, 1)


_CS = "cross_section"
COLUMNS = (
    Column("fs_sales_q_yoy", "f32", "g(X(fy,q), X(fy-1,q)) of sales", "", "both quarters", _CS),
    Column("fs_op_q_yoy", "f32", "g of operating profit, single quarter", "", "ordinary profit if lacking", _CS),
    Column("fs_np_q_yoy", "f32", "g of profit, single quarter", "", "both quarters", _CS),
    Column("fs_sales_ttm_yoy", "f32", "g(TTM, TTM four quarters ago) of sales", "", "2 fiscal years", _CS),
    Column("fs_op_ttm_yoy", "f32", "g(TTM, TTM four quarters ago) of operating profit", "", "2 fiscal years", _CS),
    Column("fs_op_margin_ttm", "f32", "TTM operating profit / TTM sales, within +-2", "", "null if sales <= 0", _CS),
    Column("fs_op_margin_ttm_chg", "f32", "fs_op_margin_ttm - four quarters ago", "", "2 fiscal years", _CS),
    Column("fs_roe_ttm", "f32", "TTM profit / mean equity, within +-3", "", "null if mean equity <= 0", _CS),
    Column("fs_roa_ttm", "f32", "TTM profit / mean total assets", "", "", _CS),
    Column("fs_equity_ratio", "f32", "equity / total assets", "", "", _CS),
    Column("fs_share_turnover_20", "f32", "mean20(v) / shares", "20/10", "null if shares unknown", _CS),
    Column("fs_accruals_fy", "f32", "(profit - operating cash flow) / total assets, last full year", "", "", _CS),
    Column("fs_fc_op_progress", "f32", "cumulative OP / forecast, within +-3", "", "null if forecast <= 0, q = 4", _CS),
    Column("fs_fc_op_progress_gap", "f32", "progress - the prior year's", "", "null if prior FY OP <= 0", _CS),
    Column("fs_fc_op_growth", "f32", "g(OP forecast for the next year-end, last full-year OP)", "", "", _CS),
    Column("fs_fc_rev_op", "f32", "g(new, previous) OP forecast", "60 td", "0 if forecast, no revision", _CS),
    Column("fs_fc_rev_np", "f32", "g(new, previous) profit forecast", "60 td", "0 if forecast, no revision", _CS),
    Column("fs_fc_rev_net_cnt_240", "i8", "upward - downward OP forecast revisions", "240 td", "0 if none", _CS),
    Column("fs_fc_dps_rev", "f32", "g(new, previous) dividend forecast", "60 td", "null across a split", _CS),
    Column("fs_log_mcap", "f32", "ln(px_close shares(p) G(p)/G(T))", "", "", _CS),
    Column("fs_earnings_yield_ttm", "f32", "TTM profit / mcap", "", "", _CS),
    Column("fs_book_to_price", "f32", "equity / mcap", "", "", _CS),
    Column("fs_fc_earnings_yield", "f32", "profit forecast of the running or next year / mcap", "", "", _CS),
    Column("fs_fc_div_yield", "f32", "dividend forecast / px_close", "", "null from a split to the next document", _CS),
    Column("fs_staleness_td", "i16", "trading days since the last result, cap 500", "", "500 if none", "time"),
    Column("fs_valid", "i8", "fs_staleness_td <= 100 and TTM sales known", "", "0", "flag"),
)

GROUP = Group(
    name="fs",
    tier="standard",
    tables=("calendar", "master", "bars_daily", "fin_summary"),
    availability="DiscDate if before 15:00 (half day: 11:30) on a trading day, else the next trading day",
    columns=COLUMNS,
    compute=compute,
)
