"""Style indices and breadth by hand: spreads, shares, extremes, minimum counts, missing indices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.breadth import GROUP, SECTORS, average_correlation
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic import Frames, market

Columns = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def frames() -> Frames:
    return market(days=260)


@pytest.fixture(scope="module")
def panel(frames: Frames) -> Panel:
    return build_panel(frames.calendar, frames.master, frames.bars)


def columns(panel: Panel, frames: Frames) -> Columns:
    """Each column as one series [T]: the same for every listed stock."""
    built = compute_group(GROUP, Inputs(panel, frames.events))
    assert all(np.array_equal(v[:, 0], v[:, 1], equal_nan=True) for v in built.values())
    return {name: values[:, 0] for name, values in built.items()}


def with_closes(frames: Frames, close: Callable[[str, int], float]) -> Frames:
    """Index bars whose close is a function of code and row."""
    rows = {day: t for t, day in enumerate(frames.dates)}
    values = [close(code, rows[day]) for day, code in frames.indices.select("Date", "Code").iter_rows()]
    return replace(frames, indices=frames.indices.with_columns(C=pl.Series(values, dtype=pl.Float64)))


def test_spreads_of_indices_that_grow_at_known_rates(panel: Panel, frames: Frames) -> None:
    rates = {"8100": 0.003, "8200": 0.001, "002D": 0.004, "0028": 0.002, "0070": 0.005, "0075": 0.006}
    grown = with_closes(frames, lambda code, t: 1000 * (1 + rates.get(code, 0.0)) ** t)
    ours = columns(panel, grown)
    k = frames.topix["C"].to_numpy()
    assert ours["idx_value_growth_5d"][50] == pytest.approx(1.003**5 - 1.001**5, rel=1e-5)
    assert ours["idx_value_growth_20d"][50] == pytest.approx(1.003**20 - 1.001**20, rel=1e-5)
    assert ours["idx_small_large_5d"][50] == pytest.approx(1.004**5 - 1.002**5, rel=1e-5)
    assert ours["idx_small_large_20d"][50] == pytest.approx(1.004**20 - 1.002**20, rel=1e-5)
    assert ours["idx_growth250_rel_5d"][50] == pytest.approx(1.005**5 - k[50] / k[45], rel=1e-5)
    assert ours["idx_reit_rel_20d"][50] == pytest.approx(1.006**20 - k[50] / k[30], rel=1e-5)
    assert np.isnan(ours["idx_value_growth_20d"][19]) and np.isfinite(ours["idx_value_growth_20d"][20])


def test_sector_dispersion_and_share_above_their_average(panel: Panel, frames: Frames) -> None:
    """Sector n grows by n/10,000 a day; the first falls instead, and one stands still."""
    rates = {code: (n - 1) / 1e4 for n, code in enumerate(SECTORS)}
    ours = columns(panel, with_closes(frames, lambda code, t: 1000 * (1 + rates.get(code, 0.0)) ** t))
    five_days = np.array([(1 + rate) ** 5 - 1 for rate in rates.values()])
    assert ours["idx_sector_disp_5d"][100] == pytest.approx(five_days.std(ddof=1), rel=1e-5)
    assert ours["idx_sector_gt_sma50"][100] == pytest.approx(31 / 33, rel=1e-6)
    assert np.isnan(ours["idx_sector_gt_sma50"][43]) and np.isfinite(ours["idx_sector_gt_sma50"][44])


def test_sector_columns_need_twenty_five_sectors(panel: Panel, frames: Frames) -> None:
    day = frames.dates[100]
    for missing, known in ((8, True), (9, False)):
        gone = pl.col("Code").is_in(SECTORS[:missing]) & (pl.col("Date") == day)
        ours = columns(panel, replace(frames, indices=frames.indices.filter(~gone)))
        assert bool(np.isfinite(ours["idx_sector_disp_5d"][100])) is known
        assert bool(np.isfinite(ours["idx_sector_gt_sma50"][100])) is known


def test_breadth_counts_members_of_the_universe_only(panel: Panel, frames: Frames) -> None:
    ours, t, inside = columns(panel, frames), 200, panel.universe[200]
    r = panel.ret_1d[t][inside]
    moved = r[np.isfinite(r) & (r != 0)]
    assert ours["brd_adv_ratio_1d"][t] == pytest.approx((moved > 0).mean(), rel=1e-6)
    assert ours["brd_adv_ratio_10d"][t] == pytest.approx(ours["brd_adv_ratio_1d"][t - 9 : t + 1].mean(), rel=1e-5)
    inner = r[np.isfinite(r)]
    assert ours["brd_disp_ret_1d"][t] == pytest.approx(
        np.clip(inner, *np.quantile(inner, [0.05, 0.95])).std(ddof=1), rel=1e-5
    )


def moving(panel: Panel, daily: float) -> Panel:
    """Every stock moves by the same share a day."""
    price = np.where(panel.axes.listed, 100 * daily ** np.arange(len(panel.close))[:, None], np.nan)
    return replace(panel, open=price, high=price, low=price, close=price, factor=np.ones(price.shape))


def test_new_highs_and_lows(panel: Panel, frames: Frames) -> None:
    rising, falling = (columns(moving(panel, daily), frames) for daily in (1.001, 0.999))
    assert np.isnan(rising["brd_high_low_240"][118]) and rising["brd_high_low_240"][119] == 1
    assert rising["brd_gt_sma_60"][100] == 1 and rising["brd_adv_ratio_1d"][100] == 1
    assert np.isnan(rising["brd_avg_corr_60"][100]), "no variance, no correlation"
    assert falling["brd_high_low_240"][200] == -1
    assert falling["brd_gt_sma_60"][200] == 0 and falling["brd_adv_ratio_1d"][200] == 0


def test_breadth_needs_a_hundred_members() -> None:
    few = market(codes=90, days=260)
    ours = columns(build_panel(few.calendar, few.master, few.bars), few)
    counted = ("brd_adv_ratio_1d", "brd_adv_ratio_10d", "brd_gt_sma_60", "brd_high_low_240", "brd_disp_ret_1d")
    assert all(np.isnan(ours[name]).all() for name in counted)
    assert np.isfinite(ours["idx_sector_disp_5d"][-1])


def test_average_correlation_is_one_for_equal_stocks_and_small_for_independent_ones() -> None:
    rng = np.random.default_rng(6)
    common, own = rng.normal(0, 0.01, (200, 1)), rng.normal(0, 0.01, (200, 150))
    everyone = np.ones(own.shape, bool)
    assert average_correlation(np.broadcast_to(common, own.shape), everyone)[-1] == pytest.approx(1)
    assert average_correlation(own, everyone)[-1] < 0.05
    assert average_correlation(common + own, everyone)[-1] == pytest.approx(0.5, abs=0.12)


def test_missing_index_is_named(panel: Panel, frames: Frames) -> None:
    without = replace(frames, indices=frames.indices.filter(~pl.col("Code").is_in(["8200", "004A"])))
    with pytest.raises(ContractBroken, match="no bar of 004A, 8200"):
        columns(panel, without)


def test_repeated_bar_is_refused_and_days_off_the_axis_are_left_out(panel: Panel, frames: Frames) -> None:
    twice = replace(frames, indices=pl.concat([frames.indices, frames.indices.head(1)]))
    with pytest.raises(ContractBroken, match="twice"):
        columns(panel, twice)
    stray = frames.indices.filter(pl.col("Date") == frames.dates[0]).with_columns(Date=frames.dates[0].replace(day=1))
    ours = columns(panel, frames)
    for name, values in columns(panel, replace(frames, indices=pl.concat([frames.indices, stray]))).items():
        np.testing.assert_array_equal(values, ours[name], err_msg=name)
