"""`idx`: what kind of stock leads, from the exchange's indices, and how broad the market's move is (brd_).

One value per date, the same for every stock. Rows of an index are the panel's trading days.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.tables import require_columns, required_table
from atft_pipeline.features.topix import read_topix
from atft_pipeline.panel.operators import (
    Array,
    cs_clip,
    cs_mean,
    cs_std,
    divide,
    ts_lag,
    ts_max,
    ts_mean,
    ts_min,
    ts_var,
    where_known,
)
from atft_pipeline.panel.panel import Panel
from atft_pipeline.verdict import ContractBroken

VALUE, GROWTH, CORE30, SMALL, GROWTH250, REIT = "8100", "8200", "0028", "002D", "0070", "0075"
SECTORS = tuple(f"{0x40 + n:04X}" for n in range(33))
"""0040 to 0060 in hexadecimal: the 33 sector indices in the official order."""

MIN_SECTORS = 25
MIN_MEMBERS = 100


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns, each [T]; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    topix = read_topix(required_table(inputs.tables, "topix"), panel.axes.dates)
    codes = (VALUE, GROWTH, CORE30, SMALL, GROWTH250, REIT, *SECTORS)
    close = read_index_closes(required_table(inputs.tables, "indices"), panel.axes.dates, codes)

    def ret(code: str, rows: int) -> Array:
        return _return(close[:, codes.index(code)], rows)

    sectors = close[:, -len(SECTORS) :]
    average = ts_mean(sectors, 50, 45)
    yield "idx_value_growth_5d", ret(VALUE, 5) - ret(GROWTH, 5)
    yield "idx_value_growth_20d", ret(VALUE, 20) - ret(GROWTH, 20)
    yield "idx_small_large_5d", ret(SMALL, 5) - ret(CORE30, 5)
    yield "idx_small_large_20d", ret(SMALL, 20) - ret(CORE30, 20)
    yield "idx_growth250_rel_5d", ret(GROWTH250, 5) - topix.simple_return(5)
    yield "idx_reit_rel_20d", ret(REIT, 20) - topix.simple_return(20)
    yield "idx_sector_disp_5d", cs_std(_return(sectors, 5), min_obs=MIN_SECTORS)
    yield "idx_sector_gt_sma50", cs_mean(where_known(sectors > average, sectors, average), min_obs=MIN_SECTORS)
    yield from _breadth_columns(panel)


def _breadth_columns(panel: Panel) -> Iterator[tuple[str, Array]]:
    universe, ret = panel.universe, panel.ret_1d
    moved = np.where(ret == 0, np.nan, ret)
    advancing = cs_mean(where_known(moved > 0, moved), universe, MIN_MEMBERS)
    to_average = divide(panel.c, ts_mean(panel.c, 60, 54)) - 1
    clipped = cs_clip(ret, universe, 0.05, 0.95)
    yield "brd_adv_ratio_1d", advancing
    yield "brd_adv_ratio_10d", ts_mean(advancing, 10, 8)
    yield "brd_gt_sma_60", cs_mean(where_known(to_average > 0, to_average), universe, MIN_MEMBERS)
    yield "brd_high_low_240", cs_mean(_at_extreme(panel), universe, MIN_MEMBERS)
    yield "brd_disp_ret_1d", cs_std(clipped, universe, MIN_MEMBERS)
    yield "brd_avg_corr_60", average_correlation(ret, universe)


def _at_extreme(panel: Panel) -> Array:
    """1 at a new high of 240 rows, -1 at a new low, 0 at neither or both; null with fewer than 120 rows."""
    high, low = ts_max(panel.h, 240, 120), ts_min(panel.l, 240, 120)
    return where_known(panel.h >= high, panel.h, high) - where_known(panel.l <= low, panel.l, low)


def average_correlation(ret: Array, universe: NDArray[np.bool_]) -> Array:
    """Variance of the equal-weight mean return over the members' mean variance, 60 rows, within 0 and 1, [T].

    Near the mean pairwise correlation when members are many: independent ones cancel, equal ones do not.
    """
    together = ts_var(cs_mean(ret, universe), 60, 45)
    alone = cs_mean(ts_var(ret, 60, 40), universe)
    return np.clip(divide(together, alone), 0, 1)


def read_index_closes(indices: pl.DataFrame, dates: NDArray[np.datetime64], codes: tuple[str, ...]) -> Array:
    """Closes [T, codes] on the panel's dates; null on a date without a bar, days off the axis left out.

    Raises ContractBroken when a column or an index code is missing, or an index has a date twice.
    """
    require_columns("indices", indices, ("Date", "Code", "C"))
    wanted = indices.filter(pl.col("Code").is_in(codes)).select("Date", "Code", pl.col("C").cast(pl.Float64))
    absent = sorted(set(codes) - set(wanted["Code"].unique()))
    if absent:
        raise ContractBroken(
            f"indices has no bar of {', '.join(absent)}; ingest it again, or check the exchange's index codes"
        )
    if wanted.select("Date", "Code").is_duplicated().any():
        raise ContractBroken("indices holds an index and date twice; ingest it again")
    days = wanted["Date"].to_numpy().astype("datetime64[D]")
    row = np.searchsorted(dates, days)
    on_axis = (row < len(dates)) & (dates[np.minimum(row, len(dates) - 1)] == days)
    column = wanted["Code"].replace_strict({code: n for n, code in enumerate(codes)}, return_dtype=pl.Int64).to_numpy()
    closes = np.full((len(dates), len(codes)), np.nan)
    closes[row[on_axis], column[on_axis]] = wanted["C"].to_numpy()[on_axis]
    return closes


def _return(close: Array, rows: int) -> Array:
    return divide(close, ts_lag(close, rows)) - 1


_M, _EITHER = "market", "null if either missing"
COLUMNS = (
    Column(
        "idx_value_growth_5d", "f32", "5-row return of index 8100 minus 8200", "5 lag", "null if either missing", _M
    ),
    Column("idx_value_growth_20d", "f32", "same over 20 rows", "20 lag", _EITHER, _M),
    Column("idx_small_large_5d", "f32", "5-row return of index 002D minus 0028", "5 lag", _EITHER, _M),
    Column("idx_small_large_20d", "f32", "same over 20 rows", "20 lag", _EITHER, _M),
    Column("idx_growth250_rel_5d", "f32", "5-row return of index 0070 - mkt_ret_5d", "5 lag", "", _M),
    Column("idx_reit_rel_20d", "f32", "20-row return of index 0075 - mkt_ret_20d", "20 lag", "", _M),
    Column("idx_sector_disp_5d", "f32", "sd of the sector indices' 5-row returns", "5 lag", ">= 25 sectors", _M),
    Column("idx_sector_gt_sma50", "f32", "share of sector indices above mean50", "50/45", ">= 25 sectors", _M),
    Column("brd_adv_ratio_1d", "f32", "share of risers among the members that moved", "1 lag", ">= 100 moved", _M),
    Column("brd_adv_ratio_10d", "f32", "mean of brd_adv_ratio_1d", "10/8", "", _M),
    Column("brd_gt_sma_60", "f32", "share of members with ta_px_to_sma_60 > 0", "60/54", ">= 100 members", _M),
    Column("brd_high_low_240", "f32", "(new highs - new lows)/n, of h and l", "240/120", ">= 100 members", _M),
    Column("brd_disp_ret_1d", "f32", "sd of ret_1d clipped to its 5th..95th percentile", "1 lag", ">= 100 members", _M),
    Column(
        "brd_avg_corr_60", "f32", "var60(mean ret_1d)/mean(var60(ret_1d)), clip 0..1", "60/45", "member >= 40 obs", _M
    ),
)

GROUP = Group(
    name="idx",
    tier="standard",
    tables=("calendar", "master", "bars_daily", "topix", "indices"),
    availability="T, after the close",
    columns=COLUMNS,
    compute=compute,
)
