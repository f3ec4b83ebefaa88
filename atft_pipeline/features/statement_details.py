"""Items of `fin_details` by what they mean: the labels of each, over accounting standards and years of the taxonomy.

An item whose labels a document lacks is null, never 0: most companies state only what they have, but a label that
nobody knows yet must not pass for a company without debt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import polars as pl

from atft_pipeline.features.tables import require_columns
from atft_pipeline.verdict import ContractBroken

FIRST: dict[str, tuple[str, ...]] = {
    "sheet_assets": ("Assets", "Assets (IFRS)", "Total assets"),
    "cash": ("Cash and deposits", "Cash and cash equivalents (IFRS)", "Cash and due from banks - Assets, BNK"),
    "current_assets": ("Current assets", "Current assets (IFRS)"),
    "current_liabilities": ("Current liabilities", "Current liabilities (IFRS)"),
    "receivables": (
        "Notes and accounts receivable - trade, and contract assets", "Notes and accounts receivable - trade",
        "Notes and accounts receivable-trade", "Accounts receivable - trade, and contract assets",
        "Accounts receivable - trade", "Trade and other receivables - CA (IFRS)", "Trade receivables - CA (IFRS)",
    ),
    "gross": ("Gross profit", "Gross profit (loss)", "Gross profit (IFRS)", "Gross profit (loss) (IFRS)"),
    "expenses": (
        "Selling, general and administrative expenses", "Selling, general and administrative expenses (IFRS)",
    ),
    "interest": ("Interest expenses - NOE", "Interest expenses", "Finance costs (IFRS)", "Interest expenses (IFRS)"),
    "goodwill": ("Goodwill", "Goodwill (IFRS)"),
    "plant": ("Property, plant and equipment", "Property, plant and equipment (IFRS)"),
    "intangible": ("Intangible assets", "Intangible assets (IFRS)", "Goodwill and intangible assets (IFRS)"),
}  # fmt: skip
"""Item -> labels; the first that a document has is the item."""

SHORT_DEBT = (
    "Short-term borrowings", "Short-term loans payable", "Current portion of long-term borrowings",
    "Current portion of long-term loans payable", "Current portion of bonds payable", "Commercial papers",
    "Commercial papers - CL", "Lease obligations - CL", "Lease liabilities - CL", "Bonds and borrowings - CL (IFRS)",
    "Borrowings - CL (IFRS)", "Interest-bearing liabilities - CL (IFRS)", "Lease liabilities - CL (IFRS)",
)  # fmt: skip
LONG_DEBT = (
    "Bonds payable", "Long-term borrowings", "Long-term loans payable", "Convertible bond-type bonds with share "
    "acquisition rights", "Lease obligations - NCL", "Lease liabilities - NCL", "Bonds and borrowings - NCL (IFRS)",
    "Borrowings - NCL (IFRS)", "Interest-bearing liabilities - NCL (IFRS)", "Lease liabilities - NCL (IFRS)",
)  # fmt: skip

SUMS: dict[str, tuple[str, ...]] = {
    "short_debt": SHORT_DEBT,
    "debt": (*SHORT_DEBT, *LONG_DEBT),
    "components": ("Merchandise and finished goods", "Merchandise", "Finished goods", "Work in process",
                   "Raw materials and supplies", "Raw materials", "Supplies",
                   "Costs on construction contracts in progress"),
    "spending": (
        "Purchase of property, plant and equipment", "Purchase of property, plant and equipment - InvCF",
        "Purchase of intangible assets", "Purchase of intangible assets - InvCF",
        "Purchase of property, plant and equipment and intangible assets",
        "Purchase of property, plant and equipment - InvCF (IFRS)", "Purchase of intangible assets - InvCF (IFRS)",
        "Purchase of property, plant and equipment and intangible assets - InvCF (IFRS)",
    ),
}  # fmt: skip
"""Item -> labels; the item is the sum of those that a document has."""

INVENTORIES = ("Inventories", "Inventories - CA (IFRS)")

LABELS = frozenset(label for labels in (*FIRST.values(), *SUMS.values(), INVENTORIES) for label in labels)
BLANK = (None, "", "-", "－")
"""What stands for no number under a label."""

LEVELS = (
    "sheet_assets", "cash", "current_assets", "current_liabilities", "receivables", "inventories", "goodwill", "plant",
    "intangible", "short_debt", "debt",
)  # fmt: skip
FLOWS = ("gross", "expenses", "interest", "capex")
ITEMS = (*LEVELS, *FLOWS)


def read_details(details: pl.DataFrame) -> pl.DataFrame:
    """One row per document: `number` (DiscNo) and ITEMS in yen, null where the document has none of the labels.

    Money spent is negative in the cash-flow statement; `capex` is positive. Raises ContractBroken when a column is
    missing or an FS is no JSON object.
    """
    require_columns("fin_details", details, ("DiscNo", "FS"))
    rows = [_items(number, text) for number, text in details.select("DiscNo", "FS").iter_rows()]
    schema = {"number": pl.String(), **dict.fromkeys(ITEMS, pl.Float64())}
    return pl.DataFrame(rows, schema=schema, orient="row").unique("number", keep="last", maintain_order=True)


def label_hits(details: pl.DataFrame) -> dict[str, float]:
    """Item -> share of the documents that state it: how well the labels above meet what is delivered."""
    found = read_details(details)
    return {name: 1 - found[name].null_count() / max(found.height, 1) for name in ITEMS}


def _items(number: str, text: str | None) -> tuple[object, ...]:
    try:
        sheet = json.loads(text) if text else {}
    except ValueError:
        sheet = None
    if not isinstance(sheet, dict):
        raise ContractBroken(f"fin_details {number}: FS is no JSON object of labels; ingest it again")
    stated = sorted(LABELS & sheet.keys())  # a statement has many labels that nobody asks for
    known = {label: _number(label, sheet[label]) for label in stated if sheet[label] not in BLANK}
    first = {name: next((known[x] for x in labels if x in known), None) for name, labels in FIRST.items()}
    sums = {name: _sum(known, labels) for name, labels in SUMS.items()}
    whole = next((known[label] for label in INVENTORIES if label in known), sums["components"])
    spent = sums["spending"]
    items = first | sums | {"inventories": whole, "capex": None if spent is None else -spent}
    return (number, *(items[name] for name in ITEMS))


def _sum(known: Mapping[str, float], labels: tuple[str, ...]) -> float | None:
    values = [known[label] for label in labels if label in known]
    return sum(values) if values else None


def _number(label: str, value: object) -> float:
    """The value under a label. Raises ContractBroken for other text than a number."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ContractBroken(f"fin_details: {label} is {value!r}, not a number; check the table") from None
