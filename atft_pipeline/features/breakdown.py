"""`bd`: how the stock's turnover of the day before divides into cash, short and margin trades.

Buying and selling are the same trades seen from two sides, so total buying minus total selling is always 0: what says
something is the mix. Windows count the code's records, days on which it traded.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.records import days_of, in_order, listed_records, numbers_of
from atft_pipeline.features.tables import require_columns, required_table
from atft_pipeline.panel.asof import as_of
from atft_pipeline.panel.availability import next_trading_day
from atft_pipeline.panel.operators import Array, divide, ts_lag, ts_mean, ts_sum, ts_zscore, where

LEGS = (
    "LongSellVa",
    "ShrtNoMrgnVa",
    "MrgnSellNewVa",
    "MrgnSellCloseVa",
    "LongBuyVa",
    "MrgnBuyNewVa",
    "MrgnBuyCloseVa",
)
FIELDS = ("Code", "Date", *LEGS)


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel, table = inputs.panel, required_table(inputs.tables, "breakdown")
    require_columns("breakdown", table, FIELDS)
    rows, stock = listed_records("breakdown", table, panel.axes)
    records = in_order(stock, days_of(rows["Date"]), len(panel.axes.codes))
    joined = as_of(next_trading_day(rows["Date"], panel.calendar), stock, panel.axes)
    sold, shorted, margin_sold, margin_closed, bought, margin_bought, margin_covered = (
        numbers_of(rows[name]) for name in LEGS
    )
    both_sides = bought + margin_bought + margin_covered
    turnover = np.where(both_sides > 0, both_sides, np.nan)
    long_net, short_net = margin_bought - margin_closed, margin_sold - margin_covered

    def share(values: Array) -> NDArray[np.float32]:
        return joined.column(divide(values, turnover))

    def windowed(values: Array) -> NDArray[np.float32]:
        return joined.column(records.of(values))

    short_share = records.dense((shorted + margin_sold) / turnover)
    numerator = np.where(both_sides > 0, long_net - short_net, np.nan)
    net = records.dense(numerator / turnover)
    amount = records.dense(turnover)
    yield "bd_margin_buy_share", share(margin_bought)
    yield "bd_margin_cover_share", share(margin_covered)
    yield "bd_long_sell_share", share(sold)
    yield "bd_short_share", share(shorted + margin_sold)
    yield "bd_inst_short_share", share(shorted)
    yield "bd_margin_short_share", share(margin_sold)
    yield "bd_margin_unwind_share", share(margin_closed)
    yield "bd_margin_long_net", share(long_net)
    yield "bd_margin_short_net", share(short_net)
    yield "bd_margin_net", share(long_net - short_net)
    yield "bd_cash_net", share(bought - sold)
    yield "bd_margin_activity", share((margin_bought + margin_covered + margin_sold + margin_closed) / 2)
    yield "bd_short_share_chg_1d", windowed(short_share - ts_lag(short_share, 1))
    yield "bd_short_share_z20", windowed(ts_zscore(short_share, 20, 15))
    yield "bd_short_share_z240", windowed(ts_zscore(short_share, 240, 120))
    yield "bd_margin_net_sum5", windowed(divide(ts_sum(records.dense(numerator), 5, 4), ts_sum(amount, 5, 4)))
    yield "bd_margin_net_z20", windowed(ts_zscore(net, 20, 15))
    yield "bd_cash_net_z20", windowed(ts_zscore(records.dense((bought - sold) / turnover), 20, 15))
    yield "bd_activity_ratio_20", windowed(divide(amount, ts_mean(ts_lag(amount, 1), 20, 15)))
    yield "bd_valid", where(joined.staleness_td == 0, 1.0, 0.0)


_CS = "cross_section"
_Z = "z over the code's records"
COLUMNS = (
    Column("bd_margin_buy_share", "f32", "new margin buying/B, B = all buying", "", "null if B <= 0", _CS),
    Column("bd_margin_cover_share", "f32", "margin buying that closes shorts/B", "", "null if B <= 0", _CS),
    Column("bd_long_sell_share", "f32", "selling of held shares/B", "", "null if B <= 0", _CS),
    Column("bd_short_share", "f32", "(shorts without margin + new margin shorts)/B", "", "null if B <= 0", _CS),
    Column("bd_inst_short_share", "f32", "shorts without margin/B", "", "null if B <= 0", _CS),
    Column("bd_margin_short_share", "f32", "new margin shorts/B", "", "null if B <= 0", _CS),
    Column("bd_margin_unwind_share", "f32", "margin selling that closes longs/B", "", "null if B <= 0", _CS),
    Column("bd_margin_long_net", "f32", "(new margin longs - those closed)/B", "", "null if B <= 0", _CS),
    Column("bd_margin_short_net", "f32", "(new margin shorts - those closed)/B", "", "null if B <= 0", _CS),
    Column("bd_margin_net", "f32", "bd_margin_long_net - bd_margin_short_net", "", "null if B <= 0", _CS),
    Column("bd_cash_net", "f32", "(cash buying - selling of held shares)/B", "", "null if B <= 0", _CS),
    Column("bd_margin_activity", "f32", "all four margin legs/(2B)", "", "null if B <= 0", _CS),
    Column("bd_short_share_chg_1d", "f32", "bd_short_share - the record before", "1 lag", "", _CS),
    Column("bd_short_share_z20", "f32", f"{_Z} of bd_short_share", "20/15", "null if sd 0", _CS),
    Column("bd_short_share_z240", "f32", f"{_Z} of bd_short_share", "240/120", "null if sd 0", _CS),
    Column("bd_margin_net_sum5", "f32", "sum5 of bd_margin_net's numerator/sum5(B)", "5/4", "", _CS),
    Column("bd_margin_net_z20", "f32", f"{_Z} of bd_margin_net", "20/15", "null if sd 0", _CS),
    Column("bd_cash_net_z20", "f32", f"{_Z} of bd_cash_net", "20/15", "null if sd 0", _CS),
    Column("bd_activity_ratio_20", "f32", "B/mean(B), prior records", "20/15 prior", "null if mean 0", _CS),
    Column("bd_valid", "i8", "the previous trading day has a record", "", "0", "flag"),
)

GROUP = Group(
    name="bd",
    tier="premium",
    tables=("calendar", "master", "bars_daily", "breakdown"),
    availability="the trading day after Date",
    columns=COLUMNS,
    compute=compute,
    reads={"breakdown": FIELDS},
)
