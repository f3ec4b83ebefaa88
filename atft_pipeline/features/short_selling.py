"""`ss`: short selling in the stock's sector and in the market, and the large short positions reported in the stock.

Sector turnover has windows of its own, over the sector's daily records. Positions come from `short_positions`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.records import days_of, in_order, numbers_of
from atft_pipeline.features.short_positions import open_positions
from atft_pipeline.features.tables import require_columns, required_table
from atft_pipeline.panel.asof import as_of
from atft_pipeline.panel.availability import next_trading_day
from atft_pipeline.panel.ids import SECTOR33_IDS
from atft_pipeline.panel.operators import (
    Array,
    divide,
    elementwise,
    group_column,
    log,
    ts_lag,
    ts_mean,
    ts_zscore,
    where,
)
from atft_pipeline.panel.panel import Panel
from atft_pipeline.verdict import ContractBroken

REPORTS_BEGIN = np.datetime64("2013-11-07", "D")
"""First day of the reports: before it, no report does not mean no position."""

SECTORS = max(SECTOR33_IDS.values()) + 1
FIELDS = ("SellExShortVa", "ShrtWithResVa", "ShrtNoResVa")


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    yield from _turnover(panel, required_table(inputs.tables, "short_ratio"))
    yield from _positions(panel, required_table(inputs.tables, "short_sale_report"))


def _turnover(panel: Panel, table: pl.DataFrame) -> Iterator[tuple[str, NDArray[np.floating]]]:
    """The columns of short selling by sector and in the market."""
    require_columns("short_ratio", table, ("Date", "S33", *FIELDS))
    rows = table.with_columns(
        sector=pl.col("S33").replace_strict(SECTOR33_IDS, default=-1, return_dtype=pl.Int64)
    ).sort("Date", "S33")
    if rows.height and not (rows["sector"] >= 0).any():
        raise ContractBroken(f"short_ratio: S33 {rows['S33'][0]!r} is no sector code; check how the API writes them")
    rows = rows.filter(pl.col("sector") >= 0)
    sector = rows["sector"].to_numpy()
    records = in_order(sector, days_of(rows["Date"]), SECTORS)
    joined = as_of(next_trading_day(rows["Date"], panel.calendar), sector, panel.axes, SECTORS)
    ratio, restricted, amount = _ratios(rows)
    by_record, log_amount = records.dense(ratio), records.dense(log(amount))

    def on_stocks(values: Array) -> NDArray[np.float32]:
        return group_column(joined.take(values), panel.sector33)

    whole = rows.group_by("Date", maintain_order=True).agg(pl.col(FIELDS).sum())
    nobody = np.zeros(whole.height, np.int64)
    of_days = in_order(nobody, days_of(whole["Date"]), 1)
    market = as_of(next_trading_day(whole["Date"], panel.calendar), nobody, panel.axes, entities=1)
    market_ratio = _ratios(whole)[0]
    market_z60 = of_days.of(ts_zscore(of_days.dense(market_ratio), 60, 40))
    of_market = market.take(market_ratio)
    yield "ss_sec_ratio", on_stocks(ratio)
    yield "ss_sec_restricted_share", on_stocks(restricted)
    yield "ss_sec_ratio_chg_1d", on_stocks(records.of(by_record - ts_lag(by_record, 1)))
    yield "ss_sec_ratio_dev_5", on_stocks(records.of(by_record - ts_mean(by_record, 5, 4)))
    yield "ss_sec_ratio_z60", on_stocks(records.of(ts_zscore(by_record, 60, 40)))
    yield "ss_sec_turnover_z60", on_stocks(records.of(ts_zscore(log_amount, 60, 40)))
    yield "ss_mkt_ratio", of_market[:, 0]
    yield "ss_mkt_ratio_z60", market.take(market_z60)[:, 0]
    yield "ss_sec_rel_ratio", group_column(joined.take(ratio) - of_market, panel.sector33)


def _ratios(rows: pl.DataFrame) -> tuple[Array, Array, Array]:
    """Short selling's share of all selling, the restricted share of it, and its yen."""
    others, with_limit, without = (numbers_of(rows[name]) for name in FIELDS)
    short = with_limit + without
    return divide(short, others + short), divide(with_limit, short), short


