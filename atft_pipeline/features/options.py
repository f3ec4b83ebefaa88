"""`opt`: what Nikkei 225 options say about the index's volatility; one value per date, the same for every stock.

The surface of each day comes from `option_surface`; windows count the dates of the option table.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.option_surface import daily_surface
from atft_pipeline.features.tables import required_table
from atft_pipeline.panel.asof import as_of
from atft_pipeline.panel.availability import next_trading_day
from atft_pipeline.panel.operators import divide, log, ts_lag, ts_var, ts_zscore
from atft_pipeline.settings import ANNUAL_DAYS


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns, each [T]; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    days = daily_surface(required_table(inputs.tables, "options_225"))
    read = {name: days[name].to_numpy().astype(np.float64) for name in days.columns if name != "Date"}
    month, two = read["iv_30"], read["iv_60"]
    move = log(divide(read["level"], ts_lag(read["level"], 1)))
    values = {
        "opt_iv_atm_30d": month,
        "opt_iv_atm_60d": two,
        "opt_iv_term_slope": two - month,
        "opt_iv_chg_1d": month - ts_lag(month, 1),
        "opt_iv_chg_5d": month - ts_lag(month, 5),
        "opt_iv_z240": ts_zscore(month, 240, 120),
        "opt_skew_5pct": read["put_30"] - read["call_30"],
        "opt_smile_curv": read["put_30"] + read["call_30"] - 2 * month,
        "opt_pc_oi_log": log(divide(read["put_interest"], read["call_interest"])),
        "opt_pc_vol_log": log(divide(read["put_volume"] + 1, read["call_volume"] + 1)),
        "opt_vrp_20": month**2 - ANNUAL_DAYS * ts_var(move, 20, 15),
    }
    joined = as_of(
        next_trading_day(days["Date"], panel.calendar), np.zeros(days.height, np.int64), panel.axes, entities=1
    )
    for name, series in values.items():
        yield name, joined.take(series)[:, 0]
    yesterday = joined.staleness_td[:, 0] == 0
    yield "opt_valid", np.where(yesterday & np.isfinite(joined.take(month)[:, 0]), 1.0, 0.0)


_M = "market"
_BRACKET = "null if no expiries bracket it and the first is over 45 d away"
COLUMNS = (
    Column("opt_iv_atm_30d", "f32", "at-the-money volatility at 30 days", "", _BRACKET, _M),
    Column("opt_iv_atm_60d", "f32", "at-the-money volatility at 60 days", "", _BRACKET, _M),
    Column("opt_iv_term_slope", "f32", "opt_iv_atm_60d - opt_iv_atm_30d", "", "", _M),
    Column("opt_iv_chg_1d", "f32", "opt_iv_atm_30d - the date before's", "1 lag", "", _M),
    Column("opt_iv_chg_5d", "f32", "opt_iv_atm_30d - five dates earlier", "5 lag", "", _M),
    Column("opt_iv_z240", "f32", "z of opt_iv_atm_30d", "240/120", "null if sd 0", _M),
    Column("opt_skew_5pct", "f32", "IV(put, 0.95U) - IV(call, 1.05U) at 30 days", "", "strikes within 1.5 %", _M),
    Column("opt_smile_curv", "f32", "IV(0.95U) + IV(1.05U) - 2 IV(ATM) at 30 days", "", "strikes within 1.5 %", _M),
    Column("opt_pc_oi_log", "f32", "ln(put / call open interest), up to 100 days", "", "null if either 0", _M),
    Column("opt_pc_vol_log", "f32", "ln((put + 1)/(call + 1) volume), up to 100 days", "", "", _M),
    Column("opt_vrp_20", "f32", "opt_iv_atm_30d^2 - 245 var20(ln U/U[-1])", "20/15", "", _M),
    Column("opt_valid", "i8", "opt_iv_atm_30d known for the trading day before", "", "0", "flag"),
)

GROUP = Group(
    name="opt",
    tier="standard",
    tables=("calendar", "master", "bars_daily", "options_225"),
    availability="the first trading day after Date (published about 03:00)",
    columns=COLUMNS,
    compute=compute,
)
