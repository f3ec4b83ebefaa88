"""Investor flows on the panel: sections by market code, publication lag, staleness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.flow import GROUP, SECTION_OF_MARKET, stock_sections
from atft_pipeline.features.flow_records import SECTIONS
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.panel.ids import MARKET_IDS
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline_tests.synthetic_events import Row, investor_week, market_tables, typed, weekdays

DAYS = weekdays(60, date(2023, 1, 2))
MONDAY = DAYS[5]
THURSDAY = MONDAY + timedelta(days=10)
"""Publication of the week that begins on MONDAY."""


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Three stocks: Prime, Standard, Growth."""
    codes = ["10010", "10020", "10030"]
    tables = market_tables(codes, DAYS, np.random.default_rng(0), sectors=["3650"], markets=["0111", "0112", "0113"])
    return build_panel(tables["calendar"], tables["master"], tables["bars_daily"])


def columns(panel: Panel, rows: Sequence[Row]) -> Mapping[str, NDArray[np.float32]]:
    return compute_group(GROUP, Inputs(panel, {"investor_types": typed("investor_types", rows)}))


def row_of(day: date) -> int:
    return DAYS.index(day)


def test_every_market_code_has_a_section() -> None:
    expected = {
        "0101": "TSE1st", "0102": "TSE2nd", "0104": "TSEMothers", "0105": "TokyoNagoya", "0106": "TSEJASDAQ",
        "0107": "TSEJASDAQ", "0109": "TokyoNagoya", "0111": "TSEPrime", "0112": "TSEStandard", "0113": "TSEGrowth",
    }  # fmt: skip
    assert {code: SECTION_OF_MARKET[number] for code, number in MARKET_IDS.items()} == expected


def test_unknown_market_has_no_section_and_is_not_filled() -> None:
    market = np.array([[-1, 8, 1]], np.int8)
    assert stock_sections(market).tolist() == [[-1, SECTIONS["TSEPrime"], SECTIONS["TSE1st"]]]


def test_week_is_usable_from_the_first_trading_day_after_its_publication(panel: Panel) -> None:
    built = columns(panel, [investor_week(THURSDAY, "TSEPrime", MONDAY)])
    known = np.isfinite(built["flow_foreign_net_ratio"])
    friday = row_of(THURSDAY) + 1
    assert not known[:friday].any()
    assert known[friday : friday + 16, 0].all()
    assert not known[:, 1:].any(), "Prime's flow says nothing about Standard and Growth"
    assert built["flow_staleness_td"][friday, 0] == 0


def test_flow_goes_stale_but_says_so(panel: Panel) -> None:
    built = columns(panel, [investor_week(THURSDAY, "TSEPrime", MONDAY)])
    friday = row_of(THURSDAY) + 1
    assert np.isfinite(built["flow_foreign_net_ratio"][friday + 15, 0])
    assert np.isnan(built["flow_foreign_net_ratio"][friday + 16, 0])
    assert built["flow_valid"][friday : friday + 13, 0].tolist() == [1.0] * 11 + [0.0] * 2
    assert built["flow_staleness_td"][friday + 20, 0] == 20
    assert built["flow_valid"][0].tolist() == [0.0, 0.0, 0.0]


def test_later_publications_do_not_change_earlier_staleness(panel: Panel) -> None:
    first = investor_week(THURSDAY, "TSEPrime", MONDAY)
    later = investor_week(THURSDAY + timedelta(weeks=3), "TSEPrime", MONDAY + timedelta(weeks=3))
    until = row_of(THURSDAY) + 16
    alone, both = columns(panel, [first]), columns(panel, [first, later])
    for name in alone:
        assert np.array_equal(alone[name][:until], both[name][:until], equal_nan=True), name


def test_amount_known_is_the_one_then_published(panel: Panel) -> None:
    first = investor_week(THURSDAY, "TSEPrime", MONDAY)
    corrected = investor_week(THURSDAY + timedelta(days=6), "TSEPrime", MONDAY, buy=40, sell=60)
    ratio = columns(panel, [first, corrected])["flow_foreign_net_ratio"][:, 0]
    change = row_of(THURSDAY + timedelta(days=6)) + 1
    assert ratio[change - 1 : change + 1] == pytest.approx([0.2, -0.2])


def test_stock_reads_the_section_of_its_market_on_the_date(panel: Panel) -> None:
    market = panel.market.copy()
    market[30:, 0] = panel.market[0, 1]
    rows = [
        investor_week(THURSDAY + timedelta(weeks=w), section, MONDAY + timedelta(weeks=w), *sides)
        for w in range(4)
        for section, sides in (("TSEPrime", (60.0, 40.0)), ("TSEStandard", (40.0, 60.0)))
    ]
    ratio = columns(replace(panel, market=market), rows)["flow_foreign_net_ratio"][:, 0]
    assert ratio[29:31] == pytest.approx([0.2, -0.2])
