"""Dividend notices as versions: what was known about each dividend, from which row of the panel to which.

The notices of one dividend name the first of them in CARefNo, directly or through one another. A version counts from
the first trading day on which its notice may be used until the next notice of the same dividend, or its deletion.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.tables import require_columns
from atft_pipeline.panel.asof import place
from atft_pipeline.panel.availability import by_disclosure_time
from atft_pipeline.panel.operators import divide
from atft_pipeline.panel.panel import Panel

FIELDS = ("PubDate", "PubTime", "Code", "RefNo", "StatCode", "CARefNo", "DivRate", "ExDate", "CommSpecCode")
DELETED = "3"
SPECIAL = ("1", "2", "3")

_CHAIN = ("stock", "root")
_LONGEST_CHAIN = 32
"""Corrections that may refer to one another; a reference that goes round in a circle ends here."""


def read_notices(dividend: pl.DataFrame, panel: Panel) -> pl.DataFrame:
    """One row per notice of a listed code, in the order in which the market learned them.

    Columns: stock (column of the panel), available, row (first panel row that may use it; T for none yet), until (row
    of the next notice on the same dividend), ex (date), amount (yen per share of the panel's first day, null if
    undetermined), is_special, deleted, and change: g(new, previous) amount where a notice revises one, else null.
    Raises ContractBroken when a column is missing.
    """
    require_columns("dividend", dividend, FIELDS)
    axes = panel.axes
    stock = axes.code_index(dividend["Code"])
    listed = dividend.select(FIELDS).with_columns(stock=pl.Series(stock)).filter(pl.col("stock") >= 0)
    available = by_disclosure_time(listed["PubDate"], listed["PubTime"], panel.calendar)
    notices = (
        listed.with_columns(
            available=pl.Series(available),
            row=pl.Series(place(available, axes)),
            root=_roots(listed),
            ex=pl.col("ExDate").str.to_date("%Y-%m-%d", strict=False),
            rate=pl.col("DivRate").cast(pl.Float64, strict=False),
            is_special=pl.col("CommSpecCode").is_in(SPECIAL).fill_null(False),
            deleted=pl.col("StatCode") == DELETED,
        )
        .sort("available", "PubDate", "PubTime", "RefNo", "Code")
        .with_row_index("seq")
    )
    notices = notices.with_columns(
        amount=pl.col("rate") / pl.Series(_share_unit(notices, panel)),
        until=pl.Series(_superseded_on(notices, len(axes.dates))),
    )
    known = pl.col("amount").forward_fill().shift(1).over(_CHAIN, order_by="seq")
    return _with_changes(notices.with_columns(before=known))


def _roots(notices: pl.DataFrame) -> pl.Series:
    """The first notice of each notice's chain, following references until one names itself or no known notice."""
    own = notices["RefNo"]
    given = notices.select(pl.col("CARefNo").replace({"": None, "-": None}).fill_null(own)).to_series()
    target = dict(zip(own.to_list(), given.to_list(), strict=True))
    root = given
    for _ in range(_LONGEST_CHAIN):
        further = pl.Series([target.get(name, name) for name in root.to_list()], dtype=pl.String)
        if (further == root).all():
            break
        root = further
    return root


def _superseded_on(notices: pl.DataFrame, rows: int) -> NDArray[np.int64]:
    """The panel row from which each version no longer counts: that of its dividend's next notice; `rows` for none."""
    ordered = notices.sort(*_CHAIN, "seq")
    first, seq = ordered["row"].to_numpy(), ordered["seq"].to_numpy()
    follows = (ordered.select(pl.struct(_CHAIN).rle_id()).to_series().diff() == 0).fill_null(False).to_numpy()
    until = np.full(len(first), rows, dtype=np.int64)
    until[seq[:-1][follows[1:]]] = first[1:][follows[1:]]
    return until


def _share_unit(notices: pl.DataFrame, panel: Panel) -> NDArray[np.float64]:
    """The split index of the share that an amount is per: that of the ex-date, or of the notice if it is earlier."""
    dates = panel.axes.dates
    ex = notices["ex"].to_numpy().astype("datetime64[D]")
    on_ex = np.where(np.isnat(ex), len(dates), np.searchsorted(dates, ex))
    row = np.clip(np.minimum(notices["row"].to_numpy(), on_ex), 0, len(dates) - 1)
    unit = panel.split[row, notices["stock"].to_numpy()]
    return np.where(np.isfinite(unit), unit, 1.0)


def _with_changes(notices: pl.DataFrame) -> pl.DataFrame:
    new, old = (notices[name].to_numpy().astype(np.float64) for name in ("amount", "before"))
    # Units of two notices differ by rounding in the last digits when a split lies between them.
    moved = np.abs(new - old) > 1e-9 * np.abs(old)
    change = np.where(moved, divide(2 * (new - old), np.abs(new) + np.abs(old)), np.nan)
    revised = ~notices["deleted"].to_numpy() & np.isfinite(change)
    return notices.with_columns(change=pl.Series(np.where(revised, change, np.nan)).fill_nan(None))
