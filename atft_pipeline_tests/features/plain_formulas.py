"""Every base column once more, from the raw tables, in the plainest form its formula can be written.

This second writing shares nothing with the first: no panel, no operators. Windows are cut out and handed to numpy,
recursions are loops or polars, the split index is a running product over the rows of a code.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from atft_pipeline_tests.features.plain_windows import (
    NAN,
    Array,
    divided,
    ema,
    grid,
    high,
    lag,
    low,
    mean,
    over,
    pairs,
    rma,
    sd,
    since,
    total,
)
from atft_pipeline_tests.synthetic import Frames

Columns = dict[str, Array]
GENERAL_MARKETS = ("0101", "0102", "0104", "0106", "0107", "0111", "0112", "0113")
MARKETS = ("0101", "0102", "0104", "0105", "0106", "0107", "0109", "0111", "0112", "0113")
SCALES = ("TOPIX Core30", "TOPIX Large70", "TOPIX Mid400", "TOPIX Small 1", "TOPIX Small 2")
SECTORS = (
    "0050 1050 2050 3050 3100 3150 3200 3250 3300 3350 3400 3450 3500 3550 3600 3650 3700 3750 3800 4050 5050 5100 "
    "5150 5200 5250 6050 6100 7050 7100 7150 7200 8050 9050"
)


class Market:
    """The raw tables as [T, N] grids, and the series the formulas are written in."""

    def __init__(self, frames: Frames) -> None:
        rows = frames.master.select("Date", "Code").join(frames.bars, on=["Date", "Code"], how="left")
        self.dates = frames.dates
        self.trading = frames.calendar.filter(pl.col("HolDiv") != "0")["Date"].to_list()
        self.listing = {n: grid(frames.master, n) for n in ("Mkt", "S17", "S33", "ScaleCat", "Mrgn")}
        self.listed = self.listing["Mkt"] != None  # noqa: E711  (element by element)
        raw = {n: grid(rows, n) for n in ("O", "H", "L", "C", "Vo", "Va", "AdjFactor")}
        self.raw = {n: np.asarray(x, np.float64) for n, x in raw.items()}
        self.up, self.down = (
            np.asarray(grid(rows.with_columns(pl.col(n).cast(pl.Float64)), n), np.float64) for n in ("UL", "LL")
        )
        self.factor = self.raw["AdjFactor"]
        g = np.cumprod(np.where(np.isnan(self.factor), 1.0, self.factor), axis=0)
        self.o, self.h, self.l, self.c = (self.raw[n] / g for n in "OHLC")
        self.v, self.tv = self.raw["Vo"] * g, self.raw["Va"]
        self.traded = self.raw["Vo"] > 0
        general = np.isin(self.listing["Mkt"], GENERAL_MARKETS) & (self.listing["S33"] != "9999")
        self.universe = self.listed & self.traded & general

    def ret(self, k: int) -> Array:
        return self.c / lag(self.c, k) - 1


def listing_columns(m: Market) -> Columns:
    def ids(field: str, texts: str | tuple[str, ...], missing: int, last: tuple[str, int] = ("", 0)) -> Array:
        known = {text: i for i, text in enumerate(texts.split() if isinstance(texts, str) else texts, 1)}
        known[last[0]] = last[1]
        return np.array([[known.get(text, missing) for text in row] for row in m.listing[field]], np.float64)

    first = m.listed.argmax(axis=0)
    age = np.where(first > 0, np.arange(len(m.c), dtype=float)[:, None] - first, NAN)
    return {
        "meta_market_id": ids("Mkt", MARKETS, -1),
        "meta_sector17_id": ids("S17", tuple(str(i) for i in range(1, 18)), -1, ("99", 18)),
        "meta_sector33_id": ids("S33", SECTORS, -1, ("9999", 34)),
        "meta_scale_id": ids("ScaleCat", SCALES, 0),
        "meta_margin_id": ids("Mrgn", ("1", "2", "3"), 0),
        "meta_listing_age_td": age,
        "meta_history_td": np.cumsum(np.isfinite(m.c), axis=0).astype(float),
        "meta_is_recent_ipo": np.where(age < 60, 1.0, 0.0),
        "meta_is_traded": np.where(m.traded, 1.0, 0.0),
        "px_open": m.raw["O"],
        "px_high": m.raw["H"],
        "px_low": m.raw["L"],
        "px_close": m.raw["C"],
        "px_volume": m.raw["Vo"],
        "px_turnover": m.raw["Va"],
    }


def return_columns(m: Market) -> Columns:
    c, r = m.c, m.ret(1)

    def skew(window: Array, axis: int) -> Array:
        d = window - np.nanmean(window, axis=axis, keepdims=True)
        return np.asarray(np.nanmean(d**3, axis=axis) / np.nanmean(d**2, axis=axis) ** 1.5)

    return {
        **{f"ret_{k}d": m.ret(k) for k in (1, 3, 5, 10, 20, 60, 120, 240)},
        "logret_1d": np.log(c / lag(c, 1)),
        "logret_5d": np.log(c / lag(c, 5)),
        "ret_overnight": m.o / lag(c, 1) - 1,
        "ret_intraday": c / m.o - 1,
        "mom_240_20": lag(c, 20) / lag(c, 240) - 1,
        "ret_max_20": high(r, 20, 15),
        "ret_min_20": low(r, 20, 15),
        "ret_skew_60": np.where(sd(r, 60, 45) > 1e-12, over(r, 60, 45, skew), NAN),
    }


def volatility_columns(m: Market) -> Columns:
    o, h, lo, c = m.o, m.h, m.l, m.c
    x, hl, overnight, session = np.log(c / lag(c, 1)), np.log(h / lo), np.log(o / lag(c, 1)), np.log(c / o)
    rs = np.log(h / c) * np.log(h / o) + np.log(lo / c) * np.log(lo / o)

    def close_to_close(n: int, least: int) -> Array:
        return sd(x, n, least) * np.sqrt(245)

    def yang_zhang(n: int, least: int) -> Array:
        k = 0.34 / (1.34 + (n + 1) / (n - 1))
        inner = sd(overnight, n, least) ** 2 + k * sd(session, n, least) ** 2 + (1 - k) * mean(rs, n, least)
        return np.sqrt(245 * np.maximum(inner, 0))

    v5 = close_to_close(5, 4)
    return {
        "vol_cc_5": v5,
        "vol_cc_10": close_to_close(10, 8),
        "vol_cc_20": close_to_close(20, 15),
        "vol_cc_60": close_to_close(60, 45),
        "vol_pk_20": np.sqrt(245 * mean(hl**2, 20, 15) / (4 * np.log(2))),
        "vol_rs_20": np.sqrt(245 * np.maximum(mean(rs, 20, 15), 0)),
        "vol_yz_20": yang_zhang(20, 15),
        "vol_yz_60": yang_zhang(60, 45),
        "vol_down_20": np.sqrt(245 * mean(np.minimum(x, 0) ** 2, 20, 15)),
        "vol_of_vol_20": divided(sd(v5, 20, 15), mean(v5, 20, 15)),
        "vol_ratio_5_60": divided(v5, close_to_close(60, 45)),
        "range_hl_1d": hl,
        "range_z_20": divided(hl - mean(lag(hl, 1), 20, 15), sd(lag(hl, 1), 20, 15)),
    }


def indicator_columns(m: Market) -> Columns:
    h, lo, c = m.h, m.l, m.c
    move, macd = c - lag(c, 1), ema(c, 12) - ema(c, 26)

    def rsi(n: int) -> Array:
        up, down = rma(np.where(move > 0, move, 0 * move), n), rma(np.where(move < 0, -move, 0 * move), n)
        return np.where(up + down <= 1e-12, 50.0, 100 * divided(up, up + down))

    rise, fall = h - lag(h, 1), lag(lo, 1) - lo
    plus = np.where((rise > fall) & (rise > 0), rise, 0 * rise + 0 * fall)
    minus = np.where((fall > rise) & (fall > 0), fall, 0 * rise + 0 * fall)
    spans = [h - lo, np.abs(h - lag(c, 1)), np.abs(lo - lag(c, 1))]
    tr = rma(np.max(spans, axis=0), 14)
    p, n = divided(rma(plus, 14), tr), divided(rma(minus, 14), tr)
    dx = np.where(p + n == 0, 0.0, 100 * divided(np.abs(p - n), p + n))
    tp = (h + lo + c) / 3
    step = tp - lag(tp, 1)
    moved = np.where(np.abs(step) > 0, tp * m.v, 0 * step)
    m20, s20 = mean(c, 20, 18), sd(c, 20, 18, ddof=0)
    turnover = total(moved, 14, 12)
    inflow = total(np.where(step > 0, tp * m.v, 0 * step), 14, 12)
    return {
        **{f"ta_px_to_sma_{k}": c / mean(c, k, a) - 1 for k, a in ((5, 5), (20, 18), (60, 54), (200, 180))},
        "ta_ema_gap_5_20": ema(c, 5) / ema(c, 20) - 1,
        "ta_ema_gap_20_60": ema(c, 20) / ema(c, 60) - 1,
        "ta_rsi_2": rsi(2),
        "ta_rsi_14": rsi(14),
        "ta_macd_pct": macd / c,
        "ta_macd_signal_pct": ema(macd, 9) / c,
        "ta_macd_hist_pct": (macd - ema(macd, 9)) / c,
        "ta_bb_pctb_20": divided(c - (m20 - 2 * s20), 4 * s20),
        "ta_bb_width_20": 4 * s20 / m20,
        "ta_natr_14": tr / c,
        "ta_adx_14": rma(dx, 14) / 100,
        "ta_di_diff_14": p - n,
        "ta_stoch_k_14": divided(c - low(lo, 14, 12), high(h, 14, 12) - low(lo, 14, 12)),
        "ta_mfi_14": np.where(turnover == 0, 0.5, divided(inflow, turnover)),
        "ta_donchian_pos_20": divided(c - low(lo, 20, 18), high(h, 20, 18) - low(lo, 20, 18)),
        "ta_dist_high_240": c / high(h, 240, 120) - 1,
        "ta_dist_low_240": c / low(lo, 240, 120) - 1,
        "ta_close_loc": np.where(m.traded & (h == lo), 0.0, divided(2 * c - h - lo, h - lo)),
    }


def liquidity_columns(m: Market) -> Columns:
    v, tv, r = m.v, m.tv, np.abs(m.ret(1))
    before, size, x = lag(v, 1), np.log(1 + v), np.log(m.c / lag(m.c, 1))
    hl = np.log(m.h / m.l)
    b, g = hl**2 + lag(hl, 1) ** 2, np.log(np.maximum(m.h, lag(m.h, 1)) / np.minimum(m.l, lag(m.l, 1))) ** 2
    a = (np.sqrt(2 * b) - np.sqrt(b)) / (3 - 2 * np.sqrt(2)) - np.sqrt(g / (3 - 2 * np.sqrt(2)))
    spread = np.maximum(0, 2 * (np.exp(a) - 1) / (1 + np.exp(a)))
    market_turnover = np.nansum(np.where(m.universe, tv, 0), axis=1)[:, None]
    idle = np.where(m.listed, np.where(m.traded, 0.0, 1.0), NAN)
    return {
        "liq_vol_ratio_5": divided(v, mean(before, 5, 4)),
        "liq_vol_ratio_20": divided(v, mean(before, 20, 15)),
        "liq_vol_z_20": divided(size - mean(lag(size, 1), 20, 15), sd(lag(size, 1), 20, 15)),
        "liq_vol_accel": divided(mean(v, 5, 4), mean(v, 20, 15)) - 1,
        "liq_log_adv_20": np.log(1 + mean(tv, 20, 10)),
        "liq_log_adv_60": np.log(1 + mean(tv, 60, 30)),
        "liq_tv_mkt_share_bp": 1e4 * tv / market_turnover,
        "liq_amihud_20": np.log(1 + 1e9 * mean(divided(r, tv), 20, 10)),
        "liq_zero_frac_60": mean(idle, 60, 30),
        "liq_vwap_dev": divided(m.raw["C"] * m.raw["Vo"], tv) - 1,
        "liq_roll_spread_20": 2 * np.sqrt(np.maximum(0, -pairs(x, lag(x, 1), 20, 15, correlation=False))),
        "liq_cs_spread_20": mean(spread, 20, 15),
        "liq_retvol_corr_20": pairs(r, size, 20, 15, correlation=True),
    }


def event_columns(m: Market) -> Columns:
    hit = (m.up == 1) | (m.down == 1)
    known = np.where(np.isnan(m.up) & np.isnan(m.down), NAN, hit * 1.0)
    split = (m.factor != 1) & np.isfinite(m.factor)
    return {
        "lim_is_up": m.up,
        "lim_is_down": m.down,
        "lim_cnt_20": total(known, 20, 1),
        "lim_td_since": since(hit),
        "split_is_ex": split * 1.0,
        "split_td_since": since(split),
    }


def calendar_columns(m: Market) -> Columns:
    rows = []
    for day in m.dates:
        same_month = [d for d in m.trading if (d.year, d.month) == (day.year, day.month)]
        settlements = [
            settlement(day.year + (day.month + k - 1) // 12, (day.month + k - 1) % 12 + 1, m.trading) for k in (0, 1)
        ]
        at = bisect_left(m.trading, day)
        ahead = next(s for s in settlements if s >= day)
        to_next = (m.trading[at + 1] - day).days
        place = same_month.index(day)
        rows.append(
            (day.weekday(), day.month, place + 1, len(same_month) - place - 1, m.trading.index(ahead) - at, to_next - 1)
        )
    names = ("dow", "month", "td_of_month", "td_to_month_end", "td_to_sq", "closed_gap_next")
    table = np.array(rows, np.float64)
    return {f"cal_{name}": np.repeat(table[:, [i]], m.c.shape[1], axis=1) for i, name in enumerate(names)}


def settlement(year: int, month: int, trading: list[date]) -> date:
    """The second Friday, or the trading day before it."""
    day = next(d for d in (date(year, month, k) for k in range(8, 15)) if d.weekday() == 4)
    while day not in trading:
        day -= timedelta(days=1)
    return day


def rank_columns(m: Market, others: Columns) -> Columns:
    def pct(x: Array) -> Array:
        return by_date(x, m.universe, lambda v: (stats.rankdata(v) - 1) / (len(v) - 1))

    def z(x: Array) -> Array:
        def score(v: Array) -> Array:
            return np.clip((v - v.mean()) / v.std(ddof=1), -5, 5) if v.std() > 1e-12 else np.full(len(v), NAN)

        return by_date(x, m.universe, score)

    ranked = {"ret_1d": "ret_1d", "ret_5d": "ret_5d", "ret_20d": "ret_20d", "mom_240_20": "mom_240_20"}
    ranked |= {"vol_cc_20": "vol_cc_20", "adv_20": "liq_log_adv_20"}
    ratio = others["liq_vol_ratio_20"]
    return {
        **{f"xs_pct_{name}": pct(others[source]) for name, source in ranked.items()},
        "xs_z_ret_5d": z(others["ret_5d"]),
        "xs_z_vol_ratio_20": z(np.log(np.where(ratio > 0, ratio, NAN))),
    }


def by_date(x: Array, universe: NDArray[np.bool_], of: Callable[[Array], Array], least: int = 100) -> Array:
    """`of` the known values of each date's universe; null on a date with fewer than `least` of them."""
    out = np.full(x.shape, NAN)
    for t in range(len(x)):
        members = universe[t] & np.isfinite(x[t])
        if members.sum() >= least:
            out[t, members] = of(x[t, members])
    return out


def base_columns(m: Market) -> Columns:
    """Every base column in contract order, [T, N] each."""
    with np.errstate(all="ignore"):
        columns = listing_columns(m) | return_columns(m) | volatility_columns(m) | indicator_columns(m)
        columns |= liquidity_columns(m) | event_columns(m) | calendar_columns(m)
        return columns | rank_columns(m, columns)
