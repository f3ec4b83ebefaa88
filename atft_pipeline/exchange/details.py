"""Balance sheets, income and cash-flow statements behind the results, as the labels of /fins/details.

Every result and restatement of /fins/summary has one document here, with the same number, and the totals that both
state are the same. Labels are the verbose English ones of the EDINET taxonomy: they differ between Japanese standards
and IFRS, they changed over the years, and a company states only what it has.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.accounts import Floats
from atft_pipeline.exchange.disclosures import Disclosures, disclosures_of
from atft_pipeline.exchange.drawing import Market
from atft_pipeline.exchange.filings import CORRECTION, document_numbers
from atft_pipeline.exchange.sectors import BANKS
from atft_pipeline.exchange.statements import document_types

if TYPE_CHECKING:
    from atft_pipeline.exchange.sources import SpanTable

LOANS_RENAMED = date(2020, 4, 1)
"""From here on "loans payable" are called "borrowings", and "income" on a line "profit (loss)"."""
CONTRACT_ASSETS_SINCE = date(2021, 4, 1)
"""From here on receivables include contract assets, by the standard on revenue recognition."""

_MILLION = 1e6

# Item -> (label in Japanese standards, before it was renamed; label since; label in IFRS). Empty: not stated.
LABELS: dict[str, tuple[str, str, str]] = {
    "cash": ("Cash and deposits", "Cash and deposits", "Cash and cash equivalents (IFRS)"),
    "receivables": (
        "Notes and accounts receivable - trade",
        "Notes and accounts receivable - trade, and contract assets",
        "Trade and other receivables - CA (IFRS)",
    ),
    "inventories": ("Inventories", "Inventories", "Inventories - CA (IFRS)"),
    "other_current": ("Other - CA", "Other - CA", "Other current assets - CA (IFRS)"),
    "current_assets": ("Current assets", "Current assets", "Current assets (IFRS)"),
    "plant": ("Property, plant and equipment", "Property, plant and equipment", "Property, plant and equipment (IFRS)"),
    "goodwill": ("Goodwill", "Goodwill", "Goodwill (IFRS)"),
    "intangible": ("Intangible assets", "Intangible assets", "Intangible assets (IFRS)"),
    "investments": (
        "Investments and other assets", "Investments and other assets", "Other non-current assets - NCA (IFRS)",
    ),
    "fixed_assets": ("Non-current assets", "Non-current assets", "Non-current assets (IFRS)"),
    "assets": ("Assets", "Assets", "Assets (IFRS)"),
    "short_loans": ("Short-term loans payable", "Short-term borrowings", "Bonds and borrowings - CL (IFRS)"),
    "maturing_loans": ("Current portion of long-term loans payable", "Current portion of long-term borrowings", ""),
    "other_payables": ("Other - CL", "Other - CL", "Other current liabilities - CL (IFRS)"),
    "current_liabilities": ("Current liabilities", "Current liabilities", "Current liabilities (IFRS)"),
    "bonds": ("Bonds payable", "Bonds payable", ""),
    "long_loans": ("Long-term loans payable", "Long-term borrowings", "Bonds and borrowings - NCL (IFRS)"),
    "leases": ("Lease obligations - NCL", "Lease obligations - NCL", "Lease liabilities - NCL (IFRS)"),
    "other_fixed": ("Other - NCL", "Other - NCL", "Other non-current liabilities - NCL (IFRS)"),
    "fixed_liabilities": ("Non-current liabilities", "Non-current liabilities", "Non-current liabilities (IFRS)"),
    "liabilities": ("Liabilities", "Liabilities", "Liabilities (IFRS)"),
    "equity": ("Net assets", "Net assets", "Equity (IFRS)"),
    "both_sides": ("Liabilities and net assets", "Liabilities and net assets", "Liabilities and equity (IFRS)"),
    "sales": ("Net sales", "Net sales", "Revenue - 2 (IFRS)"),
    "cost": ("Cost of sales", "Cost of sales", "Cost of sales (IFRS)"),
    "gross": ("Gross profit", "Gross profit", "Gross profit (IFRS)"),
    "expenses": (
        "Selling, general and administrative expenses", "Selling, general and administrative expenses",
        "Selling, general and administrative expenses (IFRS)",
    ),
    "operating": ("Operating income", "Operating profit (loss)", "Operating profit (loss) (IFRS)"),
    "interest": ("Interest expenses - NOE", "Interest expenses - NOE", "Finance costs (IFRS)"),
    "profit": (
        "Profit attributable to owners of parent", "Profit (loss) attributable to owners of parent",
        "Profit (loss) attributable to owners of parent (IFRS)",
    ),
    "operations": (
        "Net cash provided by (used in) operating activities", "Net cash provided by (used in) operating activities",
        "Net cash provided by (used in) operating activities (IFRS)",
    ),
    "bought_plant": (
        "Purchase of property, plant and equipment", "Purchase of property, plant and equipment",
        "Purchase of property, plant and equipment - InvCF (IFRS)",
    ),
    "bought_intangible": (
        "Purchase of intangible assets", "Purchase of intangible assets",
        "Purchase of intangible assets - InvCF (IFRS)",
    ),
    "investing": (
        "Net cash provided by (used in) investing activities", "Net cash provided by (used in) investing activities",
        "Net cash provided by (used in) investing activities (IFRS)",
    ),
}  # fmt: skip
FLOWS = ("sales", "cost", "gross", "expenses", "operating", "interest", "profit")
"""Items that the API writes with a decimal point."""

Bools = NDArray[np.bool_]


def details(market: Market) -> SpanTable:
    """One row per result or restatement, sorted by (DiscDate, Code, DiscTime, DiscNo); FS is JSON text."""
    disclosed = disclosures_of(market)
    documents = disclosed.documents
    kept = np.flatnonzero(documents.kind <= CORRECTION)
    issue = documents.issue[kept]
    items = _items(disclosed, kept, market)
    rows = pl.DataFrame(
        {
            "DiscDate": documents.day[kept],
            "DiscTime": documents.time[kept],
            "Code": np.array(market.universe.codes)[issue],
            "DiscNo": document_numbers(documents)[kept],
            "DocType": document_types(disclosed.accounts, documents)[kept],
            "period": np.array(["Q1", "Q2", "Q3", "FY"])[documents.quarter[kept] % 4],
            "ended": disclosed.accounts.quarter_end[issue, documents.quarter[kept]],
            "year_end": disclosed.accounts.quarter_end[issue, documents.quarter[kept] // 4 * 4 + 3],
            **items,
        }
    ).sort("DiscDate", "Code", "DiscTime", "DiscNo")
    whole = [pl.col(name).fill_nan(None).round(0).cast(pl.Int64) for name in items]
    rows = rows.with_columns(whole)

    def span(begin: date, end: date) -> pl.DataFrame:
        inside = rows.filter(pl.col("DiscDate").is_between(begin, end))
        return inside.select(
            pl.col("DiscDate").cast(pl.String), "DiscTime", "Code", "DiscNo", "DocType", _statement().alias("FS")
        )

    return span


def _items(disclosed: Disclosures, kept: NDArray[np.int64], market: Market) -> dict[str, Floats]:
    """Every item of LABELS in yen, NaN where the company does not state it. Both sides of the sheet add up."""
    issues, quarters = disclosed.accounts.quarter_end.shape
    issue, quarter = disclosed.documents.issue[kept], disclosed.documents.quarter[kept]
    rng = np.random.default_rng([market.size.seed, 53])

    def habit(low: float, high: float, wobble: float = 0.06) -> Floats:
        """A share that is the company's own and moves a little from quarter to quarter."""
        share: Floats = rng.uniform(low, high, (issues, 1)) * np.exp(wobble * rng.standard_normal((issues, quarters)))
        return np.asarray(share[issue, quarter], dtype=np.float64)

    def has(chance: float) -> Bools:
        return np.asarray(rng.random((issues,))[issue] < chance, dtype=np.bool_)

    def whole(values: Floats) -> Floats:
        return np.asarray(np.round(values / _MILLION) * _MILLION, dtype=np.float64)

    bank = market.universe.sector[issue] == BANKS
    assets, equity, sales, operating, profit = (
        disclosed.stated(name)[kept] for name in ("TA", "Eq", "Sales", "OP", "NP")
    )
    flows = {name: disclosed.numbers[name][kept] for name in ("CFO", "CFI")}
    ifrs = disclosed.accounts.ifrs[issue] & ~disclosed.accounts.unconsolidated[issue]

    deposits = np.where(ifrs, 0.0, habit(0.0, 0.08))
    cash = whole(0.12 * assets) + whole(deposits * assets)
    room = assets - cash
    receivables, inventories = whole(room * habit(0.08, 0.25)), whole(room * habit(0.03, 0.2))
    inventories = np.where(has(0.8), inventories, 0.0)
    current = cash + receivables + inventories + whole(room * habit(0.02, 0.06))
    plant = whole((assets - current) * habit(0.3, 0.6))
    goodwill = np.where(has(0.45), whole((assets - current) * habit(0.01, 0.12)), 0.0)
    intangible = goodwill + whole((assets - current) * habit(0.01, 0.08))

    liabilities = assets - equity
    debt = liabilities * np.where(has(0.85), habit(0.1, 0.55), 0.0)
    short, maturing = whole(0.3 * debt), whole(0.15 * debt)
    bonds = np.where(has(0.35), whole(0.2 * debt), 0.0)
    leases = np.where(has(0.5), whole(0.05 * debt), 0.0)
    long = whole(0.5 * debt) - bonds
    payable = whole((liabilities - debt) * habit(0.5, 0.75))
    owed_soon = short + maturing + payable

    expenses = np.minimum(whole(sales * habit(0.08, 0.3)), np.maximum(sales - operating, 0.0))
    gross = operating + expenses
    interest = whole(0.012 * debt * (quarter % 4 + 1) / 4)
    spent = whole(np.minimum(np.abs(flows["CFI"]) * habit(0.5, 0.9), 0.5 * assets))
    bought = whole(spent * 0.2)

    def absent(values: Floats) -> Floats:
        return np.where(values == 0, np.nan, values)

    stated = {
        "cash": cash, "receivables": receivables, "inventories": absent(inventories),
        "other_current": current - cash - receivables - inventories, "current_assets": current,
        "plant": plant, "goodwill": absent(goodwill), "intangible": intangible,
        "investments": assets - current - plant - intangible, "fixed_assets": assets - current, "assets": assets,
        "short_loans": absent(short + np.where(ifrs, maturing, 0.0)),
        "maturing_loans": np.where(ifrs, np.nan, absent(maturing)), "other_payables": payable,
        "current_liabilities": owed_soon, "bonds": np.where(ifrs, np.nan, absent(bonds)),
        "long_loans": absent(long + np.where(ifrs, bonds, 0.0)), "leases": absent(leases),
        "other_fixed": liabilities - owed_soon - bonds - long - leases, "fixed_liabilities": liabilities - owed_soon,
        "liabilities": liabilities, "equity": equity, "both_sides": assets, "sales": sales, "cost": sales - gross,
        "gross": gross, "expenses": expenses, "operating": operating, "interest": absent(interest), "profit": profit,
        "operations": flows["CFO"], "bought_plant": -(spent - bought), "bought_intangible": -bought,
        "investing": flows["CFI"],
    }  # fmt: skip
    kept_by_banks = ("assets", "liabilities", "equity", "both_sides", "profit", "operations", "investing")
    return {name: np.where(bank & (name not in kept_by_banks), np.nan, stated[name]) for name in LABELS}


