"""Base columns by hand: listing state, raw prices, returns, liquidity, events, ranks; and the group protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from numpy.typing import NDArray

from atft_pipeline.features import events, liquidity, meta, prices, ranks, returns
from atft_pipeline.features.catalog import GROUPS
from atft_pipeline.features.group import Column, Inputs, compute_columns, compute_group
from atft_pipeline.panel.ids import MARGIN_IDS, MARKET_IDS, SECTOR17_IDS, SECTOR33_IDS
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic import Frames, calendar_frame, market, one_code_panel, trading_days

Columns = dict[str, NDArray[np.float32]]
BASE = [group for group in GROUPS if group.tier == "base"]


@pytest.fixture(scope="module")
def frames() -> Frames:
    return market()


@pytest.fixture(scope="module")
def panel(frames: Frames) -> Panel:
    return build_panel(frames.calendar, frames.master, frames.bars)


@pytest.fixture(scope="module")
def columns(panel: Panel) -> Columns:
    return {name: values for group in BASE for name, values in compute_columns(group, Inputs(panel, {}))}


def days(n: int) -> list[date]:
    return trading_days(calendar_frame(date(2022, 1, 4), date(2023, 12, 29)))[:n]


def test_there_are_ninety_nine_base_features(columns: Columns) -> None:
    assert len(columns) == 99
    assert sum(column.spectral for group in BASE for column in group.columns) == 16


def test_no_column_is_empty_and_prices_are_nearly_everywhere(columns: Columns, panel: Panel) -> None:
    listed = panel.axes.listed
    for name, values in columns.items():
        known = np.isfinite(values[250:][listed[250:]]).mean()
        floor = 0.001 if name == "meta_listing_age_td" else 0.80
        assert known >= floor, f"{name} is known on {known:.1%} of the rows after warm-up"


def test_no_column_has_a_value_off_the_listing_life(columns: Columns, panel: Panel) -> None:
    for name, values in columns.items():
        assert np.isnan(values[~panel.axes.listed]).all(), name


def test_whole_number_columns_hold_whole_numbers_in_their_type(columns: Columns) -> None:
    limits = {"i8": 127, "i16": 32767, "i32": 2**31 - 1}
    for group in BASE:
        for column in group.columns:
            if column.dtype in limits:
                values = columns[column.name]
                known = values[np.isfinite(values)]
                assert (known == np.rint(known)).all() and np.abs(known).max() <= limits[column.dtype], column.name


def test_listing_age_is_unknown_for_those_listed_on_the_first_day(columns: Columns) -> None:
    age, recent = columns["meta_listing_age_td"], columns["meta_is_recent_ipo"]
    assert np.isnan(age[:, 0]).all() and (recent[:, 0] == 0).all()
    assert age[200, 5] == 0 and age[259, 5] == 59 and age[260, 5] == 60
    assert recent[200, 5] == 1 and recent[259, 5] == 1 and recent[260, 5] == 0


def test_history_counts_closes_not_days(columns: Columns, panel: Panel) -> None:
    closes = np.isfinite(panel.close[:, 7]).cumsum()
    np.testing.assert_array_equal(columns["meta_history_td"][:, 7], closes)
    assert closes[-1] <= len(closes) - 3
    assert (columns["meta_is_traded"][100:103, 7] == 0).all()


def test_raw_prices_are_raw(columns: Columns, panel: Panel) -> None:
    for name in ("open", "high", "low", "close", "volume", "turnover"):
        np.testing.assert_array_equal(columns[f"px_{name}"], getattr(panel, name).astype(np.float32))
    assert columns["px_close"][150, 3] / columns["px_close"][149, 3] == pytest.approx(0.5, abs=0.06)


def test_returns_look_back() -> None:
    """L1: on a ramp the return is the past one."""
    ramp = one_code_panel(days(30), [100.0 + t for t in range(30)])
    ours = compute_group(returns.GROUP, Inputs(ramp, {}))
    assert ours["ret_1d"][10, 0] == pytest.approx(110 / 109 - 1, rel=1e-5)
    assert ours["ret_20d"][25, 0] == pytest.approx(125 / 105 - 1, rel=1e-5)
    assert np.isnan(ours["ret_20d"][19, 0]) and np.isfinite(ours["ret_20d"][20, 0])
    assert ours["logret_5d"][10, 0] == pytest.approx(np.log(110 / 105), rel=1e-5)


def test_day_is_night_and_session(columns: Columns) -> None:
    product = (1 + columns["ret_overnight"].astype(float)) * (1 + columns["ret_intraday"]) - 1
    np.testing.assert_allclose(product, columns["ret_1d"], atol=1e-6)


def test_return_next_to_a_day_without_trades_is_null_but_the_longer_one_is_not(columns: Columns) -> None:
    assert np.isnan(columns["ret_1d"][100:104, 7]).all()
    assert np.isfinite(columns["ret_1d"][104, 7]) and np.isfinite(columns["ret_5d"][104, 7])
    assert np.isnan(columns["ret_3d"][105, 7])


def test_skewness_of_a_still_price_is_null() -> None:
    still = compute_group(returns.GROUP, Inputs(one_code_panel(days(70), [500.0] * 70), {}))
    assert np.isnan(still["ret_skew_60"][-1, 0]) and still["ret_max_20"][-1, 0] == 0


def test_volume_surprise_leaves_today_out(columns: Columns, panel: Panel) -> None:
    v = panel.v[:, 0]
    assert columns["liq_vol_ratio_5"][50, 0] == pytest.approx(v[50] / np.nanmean(v[45:50]), rel=1e-5)
    prior = np.log1p(v[30:50])
    expected = (np.log1p(v[50]) - np.nanmean(prior)) / np.nanstd(prior, ddof=1)
    assert columns["liq_vol_z_20"][50, 0] == pytest.approx(expected, rel=1e-4)


def test_split_leaves_volume_ratios_continuous(columns: Columns) -> None:
    assert 0.1 < columns["liq_vol_ratio_20"][150, 3] < 10
    assert 0.1 < columns["liq_vol_ratio_20"][180, 4] < 10


def test_turnover_shares_of_the_universe_add_up(columns: Columns, panel: Panel) -> None:
    shares = np.where(panel.universe, columns["liq_tv_mkt_share_bp"], 0)
    np.testing.assert_allclose(np.nansum(shares, axis=1), 1e4, rtol=1e-4)


def test_illiquidity_and_closing_bias_by_hand(columns: Columns, panel: Panel) -> None:
    r, tv = panel.ret_1d[31:51, 0], panel.turnover[31:51, 0]
    assert columns["liq_amihud_20"][50, 0] == pytest.approx(np.log1p(1e9 * np.nanmean(np.abs(r) / tv)), rel=1e-4)
    vwap = panel.turnover[50, 0] / panel.volume[50, 0]
    assert columns["liq_vwap_dev"][50, 0] == pytest.approx(panel.close[50, 0] / vwap - 1, abs=1e-6)


def test_days_without_trades_are_counted_within_the_listing_life(columns: Columns, panel: Panel) -> None:
    quiet = ~panel.traded[:, 8]
    assert columns["liq_zero_frac_60"][100, 8] == pytest.approx(quiet[41:101].mean(), rel=1e-5)
    assert np.isnan(columns["liq_zero_frac_60"][228, 5]) and np.isfinite(columns["liq_zero_frac_60"][229, 5])


def test_idle_volume_has_no_ratio() -> None:
    idle = one_code_panel(days(40), [500.0] * 40, Vo=[0.0] * 40, Va=[0.0] * 40)
    ours = compute_group(liquidity.GROUP, Inputs(idle, {}))
    empty = ("liq_vol_ratio_5", "liq_vol_z_20", "liq_vwap_dev", "liq_retvol_corr_20", "liq_amihud_20")
    assert all(np.isnan(ours[name][-1, 0]) for name in empty)
    assert ours["liq_tv_mkt_share_bp"][-1, 0] == 0 and ours["liq_zero_frac_60"][-1, 0] == 1


def test_events_count_rows_since() -> None:
    up = ["1" if t == 3 else "0" for t in range(40)]
    down = ["1" if t == 6 else None if t == 9 else "0" for t in range(40)]
    factor = [0.5 if t == 10 else 1.0 for t in range(40)]
    limits = one_code_panel(days(40), [100.0] * 40, UL=up, LL=down, AdjFactor=factor)
    ours = {name: values[:, 0] for name, values in compute_group(events.GROUP, Inputs(limits, {})).items()}
    assert ours["lim_td_since"][[0, 2, 3, 5, 6, 20]].tolist() == [250, 250, 0, 2, 0, 14]
    assert ours["lim_cnt_20"][[2, 3, 6, 22, 23, 26]].tolist() == [0, 1, 2, 2, 1, 0]
    assert np.isnan(ours["lim_is_down"][9]) and ours["lim_is_up"][3] == 1
    assert ours["split_is_ex"].nonzero()[0].tolist() == [10]
    assert ours["split_td_since"][[9, 10, 12]].tolist() == [250, 0, 2]


def test_ranks_stay_inside_the_universe(columns: Columns, panel: Panel) -> None:
    for name in (c.name for c in ranks.GROUP.columns):
        assert np.isnan(columns[name][~panel.universe]).all(), name
    pct = columns["xs_pct_ret_1d"][100][panel.universe[100]]
    assert np.nanmin(pct) == 0 and np.nanmax(pct) == 1 and np.nanmean(pct) == pytest.approx(0.5, abs=1e-6)


def test_ranks_need_a_hundred_members(frames: Frames) -> None:
    few = market(codes=60, days=260)
    small = build_panel(few.calendar, few.master, few.bars)
    assert all(np.isnan(v).all() for v in compute_group(ranks.GROUP, Inputs(small, {})).values())


def test_score_is_null_when_the_whole_market_stood_still(panel: Panel) -> None:
    still = replace(panel, close=np.where(panel.axes.listed, 100.0, np.nan), factor=np.ones(panel.axes.shape))
    ours = compute_group(ranks.GROUP, Inputs(still, {}))
    assert np.isnan(ours["xs_z_ret_5d"]).all()
    assert np.nanmax(np.abs(ours["xs_pct_ret_1d"] - 0.5)) == 0  # ties share the middle


def test_dictionary_of_listing_attributes(columns: Columns) -> None:
    """Q10, Q18, Q25: every code of the exchange's lists has an id, whatever the data of the day."""
    assert sorted(MARKET_IDS.values()) == list(range(1, 11))
    assert sorted(SECTOR33_IDS.values()) == list(range(1, 35)) and SECTOR33_IDS["9999"] == 34
    assert SECTOR33_IDS["0050"] == 1 and SECTOR33_IDS["9050"] == 33
    assert sorted(SECTOR17_IDS.values()) == list(range(1, 19)) and SECTOR17_IDS["99"] == 18
    assert MARGIN_IDS["2"] == 2
    assert set(np.unique(columns["meta_margin_id"][np.isfinite(columns["meta_margin_id"])])) == {1, 2}


