"""Short selling by sector and reported positions: golden values, publication days, holders, windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features import short_positions
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.features.short_selling import GROUP
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic import START, calendar_frame, market, one_code_panel, trading_days
from atft_pipeline_tests.synthetic_events import market_tables, weekdays
from atft_pipeline_tests.synthetic_trading import report, sector_selling, typed_rows

CODE = "13010"
DAYS = trading_days(calendar_frame(START, date(2023, 3, 1)))
Rows = Sequence[Mapping[str, object]]


def columns(sectors: Rows = (), reports: Rows = (), panel: Panel | None = None) -> dict[str, NDArray[np.float32]]:
    """The columns of the first code, in sector 0050."""
    panel = panel or one_code_panel(DAYS, [100.0] * len(DAYS))
    tables = {
        "short_ratio": typed_rows("short_ratio", sectors),
        "short_sale_report": typed_rows("short_sale_report", reports),
    }
    return {name: values[:, 0] for name, values in compute_group(GROUP, Inputs(panel, tables)).items()}


def test_sector_and_market_shares_of_a_day() -> None:
    rows = [sector_selling(DAYS[50], "0050", 600.0, 300.0, 100.0), sector_selling(DAYS[50], "9050", 900.0, 50.0, 50.0)]
    found = columns(rows)
    wanted = {
        "ss_sec_ratio": 0.4,
        "ss_sec_restricted_share": 0.75,
        "ss_mkt_ratio": 500 / 2000,
        "ss_sec_rel_ratio": 0.15,
    }
    assert {name: found[name][51] for name in wanted} == pytest.approx(wanted)
    assert all(np.isnan(found[name][50]) for name in wanted)  # published after the close


def test_windows_count_the_sector_s_records() -> None:
    rng = np.random.default_rng(3)
    yen = np.round(rng.uniform(1, 5, (80, 3)) * 1e6)
    days = [t for t in range(90) if t % 9 != 4]  # some days have no record
    found = columns([sector_selling(DAYS[t], "0050", *map(float, yen[n])) for n, t in enumerate(days[:80])])
    ratio = yen[:, 1:].sum(axis=1) / yen.sum(axis=1)
    amount = np.log(yen[:, 1:].sum(axis=1))
    for n in (39, 60, 79):
        row = days[n] + 1
        for name, series in (("ss_sec_ratio_z60", ratio), ("ss_sec_turnover_z60", amount), ("ss_mkt_ratio_z60", ratio)):
            window = series[max(0, n - 59) : n + 1]
            z = (window[-1] - window.mean()) / window.std(ddof=1)
            assert found[name][row] == pytest.approx(z, rel=1e-4), name
        assert found["ss_sec_ratio_chg_1d"][row] == pytest.approx(ratio[n] - ratio[n - 1], rel=1e-4)
        assert found["ss_sec_ratio_dev_5"][row] == pytest.approx(ratio[n] - ratio[n - 4 : n + 1].mean(), rel=1e-4)
    assert np.isnan(found["ss_sec_ratio_z60"][days[38] + 1])


def test_a_sector_that_sold_nothing_short_has_no_restricted_share() -> None:
    found = columns(
        [sector_selling(DAYS[50], "0050", 100.0, 0.0, 0.0), sector_selling(DAYS[51], "0050", 0.0, 0.0, 0.0)]
    )
    assert found["ss_sec_ratio"][51] == 0.0 and np.isnan(found["ss_sec_restricted_share"][51])
    assert np.isnan(found["ss_sec_ratio"][52])


def test_a_stock_reads_the_sector_to_which_it_belongs_on_the_day() -> None:
    days = weekdays(40, date(2023, 1, 2))
    tables = market_tables(["10000", "10010"], days, np.random.default_rng(1), sectors=["0050", "9050"])
    moved = pl.when(pl.col("Date") >= days[20]).then(pl.lit("9050")).otherwise("S33")
    panel = build_panel(tables["calendar"], tables["master"].with_columns(S33=moved), tables["bars_daily"])
    rows = [sector_selling(days[5], "0050", 1.0, 1.0, 0.0), sector_selling(days[5], "9050", 3.0, 1.0, 0.0)]
    assert columns(rows, panel=panel)["ss_sec_ratio"][[18, 20]].tolist() == [0.5, 0.25]


def test_unknown_sector_codes_are_a_broken_join() -> None:
    with pytest.raises(ContractBroken, match="short_ratio: S33 '50' is no sector code"):
        columns([{**sector_selling(DAYS[5], "0050", 1.0, 1.0, 0.0), "S33": "50"}])


def test_two_holders_add_up() -> None:
    day = DAYS[50]
    reports = [
        report(CODE, day, DAYS[48], 0.006, "Alpha Bank", shares=6_000.0),
        report(CODE, day, DAYS[48], 0.014, "Beta Capital", shares=14_000.0),
        report(CODE, day, DAYS[48], 0.02, "Beta Capital", fund="Another fund", shares=20_000.0),
    ]
    found = columns(reports=reports)
    wanted = {
        "ssp_ratio_sum": 0.04,
        "ssp_reporter_cnt": 3.0,
        "ssp_top_ratio": 0.02,
        "ssp_hhi": 0.15**2 + 0.35**2 + 0.5**2,
        "ssp_chg_5d": 0.04,
        "ssp_chg_20d": 0.04,
        "ssp_days_to_cover": 40.0,  # 1,000 shares trade a day
        "ssp_staleness_td": 0.0,
        "ssp_valid": 1.0,
    }
    assert {name: found[name][51] for name in wanted} == pytest.approx(wanted, rel=1e-6)
    empty = {**dict.fromkeys(wanted, 0.0), "ssp_staleness_td": 250.0}
    assert {name: found[name][50] for name in wanted} == empty
    assert found["ssp_chg_5d"][56] == 0.0 and found["ssp_chg_20d"][56] == pytest.approx(0.04)


def test_a_position_is_known_the_day_after_its_disclosure_not_its_calculation() -> None:
    monday = date(2022, 6, 6)
    found = columns(reports=[report(CODE, date(2022, 6, 8), monday, 0.007)])
    assert DAYS[int(np.flatnonzero(found["ssp_valid"])[0])] == date(2022, 6, 9)


def test_a_report_below_the_threshold_closes_the_position() -> None:
    reports = [report(CODE, DAYS[50], DAYS[48], 0.0071), report(CODE, DAYS[60], DAYS[58], 0.0049)]
    found = columns(reports=reports)
    assert found["ssp_ratio_sum"][[60, 61]] == pytest.approx([0.0071, 0.0])
    assert found["ssp_valid"][61] == 0 and found["ssp_hhi"][61] == 0 and found["ssp_staleness_td"][61] == 0
    exactly = columns(reports=[report(CODE, DAYS[50], DAYS[48], 0.005)])
    assert exactly["ssp_reporter_cnt"][51] == 1


def test_a_holder_who_is_silent_for_240_days_is_forgotten() -> None:
    found = columns(reports=[report(CODE, DAYS[4], DAYS[2], 0.0071)])
    assert found["ssp_valid"][[5, 244, 245]].tolist() == [1, 1, 0]
    assert found["ssp_staleness_td"][[244, 245]].tolist() == [239, 240]


def test_a_late_report_for_an_older_day_changes_no_state_but_is_the_last_report() -> None:
    reports = [report(CODE, DAYS[50], DAYS[48], 0.0071), report(CODE, DAYS[55], DAYS[40], 0.0300)]
    found = columns(reports=reports)
    assert found["ssp_ratio_sum"][56] == pytest.approx(0.0071)
    assert found["ssp_staleness_td"][[55, 56, 57]].tolist() == [4, 0, 1]


def test_positions_before_the_reports_began_are_unknown() -> None:
    days = trading_days(calendar_frame(date(2013, 9, 2), date(2014, 3, 1)))
    panel = one_code_panel(days, [100.0] * len(days))
    found = columns(reports=[report(CODE, days[-2], days[-4], 0.01)], panel=panel)
    begun = days.index(date(2013, 11, 7))
    assert np.isnan(found["ssp_ratio_sum"][:begun]).all() and (found["ssp_ratio_sum"][begun:-1] == 0).all()
    assert np.isnan(found["ssp_chg_5d"][begun + 4]) and found["ssp_chg_5d"][begun + 5] == 0


def test_shares_are_brought_into_split_units() -> None:
    factor = [1.0] * len(DAYS)
    factor[60] = 0.5
    volume = [1000.0 if t < 60 else 2000.0 for t in range(len(DAYS))]
    panel = one_code_panel(DAYS, [100.0] * len(DAYS), Vo=volume, AdjFactor=factor)
    found = columns(reports=[report(CODE, DAYS[50], DAYS[48], 0.01, shares=8_000.0)], panel=panel)
    np.testing.assert_allclose(found["ssp_days_to_cover"][51:100], 8.0, rtol=1e-6)


def test_holders_in_parts_give_the_same_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = market(codes=20, days=260)
    panel = build_panel(frames.calendar, frames.master, frames.bars)
    whole = short_positions.open_positions(panel, frames.short_sale_report)
    monkeypatch.setattr(short_positions, "HOLDERS_AT_ONCE", 5)
    parts = short_positions.open_positions(panel, frames.short_sale_report)
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(values, getattr(parts, name), err_msg=name)
    assert whole.count.max() == 3
