"""`ta`: technical indicators in scale-free form (divided by price, or bounded), so splits and price level cancel.

rma n is Wilder's smoothing, alpha = 1/n; ema n has alpha = 2/(n + 1). Definitions of RSI, ATR, ADX: J. W. Wilder, New
Concepts in Technical Trading Systems, 1978.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.panel.operators import (
    EPS,
    Array,
    divide,
    elementwise,
    relative,
    ts_ema,
    ts_lag,
    ts_max,
    ts_mean,
    ts_min,
    ts_rma,
    ts_std,
    ts_sum,
)
from atft_pipeline.panel.panel import Mask, Panel

SMA_MIN_OBS = {5: 5, 20: 18, 60: 54, 200: 180}


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    yield from _trend(panel)
    yield from _bands_and_range(panel)
    yield from _channels(panel)


def _trend(panel: Panel) -> Iterator[tuple[str, Array]]:
    c = panel.c
    for n, min_obs in SMA_MIN_OBS.items():
        yield f"ta_px_to_sma_{n}", relative(c, ts_mean(c, n, min_obs))
    ema_20 = ts_ema(c, 20)
    yield "ta_ema_gap_5_20", relative(ts_ema(c, 5), ema_20)
    yield "ta_ema_gap_20_60", relative(ema_20, ts_ema(c, 60))
    yield "ta_rsi_2", rsi(c, 2)
    yield "ta_rsi_14", rsi(c, 14)
    macd = elementwise(np.subtract, ts_ema(c, 12), ts_ema(c, 26))
    line, signal = divide(macd, c), divide(ts_ema(macd, 9), c)
    yield "ta_macd_pct", line
    yield "ta_macd_signal_pct", signal
    yield "ta_macd_hist_pct", elementwise(np.subtract, line, signal)


def _bands_and_range(panel: Panel) -> Iterator[tuple[str, Array]]:
    c = panel.c
    mean, sd = ts_mean(c, 20, 18), ts_std(c, 20, 18, ddof=0)
    yield "ta_bb_pctb_20", elementwise(lambda c, mean, sd: divide(c - (mean - 2 * sd), 4 * sd), c, mean, sd)
    yield "ta_bb_width_20", elementwise(lambda sd, mean: divide(4 * sd, mean), sd, mean)
    smooth_range = ts_rma(true_range(panel.h, panel.l, c), 14)
    up, down = (ts_rma(movement, 14) for movement in directional_movement(panel.h, panel.l))
    yield "ta_natr_14", divide(smooth_range, c)
    yield "ta_adx_14", adx(up, down)
    yield "ta_di_diff_14", elementwise(lambda up, down, r: divide(up - down, r), up, down, smooth_range)


def _channels(panel: Panel) -> Iterator[tuple[str, Array]]:
    c, high, low = panel.c, panel.h, panel.l
    yield "ta_stoch_k_14", _position(c, ts_min(low, 14, 12), ts_max(high, 14, 12))
    yield "ta_mfi_14", money_flow_index(panel)
    yield "ta_donchian_pos_20", _position(c, ts_min(low, 20, 18), ts_max(high, 20, 18))
    yield "ta_dist_high_240", relative(c, ts_max(high, 240, 120))
    yield "ta_dist_low_240", relative(c, ts_min(low, 240, 120))
    yield "ta_close_loc", elementwise(_close_location, panel.traded, high, low, c)


def rsi(c: Array, n: int) -> Array:
    """Relative strength index, 0..100; 50 when nothing moved."""
    before = ts_lag(c, 1)
    up = ts_rma(elementwise(lambda c, before: np.maximum(c - before, 0), c, before), n)
    down = ts_rma(elementwise(lambda c, before: np.maximum(before - c, 0), c, before), n)
    return elementwise(lambda up, down: np.where(up + down <= EPS, 50.0, 100 * divide(up, up + down)), up, down)


def true_range(high: Array, low: Array, c: Array) -> Array:
    """The day's range, stretched to the previous close."""

    def stretched(high: Array, low: Array, before: Array) -> Array:
        return np.maximum(high - low, np.maximum(np.abs(high - before), np.abs(low - before)))

    return elementwise(stretched, high, low, ts_lag(c, 1))


def directional_movement(high: Array, low: Array) -> tuple[Array, Array]:
    """+DM and -DM: the larger of the day's excursions beyond yesterday's range, if positive, else 0."""

    def larger(this: Array, other: Array) -> Array:
        known = np.isfinite(this) & np.isfinite(other)
        return np.where(known, np.where((this > other) & (this > 0), this, 0.0), np.nan)

    up, down = (elementwise(np.subtract, high, ts_lag(high, 1)), elementwise(np.subtract, ts_lag(low, 1), low))
    return elementwise(larger, up, down), elementwise(larger, down, up)


