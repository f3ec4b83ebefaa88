"""Statement details on the panel: labels of both standards, quarters as the summary has them, and when they count."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.balance_sheets import GROUP
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.features.statement_details import label_hits, read_details
from atft_pipeline.panel.panel import Panel
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic import calendar_frame, one_code_panel, trading_days
from atft_pipeline_tests.synthetic_events import Row, document, typed

DAYS = trading_days(calendar_frame(date(2022, 1, 4), date(2023, 12, 29)))[:420]
CODE = "13010"

SHEET = {
    "Assets": 1000.0, "Cash and deposits": 150.0, "Current assets": 500.0, "Current liabilities": 250.0,
    "Notes and accounts receivable - trade": 120.0, "Inventories": 80.0, "Short-term borrowings": 60.0,
    "Long-term borrowings": 200.0, "Bonds payable": 40.0, "Goodwill": 30.0, "Property, plant and equipment": 220.0,
    "Intangible assets": 70.0, "Gross profit": 240.0, "Selling, general and administrative expenses": 160.0,
    "Interest expenses - NOE": 8.0, "Purchase of property, plant and equipment": -50.0,
    "Purchase of intangible assets": -10.0, "Type of current period, DEI": "FY",
}  # fmt: skip


@pytest.fixture(scope="module")
def panel() -> Panel:
    return one_code_panel(DAYS, [10.0] * len(DAYS))


def result(day: date, kind: str = "FY", year: int = 2021, time: str = "12:00:00", **values: object) -> Row:
    usual = {"Sales": 800.0, "OP": 80.0, "NP": 40.0, "TA": 1000.0, "Eq": 400.0, "CFO": 90.0}
    return document(CODE, day, kind, year, time, **{**usual, "ShOutFY": 110.0, "TrShFY": 10.0, **values})


def detail(filed: Row, sheet: Mapping[str, object]) -> Row:
    keys = {name: filed[name] for name in ("DiscDate", "DiscTime", "Code", "DiscNo", "DocType")}
    return keys | {"FS": json.dumps({label: str(value) for label, value in sheet.items()})}


def columns(panel: Panel, filings: Sequence[Row], details: Sequence[Row]) -> dict[str, NDArray[np.float32]]:
    tables = {"fin_summary": typed("fin_summary", filings), "fin_details": typed("fin_details", details)}
    return {name: values[:, 0] for name, values in compute_group(GROUP, Inputs(panel, tables)).items()}


def test_each_column_of_one_full_year_by_hand(panel: Panel) -> None:
    filed = result(DAYS[30])
    value = columns(panel, [filed], [detail(filed, SHEET)])
    expected = {
        "bs_debt_to_assets": 0.3, "bs_net_cash_to_assets": (150 - 300) / 1000, "bs_current_ratio": 2.0,
        "bs_inventory_to_sales": 0.1, "bs_receivable_to_sales": 0.15, "bs_inventory_yoy": np.nan,
        "bs_gross_margin_ttm": 0.3, "bs_sga_ratio_ttm": 0.2, "bs_capex_to_sales": 60 / 800,
        "bs_fcf_yield": (90 - 60) / (100 * 10), "bs_goodwill_to_assets": 0.03, "bs_ppe_to_assets": 0.22,
        "bs_intangible_to_assets": 0.07, "bs_asset_growth_yoy": np.nan, "bs_wc_accruals": np.nan,
        "bs_interest_cover_log": np.log(1 + 80 / 8), "bs_valid": 1.0,
    }  # fmt: skip
    assert list(value) == list(expected)
    for name, wanted in expected.items():
        np.testing.assert_allclose(value[name][30], wanted, rtol=1e-5, err_msg=name)
        assert np.isnan(value[name][29]) or name == "bs_valid"
    np.testing.assert_array_equal(value["bs_valid"][[29, 30, 190, 191]], [0, 1, 1, 0])
    assert np.isnan(value["bs_debt_to_assets"][191])


def test_a_statement_counts_from_the_minute_of_its_document(panel: Panel) -> None:
    late = result(DAYS[30], time="15:00:00")
    value = columns(panel, [late], [detail(late, SHEET)])
    assert np.flatnonzero(np.isfinite(value["bs_ppe_to_assets"]))[0] == 31


def test_a_statement_without_its_document_is_not_known(panel: Panel) -> None:
    filed = result(DAYS[30])
    value = columns(panel, [filed], [detail(filed, SHEET) | {"DiscNo": "another"}])
    assert (value["bs_valid"] == 0).all() and np.isnan(value["bs_ppe_to_assets"]).all()


def test_what_a_company_does_not_state_is_null_and_never_zero(panel: Panel) -> None:
    filed = result(DAYS[30])
    lean = {label: value for label, value in SHEET.items() if "borrowings" not in label and label != "Bonds payable"}
    lean = {label: value for label, value in lean.items() if label not in ("Goodwill", "Inventories")}
    value = columns(panel, [filed], [detail(filed, lean)])
    for name in ("bs_debt_to_assets", "bs_net_cash_to_assets", "bs_inventory_to_sales"):
        assert np.isnan(value[name]).all(), name
    assert value["bs_goodwill_to_assets"][30] == 0.0  # a balance sheet without goodwill has none
    nothing = columns(panel, [filed], [detail(filed, {"Net sales": 1})])
    assert np.isnan(nothing["bs_goodwill_to_assets"]).all() and (nothing["bs_valid"] == 0).all()


def test_flows_are_trailing_years_and_levels_four_quarters_apart(panel: Panel) -> None:
    filings = [result(DAYS[5], "1Q", 2021, Sales=180.0, OP=18.0), result(DAYS[30], "FY", 2021)]
    filings.append(result(DAYS[90], "1Q", 2022, Sales=220.0, OP=30.0))
    sheets = [
        SHEET | {"Gross profit": 50.0, "Interest expenses - NOE": 2.0, "Inventories": 70.0, "Assets": 900.0,
                 "Current assets": 450.0},
        SHEET,
        SHEET | {"Gross profit": 80.0, "Interest expenses - NOE": 3.0, "Inventories": 90.0, "Assets": 1100.0},
    ]  # fmt: skip
    value = columns(panel, filings, [detail(f, s) for f, s in zip(filings, sheets, strict=True)])
    sales = 220 + 800 - 180
    assert value["bs_gross_margin_ttm"][90] == pytest.approx((80 + 240 - 50) / sales, rel=1e-5)
    assert value["bs_interest_cover_log"][90] == pytest.approx(np.log(1 + (30 + 80 - 18) / (3 + 8 - 2)), rel=1e-5)
    assert value["bs_inventory_yoy"][90] == pytest.approx(2 * 20 / 160, rel=1e-5)
    assert value["bs_asset_growth_yoy"][90] == pytest.approx(2 * 200 / 2000, rel=1e-5)
    assert value["bs_wc_accruals"][90] == pytest.approx((160 - 110) / 1000, rel=1e-5)
    assert value["bs_capex_to_sales"][90] == pytest.approx(60 / 800, rel=1e-5)  # the last full year's
    assert np.isnan(value["bs_gross_margin_ttm"][5])  # one quarter is no year


def test_a_late_restatement_leaves_earlier_rows_alone(panel: Panel) -> None:
    filings = [result(DAYS[30]), result(DAYS[80], DiscNo="again")]
    details = [detail(filings[0], SHEET), detail(filings[1], SHEET | {"Assets": 2000.0})]
    value = columns(panel, filings, details)["bs_ppe_to_assets"]
    np.testing.assert_allclose(value[[30, 79, 80]], [0.22, 0.22, 0.11], rtol=1e-5)


def test_labels_of_both_standards_and_older_years_mean_the_same() -> None:
    japan = {"Short-term loans payable": "10", "Current portion of long-term loans payable": "5",
             "Long-term loans payable": "20", "Merchandise and finished goods": "7",
             "Work in process": "3"}  # fmt: skip
    ifrs = {"Bonds and borrowings - CL (IFRS)": "15", "Bonds and borrowings - NCL (IFRS)": "20.0",
            "Inventories - CA (IFRS)": "10", "Assets (IFRS)": "", "Goodwill (IFRS)": "-"}  # fmt: skip
    rows = [{"DiscNo": str(n), "FS": json.dumps(sheet)} for n, sheet in enumerate((japan, ifrs))]
    items = read_details(typed("fin_details", rows))
    assert items["debt"].to_list() == [35.0, 35.0] and items["short_debt"].to_list() == [15.0, 15.0]
    assert items["inventories"].to_list() == [10.0, 10.0]
    assert items["sheet_assets"].null_count() == items["goodwill"].null_count() == 2
    assert label_hits(typed("fin_details", rows))["debt"] == 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [("[1]", "no JSON object"), ('{"Assets": "n/a"}', "not a number"), ('{"Assets": "nan"}', "not a number")],
)
def test_a_statement_that_cannot_be_read_stops_the_build(text: str, said: str) -> None:
    with pytest.raises(ContractBroken, match=said):
        read_details(typed("fin_details", [{"DiscNo": "1", "FS": text}]))
