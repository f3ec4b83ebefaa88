"""Every column of `mkt` and `sec` once more, in the plainest form; see `plain_formulas`.

Tables of (date, sector) are filled cell by cell, and a member's own value is left out by taking it out of the list.
Sectors are numbered as they come; -1 is a cell without a listing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from atft_pipeline_tests.features.plain_formulas import Columns, Market, by_date
from atft_pipeline_tests.features.plain_windows import (
    NAN,
    Array,
    divided,
    ema,
    high,
    lag,
    mean,
    over,
    pairs,
    rma,
    sd,
)
from atft_pipeline_tests.synthetic import Frames

Places = NDArray[np.int64]
Mask = NDArray[np.bool_]


def market_columns(frames: Frames) -> Columns:
    """The index columns, each [T, 1]."""
    bars = pl.DataFrame({"Date": frames.dates}).join(frames.topix, on="Date", how="left").sort("Date")
    o, h, lo, k = (bars[name].to_numpy()[:, None] for name in "OHLC")
    r, x = k / lag(k, 1) - 1, np.log(k / lag(k, 1))
    vol = sd(x, 20, 15) * np.sqrt(245)
    overnight, session = np.log(o / lag(k, 1)), np.log(k / o)
    rs = np.log(h / k) * np.log(h / o) + np.log(lo / k) * np.log(lo / o)
    weight = 0.34 / (1.34 + 21 / 19)
    yz = sd(overnight, 20, 15) ** 2 + weight * sd(session, 20, 15) ** 2 + (1 - weight) * mean(rs, 20, 15)
    tr = np.max([h - lo, np.abs(h - lag(k, 1)), np.abs(lo - lag(k, 1))], axis=0)
    up, down = (rma(np.maximum(sign * (k - lag(k, 1)), 0), 14) for sign in (1, -1))
    gap, m20, s20 = ema(k, 5) / ema(k, 20) - 1, mean(k, 20, 18), sd(k, 20, 18, ddof=0)
    return {
        **{f"mkt_ret_{n}d": k / lag(k, n) - 1 for n in (1, 5, 10, 20, 60)},
        "mkt_ret_overnight": o / lag(k, 1) - 1,
        "mkt_ret_intraday": k / o - 1,
        "mkt_px_to_sma_20": k / m20 - 1,
        "mkt_px_to_sma_200": k / mean(k, 200, 180) - 1,
        "mkt_ema_gap_5_20": gap,
        "mkt_vol_cc_20": vol,
        "mkt_vol_yz_20": np.sqrt(245 * yz),
        "mkt_natr_14": rma(tr, 14) / k,
        "mkt_bb_pctb_20": (k - (m20 - 2 * s20)) / (4 * s20),
        "mkt_rsi_14": 100 * up / (up + down),
        "mkt_dd_240": k / high(k, 240, 120) - 1,
        "mkt_ret_1d_z240": z(r, 240, 120),
        "mkt_vol_20_z240": z(vol, 240, 120),
        "mkt_flag_bull_200": flag(k - mean(k, 200, 180)),
        "mkt_flag_trend_up": flag(gap),
        "mkt_flag_high_vol": flag(z(vol, 240, 120) - 1),
        "mkt_flag_big_move": flag(np.abs(r) - 2 * sd(lag(r, 1), 60, 45)),
    }


def z(x: Array, n: int, least: int) -> Array:
    return divided(x - mean(x, n, least), sd(x, n, least))


def flag(x: Array) -> Array:
    return np.where(np.isnan(x), NAN, x > 0)


def sector_columns(m: Market, others: Columns, index: Columns) -> Columns:
    """The sector columns, [T, N]; `others` are the base columns and `index` those of `mkt`."""
    sector, u, r1, r5, r20 = numbered(m.listing["S33"]), m.universe, m.ret(1), m.ret(5), m.ret(20)
    c1, c5 = clipped(r1, u), clipped(r5, u)
    s33 = Sectors(sector, u)
    s = s33.table(c1)
    ret_5d, ret_20d, vol = compound(s, 5, 5), compound(s, 20, 18), sd(s, 20, 15) * np.sqrt(245)
    level = np.where(np.isnan(s), NAN, np.nancumprod(1 + s, axis=0))
    tv = s33.table(m.tv, np.sum, least=1) / np.nansum(np.where(u, m.tv, 0), axis=1)[:, None]
    own = s33.on_stocks
    s17 = Sectors(numbered(m.listing["S17"]), u)
    month = compound(s17.table(clipped(r1, u)), 20, 18)
    member_count = np.nan_to_num(own(s33.table(np.ones(u.shape), np.sum, least=1)))
    return {
        "sec33_ret_1d": s33.mean_of_others(c1),
        "sec33_ret_5d": own(ret_5d),
        "sec33_ret_20d": own(ret_20d),
        "sec33_mom_60": own(compound(s, 60, 54)),
        "sec33_vol_20": own(vol),
        "sec33_vol_20_z240": own(z(vol, 240, 120)),
        "sec33_ema_gap_5_20": own(ema(level, 5) / ema(level, 20) - 1),
        "sec33_adv_ratio_1d": own(s33.table(np.where(np.isnan(r1), NAN, r1 > 0))),
        "sec33_turn_share_z60": own(z(np.log(tv), 60, 40)),
        "sec33_member_cnt": member_count,
        "sec33_rank_ret_5d": own(by_date(ret_5d, np.isfinite(ret_5d), ranks, least=20)),
        "sec33_rank_ret_20d": own(by_date(ret_20d, np.isfinite(ret_20d), ranks, least=20)),
        "sec33_mkt_rel_5d": own(ret_5d) - index["mkt_ret_5d"],
        "sec33_mkt_rel_20d": own(ret_20d) - index["mkt_ret_20d"],
        "sec33_rel_ret_1d": r1 - s33.mean_of_others(c1),
        "sec33_rel_ret_5d": r5 - s33.mean_of_others(c5),
        "sec33_rel_ret_20d": r20 - s33.mean_of_others(r20),
        "sec33_pct_ret_5d": s33.rank(r5),
        "sec33_pct_vol_ratio_20": s33.rank(others["liq_vol_ratio_20"]),
        "sec33_pct_adv_20": s33.rank(others["liq_log_adv_20"]),
        "sec33_beta_60": divided(pairs(r1, own(s), 60, 40, False), pairs(own(s), known(r1, own(s)), 60, 40, False)),
        "sec33_te_5d": target_encoding(m, sector),
        "sec17_ret_5d": s17.on_stocks(compound(s17.table(clipped(r1, u)), 5, 5)),
        "sec17_ret_20d": s17.on_stocks(month),
        "sec17_rel_ret_5d": r5 - s17.mean_of_others(r5),
        "sec17_rank_ret_20d": s17.on_stocks(by_date(month, np.isfinite(month), ranks, least=12)),
    }


def numbered(texts: NDArray[Any]) -> Places:
    names = sorted({text for text in texts.ravel() if text})
    return np.array([[names.index(text) if text else -1 for text in row] for row in texts])


def known(x: Array, y: Array) -> Array:
    """y where x is known."""
    return np.where(np.isfinite(x), y, NAN)


def ranks(v: Array) -> Array:
    return (stats.rankdata(v) - 1) / (len(v) - 1)


def compound(s: Array, n: int, least: int) -> Array:
    return over(1 + s, n, least, np.nanprod) - 1


def clipped(x: Array, universe: Mask) -> Array:
    """Members within the 1st and 99th percentile of their date."""
    return by_date(x, universe, lambda v: np.clip(v, *np.quantile(v, [0.01, 0.99])), least=1)


class Sectors:
    """Aggregates of the universe's members by the sector that is valid on each date."""

    def __init__(self, sector: Places, universe: Mask) -> None:
        self.sector, self.universe, self.count = sector, universe, sector.max() + 1

    def members(self, x: Array, t: int) -> list[Places]:
        """Columns of each sector's members whose x is known on the date."""
        inside = np.where(self.universe[t] & np.isfinite(x[t]), self.sector[t], -1)
        return [np.flatnonzero(inside == g) for g in range(self.count)]

    def table(self, x: Array, of: Callable[[Array], float] = np.mean, least: int = 5) -> Array:
        """[T, sectors]."""
        rows = ([x[t, inside] for inside in self.members(x, t)] for t in range(len(x)))
        return np.array([[of(v) if len(v) >= least else NAN for v in row] for row in rows], np.float64)

    def on_stocks(self, table: Array) -> Array:
        """The own sector's value on each date, [T, N]."""
        out = np.full(self.sector.shape, NAN)
        for g in range(self.count):
            out = np.where(self.sector == g, table[:, [g]], out)
        return out

    def mean_of_others(self, x: Array) -> Array:
        """Mean of the sector without the stock, in sectors of five members or more."""
        out = np.full(x.shape, NAN)
        for t in range(len(x)):
            for g, inside in enumerate(self.members(x, t)):
                if len(inside) < 5:
                    continue
                out[t, self.sector[t] == g] = x[t, inside].mean()
                for j in inside:
                    out[t, j] = x[t, inside[inside != j]].mean()
        return out

    def rank(self, x: Array) -> Array:
        out = np.full(x.shape, NAN)
        for t in range(len(x)):
            for inside in self.members(x, t):
                if len(inside) >= 5:
                    out[t, inside] = ranks(x[t, inside])
        return out


def target_encoding(m: Market, sector: Places) -> Array:
    """(n mean_sector + 100 mean_all)/(n + 100) of the labels of rows T - 250 ... T - 6, the own ones left out."""
    label = np.full(m.c.shape, NAN)
    label[:-5] = np.clip(m.c[5:] / m.c[:-5] - 1, -0.5, 0.5)
    label = np.where(m.universe, label, NAN)
    out = np.full(m.c.shape, NAN)
    for t in range(6, len(out)):
        y, then = label[max(0, t - 250) : t - 5], sector[max(0, t - 250) : t - 5]
        total, count = np.nansum(y), np.isfinite(y).sum()
        for g in set(sector[t]) - {-1}:
            same = np.where(then == g, y, NAN)
            now = np.flatnonzero(sector[t] == g)
            n = np.isfinite(same).sum() - np.isfinite(same[:, now]).sum(axis=0)
            mean_sector = (np.nansum(same) - np.nansum(same[:, now], axis=0)) / n
            mean_all = (total - np.nansum(y[:, now], axis=0)) / (count - np.isfinite(y[:, now]).sum(axis=0))
            out[t, now] = np.where(n >= 1, (n * mean_sector + 100 * mean_all) / (n + 100), NAN)
    return out
