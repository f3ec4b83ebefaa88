"""Items of `fin_details` by what they mean: the labels of each, over accounting standards and years of the taxonomy.

An item whose labels a document lacks is null, never 0: most companies state only what they have, but a label that
nobody knows yet must not pass for a company without debt.
"""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl

from atft_pipeline.features.tables import require_columns
from atft_pipeline.panel.operators import Array
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
ROW = {label: row for row, label in enumerate(sorted(LABELS))}
"""Where a label's numbers stand in the array of what the documents state."""
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
    stated = _stated(details)
    items = {name: _first(stated, labels) for name, labels in FIRST.items()}
    items |= {name: _sum(stated, labels) for name, labels in SUMS.items()}
    whole = _first(stated, INVENTORIES)
    items |= {"inventories": np.where(np.isnan(whole), items["components"], whole), "capex": -items["spending"]}
    columns = [pl.Series(name, items[name], nan_to_null=True) for name in ITEMS]
    frame = pl.DataFrame([details["DiscNo"].rename("number"), *columns])
    return frame.unique("number", keep="last", maintain_order=True)


def label_hits(details: pl.DataFrame) -> dict[str, float]:
    """Item -> share of the documents that state it: how well the labels above meet what is delivered."""
    found = read_details(details)
    return {name: 1 - found[name].null_count() / max(found.height, 1) for name in ITEMS}


def _stated(details: pl.DataFrame) -> Array:
    """The numbers under the LABELS, [labels by `ROW`, documents]; null where a document states none."""
    row: list[int] = []
    values: list[float] = []
    labels_of = np.zeros(details.height, np.int64)
    for document, (number, text) in enumerate(details.select("DiscNo", "FS").iter_rows()):
        sheet = _sheet(number, text)
        labels = LABELS.intersection(sheet)  # a statement has many labels that nobody asks for
        row += [ROW[label] for label in labels]
        values += [_number(label, sheet[label]) for label in labels]
        labels_of[document] = len(labels)
    stated = np.full((len(ROW), details.height), np.nan)
    stated[row, np.repeat(np.arange(details.height), labels_of)] = values
    return stated


def _sheet(number: str, text: str | None) -> dict[str, object]:
    try:
        sheet = json.loads(text) if text else {}
    except ValueError:
        sheet = None
    if not isinstance(sheet, dict):
        raise ContractBroken(f"fin_details {number}: FS is no JSON object of labels; ingest it again")
    return sheet


def _first(stated: Array, labels: tuple[str, ...]) -> Array:
    """Of each document the number of the first label that it has, [documents]."""
    found = stated[ROW[labels[0]]]
    for label in labels[1:]:
        found = np.where(np.isnan(found), stated[ROW[label]], found)
    return found


def _sum(stated: Array, labels: tuple[str, ...]) -> Array:
    """Of each document the sum of the labels that it has, [documents]; null without any."""
    total, known = np.zeros(stated.shape[1]), np.zeros(stated.shape[1], np.bool_)
    for label in labels:
        values = stated[ROW[label]]
        known |= ~np.isnan(values)
        total += np.nan_to_num(values)
    return np.where(known, total, np.nan)


def _number(label: str, value: object) -> float:
    """The value under a label, null for a blank. Raises ContractBroken for other text than a number."""
    if value in BLANK:
        return np.nan
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = np.nan
    if not math.isfinite(number):
        raise ContractBroken(f"fin_details: {label} is {value!r}, not a number; check the table")
    return number
