"""The panel: axes, cells, ids, adjustment without the future, storage, and refusals."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from atft_pipeline.lake.store import LakeError
from atft_pipeline.panel.build import IDS, QUOTES
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic import Frames, calendar_frame, market, one_code_panel, trading_days


@pytest.fixture(scope="module")
def frames() -> Frames:
    return market(codes=20, days=260)


@pytest.fixture(scope="module")
def panel(frames: Frames) -> Panel:
    return build_panel(frames.calendar, frames.master, frames.bars)


def test_cells_hold_the_bars_of_their_date_and_code(frames: Frames, panel: Panel) -> None:
    for row in frames.bars.sample(40, seed=1).iter_rows(named=True):
        t, n = panel.axes.date_index(np.array([row["Date"]]))[0], panel.axes.code_index(np.array([row["Code"]]))[0]
        for name, source in QUOTES.items():
            given = float(row[source]) if row[source] is not None else np.nan
            assert getattr(panel, name)[t, n] == pytest.approx(given, nan_ok=True)


def test_a_column_of_codes_is_looked_up_like_an_array(panel: Panel) -> None:
    codes = [panel.axes.codes[3], "nobody", panel.axes.codes[0], None, panel.axes.codes[19]]
    np.testing.assert_array_equal(panel.axes.code_index(pl.Series(codes, dtype=pl.String)), [3, -1, 0, -1, 19])
    np.testing.assert_array_equal(panel.axes.code_index(np.array(["1301", "nobody"])), [-1, -1])


def test_listed_cells_are_exactly_the_master_rows(frames: Frames, panel: Panel) -> None:
    assert int(panel.axes.listed.sum()) == frames.master.height
    assert not panel.axes.listed[:200, 5].any() and panel.axes.listed[200:, 5].all()
    assert not panel.axes.listed[250:, 6].any()
    assert np.isnan(panel.close[~panel.axes.listed]).all()


def test_row_order_of_the_tables_does_not_matter(frames: Frames, panel: Panel) -> None:
    shuffled = [
        frame.sample(fraction=1, shuffle=True, seed=2) for frame in (frames.calendar, frames.master, frames.bars)
    ]
    again = build_panel(*shuffled)
    for name in (*QUOTES, *IDS):
        np.testing.assert_array_equal(getattr(again, name), getattr(panel, name))


def test_outage_day_is_not_on_the_date_axis() -> None:
    days = [date(2020, 9, 30), date(2020, 10, 1), date(2020, 10, 2)]
    panel = one_code_panel(days, [100.0, None, 101.0])
    assert panel.axes.dates.astype(str).tolist() == ["2020-09-30", "2020-10-02"]
    assert panel.ret_1d[1, 0] == pytest.approx(0.01)
    assert np.datetime64("2020-10-01") in panel.calendar.days


def test_split_moves_no_adjusted_price_and_no_earlier_row() -> None:
    days = [date(2022, 6, 27), date(2022, 6, 28), date(2022, 6, 29)]
    split = one_code_panel(days, [1736.0, 1738.0, 868.0], AdjFactor=[1.0, 1.0, 0.5])
    assert split.c[:, 0].tolist() == [1736.0, 1738.0, 1736.0]
    assert split.v[:, 0].tolist() == [1000.0, 1000.0, 500.0]  # in shares of 27 June
    before = one_code_panel(days[:2], [1736.0, 1738.0])
    np.testing.assert_array_equal(split.c[:2], before.c)


def test_ids_come_from_constants_and_the_date_itself(frames: Frames) -> None:
    """A code that changes segment keeps the old one before; an unknown text has the id of a missing one."""
    moved, code = frames.dates[100], frames.master["Code"][0]
    change = (pl.col("Code") == code) & (pl.col("Date") >= moved)
    master = frames.master.with_columns(
        Mkt=pl.when(change).then(pl.lit("0101")).otherwise("Mkt"),
        S33=pl.when(change).then(pl.lit("0000")).otherwise("S33"),
        ScaleCat=pl.when(change).then(pl.lit("TOPIX Core30")).otherwise("ScaleCat"),
    )
    panel = build_panel(frames.calendar, master, frames.bars)
    assert panel.market[99, 0] == 8 and panel.market[100, 0] == 1
    assert panel.sector33[99, 0] == 1 and panel.sector33[100, 0] == -1
    assert panel.scale[99, 0] == 2 and panel.scale[100, 0] == 1
    assert panel.sector33[0, 9] == 34 and panel.sector17[0, 9] == 18 and panel.market[0, 9] == 7


def test_universe_leaves_out_funds_and_days_without_trades(panel: Panel) -> None:
    assert not panel.universe[:, 9].any()
    assert not panel.universe[100:103, 7].any()
    assert panel.universe[99, 7] and panel.universe[103, 7]
    assert not panel.universe[:200, 5].any()
    assert panel.universe[:, 0].mean() > 0.9


def test_saved_panel_loads_equal_and_mapped(panel: Panel, tmp_path: Path) -> None:
    digest = panel.save(tmp_path / "market_panel")
    loaded = Panel.load(tmp_path / "market_panel")
    assert isinstance(loaded.close, np.memmap)
    for name in (*QUOTES, *IDS):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(panel, name))
    np.testing.assert_array_equal(loaded.axes.codes, panel.axes.codes)
    np.testing.assert_array_equal(loaded.calendar.days, panel.calendar.days)
    np.testing.assert_array_equal(loaded.ret_1d, panel.ret_1d)
    assert loaded.save(tmp_path / "again") == digest


def test_half_written_panel_does_not_load(panel: Panel, tmp_path: Path) -> None:
    panel.save(tmp_path)
    (tmp_path / "panel.json").unlink()
    with pytest.raises(LakeError, match="build the asset"):
        Panel.load(tmp_path)


def test_array_of_another_panel_is_refused(panel: Panel, tmp_path: Path) -> None:
    panel.save(tmp_path)
    np.save(tmp_path / "close.npy", panel.close[:-1])
    with pytest.raises(LakeError, match="close not of shape"):
        Panel.load(tmp_path)


def test_trading_day_without_rows_is_refused(frames: Frames) -> None:
    gap = frames.bars.filter(pl.col("Date") != frames.dates[50])
    with pytest.raises(ContractBroken, match=r"bars_daily has no row on 1 trading days"):
        build_panel(frames.calendar, frames.master, gap)


def test_repeated_key_is_refused(frames: Frames) -> None:
    with pytest.raises(ContractBroken, match="repeated"):
        build_panel(frames.calendar, frames.master, pl.concat([frames.bars, frames.bars.head(3)]))


def test_bars_that_meet_no_listing_are_refused(frames: Frames) -> None:
    short_codes = frames.bars.with_columns(pl.col("Code").str.head(4))
    with pytest.raises(ContractBroken, match="belong to no listed issue"):
        build_panel(frames.calendar, frames.master, short_codes)


def test_missing_field_is_named(frames: Frames) -> None:
    with pytest.raises(ContractBroken, match="master lacks the columns S33"):
        build_panel(frames.calendar, frames.master.drop("S33"), frames.bars)


def test_empty_table_is_refused(frames: Frames) -> None:
    with pytest.raises(ContractBroken, match="is empty"):
        build_panel(frames.calendar, frames.master, frames.bars.clear())


def test_a_shared_series_is_kept_by_everything_it_depends_on() -> None:
    days = trading_days(calendar_frame(date(2024, 1, 4), date(2024, 3, 1)))[:8]
    panel = one_code_panel(days, [100.0 + i * i for i in range(8)])
    assert np.isnan(panel.vol_cc(5, 5)[4, 0])
    assert np.isfinite(panel.vol_cc(5, 4)[4, 0])
    assert panel.vol_cc(5, 4) is panel.vol_cc(5, 4)
