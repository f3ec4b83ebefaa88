"""`bs`: what stands in the balance sheets, income and cash-flow statements behind the results.

A statement counts with the document of the same number in fin_summary: from its day on, and in its fiscal quarter.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.companies import STALE_AFTER, Known, panel_documents
from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.statement_details import FLOWS, ITEMS, read_details
from atft_pipeline.features.statement_events import (
    Actuals,
    Periods,
    current_periods,
    last_known,
    newest_full_year,
    positive_ratio,
    symmetric_growth,
)
from atft_pipeline.features.tables import required_table
from atft_pipeline.panel.asof import as_of
from atft_pipeline.panel.operators import Array, divide, elementwise, where

CURRENT_RATIO_CAP = 20.0

STEPPING = (
    "bs_debt_to_assets", "bs_net_cash_to_assets", "bs_current_ratio", "bs_inventory_to_sales",
    "bs_receivable_to_sales", "bs_inventory_yoy", "bs_gross_margin_ttm", "bs_sga_ratio_ttm", "bs_capex_to_sales",
    "bs_fcf_yield", "bs_goodwill_to_assets", "bs_ppe_to_assets", "bs_intangible_to_assets", "bs_asset_growth_yoy",
    "bs_wc_accruals", "bs_interest_cover_log",
)  # fmt: skip
"""Columns in contract order, up to the flag."""


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    documents = panel_documents(panel, required_table(inputs.tables, "fin_summary"))
    events = derive_events(_with_details(documents, required_table(inputs.tables, "fin_details")))
    known = Known(panel, events, as_of(events["available"], events["company"], panel.axes))
    fresh = known.only(known.age("actual_on") <= STALE_AFTER)
    # close and shares both in the units of the panel's first day
    mcap = elementwise(np.multiply, panel.c, fresh.value("base_shares"))
    for name in STEPPING:
        yield name, divide(fresh.value("free_cash"), mcap) if name == "bs_fcf_yield" else fresh.column(name)
    yield "bs_valid", where(known.age("sheet_on") <= STALE_AFTER, 1.0, 0.0)


def _with_details(documents: pl.DataFrame, fin_details: pl.DataFrame) -> pl.DataFrame:
    """Each document with the items of its statement. Flows of a period of odd length are null, as in the summary."""
    joined = documents.join(read_details(fin_details), on="number", how="left", maintain_order="left")
    return joined.with_columns(pl.when("is_regular").then(pl.col(name)).alias(name) for name in FLOWS)


def derive_events(documents: pl.DataFrame) -> pl.DataFrame:
    """One row per document, same order: everything that steps at events."""
    now = current_periods(documents)
    actuals = Actuals(documents, now, extra=ITEMS)
    values = _levels(actuals) | _flows(actuals, now, newest_full_year(documents))
    frame = pl.DataFrame({name: np.asarray(value) for name, value in values.items()})
    sheet = documents.select(
        sheet_on=pl.when(pl.col("sheet_assets").is_not_null()).then("available").forward_fill().over("company")
    )
    keys = documents.select("available", "company")
    return pl.concat([keys, last_known(documents), sheet, frame], how="horizontal")


def _levels(a: Actuals) -> dict[str, Array]:
    assets, before = a.level("sheet_assets"), a.level("sheet_assets", 1)
    goodwill = np.where(np.isfinite(assets) & np.isnan(a.level("goodwill")), 0.0, a.level("goodwill"))
    working = [
        a.level("current_assets", y) - a.level("cash", y) - a.level("current_liabilities", y) + a.level("short_debt", y)
        for y in (0, 1)
    ]
    ratio = positive_ratio(a.level("current_assets"), a.level("current_liabilities"))
    return {
        "bs_debt_to_assets": positive_ratio(a.level("debt"), assets),
        "bs_net_cash_to_assets": positive_ratio(a.level("cash") - a.level("debt"), assets),
        "bs_current_ratio": np.clip(ratio, 0.0, CURRENT_RATIO_CAP),
        "bs_inventory_yoy": symmetric_growth(a.level("inventories"), a.level("inventories", 1)),
        "bs_goodwill_to_assets": positive_ratio(goodwill, assets),
        "bs_ppe_to_assets": positive_ratio(a.level("plant"), assets),
        "bs_intangible_to_assets": positive_ratio(a.level("intangible"), assets),
        "bs_asset_growth_yoy": symmetric_growth(assets, before),
        "bs_wc_accruals": positive_ratio(working[0] - working[1], (assets + before) / 2),
    }


def _flows(a: Actuals, now: Periods, year: NDArray[np.int64]) -> dict[str, Array]:
    sales = a.trailing_year("sales")
    cover = positive_ratio(a.trailing_year("op"), a.trailing_year("interest"))
    capex = a.in_year("capex", year)
    return {
        "bs_inventory_to_sales": positive_ratio(a.level("inventories"), sales),
        "bs_receivable_to_sales": positive_ratio(a.level("receivables"), sales),
        "bs_gross_margin_ttm": positive_ratio(a.trailing_year("gross"), sales),
        "bs_sga_ratio_ttm": positive_ratio(a.trailing_year("expenses"), sales),
        "bs_capex_to_sales": positive_ratio(capex, a.in_year("sales", year)),
        "free_cash": a.in_year("cfo", year) - capex,
        "bs_interest_cover_log": np.sign(cover) * np.log1p(np.abs(cover)),
    }


_CS = "cross_section"
COLUMNS = (
    Column("bs_debt_to_assets", "f32", "interest-bearing debt / total assets", "", "null without a label", _CS),
    Column("bs_net_cash_to_assets", "f32", "(cash - debt) / total assets", "", "null without a label", _CS),
    Column("bs_current_ratio", "f32", "current assets / current liabilities, within 0..20", "", "", _CS),
    Column("bs_inventory_to_sales", "f32", "inventories / TTM sales", "", "null without a label", _CS),
    Column("bs_receivable_to_sales", "f32", "trade receivables / TTM sales", "", "null without a label", _CS),
    Column("bs_inventory_yoy", "f32", "g(inventories, four quarters ago)", "", "both quarters", _CS),
    Column("bs_gross_margin_ttm", "f32", "TTM gross profit / TTM sales", "", "TTM", _CS),
    Column("bs_sga_ratio_ttm", "f32", "TTM selling and administrative expenses / TTM sales", "", "TTM", _CS),
    Column("bs_capex_to_sales", "f32", "purchases of plant and intangibles / sales, last full year", "", "", _CS),
    Column("bs_fcf_yield", "f32", "(operating cash flow - capex) / mcap, last full year", "", "", _CS),
    Column("bs_goodwill_to_assets", "f32", "goodwill / total assets", "", "0 if a balance sheet has none", _CS),
    Column("bs_ppe_to_assets", "f32", "property, plant and equipment / total assets", "", "", _CS),
    Column("bs_intangible_to_assets", "f32", "intangible assets / total assets", "", "", _CS),
    Column("bs_asset_growth_yoy", "f32", "g(total assets, four quarters ago)", "", "both quarters", _CS),
    Column("bs_wc_accruals", "f32", "4q change of working capital / mean assets", "", "both quarters", _CS),
    Column("bs_interest_cover_log", "f32", "sign ln(1 + |TTM OP / TTM interest|)", "", "null if interest <= 0", _CS),
    Column("bs_valid", "i8", "a balance sheet at most 160 trading days old is known", "", "0", "flag"),
)

GROUP = Group(
    name="bs",
    tier="premium",
    tables=("calendar", "master", "bars_daily", "fin_summary", "fin_details"),
    availability="as the document of the same number in fin_summary",
    columns=COLUMNS,
    compute=compute,
)