def _positions(panel: Panel, reports: pl.DataFrame) -> Iterator[tuple[str, Array]]:
    """The columns of reported positions."""
    state = open_positions(panel, reports)
    total = where(panel.axes.dates[:, None] >= REPORTS_BEGIN, state.total)
    yield "ssp_ratio_sum", total
    yield "ssp_reporter_cnt", state.count
    yield "ssp_top_ratio", state.largest
    yield "ssp_hhi", state.concentration
    yield "ssp_chg_5d", elementwise(np.subtract, total, ts_lag(total, 5))
    yield "ssp_chg_20d", elementwise(np.subtract, total, ts_lag(total, 20))
    yield "ssp_days_to_cover", where(state.count > 0, divide(state.shares, panel.volume_20), 0.0)
    yield "ssp_staleness_td", state.staleness
    yield "ssp_valid", where(state.count > 0, 1.0, 0.0)


_CS, _M = "cross_section", "market"
COLUMNS = (
    Column("ss_sec_ratio", "f32", "(B + C)/(A + B + C) of the sector's selling, B + C short", "", "null if 0/0", _CS),
    Column("ss_sec_restricted_share", "f32", "B/(B + C), B under the price restriction", "", "null if B + C = 0", _CS),
    Column("ss_sec_ratio_chg_1d", "f32", "ss_sec_ratio - the sector's record before", "1 lag", "", _CS),
    Column("ss_sec_ratio_dev_5", "f32", "ss_sec_ratio - its mean", "5/4", "", _CS),
    Column("ss_sec_ratio_z60", "f32", "z of ss_sec_ratio over the sector's records", "60/40", "null if sd 0", _CS),
    Column("ss_sec_turnover_z60", "f32", "z of ln(B + C) over the sector's records", "60/40", "null if sd 0", _CS),
    Column("ss_mkt_ratio", "f32", "sum of B + C over sectors / sum of A + B + C", "", "", _M),
    Column("ss_mkt_ratio_z60", "f32", "z of ss_mkt_ratio", "60/40", "null if sd 0", _M),
    Column("ss_sec_rel_ratio", "f32", "ss_sec_ratio - ss_mkt_ratio", "", "", _CS),
    Column(
        "ssp_ratio_sum",
        "f32",
        "sum of open positions / shares outstanding",
        "",
        "0 if none, null before 2013-11-07",
        _CS,
    ),
    Column("ssp_reporter_cnt", "i16", "holders with an open position", "", "0 if none", "time"),
    Column("ssp_top_ratio", "f32", "largest open position", "", "0 if none", _CS),
    Column("ssp_hhi", "f32", "sum of squared shares of ssp_ratio_sum", "", "0 if none", _CS),
    Column("ssp_chg_5d", "f32", "ssp_ratio_sum - 5 rows earlier", "5 lag", "", _CS),
    Column("ssp_chg_20d", "f32", "ssp_ratio_sum - 20 rows earlier", "20 lag", "", _CS),
    Column("ssp_days_to_cover", "f32", "open short shares/mean20(v)", "20/10", "0 if none open", _CS),
    Column(
        "ssp_staleness_td", "i16", "trading days since the last report on the code, cap 250", "", "250 if none", "time"
    ),
    Column("ssp_valid", "i8", "any holder has an open position", "", "0", "flag"),
)

GROUP = Group(
    name="ss",
    tier="standard",
    tables=("calendar", "master", "bars_daily", "short_ratio", "short_sale_report"),
    availability="the trading day after Date; for positions the trading day after DiscDate",
    columns=COLUMNS,
    compute=compute,
)