def adx(up: Array, down: Array) -> Array:
    """Average directional index, 0..1, from smoothed +DM and -DM; the true range cancels in |P - M|/(P + M)."""

    def dx(up: Array, down: Array) -> Array:
        return np.where(up + down <= EPS, 0.0, divide(np.abs(up - down), up + down))

    return ts_rma(elementwise(dx, up, down), 14)


def money_flow_index(panel: Panel) -> Array:
    """Share of turnover on days with a rising typical price, 0..1, days without a change left out; 0.5 if none."""
    typical = elementwise(lambda high, low, c: (high + low + c) / 3, panel.h, panel.l, panel.c)
    before = ts_lag(typical, 1)

    def flow(counts: Callable[..., Mask]) -> Array:
        def counted(typical: Array, before: Array, v: Array) -> Array:
            turnover = typical * v
            known = np.isfinite(turnover) & np.isfinite(before)
            return np.where(known, np.where(counts(typical, before), turnover, 0.0), np.nan)

        return ts_sum(elementwise(counted, typical, before, panel.v), 14, 12)

    rising, moving = flow(np.greater), flow(np.not_equal)
    return elementwise(lambda up, either: np.where(either <= EPS, 0.5, divide(up, either)), rising, moving)


def _position(c: Array, low: Array, high: Array) -> Array:
    return elementwise(lambda c, low, high: divide(c - low, high - low), c, low, high)


def _close_location(traded: Mask, high: Array, low: Array, c: Array) -> Array:
    return np.where(traded & (high == low), 0.0, divide(2 * c - high - low, high - low))


_CS = "cross_section"
COLUMNS = (
    Column("ta_px_to_sma_5", "f32", "c/mean(c) - 1", "5/5", "", _CS),
    Column("ta_px_to_sma_20", "f32", "c/mean(c) - 1", "20/18", "", _CS),
    Column("ta_px_to_sma_60", "f32", "c/mean(c) - 1", "60/54", "", _CS),
    Column("ta_px_to_sma_200", "f32", "c/mean(c) - 1", "200/180", "", _CS),
    Column("ta_ema_gap_5_20", "f32", "ema5(c)/ema20(c) - 1", "20", "", _CS),
    Column("ta_ema_gap_20_60", "f32", "ema20(c)/ema60(c) - 1", "60", "", _CS),
    Column("ta_rsi_2", "f32", "100 U/(U + D), rma2 of gains and losses", "2", "50 when U + D = 0", _CS, spectral=True),
    Column("ta_rsi_14", "f32", "100 U/(U + D), rma14 of gains and losses", "14", "50 when U + D = 0", _CS),
    Column("ta_macd_pct", "f32", "(ema12(c) - ema26(c))/c", "26", "", _CS),
    Column("ta_macd_signal_pct", "f32", "ema9(ema12(c) - ema26(c))/c", "34", "", _CS),
    Column("ta_macd_hist_pct", "f32", "ta_macd_pct - ta_macd_signal_pct", "34", "", _CS),
    Column("ta_bb_pctb_20", "f32", "(c - (m - 2s))/(4s), s with ddof 0", "20/18", "null if s = 0", _CS, spectral=True),
    Column("ta_bb_width_20", "f32", "4s/m", "20/18", "", _CS),
    Column("ta_natr_14", "f32", "rma14(TR)/c", "14", "", _CS),
    Column("ta_adx_14", "f32", "rma14(|P - M|/(P + M))", "28", "0 where P + M = 0", _CS),
    Column("ta_di_diff_14", "f32", "(rma14(+DM) - rma14(-DM))/rma14(TR)", "14", "", _CS),
    Column("ta_stoch_k_14", "f32", "(c - min(l))/(max(h) - min(l))", "14/12", "null if the range is 0", _CS),
    Column("ta_mfi_14", "f32", "sum(tp v, tp > tp[-1])/sum(tp v, tp != tp[-1])", "14/12", "0.5 if the sum is 0", _CS),
    Column("ta_donchian_pos_20", "f32", "(c - min(l))/(max(h) - min(l))", "20/18", "null if the range is 0", _CS),
    Column("ta_dist_high_240", "f32", "c/max(h) - 1", "240/120", "", _CS),
    Column("ta_dist_low_240", "f32", "c/min(l) - 1", "240/120", "", _CS),
    Column("ta_close_loc", "f32", "(2c - h - l)/(h - l)", "", "0 if traded and h = l", _CS, spectral=True),
)

GROUP = Group(
    name="ta",
    tier="base",
    tables=("calendar", "master", "bars_daily"),
    availability="T, after the close",
    columns=COLUMNS,
    compute=compute,
    by_stock=True,
)
