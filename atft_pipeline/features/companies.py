"""Company documents on the panel: which stock each belongs to, its split index, and the shares outstanding.

Several groups read the statements; what they share is here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.statement_documents import read_documents
from atft_pipeline.features.statement_events import last_known
from atft_pipeline.panel.asof import AsOf, as_of
from atft_pipeline.panel.availability import by_disclosure_time
from atft_pipeline.panel.operators import Array, elementwise
from atft_pipeline.panel.panel import Panel

STALE_AFTER = 160
"""Trading days after which everything but the flags is null: a company that stopped reporting."""


@dataclass(frozen=True)
class Known:
    """The newest event of each company on each day."""

    panel: Panel
    events: pl.DataFrame
    joined: AsOf

    def only(self, cells: NDArray[np.bool_]) -> Known:
        """The same events, unknown where `cells` [T, N] is false."""
        return replace(self, joined=self.joined.only(cells))

    def value(self, name: str) -> Array:
        """An event column on the panel, [T, N]; null before the first event."""
        return self.joined.take(self.events[name].cast(pl.Float64).to_numpy())

    def column(self, name: str) -> NDArray[np.float32]:
        """As `value`, in float32: for a column that is the event's number itself."""
        return self.joined.column(self.events[name].cast(pl.Float64).to_numpy())

    def age(self, name: str) -> Array:
        """Trading days from an event's date column to each panel date, [T, N]; null where there is no such date."""
        days = self.events[name].to_numpy().astype("datetime64[D]")
        first_row = np.where(np.isnat(days), np.nan, np.searchsorted(self.panel.axes.dates, days))
        rows = np.arange(len(self.panel.axes.dates), dtype=np.float64)[:, None]
        return elementwise(np.subtract, rows, self.joined.take(first_row))


def panel_documents(panel: Panel, fin_summary: pl.DataFrame) -> pl.DataFrame:
    """Documents of the panel's companies, with the split index on their own day and at their period's end."""
    axes = panel.axes
    listed = fin_summary.filter(pl.col("Code").is_in(axes.codes.tolist()))
    available = by_disclosure_time(listed["DiscDate"], listed["DiscTime"], panel.calendar)
    documents = read_documents(listed, available)
    company = axes.code_index(documents["code"])
    days = {name: documents[name].to_numpy().astype("datetime64[D]") for name in ("available", "period_end")}
    splits = {
        # the first row on which the document counts, and the last row of the period it reports on
        "split_available": np.searchsorted(axes.dates, days["available"]),
        "split_period": np.searchsorted(axes.dates, days["period_end"], side="right") - 1,
    }
    return documents.with_columns(
        company=pl.Series(company, dtype=pl.Int64),
        **{name: pl.Series(split_index(panel, rows, company)) for name, rows in splits.items()},
    )


def split_index(panel: Panel, rows: NDArray[np.integer], column: NDArray[np.integer]) -> Array:
    """The forward-cumulated adjustment factor at (row, column); 1 off the axis, where no price meets it."""
    inside = (rows >= 0) & (rows < len(panel.axes.dates))
    values = panel.split[np.where(inside, rows, 0), column]
    return np.where(inside & np.isfinite(values), values, 1.0)


def shares_outstanding(panel: Panel, fin_summary: pl.DataFrame) -> Array:
    """Shares without treasury stock, of the newest period reported by each day, in first-row units; [T, N]."""
    documents = panel_documents(panel, fin_summary)
    joined = as_of(documents["available"], documents["company"], panel.axes)
    return joined.take(last_known(documents)["base_shares"].to_numpy())
