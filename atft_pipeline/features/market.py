"""`mkt`: the market's regime, read from TOPIX bars; one value per date, the same for every stock."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.tables import required_table
from atft_pipeline.features.topix import Topix, read_topix
from atft_pipeline.panel.operators import (
    Array,
    divide,
    log,
    ts_ema,
    ts_lag,
    ts_max,
    ts_mean,
    ts_rma,
    ts_std,
    ts_var,
    ts_zscore,
    where_known,
)
from atft_pipeline.settings import ANNUAL_DAYS

ANNUAL = float(np.sqrt(ANNUAL_DAYS))


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns, each [T]; see `COLUMNS` for the formulas."""
    topix = read_topix(required_table(inputs.tables, "topix"), inputs.panel.axes.dates)
    close = topix.close
    ret, vol = topix.simple_return(1), _close_volatility(close)
    ema_gap = divide(ts_ema(close, 5), ts_ema(close, 20)) - 1
    mean_200, vol_z = ts_mean(close, 200, 180), ts_zscore(vol, 240, 120)
    usual_move = ts_std(ts_lag(ret, 1), 60, 45)
    for rows in (1, 5, 10, 20, 60):
        yield f"mkt_ret_{rows}d", topix.simple_return(rows)
    yield "mkt_ret_overnight", divide(topix.open, ts_lag(close, 1)) - 1
    yield "mkt_ret_intraday", divide(close, topix.open) - 1
    yield "mkt_px_to_sma_20", divide(close, ts_mean(close, 20, 18)) - 1
    yield "mkt_px_to_sma_200", divide(close, mean_200) - 1
    yield "mkt_ema_gap_5_20", ema_gap
    yield "mkt_vol_cc_20", vol
    yield "mkt_vol_yz_20", yang_zhang(topix, 20, 15)
    yield "mkt_natr_14", divide(ts_rma(_true_range(topix), 14), close)
    yield "mkt_bb_pctb_20", _percent_b(close)
    yield "mkt_rsi_14", _rsi(close, 14)
    yield "mkt_dd_240", divide(close, ts_max(close, 240, 120)) - 1
    yield "mkt_ret_1d_z240", ts_zscore(ret, 240, 120)
    yield "mkt_vol_20_z240", vol_z
    yield "mkt_flag_bull_200", where_known(close > mean_200, close, mean_200)
    yield "mkt_flag_trend_up", where_known(ema_gap > 0, ema_gap)
    yield "mkt_flag_high_vol", where_known(vol_z > 1, vol_z)
    yield "mkt_flag_big_move", where_known(np.abs(ret) >= 2 * usual_move, ret, usual_move)


def _close_volatility(close: Array) -> Array:
    return ts_std(log(divide(close, ts_lag(close, 1))), 20, 15) * ANNUAL


def yang_zhang(bars: Topix, rows: int, min_obs: int) -> Array:
    """Annualised volatility from open, high, low and close (Yang and Zhang, Journal of Business 73(3), 2000)."""
    overnight = log(divide(bars.open, ts_lag(bars.close, 1)))
    session = log(divide(bars.close, bars.open))
    up, down = (log(divide(extreme, bars.close)) for extreme in (bars.high, bars.low))
    up_open, down_open = (log(divide(extreme, bars.open)) for extreme in (bars.high, bars.low))
    rogers_satchell = ts_mean(up * up_open + down * down_open, rows, min_obs)
    k = 0.34 / (1.34 + (rows + 1) / (rows - 1))
    variance = ts_var(overnight, rows, min_obs) + k * ts_var(session, rows, min_obs) + (1 - k) * rogers_satchell
    return np.sqrt(np.maximum(variance, 0)) * ANNUAL


def _true_range(bars: Topix) -> Array:
    before = ts_lag(bars.close, 1)
    return np.maximum(bars.high - bars.low, np.maximum(np.abs(bars.high - before), np.abs(bars.low - before)))


def _percent_b(close: Array) -> Array:
    mean, sd = ts_mean(close, 20, 18), ts_std(close, 20, 18, ddof=0)
    return divide(close - (mean - 2 * sd), 4 * sd)


def _rsi(close: Array, rows: int) -> Array:
    """Wilder's relative strength index, 0..100; 50 when nothing moved."""
    change = close - ts_lag(close, 1)
    up, down = ts_rma(np.maximum(change, 0), rows), ts_rma(np.maximum(-change, 0), rows)
    return np.where(up + down == 0, 50.0, 100 * divide(up, up + down))


_M = "market"
COLUMNS = (
    *(Column(f"mkt_ret_{k}d", "f32", f"K/K[-{k}] - 1", f"{k} lag", "", _M) for k in (1, 5, 10, 20, 60)),
    Column("mkt_ret_overnight", "f32", "Ko/K[-1] - 1", "1 lag", "", _M),
    Column("mkt_ret_intraday", "f32", "K/Ko - 1", "", "", _M),
    Column("mkt_px_to_sma_20", "f32", "K/mean(K) - 1", "20/18", "", _M),
    Column("mkt_px_to_sma_200", "f32", "K/mean(K) - 1", "200/180", "", _M),
    Column("mkt_ema_gap_5_20", "f32", "ema5(K)/ema20(K) - 1", "20", "", _M),
    Column("mkt_vol_cc_20", "f32", "sd(ln K/K[-1]) sqrt(245)", "20/15", "", _M),
    Column("mkt_vol_yz_20", "f32", "Yang-Zhang volatility of the index bars", "20/15", "", _M),
    Column("mkt_natr_14", "f32", "rma14(true range)/K", "14", "", _M),
    Column("mkt_bb_pctb_20", "f32", "(K - (m - 2s))/(4s), s with ddof 0", "20/18", "null if s = 0", _M),
    Column("mkt_rsi_14", "f32", "100 U/(U + D), U and D = rma14 of rises and falls", "14", "50 if U + D = 0", _M),
    Column("mkt_dd_240", "f32", "K/max(K) - 1", "240/120", "", _M),
    Column("mkt_ret_1d_z240", "f32", "z of mkt_ret_1d", "240/120", "null if sd 0", _M),
    Column("mkt_vol_20_z240", "f32", "z of mkt_vol_cc_20", "240/120", "null if sd 0", _M),
    Column("mkt_flag_bull_200", "i8", "K > mean200(K)", "200/180", "", "flag"),
    Column("mkt_flag_trend_up", "i8", "mkt_ema_gap_5_20 > 0", "20", "", "flag"),
    Column("mkt_flag_high_vol", "i8", "mkt_vol_20_z240 > 1", "240/120", "", "flag"),
    Column("mkt_flag_big_move", "i8", "abs(mkt_ret_1d) >= 2 sd of the prior 60", "60/45", "", "flag"),
)

GROUP = Group(
    name="mkt",
    tier="standard",
    tables=("calendar", "master", "bars_daily", "topix"),
    availability="T, after the close",
    columns=COLUMNS,
    compute=compute,
)
