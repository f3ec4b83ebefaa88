"""Futures: a contract is compared with itself across a roll, and nothing is known before the next trading day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.future_contracts import central_contracts, regular
from atft_pipeline.features.futures import GROUP
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic_events import Row, market_tables, topix_bars, typed, weekdays

DAYS = weekdays(90, date(2024, 1, 1))
LAST, NEXT_LAST = DAYS[3], DAYS[70]


@pytest.fixture(scope="module")
def panel() -> Panel:
    tables = market_tables(["10010"], DAYS, np.random.default_rng(0), sectors=["3650"])
    return build_panel(tables["calendar"], tables["master"], tables["bars_daily"])


def contract(
    day: date, month: str, settle: float, product: str = "TOPIXF", central: bool = True, **more: object
) -> Row:
    last = LAST if month == "2024-03" else NEXT_LAST
    row: Row = {
        "Date": day, "Code": f"{product}{month}", "ProdCat": product, "CM": month, "LTD": last, "Settle": settle,
        "EC": settle - 1, "AO": settle - 2, "AC": settle, "H": settle + 5, "L": settle - 5, "OI": 1000.0, "Vo": 200.0,
        "EmMrgnTrgDiv": "002", "CCMFlag": "1" if central else "0",
    }  # fmt: skip
    return {**row, **more}


def roll() -> list[Row]:
    """Four days: March is central up to the third; June trades throughout, 100 points higher, and falls by one."""
    rows = []
    for at, day in enumerate(DAYS[:5]):
        if day <= LAST:
            rows.append(contract(day, "2024-03", 2000.0 + at, central=at < 3))
        rows.append(contract(day, "2024-06", 2100.0 - at, central=at >= 3))
    return rows


def columns(panel: Panel, rows: Sequence[Row]) -> dict[str, NDArray[np.float32]]:
    quotes = {"Date": DAYS[0], "Code": "1", "UnderPx": 28_000.0, "EmMrgnTrgDiv": "002"}
    given = {row["ProdCat"] for row in rows}
    others = [contract(DAYS[0], "2024-06", 1.0, product) for product in ("NK225F", "NKVIF", "JGBLF")]
    rows = [*rows, *(row for row in others if row["ProdCat"] not in given)]
    options = typed("options_225", [quotes | {"Date": day} for day in DAYS])
    topix = topix_bars(DAYS, np.random.default_rng(1)).with_columns(C=pl.lit(1990.0))
    tables = {"futures": typed("futures", rows), "options_225": options, "topix": topix}
    return {name: values[:, 0] for name, values in compute_group(GROUP, Inputs(panel, tables)).items()}


def test_a_roll_is_no_return(panel: Panel) -> None:
    value = columns(panel, roll())
    returns = value["fut_topix_ret_1d"]
    assert np.isnan(returns[:2]).all()
    np.testing.assert_allclose(
        returns[2:6], [2001 / 2000 - 1, 2002 / 2001 - 1, 2097 / 2098 - 1, 2096 / 2097 - 1], rtol=1e-4
    )
    across = 2097 / 2002 - 1  # what the central price alone would say on the day of the roll
    assert abs(returns[4] - across) > 0.04


def test_a_contract_is_compared_with_its_own_previous_date_only(panel: Panel) -> None:
    rows = [row for row in roll() if not (row["Date"] == DAYS[2] and row["CM"] == "2024-06")]
    assert np.isnan(columns(panel, rows)["fut_topix_ret_1d"][4])  # June has no settlement of the date before


def test_values_of_a_day_are_known_on_the_next_trading_day(panel: Panel) -> None:
    value = columns(panel, roll())
    np.testing.assert_allclose(value["fut_topix_basis"][1:3], [2000 / 1990 - 1, 2001 / 1990 - 1], rtol=1e-4)
    np.testing.assert_allclose(value["fut_topix_night_ret"][2], 2000 / 2000 - 1, atol=1e-7)
    np.testing.assert_allclose(value["fut_topix_day_ret"][1], 2000 / 1998 - 1, rtol=1e-4)
    np.testing.assert_allclose(value["fut_topix_range"][1], np.log(2005 / 1995), rtol=1e-5)
    gap = (NEXT_LAST - LAST).days
    np.testing.assert_allclose(value["fut_topix_term_slope"][1], np.log(2100 / 2000) * 365 / gap, rtol=1e-5)
    assert np.isnan(value["fut_topix_term_slope"][4])  # no contract after June
    np.testing.assert_array_equal(value["fut_td_to_roll"][1:5], [2, 1, 0, 66])
    assert np.isnan(value["fut_td_to_roll"][0])


def test_a_blank_night_and_a_day_without_a_trade_are_null(panel: Panel) -> None:
    rows = roll()
    rows[0] = rows[0] | {"EC": None}
    rows[2] = rows[2] | {"EC": 0.0, "AO": 0.0, "AC": 0.0, "H": 0.0, "L": 0.0}
    value = columns(panel, rows)
    assert np.isnan(value["fut_topix_night_ret"][1:3]).all()
    assert np.isnan(value["fut_topix_day_ret"][2]) and np.isnan(value["fut_topix_range"][2])
    assert np.isfinite(value["fut_topix_ret_1d"][2])


def test_sums_are_over_months_and_leave_emergencies_out(panel: Panel) -> None:
    rows = roll()
    rows[2] = rows[2] | {"OI": 3000.0}
    called = [row | {"EmMrgnTrgDiv": "001", "OI": 1e9, "Settle": 1.0} for row in rows]
    value = columns(panel, [*rows, *called])
    np.testing.assert_allclose(value["fut_topix_oi_chg_1d"][2], np.log(4000 / 2000), rtol=1e-5)
    np.testing.assert_allclose(value["fut_topix_ret_1d"][2], 2001 / 2000 - 1, rtol=1e-4)


def test_two_central_contracts_on_one_date_are_refused() -> None:
    rows = [contract(DAYS[0], "2024-03", 1.0), contract(DAYS[0], "2024-06", 1.0)]
    with pytest.raises(ContractBroken, match="TOPIXF has two central contracts"):
        central_contracts(regular(typed("futures", rows)), "TOPIXF")


def test_a_product_that_is_not_there_is_named(panel: Panel) -> None:
    with pytest.raises(ContractBroken, match="futures has no rows of TOPIXF"):
        columns(panel, [contract(DAYS[0], "2024-06", 1.0, "NK225F")])


def test_other_products(panel: Panel) -> None:
    rows = roll()
    for at, day in enumerate(DAYS[:8]):
        rows.append(contract(day, "2024-06", 20.0 + at, "NKVIF", central=False))
        rows.append(contract(day, "2024-06", 30_000.0, "NK225F"))
        rows.append(contract(day, "2024-06", 150.0 * 1.001**at, "JGBLF"))
        if day <= LAST:
            rows.append(contract(day, "2024-03", 25.0, "NKVIF", central=False))
    value = columns(panel, rows)
    np.testing.assert_allclose(value["fut_nkvi_front"][1:6], [0.25, 0.25, 0.25, 0.25, 0.24], rtol=1e-5)
    np.testing.assert_allclose(value["fut_jgb_ret_5d"][6], 5 * 0.001, rtol=1e-3)
    assert np.isnan(value["fut_jgb_ret_5d"][5])
    np.testing.assert_allclose(value["fut_nk225_basis"][1], 30_000 / 28_000 - 1, rtol=1e-5)
