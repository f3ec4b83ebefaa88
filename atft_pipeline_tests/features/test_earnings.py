"""Earnings events against a second writing that computes each cell from the documents known on its day alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from atft_pipeline.features import exposure
from atft_pipeline.features.earnings import GROUP
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline_tests.synthetic_events import (
    Row,
    company,
    document,
    market_tables,
    revision,
    topix_bars,
    typed,
    weekdays,
)

DAYS = weekdays(420, date(2021, 1, 4))
AHEAD = [*DAYS, *weekdays(30, DAYS[-1] + timedelta(days=1))]
CODES = ("10010", "10020", "10030")
NAMES = [column.name for column in GROUP.columns]
QUARTER = {"1Q": 1, "2Q": 2, "3Q": 3, "FY": 4}


@pytest.fixture(scope="module")
def market() -> dict[str, pl.DataFrame]:
    rng = np.random.default_rng(5)
    return {**market_tables(CODES, DAYS, rng, sectors=["3650"]), "topix": topix_bars(DAYS, rng)}


@pytest.fixture(scope="module")
def panel(market: dict[str, pl.DataFrame]) -> Panel:
    return build_panel(market["calendar"], market["master"], market["bars_daily"])


def built(panel: Panel, market: dict[str, pl.DataFrame], rows: Sequence[Row]) -> dict[str, Any]:
    return compute_group(GROUP, Inputs(panel, {**market, "fin_summary": typed("fin_summary", rows)}))


def usable_from(row: Row) -> int:
    """Index into AHEAD of the first trading day that may know the document."""
    day, time = row["DiscDate"], row["DiscTime"]
    assert isinstance(day, date)
    if day in AHEAD and time and str(time) < "15:00":
        return AHEAD.index(day)
    return next((n for n, d in enumerate(AHEAD) if d > day), len(AHEAD))


def plain(rows: Sequence[Row], t: int, residual: np.ndarray) -> dict[str, float]:
    """The six columns of one company on day t, written from the definition."""
    order = sorted(
        (row for row in rows if usable_from(row) <= t),
        key=lambda r: (usable_from(r), r["DiscDate"], r["DiscTime"] or "99", r["DiscNo"]),
    )
    results = [row for row in order if "FinancialStatements" in str(row["DocType"])]
    since = min(t - usable_from(results[-1]), 250) if results else 250
    reaction = float("nan")
    if results and since <= 120:
        reaction = float(residual[usable_from(results[-1])])
    ahead = float("nan")
    periods = {}
    for row in results:
        periods.setdefault((row["CurFYEn"].year, QUARTER[str(row["CurPerType"])]), row["DiscDate"])  # type: ignore[attr-defined]
    if periods:
        year, quarter = max(periods)
        wanted = (year, 1) if quarter == 4 else (year - 1, quarter + 1)
        if wanted in periods:
            then = periods[wanted]
            due = date(then.year + 1, then.month, 28 if (then.month, then.day) == (2, 29) else then.day)  # type: ignore[attr-defined]
            later = [n for n, d in enumerate(AHEAD) if d >= due]
            ahead = min(max((later[0] if later else 10**6) - t, -20), 120)
    return {
        "ev_td_since_earn": since,
        "ev_earn_post_5": float(since <= 5),
        "ev_earn_reaction": reaction,
        "ev_td_to_exp_earn": ahead,
        "ev_exp_earn_pre_5": float(0 <= ahead <= 5),
        "ev_disc_cnt_60": sum(t - 60 < usable_from(row) <= t for row in order),
    }


def documents(code: str, rng: np.random.Generator) -> list[Row]:
    """Results of three years with corrections of old periods and revisions at any hour."""
    rows = company(code, (2020, 2021, 2022), rng)
    for n in range(16):
        day = DAYS[3] + timedelta(days=int(rng.integers(0, 570)))
        extra: dict[str, Any] = {"DiscTime": ("09:00:00", "15:00:00", "16:00:00", None)[n % 4], "DiscNo": f"{n:03d}"}
        if n % 2:
            rows.append(revision(code, day, day.year, **extra))
        else:
            old = rows[int(rng.integers(0, 8))]
            if old["DiscDate"] < day:  # type: ignore[operator]
                rows.append({**old, "DiscDate": day, **extra})
    return [row for row in rows if DAYS[0] <= row["DiscDate"] <= DAYS[-1]]  # type: ignore[operator]


@pytest.mark.parametrize("seed", [1, 2])
def test_cells_are_what_the_documents_of_the_day_say(panel: Panel, market: dict[str, pl.DataFrame], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [row for code in CODES[:2] for row in documents(code, rng)]
    ours = built(panel, market, rows)
    residual = compute_group(exposure.GROUP, Inputs(panel, market))["mb_resid_ret_1d"]
    compared = dict.fromkeys(NAMES, 0)
    for column, code in enumerate(CODES):
        own = [row for row in rows if row["Code"] == code]
        for t in range(0, len(DAYS), 3):
            expected = plain(own, t, residual[:, column])
            assert list(expected) == NAMES
            for name, value in expected.items():
                got = float(ours[name][t, column])
                assert got == pytest.approx(value, rel=1e-5, abs=1e-7, nan_ok=True), f"{name} {code} {DAYS[t]}"
                compared[name] += int(np.isfinite(value) and value not in (0, 250))
    assert min(compared.values()) >= 10, compared


def test_a_company_without_documents_has_the_defaults(panel: Panel, market: dict[str, pl.DataFrame]) -> None:
    ours = built(panel, market, [document(CODES[0], DAYS[50], "1Q", 2021)])
    last = {name: float(ours[name][-1, 1]) for name in NAMES}
    assert (last["ev_td_since_earn"], last["ev_earn_post_5"], last["ev_disc_cnt_60"]) == (250, 0, 0)
    assert np.isnan(last["ev_earn_reaction"]) and np.isnan(last["ev_td_to_exp_earn"])
    assert last["ev_exp_earn_pre_5"] == 0


def test_the_reaction_fades_after_120_days(panel: Panel, market: dict[str, pl.DataFrame]) -> None:
    ours = built(panel, market, [document(CODES[0], DAYS[100], "1Q", 2021, "14:00:00")])["ev_earn_reaction"][:, 0]
    assert np.isnan(ours[99]) and np.isnan(ours[221])
    assert np.isfinite(ours[100]) and (ours[100:221] == ours[100]).all()


def test_a_result_after_the_close_counts_from_the_next_day(panel: Panel, market: dict[str, pl.DataFrame]) -> None:
    early = built(panel, market, [document(CODES[0], DAYS[100], "1Q", 2021, "14:59:00")])["ev_td_since_earn"]
    late = built(panel, market, [document(CODES[0], DAYS[100], "1Q", 2021, "15:00:00")])["ev_td_since_earn"]
    assert (early[99, 0], early[100, 0], early[105, 0]) == (250, 0, 5)
    assert (late[100, 0], late[101, 0]) == (250, 0)


def test_the_next_date_is_a_year_after_the_same_quarters_first(panel: Panel, market: dict[str, pl.DataFrame]) -> None:
    """A corrected 2Q report of autumn does not move the date that the first one gives."""
    first, again = date(2021, 8, 10), date(2021, 10, 4)
    rows = [
        document(CODES[0], first, "2Q", 2021, "14:00:00"),
        document(CODES[0], again, "2Q", 2021, "14:00:00", DiscNo="9"),
        document(CODES[0], date(2022, 5, 10), "1Q", 2022, "14:00:00"),
    ]
    ours = built(panel, market, rows)["ev_td_to_exp_earn"][:, 0]
    at = DAYS.index(date(2022, 5, 10))
    assert np.isnan(ours[at - 1])  # the next report was 3Q, whose date a year ago is unknown
    assert ours[at] == AHEAD.index(date(2022, 8, 10)) - at
    assert (np.diff(ours[at:]) == -1).all()


def test_an_overdue_report_stops_at_minus_twenty(panel: Panel, market: dict[str, pl.DataFrame]) -> None:
    rows = [document(CODES[0], day, kind, year, "14:00:00") for day, kind, year in (
        (date(2021, 2, 10), "2Q", 2020), (date(2021, 12, 10), "1Q", 2021),
    )]  # fmt: skip
    ours = built(panel, market, rows)["ev_td_to_exp_earn"][:, 0]
    due = DAYS.index(date(2022, 2, 10))
    assert (ours[due], ours[due + 7], ours[due + 60]) == (0, -7, -20)
