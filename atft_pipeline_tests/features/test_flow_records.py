"""Weekly investor flows: windows of weeks, vintages, and the sections of the April 2022 reform."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from atft_pipeline.features.flow_records import SECTIONS, weekly_events
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic_events import Row, investor_week, investor_weeks, typed

MONDAY = date(2023, 1, 9)


def events(rows: Sequence[Row], section: str = "TSEPrime") -> pl.DataFrame:
    """Events of one section; a record is usable on the day after its publication."""
    frame = typed("investor_types", rows)
    days = (frame["PubDate"] + timedelta(days=1)).to_numpy()
    return weekly_events(frame, days).filter(pl.col("section") == SECTIONS[section])


def prime_weeks(weeks: int) -> list[dict[str, object]]:
    return investor_weeks(["TSEPrime"], MONDAY, weeks, np.random.default_rng(5))


def test_yearly_score_is_known_after_26_weeks_and_not_before() -> None:
    frame = events(prime_weeks(60))
    known = np.isfinite(frame["flow_foreign_net_z52"].to_numpy())
    assert known.tolist() == [False] * 25 + [True] * 35


def test_yearly_score_is_taken_over_the_last_52_weekly_records() -> None:
    rows = prime_weeks(60)
    ratio = np.array([(r["FrgnBuy"] - r["FrgnSell"]) / (r["FrgnBuy"] + r["FrgnSell"]) for r in rows])  # type: ignore[operator]
    window = ratio[-52:]
    z = (window[-1] - window.mean()) / window.std(ddof=1)
    assert events(rows)["flow_foreign_net_z52"][-1] == pytest.approx(z)


def test_four_week_sum_weights_weeks_by_their_turnover() -> None:
    mondays = [MONDAY + timedelta(weeks=week) for week in range(4)]
    rows = [investor_week(monday + timedelta(days=10), "TSEPrime", monday) for monday in mondays]
    rows[3] |= {"FrgnBuy": 0.0, "FrgnSell": 1000.0}
    sums = events(rows)["flow_foreign_net_sum4"].to_numpy()
    assert sums[2:] == pytest.approx([np.nan, (60 - 1000) / 1300], nan_ok=True)


def test_correction_is_a_new_version_from_its_own_day() -> None:
    rows = prime_weeks(30)
    corrected = {**rows[10], "PubDate": rows[-1]["PubDate"] + timedelta(days=1), "FrgnBuy": 9e6}  # type: ignore[operator]
    before, after = events(rows), events([*rows, corrected])
    assert after.head(30).equals(before)
    assert after.height == 31
    assert after["flow_foreign_net_z52"][-1] != before["flow_foreign_net_z52"][-1]
    assert after["newest_on"][-1] == before["newest_on"][-1], "an old week's correction makes the flow no fresher"


def test_correction_of_the_newest_week_replaces_its_value() -> None:
    rows = [investor_week(MONDAY + timedelta(days=10), "TSEPrime", MONDAY)]
    rows.append(investor_week(MONDAY + timedelta(days=12), "TSEPrime", MONDAY, buy=40, sell=60))
    assert events(rows)["flow_foreign_net_ratio"].to_list() == pytest.approx([0.2, -0.2])


def reform(weeks_after: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(8)
    old = investor_weeks(["TSE1st", "TSE2nd", "TSEJASDAQ", "TSEMothers"], date(2021, 4, 5), 52, rng)
    return [*old, *investor_weeks(["TSEPrime", "TSEStandard", "TSEGrowth"], date(2022, 4, 4), weeks_after, rng)]


def test_ratios_cross_the_reform_and_activity_starts_anew() -> None:
    frame = events(reform(30))
    after = frame.filter(pl.col("available") > date(2022, 4, 12))
    assert np.isfinite(after["flow_foreign_net_z52"].to_numpy()).all()
    assert np.isfinite(after["flow_activity_z52"].to_numpy()).tolist() == [False] * 25 + [True] * 5


def test_standard_continues_the_second_section_plus_jasdaq() -> None:
    rows = [
        investor_week(date(2022, 4, 7), "TSE2nd", date(2022, 3, 28), buy=10, sell=30),
        investor_week(date(2022, 4, 7), "TSEJASDAQ", date(2022, 3, 28), buy=80, sell=20),
    ]
    frame = events(rows, "TSEStandard")
    assert frame.height == 1
    assert frame["flow_foreign_net_ratio"][0] == pytest.approx((90 - 50) / 140)
    assert events(rows[:1], "TSEStandard").is_empty(), "half of a sum is not the sum"


@pytest.mark.parametrize(("signs", "streak"), [("++-", -1), ("-++", 2), ("+0", 0), ("+" * 30, 26), ("-" * 30, -26)])
def test_streak_counts_weeks_of_one_sign(signs: str, streak: int) -> None:
    sides = {"+": (60.0, 40.0), "-": (40.0, 60.0), "0": (50.0, 50.0)}
    rows = []
    for week, sign in enumerate(signs):
        monday = MONDAY + timedelta(weeks=week)
        rows.append(investor_week(monday + timedelta(days=10), "TSEPrime", monday, *sides[sign]))
    assert events(rows)["flow_foreign_streak"][-1] == streak


def test_breadth_needs_all_eight_types() -> None:
    row = investor_week(MONDAY + timedelta(days=10), "TSEPrime", MONDAY)
    mixed = {**row, "PropBuy": 0.0, "IndBuy": 0.0}
    assert events([mixed])["flow_breadth_pos"][0] == pytest.approx(6 / 8)
    assert np.isnan(events([{**mixed, "InsCoBuy": None}])["flow_breadth_pos"][0])


def test_missing_source_field_is_named() -> None:
    frame = typed("investor_types", prime_weeks(1)).drop("FrgnTot")
    with pytest.raises(ContractBroken, match="FrgnTot"):
        weekly_events(frame, frame["PubDate"].to_numpy())
