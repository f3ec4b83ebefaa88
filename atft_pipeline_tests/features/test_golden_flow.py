"""Flow columns against a second writing: collect the weekly records that a day knows, forget all others, compute."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.flow import GROUP
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.panel.panel import build_panel
from atft_pipeline_tests.synthetic_events import investor_weeks, market_tables, typed, weekdays

Record = Mapping[str, Any]
Week = tuple[date, date]
NAN = float("nan")
DAYS = weekdays(420, date(2021, 6, 1))
REFORM = date(2022, 4, 4)
SECTION = {"0101": "TSE1st", "0102": "TSE2nd", "0104": "TSEMothers", "0106": "TSEJASDAQ", "0109": "TokyoNagoya"}
SECTION |= {"0111": "TSEPrime", "0112": "TSEStandard", "0113": "TSEGrowth"}
BEFORE = {"TSEPrime": ["TSE1st"], "TSEStandard": ["TSE2nd", "TSEJASDAQ"], "TSEGrowth": ["TSEMothers"]}
MOVES = (("0101", "0111"), ("0102", "0112"), ("0106", "0112"), ("0104", "0113"), ("0109", "0109"))
"""Segment before and after the reform of April 2022, stock by stock."""
TYPES = ("Prop", "Ind", "Frgn", "SecCo", "InvTr", "BusCo", "InsCo", "TrstBnk")


def records(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Weekly records of the old sections up to the reform and of the new ones after it; one in ten is corrected
    later, and of one week in twenty there is no record."""
    old, new = list(SECTION.values())[:5], ["TSEPrime", "TSEStandard", "TSEGrowth", "TokyoNagoya"]
    weeks = (REFORM - date(2020, 6, 1)).days // 7
    rows = [*investor_weeks(old, date(2020, 6, 1), weeks, rng), *investor_weeks(new, REFORM, 34, rng)]
    absent = {row["StDate"] for row in rows if rng.random() < 0.05 / len(new)}
    kept = [row for row in rows if row["StDate"] not in absent]
    for row in [row for row in kept if rng.random() < 0.1]:
        numbers = {n: v * rng.uniform(0.5, 2) for n, v in row.items() if isinstance(v, float)}
        kept.append({**row, **numbers, "PubDate": row["PubDate"] + timedelta(days=int(rng.integers(1, 60)))})  # type: ignore[operator]
    return [row for row in kept if row["PubDate"] < DAYS[-1]]  # type: ignore[operator]


def usable_from(record: Record) -> int:
    """Row of the first trading day after the publication; 0 for what was published before the first row."""
    return bisect_right(DAYS, record["PubDate"])


def known_weeks(rows: Sequence[Record], section: str, row: int) -> dict[Week, tuple[Record, int, bool]]:
    """Newest version of every week, the row from which it is usable, and whether the section reported it itself."""
    weeks: dict[Week, tuple[Record, int, bool]] = {}
    parts = [known_weeks(rows, part, row) for part in BEFORE.get(section, [])]
    for week in set.intersection(*(set(part) for part in parts)) if parts else set():
        versions = [part[week] for part in parts]
        total = {n: sum(v[0][n] for v in versions) for n, x in versions[0][0].items() if isinstance(x, float)}
        weeks[week] = (total, max(v[1] for v in versions), False)
    for record in sorted((r for r in rows if r["Section"] == section), key=lambda r: r["PubDate"]):
        if usable_from(record) <= row:
            weeks[record["StDate"], record["EnDate"]] = (record, usable_from(record), True)
    return weeks


def zscore(x: NDArray[np.float64]) -> float:
    x_known = x[np.isfinite(x)]
    return float((x[-1] - x_known.mean()) / x_known.std(ddof=1)) if len(x_known) >= 26 else NAN


