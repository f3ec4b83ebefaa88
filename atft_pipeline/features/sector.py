"""`sec`: sector aggregates and each stock's strength relative to its sector.

Sector windows run on a (date, sector) table, so a sector's month is twenty dates whatever the number of members; the
sector of a stock is the one valid on the date itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.tables import required_table
from atft_pipeline.features.topix import read_topix
from atft_pipeline.panel.operators import (
    Array,
    cs_clip,
    cs_rank,
    cs_sum,
    divide,
    elementwise,
    group_column,
    group_count_table,
    group_mean,
    group_rank,
    group_sum_table,
    group_table,
    group_take,
    log,
    ts_beta,
    ts_cumprod,
    ts_ema,
    ts_lag,
    ts_product,
    ts_std,
    ts_sum,
    ts_zscore,
    where,
)
from atft_pipeline.panel.panel import Panel
from atft_pipeline.settings import ANNUAL_DAYS

SECTORS33 = 35
"""Columns of a sector33 table: id 0 is unused, 34 is 9999 (funds), which the universe leaves out."""
SECTORS17 = 19
MIN_MEMBERS = 5

TARGET_HORIZON = 5
TARGET_WINDOW = 245
"""Rows r = s + 5 with T - 250 <= s and s + 5 <= T - 1: the last 245 rows before T."""
TARGET_CLIP = 0.5
TARGET_PRIOR = 100
"""Weight of the whole market's mean, in rows."""

Ids = NDArray[np.integer]


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    topix = read_topix(required_table(inputs.tables, "topix"), panel.axes.dates)
    yield from _sector33_columns(panel, topix.simple_return(5), topix.simple_return(20))
    yield from _member_columns(panel)
    yield from _sector17_columns(panel)


def sector_returns(panel: Panel, sector: Ids, sectors: int) -> Array:
    """S [T, sectors]: the members' mean daily return, each within the date's 1st to 99th percentile."""
    return group_table(panel.clipped_ret_1d, sector, panel.universe, sectors, MIN_MEMBERS)


def mean_of_others(x: Array, sector: Ids, universe: NDArray[np.bool_], sectors: int) -> Array:
    """Mean of x over the other members of the stock's sector, [T, N]; null in a sector of fewer than 5 members."""
    members = group_take(group_count_table(x, sector, universe, sectors), sector)
    return where(members >= MIN_MEMBERS, group_mean(x, sector, universe, 1, leave_one_out=True))


def _compound(s: Array, rows: int, min_obs: int) -> Array:
    return ts_product(1 + s, rows, min_obs) - 1


def _sector33_columns(panel: Panel, market_5d: Array, market_20d: Array) -> Iterator[tuple[str, NDArray[np.floating]]]:
    sector, universe, ret = panel.sector33, panel.universe, panel.ret_1d
    s = sector_returns(panel, sector, SECTORS33)
    ret_5d, ret_20d, vol = _compound(s, 5, 5), _compound(s, 20, 18), ts_std(s, 20, 15) * np.sqrt(ANNUAL_DAYS)
    level = np.where(np.isnan(s), np.nan, ts_cumprod(1 + s))
    rising = elementwise(lambda ret: np.where(np.isnan(ret), np.nan, ret > 0), ret)
    share = log(divide(group_sum_table(panel.turnover, sector, universe, SECTORS33), _column(panel.market_turnover)))
    members = group_count_table(np.ones(ret.shape), sector, universe, SECTORS33)

    def own(table: Array) -> NDArray[np.float32]:
        return group_column(table, sector)

    yield "sec33_ret_1d", mean_of_others(panel.clipped_ret_1d, sector, universe, SECTORS33)
    yield "sec33_ret_5d", own(ret_5d)
    yield "sec33_ret_20d", own(ret_20d)
    yield "sec33_mom_60", own(_compound(s, 60, 54))
    yield "sec33_vol_20", own(vol)
    yield "sec33_vol_20_z240", own(ts_zscore(vol, 240, 120))
    yield "sec33_ema_gap_5_20", own(divide(ts_ema(level, 5), ts_ema(level, 20)) - 1)
    yield "sec33_adv_ratio_1d", own(group_table(rising, sector, universe, SECTORS33, MIN_MEMBERS))
    yield "sec33_turn_share_z60", own(ts_zscore(share, 60, 40))
    yield "sec33_member_cnt", own(members)
    yield "sec33_rank_ret_5d", own(cs_rank(ret_5d, min_obs=20))
    yield "sec33_rank_ret_20d", own(cs_rank(ret_20d, min_obs=20))
    yield "sec33_mkt_rel_5d", own(ret_5d - _column(market_5d))
    yield "sec33_mkt_rel_20d", own(ret_20d - _column(market_20d))


