"""Weekly investor-type records as known on each publication, one row per (market section, day on which it is usable).

Windows count weekly records. A correction is a new version of its week, known from its own day. The sections of the
April 2022 reform continue those that they replaced, as ratios; activity, which has a unit, does not cross the reform.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import reduce

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.tables import require_columns

Array = NDArray[np.float64]
Week = tuple[date, date]
"""(first day, last day) of a record."""

TYPES = {
    "prop": "Prop",
    "individual": "Ind",
    "foreign": "Frgn",
    "secco": "SecCo",
    "invtrust": "InvTr",
    "bizco": "BusCo",
    "insco": "InsCo",
    "trustbank": "TrstBnk",
}
"""The eight investor types of `flow_breadth_pos`, by the API's field prefix."""

FIELDS = (*(f"{p}{side}" for side in ("Buy", "Sell") for p in TYPES.values()), "FrgnTot", "IndTot", "TotTot")
KEYS = ("PubDate", "Section", "StDate", "EnDate")

SECTIONS = {
    "TSE1st": 1,
    "TSE2nd": 2,
    "TSEMothers": 3,
    "TSEJASDAQ": 4,
    "TSEPrime": 5,
    "TSEStandard": 6,
    "TSEGrowth": 7,
    "TokyoNagoya": 8,
}
"""Section ids; 0 is no section."""

PREDECESSORS = {"TSEPrime": ("TSE1st",), "TSEStandard": ("TSE2nd", "TSEJASDAQ"), "TSEGrowth": ("TSEMothers",)}
"""What each section of the reform continues; several predecessors are summed week by week."""

WEEKS, MIN_WEEKS, STREAK_CAP = 52, 26, 26

_BUY = {name: i for i, name in enumerate(TYPES)}
_FRGN_TOT, _IND_TOT, _TOT_TOT = range(2 * len(TYPES), 2 * len(TYPES) + 3)

VALUES = (
    "flow_foreign_net_ratio",
    "flow_individual_net_ratio",
    "flow_trustbank_net_ratio",
    "flow_invtrust_net_ratio",
    "flow_prop_net_ratio",
    "flow_bizco_net_ratio",
    "flow_foreign_share",
    "flow_individual_share",
    "flow_foreign_net_z52",
    "flow_individual_net_z52",
    "flow_trustbank_net_z52",
    "flow_activity_z52",
    "flow_foreign_net_sum4",
    "flow_smart_idx",
    "flow_foreign_streak",
    "flow_breadth_pos",
)