def faulty(values: NDArray[np.float64], names: tuple[str, ...]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    return ((name, values) for name in names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("one",), "declared but not computed: two"),
        (("two", "one"), "column 1 is two, declared is one"),
        (("one", "two", "three"), "column 3 is three, declared is no further column"),
    ],
)
def test_group_that_yields_other_columns_is_refused(panel: Panel, names: tuple[str, ...], message: str) -> None:
    declared = tuple(Column(name, "f32", "", "", "", "flag") for name in ("one", "two"))
    group = replace(prices.GROUP, columns=declared, compute=lambda inputs: faulty(inputs.panel.c, names))
    with pytest.raises(ContractBroken, match=message):
        compute_group(group, Inputs(panel, {}))


@pytest.mark.parametrize(("value", "message"), [(np.inf, "is infinite"), (1e300, "is infinite")])
def test_infinite_value_is_refused(panel: Panel, value: float, message: str) -> None:
    group = replace(
        meta.GROUP,
        columns=(Column("one", "f32", "", "", "", "flag"),),
        compute=lambda inputs: faulty(np.full(inputs.panel.axes.shape, value), ("one",)),
    )
    with pytest.raises(ContractBroken, match=message):
        compute_group(group, Inputs(panel, {}))


def test_column_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="see features/group.py"):
        Column("one", "f64", "", "", "", "flag")