def _member_columns(panel: Panel) -> Iterator[tuple[str, Array]]:
    sector, universe = panel.sector33, panel.universe
    ret_5d, ret_20d = panel.ret(5), panel.ret(20)
    clipped_5d = cs_clip(ret_5d, universe, 0.01, 0.99)

    def others(x: Array) -> Array:
        return mean_of_others(x, sector, universe, SECTORS33)

    yield "sec33_rel_ret_1d", elementwise(np.subtract, panel.ret_1d, others(panel.clipped_ret_1d))
    yield "sec33_rel_ret_5d", elementwise(np.subtract, ret_5d, others(clipped_5d))
    yield "sec33_rel_ret_20d", elementwise(np.subtract, ret_20d, others(ret_20d))
    yield "sec33_pct_ret_5d", group_rank(ret_5d, sector, universe, MIN_MEMBERS)
    yield "sec33_pct_vol_ratio_20", group_rank(panel.vol_ratio_20, sector, universe, MIN_MEMBERS)
    yield "sec33_pct_adv_20", group_rank(panel.log_adv_20, sector, universe, MIN_MEMBERS)
    own_sector = group_take(sector_returns(panel, sector, SECTORS33), sector)
    yield "sec33_beta_60", ts_beta(panel.ret_1d, own_sector, 60, 40)
    yield "sec33_te_5d", target_encoding(ret_5d, sector, universe)


def _sector17_columns(panel: Panel) -> Iterator[tuple[str, Array]]:
    sector, universe, ret_5d = panel.sector17, panel.universe, panel.ret(5)
    s = sector_returns(panel, sector, SECTORS17)
    month = _compound(s, 20, 18)
    yield "sec17_ret_5d", group_take(_compound(s, 5, 5), sector)
    yield "sec17_ret_20d", group_take(month, sector)
    yield "sec17_rel_ret_5d", ret_5d - mean_of_others(ret_5d, sector, universe, SECTORS17)
    yield "sec17_rank_ret_20d", group_take(cs_rank(month, min_obs=12), sector)


def target_encoding(ret_5d: Array, sector: Ids, universe: NDArray[np.bool_]) -> Array:
    """Mean 5-day label of the stock's sector over the labels fully realised before T, shrunk to the market's, [T, N].

    The label of row s is the 5-row return that ends at row s + 5, so `ret_5d` at that row is the label itself and no
    row looks ahead. Sector and membership are those of row s; the stock's own labels are left out of both means.
    """
    sector_then = _lag_ids(sector, TARGET_HORIZON)
    member = ts_lag(universe.astype(np.float64), TARGET_HORIZON) == 1
    label = elementwise(_clipped_where, member, ret_5d)
    ones = where(np.isfinite(label), 1.0)
    in_sector: list[Array] = []
    in_market: list[Array] = []
    for x in (label, ones):
        table = _before_today(group_sum_table(x, sector_then, None, SECTORS33))
        in_sector.append(group_take(table, sector) - _own_in_sector(x, sector_then, sector))
        in_market.append(_column(_before_today(cs_sum(x))) - _before_today(x))
    n = in_sector[1]
    prior = divide(in_market[0], in_market[1])
    return elementwise(_shrunk, in_sector[0], n, prior, sector)


def _clipped_where(member: Array, ret_5d: Array) -> Array:
    return np.where(member, np.clip(ret_5d, -TARGET_CLIP, TARGET_CLIP), np.nan)


def _shrunk(total: Array, n: Array, prior: Array, sector: Array) -> Array:
    return np.where((n >= 1) & (sector >= 1), (total + TARGET_PRIOR * prior) / (n + TARGET_PRIOR), np.nan)


def _before_today(x: Array) -> Array:
    """Sum over the label rows that were complete before T."""
    return ts_sum(ts_lag(x, 1), TARGET_WINDOW, 0)


def _own_in_sector(x: Array, sector_then: Ids, sector: Ids) -> Array:
    """The stock's own part of its current sector's sum: rows of the window when it was already in that sector."""
    own = _before_today(x)
    seen = np.where(np.isnan(x), -1, sector_then)
    low = np.where(seen >= 0, seen, np.iinfo(np.int16).max).min(axis=0, initial=np.iinfo(np.int16).max)
    for j in np.flatnonzero(seen.max(axis=0, initial=-1) > low):
        for g in np.unique(seen[:, j][seen[:, j] >= 0]):
            part = _before_today(np.where(seen[:, j] == g, x[:, j], np.nan))
            own[:, j] = np.where(sector[:, j] == g, part, own[:, j])
    return own