def _statement() -> pl.Expr:
    """The JSON object of the stated items and of what the document says about itself."""
    ifrs = pl.col("DocType").str.ends_with("IFRS")
    renamed = pl.col("DiscDate") >= LOANS_RENAMED
    parts = []
    for name, (old, new, foreign) in LABELS.items():
        late = pl.col("DiscDate") >= CONTRACT_ASSETS_SINCE if name == "receivables" else renamed
        label = pl.when(ifrs).then(pl.lit(foreign)).when(late).then(pl.lit(new)).otherwise(pl.lit(old))
        decimal = ".0" if name in FLOWS else ""
        parts.append(pl.format('"{}": "{}{}"', label, pl.col(name), pl.lit(decimal)))
    alone = pl.col("DocType").str.contains("NonConsolidated")
    about = {
        "Type of current period, DEI": pl.col("period"),
        "Current period end date, DEI": pl.col("ended").cast(pl.String),
        "Current fiscal year end date, DEI": pl.col("year_end").cast(pl.String),
        "Security code, DEI": pl.col("Code"),
        "Accounting standards, DEI": pl.when(ifrs).then(pl.lit("IFRS")).otherwise(pl.lit("Japan GAAP")),
        "Whether consolidated financial statements are prepared, DEI": pl.when(alone)
        .then(pl.lit("false"))
        .otherwise(pl.lit("true")),
    }
    parts += [pl.format('"{}": "{}"', pl.lit(label), text) for label, text in about.items()]
    return pl.concat_str(pl.lit("{"), pl.concat_str(parts, separator=", ", ignore_nulls=True), pl.lit("}"))