def weekly_events(records: pl.DataFrame, available: Sequence[object] | NDArray[np.generic]) -> pl.DataFrame:
    """The sixteen weekly values per (section, day): columns section, available, newest_on and VALUES.

    `available` is the first trading day on which each row may be used. `newest_on` is the day on which the newest
    week's record became usable: a correction of an older week does not make the flow any fresher. Raises
    ContractBroken when a column is missing.
    """
    require_columns("investor_types", records, (*KEYS, *FIELDS))
    ordered = (
        records.with_columns(available=pl.Series(available, dtype=pl.Date))
        .filter(pl.col("available").is_not_null() & pl.col("Section").is_in(list(SECTIONS)))
        .sort("available", "PubDate", "Section", "StDate", "EnDate")
    )
    known: dict[str, dict[Week, tuple[Array, date]]] = {section: {} for section in SECTIONS}
    rows: list[tuple[object, ...]] = []
    for (day,), batch in ordered.group_by("available", maintain_order=True):
        values = batch.select(pl.col(FIELDS).cast(pl.Float64)).to_numpy()
        for section, start, end, row in zip(batch["Section"], batch["StDate"], batch["EnDate"], values, strict=True):
            known[section][(start, end)] = (row, day)
            # No window reaches beyond 52 weeks, but a summed section counts only the weeks that both its parts have.
            if len(known[section]) > 2 * WEEKS:
                del known[section][min(known[section], key=_in_time)]
        touched = set(batch["Section"])
        for section, number in SECTIONS.items():
            if touched & {section, *PREDECESSORS.get(section, ())}:
                values_now = _section_values(section, known)
                if values_now:
                    rows.append((number, day, *values_now))
    schema = {"section": pl.Int64, "available": pl.Date, "newest_on": pl.Date, **dict.fromkeys(VALUES, pl.Float64)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _section_values(section: str, known: dict[str, dict[Week, tuple[Array, date]]]) -> tuple[object, ...]:
    """(newest_on, *VALUES) of a section, from the versions known now; empty while it has no complete week."""
    own, before = known[section], _summed([known[s] for s in PREDECESSORS.get(section, ())])
    weeks = sorted({**before, **own}, key=_in_time)[-WEEKS:]
    if not weeks:
        return ()
    history = np.array([(own[w] if w in own else before[w])[0] for w in weeks])
    is_own = np.array([w in own for w in weeks])
    newest = own[weeks[-1]] if weeks[-1] in own else before[weeks[-1]]
    return (newest[1], *_values(history, is_own == is_own[-1]))


def _in_time(week: Week) -> tuple[date, date]:
    return week[1], week[0]


def _summed(parts: Sequence[dict[Week, tuple[Array, date]]]) -> dict[Week, tuple[Array, date]]:
    """Weeks that every part knows, added up; usable from the day of the last of them."""
    if len(parts) < 2:
        return parts[0] if parts else {}
    weeks = set(parts[0]).intersection(*parts[1:])
    return {w: (reduce(np.add, (p[w][0] for p in parts)), max(p[w][1] for p in parts)) for w in weeks}


def _values(history: Array, same_era: NDArray[np.bool_]) -> list[float]:
    """VALUES from weekly records [W, fields], oldest first."""
    buy, sell = history[:, : len(TYPES)], history[:, len(TYPES) : 2 * len(TYPES)]
    net, both = buy - sell, buy + sell
    ratio = _ratio(net, both)
    totals = history[:, _TOT_TOT]
    activity = np.where(same_era & (totals > 0), np.log(np.where(totals > 0, totals, 1.0)), np.nan)
    z = {name: _zscore(ratio[:, _BUY[name]]) for name in ("foreign", "individual", "trustbank")}
    foreign = _BUY["foreign"]
    last = net[-1]
    return [
        *(float(ratio[-1, _BUY[n]]) for n in ("foreign", "individual", "trustbank", "invtrust", "prop", "bizco")),
        *(float(_ratio(history[-1:, k], totals[-1:])[0]) for k in (_FRGN_TOT, _IND_TOT)),
        *(z[name] for name in ("foreign", "individual", "trustbank")),
        _zscore(activity),
        float(_ratio(net[-4:, foreign].sum(keepdims=True), both[-4:, foreign].sum(keepdims=True))[0])
        if len(net) >= 4
        else np.nan,
        z["foreign"] - z["individual"],
        _streak(net[:, foreign]),
        float(np.mean(last > 0)) if np.isfinite(last).all() else np.nan,
    ]


def _ratio(a: Array, b: Array) -> Array:
    usable = np.abs(b) > 1e-12
    return np.where(usable, a / np.where(usable, b, 1.0), np.nan)


def _zscore(x: Array) -> float:
    """(newest - mean) / sd over the known weeks, ddof 1; null below 26 of them, without the newest, or at sd 0."""
    seen = x[np.isfinite(x)]
    if len(seen) < MIN_WEEKS or not np.isfinite(x[-1]):
        return np.nan
    sd = float(np.std(seen, ddof=1))
    return float((x[-1] - np.mean(seen)) / sd) if sd > 1e-12 else np.nan


def _streak(net: Array) -> float:
    """Signed count of the newest consecutive weeks with the newest week's sign, within +-26; null if it is unknown."""
    sign = np.sign(net[-1])
    if not np.isfinite(sign):
        return np.nan
    length = 0
    for value in net[::-1][:STREAK_CAP]:
        if np.sign(value) != sign:
            break
        length += 1
    return float(sign * length)