def _lag_ids(ids: Ids, rows: int) -> NDArray[np.int16]:
    out = np.full(ids.shape, -1, np.int16)
    out[rows:] = ids[:-rows]
    return out


def _column(series: Array) -> Array:
    """[T] as [T, 1], to meet [T, N]."""
    return series[:, None]


_CS = "cross_section"
COLUMNS = (
    Column("sec33_ret_1d", "f32", "leave-one-out mean of clipped ret_1d in the sector", "1 lag", ">= 5 members", _CS),
    Column("sec33_ret_5d", "f32", "prod(1 + S) - 1 over 5 dates", "5/5", "", _CS),
    Column("sec33_ret_20d", "f32", "prod(1 + S) - 1 over 20 dates", "20/18", "", _CS),
    Column("sec33_mom_60", "f32", "prod(1 + S) - 1 over 60 dates", "60/54", "", _CS),
    Column("sec33_vol_20", "f32", "sd(S) sqrt(245)", "20/15", "", _CS),
    Column("sec33_vol_20_z240", "f32", "z of sec33_vol_20 on the sector table", "240/120", "null if sd 0", _CS),
    Column("sec33_ema_gap_5_20", "f32", "ema5(I)/ema20(I) - 1, I = cumulative product of 1 + S", "20", "", _CS),
    Column("sec33_adv_ratio_1d", "f32", "share of members with ret_1d > 0", "1 lag", ">= 5 members", _CS),
    Column("sec33_turn_share_z60", "f32", "z of ln(sector turnover / market turnover)", "60/40", "null if sd 0", _CS),
    Column("sec33_member_cnt", "i16", "traded members of U(T) in the sector", "", "", "log"),
    Column("sec33_rank_ret_5d", "f32", "rank of sec33_ret_5d among sectors, 0..1", "5/5", ">= 20 sectors", _CS),
    Column("sec33_rank_ret_20d", "f32", "rank of sec33_ret_20d among sectors, 0..1", "20/18", ">= 20 sectors", _CS),
    Column("sec33_mkt_rel_5d", "f32", "sec33_ret_5d - mkt_ret_5d", "5/5", "", _CS),
    Column("sec33_mkt_rel_20d", "f32", "sec33_ret_20d - mkt_ret_20d", "20/18", "", _CS),
    Column("sec33_rel_ret_1d", "f32", "ret_1d - sec33_ret_1d", "1 lag", "", _CS),
    Column("sec33_rel_ret_5d", "f32", "ret_5d - leave-one-out mean of clipped ret_5d", "5 lag", ">= 5 members", _CS),
    Column("sec33_rel_ret_20d", "f32", "ret_20d - leave-one-out mean of ret_20d", "20 lag", ">= 5 members", _CS),
    Column("sec33_pct_ret_5d", "f32", "rank of ret_5d inside the sector, 0..1", "5 lag", ">= 5 members", _CS),
    Column("sec33_pct_vol_ratio_20", "f32", "rank of liq_vol_ratio_20 inside the sector", "20/15", ">= 5 members", _CS),
    Column("sec33_pct_adv_20", "f32", "rank of liq_log_adv_20 inside the sector", "20/10", ">= 5 members", _CS),
    Column("sec33_beta_60", "f32", "cov(ret_1d, S)/var(S), own sector's S on each date", "60/40", "", _CS),
    Column("sec33_te_5d", "f32", "(n mean_sector + 100 mean_all)/(n + 100)", "250 lag", "n >= 1", _CS),
    Column("sec17_ret_5d", "f32", "prod(1 + S17) - 1 over 5 dates", "5/5", "", _CS),
    Column("sec17_ret_20d", "f32", "prod(1 + S17) - 1 over 20 dates", "20/18", "", _CS),
    Column(
        "sec17_rel_ret_5d", "f32", "ret_5d - leave-one-out mean of ret_5d in sector17", "5 lag", ">= 5 members", _CS
    ),
    Column("sec17_rank_ret_20d", "f32", "rank of sec17_ret_20d among the 17 sectors", "20/18", ">= 12 sectors", _CS),
)

GROUP = Group(
    name="sec",
    tier="standard",
    tables=("calendar", "master", "bars_daily", "topix"),
    availability="T, after the close",
    columns=COLUMNS,
    compute=compute,
)
