"""`meta`: what the issue is and whether it is listed and traded. Ids are constants of the exchange's code lists."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.panel.operators import Array, ts_cumsum

RECENT_IPO_DAYS = 60


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    age = listing_age(panel.axes.listed)
    yield "meta_market_id", panel.market
    yield "meta_sector17_id", panel.sector17
    yield "meta_sector33_id", panel.sector33
    yield "meta_scale_id", panel.scale
    yield "meta_margin_id", panel.margin
    yield "meta_listing_age_td", age
    yield "meta_history_td", ts_cumsum(np.isfinite(panel.close))
    yield "meta_is_recent_ipo", age < RECENT_IPO_DAYS
    yield "meta_is_traded", panel.traded


def listing_age(listed: NDArray[np.bool_]) -> Array:
    """Trading days since the code first appeared, [T, N]; null where that was the first day of the history.

    On that day the listing is seen, not dated: it may be decades old.
    """
    first = listed.argmax(axis=0)
    age = np.arange(len(listed), dtype=np.float64)[:, None] - first
    return np.where((first > 0) & (age >= 0), age, np.nan)


COLUMNS = (
    Column("meta_market_id", "i8", "market code as id 1..10", "", "-1 if missing", "category"),
    Column("meta_sector17_id", "i8", "sector 1..17, other 18", "", "-1 if missing", "category"),
    Column("meta_sector33_id", "i8", "rank 1..33 in the official list, 9999 34", "", "-1 if missing", "category"),
    Column("meta_scale_id", "i8", "Core30 1, Large70 2, Mid400 3, Small 1 4, Small 2 5, else 0", "", "", "category"),
    Column("meta_margin_id", "i8", "1 margin only, 2 loanable, 3 other", "", "0 if missing", "category"),
    Column("meta_listing_age_td", "i32", "trading days since first listed", "", "null if on the first day", "log"),
    Column("meta_history_td", "i32", "number of closes up to T", "", "", "cross_section"),
    Column("meta_is_recent_ipo", "i8", "meta_listing_age_td < 60", "", "0 if the age is null", "flag"),
    Column("meta_is_traded", "i8", "raw volume > 0", "", "0 if the volume is null", "flag"),
)

GROUP = Group(
    name="meta",
    tier="base",
    tables=("calendar", "master", "bars_daily"),
    availability="T (the listing of T is published on the previous business day)",
    columns=COLUMNS,
    compute=compute,
)
