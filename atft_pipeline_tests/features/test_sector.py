"""Sector aggregates: windows count dates, membership is of the date, and labels are complete before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.features.sector import GROUP, target_encoding
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline_tests.synthetic_events import market_tables, topix_bars, weekdays

DAYS = weekdays(90, date(2022, 1, 3))
Columns = Mapping[str, NDArray[np.float32]]


def market(sectors: list[str], stocks: int = 24, days: list[date] | None = None, seed: int = 4) -> Panel:
    codes = [f"{10000 + 10 * i}" for i in range(stocks)]
    tables = market_tables(codes, days or DAYS, np.random.default_rng(seed), sectors)
    return build_panel(tables["calendar"], tables["master"], tables["bars_daily"])


def columns(panel: Panel) -> Columns:
    topix = topix_bars(panel.axes.dates.tolist(), np.random.default_rng(9))
    return compute_group(GROUP, Inputs(panel, {"topix": topix}))


def with_close(panel: Panel, close: NDArray[np.float64]) -> Panel:
    return replace(panel, close=close)


@pytest.mark.parametrize("stocks", [12, 36])
def test_constant_sector_return_compounds_over_dates_whatever_the_member_count(stocks: int) -> None:
    panel = market(["3650", "7050"], stocks)
    growth = np.where(panel.sector33 == panel.sector33[0, 0], 1.01, 0.995)
    built = columns(with_close(panel, 1000 * np.cumprod(growth, axis=0)))
    assert built["sec33_ret_20d"][-1, :2] == pytest.approx([1.01**20 - 1, 0.995**20 - 1])
    assert built["sec33_mom_60"][-1, :2] == pytest.approx([1.01**60 - 1, 0.995**60 - 1])
    assert built["sec33_vol_20"][-1, 0] == pytest.approx(0.0, abs=1e-12)
    assert built["sec33_ema_gap_5_20"][-1, 0] > 0 > built["sec33_ema_gap_5_20"][-1, 1]


def test_own_return_is_left_out_of_its_sectors_mean() -> None:
    panel = market(["3650", "7050"])
    built = columns(panel)
    r, same = panel.ret_1d[-1], np.arange(24) % 2 == 0
    clipped = np.clip(r, np.quantile(r, 0.01), np.quantile(r, 0.99))
    others = same & (np.arange(24) != 0)
    assert built["sec33_ret_1d"][-1, 0] == pytest.approx(clipped[others].mean())
    assert built["sec33_rel_ret_1d"][-1, 0] == pytest.approx(r[0] - clipped[others].mean())
    r5 = panel.ret(20)[-1]
    assert built["sec33_rel_ret_20d"][-1, 0] == pytest.approx(r5[0] - r5[others].mean())


def test_small_sector_has_no_aggregates_but_a_count() -> None:
    panel = market(["3650"] * 5 + ["7050"], 24)
    built = columns(panel)
    bank = panel.sector33[0] == panel.sector33[0, 5]
    assert bank.sum() == 4
    assert np.isnan(built["sec33_ret_1d"][:, bank]).all()
    assert np.isnan(built["sec33_ret_5d"][:, bank]).all()
    assert (built["sec33_member_cnt"][-1, bank] == 4).all()


def test_five_members_are_enough_for_the_mean_of_the_other_four() -> None:
    panel = market(["3650", "7050"], 10)
    built = columns(panel)["sec33_rel_ret_20d"]
    others = panel.ret(20)[-1, 2::2]
    assert len(others) == 4
    assert built[-1, 0] == pytest.approx(panel.ret(20)[-1, 0] - others.mean(), rel=1e-5)


def test_code_that_changes_sector_keeps_the_old_one_before() -> None:
    stays, moves = market(["3650", "7050"]), market(["3650", "7050"])
    sector = stays.sector33.copy()
    sector[60:, 0] = stays.sector33[0, 1]
    moves = replace(moves, sector33=sector)
    before, after = columns(stays), columns(moves)
    for name in before:
        assert np.array_equal(before[name][:60], after[name][:60], equal_nan=True), name
    assert after["sec33_ret_1d"][60, 0] != before["sec33_ret_1d"][60, 0]
    assert after["sec33_member_cnt"][60].tolist() == [13, 13] + [11, 13] * 11


def test_sector_beta_is_exact_for_a_scaled_sector_return() -> None:
    panel = market(["3650", "7050"], days=weekdays(120, date(2022, 1, 3)))
    own = columns(panel)["sec33_beta_60"]
    members = own[-1][panel.sector33[-1] == panel.sector33[-1, 0]]
    assert members.mean() == pytest.approx(1.0, abs=0.05), "the betas of a sector's members average one"


def labels(panel: Panel) -> NDArray[np.float64]:
    """target_ret_5d by its definition, clipped; row s holds the return from s to s + 5."""
    ahead = np.full(panel.c.shape, np.nan)
    ahead[:-5] = panel.c[5:] / panel.c[:-5] - 1
    return np.clip(ahead, -0.5, 0.5)


def test_target_encoding_is_the_shrunk_mean_of_complete_labels() -> None:
    panel = market(["3650", "7050"])
    encoded = target_encoding(panel.ret(5), panel.sector33, panel.universe)
    today, own = 80, 3
    rows = np.arange(0, today - 5)  # s + 5 <= T - 1
    y = labels(panel)[rows]
    y[:, own] = np.nan
    same = panel.sector33[rows] == panel.sector33[today, own]
    n = np.isfinite(y[same]).sum()
    expected = (n * np.nanmean(y[same]) + 100 * np.nanmean(y)) / (n + 100)
    assert encoded[today, own] == pytest.approx(expected)


def test_target_encoding_ignores_prices_from_today_on() -> None:
    panel = market(["3650", "7050"])
    today = 70
    close = panel.close.copy()
    close[today:] *= np.random.default_rng(1).uniform(0.5, 2, close[today:].shape)
    honest, poisoned = (
        target_encoding(p.ret(5), p.sector33, p.universe)[: today + 1] for p in (panel, with_close(panel, close))
    )
    assert np.array_equal(honest, poisoned, equal_nan=True), "a label needs its last price before T"
    assert np.isfinite(honest[-1]).all()


def test_target_encoding_follows_a_stock_into_its_new_sector() -> None:
    panel = market(["3650", "7050"])
    sector = panel.sector33.copy()
    sector[40:, 0] = sector[0, 1]
    encoded = target_encoding(panel.ret(5), sector, panel.universe)
    today = 80
    y = labels(panel)[: today - 5]
    y[:, 0] = np.nan
    same = sector[: today - 5] == sector[today, 0]
    n = np.isfinite(y[same]).sum()
    expected = (n * np.nanmean(y[same]) + 100 * np.nanmean(y)) / (n + 100)
    assert encoded[today, 0] == pytest.approx(expected)


def test_ranks_need_twenty_sectors() -> None:
    built = columns(market(["3650", "7050"]))
    assert np.isnan(built["sec33_rank_ret_5d"]).all()


def test_turnover_share_compares_the_sector_with_its_own_past() -> None:
    panel = market(["3650", "7050"])
    turnover = panel.turnover.copy()
    turnover[-1, ::2] *= 50
    built = columns(replace(panel, turnover=turnover))
    assert built["sec33_turn_share_z60"][-1, 0] > 3
    assert built["sec33_turn_share_z60"][-1, 1] < -3


def test_topix_relative_column_subtracts_the_index() -> None:
    panel = market(["3650", "7050"])
    topix = topix_bars(panel.axes.dates.tolist(), np.random.default_rng(9))
    built = columns(panel)
    index = topix["C"].to_numpy()
    expected = built["sec33_ret_5d"][-1] - (index[-1] / index[-6] - 1)
    assert built["sec33_mkt_rel_5d"][-1] == pytest.approx(expected)
    assert pl.Series(built["sec33_mkt_rel_5d"][-1]).is_not_nan().all()