def flow_columns(rows: Sequence[Record], section: str, row: int) -> dict[str, float]:
    weeks = known_weeks(rows, section, row)
    last = [weeks[week] for week in sorted(weeks, key=lambda w: w[1])][-52:]
    buy, sell = (np.array([[r[f"{t}{side}"] for t in TYPES] for r, _, _ in last]) for side in ("Buy", "Sell"))
    net, ratio = buy - sell, (buy - sell) / (buy + sell)
    column = {name: TYPES.index(name) for name in TYPES}
    newest, since, own = last[-1]
    z = {name: zscore(ratio[:, column[name]]) for name in ("Frgn", "Ind", "TrstBnk")}
    activity = np.array([np.log(r["TotTot"]) if is_own == own else NAN for r, _, is_own in last])
    foreign, streak = net[:, column["Frgn"]], 0
    while streak < min(len(foreign), 26) and np.sign(foreign[-1 - streak]) == np.sign(foreign[-1]):
        streak += 1
    four = (foreign[-4:].sum() / (buy + sell)[-4:, column["Frgn"]].sum()) if len(last) >= 4 else NAN
    names = {"foreign": "Frgn", "individual": "Ind", "trustbank": "TrstBnk", "invtrust": "InvTr", "prop": "Prop"}
    names |= {"bizco": "BusCo"}
    values = {
        **{f"flow_{name}_net_ratio": ratio[-1, column[t]] for name, t in names.items()},
        "flow_foreign_share": newest["FrgnTot"] / newest["TotTot"],
        "flow_individual_share": newest["IndTot"] / newest["TotTot"],
        "flow_foreign_net_z52": z["Frgn"],
        "flow_individual_net_z52": z["Ind"],
        "flow_trustbank_net_z52": z["TrstBnk"],
        "flow_activity_z52": zscore(activity),
        "flow_foreign_net_sum4": four,
        "flow_smart_idx": z["Frgn"] - z["Ind"],
        "flow_foreign_streak": streak * np.sign(foreign[-1]),
        "flow_breadth_pos": float((net[-1] > 0).mean()),
    }
    age = row - since
    shown = values if age <= 15 else dict.fromkeys(values, NAN)
    return {**shown, "flow_staleness_td": float(age), "flow_valid": float(age <= 10)}


@pytest.mark.parametrize("seed", [1, 2])
def test_cells_are_what_the_records_of_the_day_say(seed: int) -> None:
    every = records(np.random.default_rng(seed))
    # no record at all for a while: the flow grows stale and falls silent
    rows = [r for r in every if not date(2022, 8, 1) <= r["PubDate"] <= date(2022, 9, 10)]
    codes = [f"{10000 + 10 * i}" for i in range(len(MOVES))]
    tables = market_tables(codes, DAYS, np.random.default_rng(0), sectors=["3650"])
    segment = pl.lit(None, pl.String)
    for code, (old, new) in zip(codes, MOVES, strict=True):
        by_day = pl.when(pl.col("Date") < REFORM).then(pl.lit(old)).otherwise(pl.lit(new))
        segment = pl.when(pl.col("Code") == code).then(by_day).otherwise(segment)
    panel = build_panel(tables["calendar"], tables["master"].with_columns(Mkt=segment), tables["bars_daily"])
    built = compute_group(GROUP, Inputs(panel, {"investor_types": typed("investor_types", rows)}))
    compared = dict.fromkeys(built, 0)
    for stock, row in ((s, t) for s in range(len(codes)) for t in range(0, len(DAYS), 4)):
        section = SECTION[MOVES[stock][DAYS[row] >= REFORM]]
        expected = flow_columns(rows, section, row)
        assert list(expected) == list(built)
        for name, value in expected.items():
            where = f"{name} of {section} on {DAYS[row]}"
            assert float(built[name][row, stock]) == pytest.approx(value, rel=2e-5, abs=1e-6, nan_ok=True), where
            compared[name] += int(np.isfinite(value))
    assert min(compared.values()) > 100, compared
    assert max(built["flow_staleness_td"][:, 0]) > 15
