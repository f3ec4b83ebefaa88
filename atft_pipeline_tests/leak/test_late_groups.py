"""No column of mkt, sec, flow, fs or ev sees the future: cut or poison everything later, and no earlier bit moves.

The planted leaks show that the same comparison fires.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features import companies, earnings, flow, market, sector, statements
from atft_pipeline.features.group import Group, Inputs, compute_group
from atft_pipeline.panel.panel import build_panel
from atft_pipeline_tests.leak.invariance import Built, SeesTheFuture, assert_prefix_equal
from atft_pipeline_tests.synthetic_events import (
    company,
    document,
    investor_week,
    investor_weeks,
    market_tables,
    revision,
    topix_bars,
    typed,
    weekdays,
)

Tables = Mapping[str, pl.DataFrame]

DAYS = weekdays(320, date(2022, 1, 3))
CODES = [f"{10000 + 10 * i}" for i in range(26)]
NEWCOMER, LEAVER = "20000", CODES[5]
CUT_ROWS = (150, 262)
"""Two cuts: with the long windows still empty, and with all of them filled."""
GROUPS = {group.name: group for group in (market.GROUP, sector.GROUP, flow.GROUP, statements.GROUP, earnings.GROUP)}
DATE_OF = {
    "master": "Date",
    "bars_daily": "Date",
    "topix": "Date",
    "fin_summary": "DiscDate",
    "investor_types": "PubDate",
}


@pytest.fixture(scope="module")
def tables() -> Tables:
    """A market with a split, a stock that changes sector, one that delists and one that lists late."""
    rng = np.random.default_rng(11)
    quotes = market_tables([*CODES, NEWCOMER], DAYS, rng, sectors=["3650", "7050"])
    late = (pl.col("Code") == NEWCOMER) & (pl.col("Date") < DAYS[280])
    gone = (pl.col("Code") == LEAVER) & (pl.col("Date") >= DAYS[270])
    ex_date = (pl.col("Code") == CODES[0]) & (pl.col("Date") == DAYS[200])
    moved = (pl.col("Code") == CODES[1]) & (pl.col("Date") >= DAYS[180])
    documents = [row for code in [*CODES, NEWCOMER] for row in company(code, (2019, 2020, 2021, 2022), rng)]
    sections = ["TSEPrime", "TSEStandard", "TSEGrowth"]
    weeks = investor_weeks(sections, date(2021, 1, 4), 110, rng)
    return {
        "calendar": quotes["calendar"],
        "master": quotes["master"]
        .filter(~(late | gone))
        .with_columns(S33=pl.when(moved).then(pl.lit("7050")).otherwise("S33")),
        "bars_daily": quotes["bars_daily"]
        .filter(~(late | gone))
        .with_columns(AdjFactor=pl.when(ex_date).then(0.5).otherwise("AdjFactor")),
        "topix": topix_bars(DAYS, rng),
        "fin_summary": typed("fin_summary", documents),
        "investor_types": typed("investor_types", weeks),
    }


def build(tables: Tables, groups: Mapping[str, Group] = GROUPS) -> dict[str, NDArray[np.generic]]:
    """Every column of the groups for the codes that are listed from the first day."""
    panel = build_panel(tables["calendar"], tables["master"], tables["bars_daily"])
    kept = np.isin(panel.axes.codes, CODES)
    inputs = Inputs(panel, tables)
    return {name: values[:, kept] for group in groups.values() for name, values in compute_group(group, inputs).items()}


def known_by(table: str, day: date) -> pl.Expr:
    """Rows of a raw table that are published in time for the row `day`."""
    if table == "investor_types":
        return pl.col("PubDate") < day
    if table == "fin_summary":
        return (pl.col("DiscDate") < day) | ((pl.col("DiscDate") == day) & (pl.col("DiscTime") < "15:00:00"))
    return pl.col(DATE_OF[table]) <= day


def truncated(tables: Tables, day: date) -> dict[str, pl.DataFrame]:
    return {name: frame if name == "calendar" else frame.filter(known_by(name, day)) for name, frame in tables.items()}


def poisoned(tables: Tables, day: date) -> dict[str, pl.DataFrame]:
    """Every number that is published after `day` times a random factor, and events that never happened added."""
    rng = np.random.default_rng(99)
    changed = dict(tables)
    for name, frame in tables.items():
        if name == "calendar":
            continue
        numbers = [c for c, dtype in frame.schema.items() if dtype == pl.Float64 and c != "AdjFactor"]
        factors = pl.Series(rng.uniform(0.2, 5.0, frame.height))
        known = known_by(name, day)
        changed[name] = frame.with_columns(
            pl.when(known).then(pl.col(c)).otherwise(pl.col(c) * factors).alias(c) for c in numbers
        )
    after = [d for d in DAYS if d > day]
    split = (pl.col("Date") == after[4]) & pl.col("Code").is_in(CODES[3:9])
    changed["bars_daily"] = changed["bars_daily"].with_columns(
        AdjFactor=pl.when(split).then(0.5).otherwise("AdjFactor")
    )
    changed["master"] = changed["master"].with_columns(
        S33=pl.when(pl.col("Date") > day).then(pl.lit("3650")).otherwise("S33"),
        Mkt=pl.when(pl.col("Date") > day).then(pl.lit("0112")).otherwise("Mkt"),
    )
    false = [
        row
        for code in CODES[:8]
        for row in (
            document(
                code, day, "1Q", 2021, "15:00:00", Sales=1.0, OP=1.0, NP=1.0, TA=9.0, Eq=1.0, ShOutFY=7.0, TrShFY=1.0
            ),
            revision(code, day, 2022, FOP=1.0, FNP=1.0, DiscNo="2", DiscTime="15:30:00"),
            revision(code, day, 2022, "DividendForecastRevision", FDivAnn=1.0, DiscNo="3", DiscTime=None),
        )
    ]
    changed["fin_summary"] = pl.concat([changed["fin_summary"], typed("fin_summary", false)])
    monday = day - timedelta(days=day.weekday() + 28)
    corrections = [investor_week(day, section, monday) for section in ("TSEPrime", "TSEStandard", "TSEGrowth")]
    changed["investor_types"] = pl.concat([changed["investor_types"], typed("investor_types", corrections)])
    return changed


@pytest.mark.parametrize("change", [truncated, poisoned])
@pytest.mark.parametrize("rows", CUT_ROWS)
def test_what_comes_later_changes_no_earlier_bit(
    tables: Tables, rows: int, change: Callable[[Tables, date], Tables]
) -> None:
    assert_prefix_equal(build, tables, change(tables, DAYS[rows - 1]), rows)


def test_every_column_has_known_values_before_the_last_cut(tables: Tables) -> None:
    built = build(tables)
    known = {name for name, values in built.items() if np.isfinite(np.asarray(values[: CUT_ROWS[-1]], float)).any()}
    needs_twenty_sectors = {"sec33_rank_ret_5d", "sec33_rank_ret_20d"}
    needs_twelve_sectors = {"sec17_rank_ret_20d"}
    assert set(built) - known == needs_twenty_sectors | needs_twelve_sectors
    assert len(built) == 98


def test_order_of_the_delivered_rows_changes_nothing(tables: Tables) -> None:
    shuffled = {name: frame.sample(fraction=1.0, shuffle=True, seed=3) for name, frame in tables.items()}
    assert_prefix_equal(build, tables, shuffled, len(DAYS))


Leak = Callable[[Tables], Built]


def next_days_return(tables: Tables) -> Built:
    close = build_panel(tables["calendar"], tables["master"], tables["bars_daily"]).c[:, :5]
    return {"innocent": np.vstack([close[1:] / close[:-1] - 1, np.full((1, 5), np.nan)])}


def percentile_over_all_history(tables: Tables) -> Built:
    close = tables["topix"]["C"].to_numpy()
    return {"innocent": np.argsort(np.argsort(close)) / len(close)}


def backward_filled_split(tables: Tables) -> Built:
    panel = build_panel(tables["calendar"], tables["master"], tables["bars_daily"])
    return {"innocent": (panel.c * panel.split[-1])[:, :9]}


@pytest.mark.parametrize("leak", [next_days_return, percentile_over_all_history, backward_filled_split])
@pytest.mark.parametrize("change", [truncated, poisoned])
def test_planted_leak_is_caught(tables: Tables, leak: Leak, change: Callable[[Tables, date], Tables]) -> None:
    rows = CUT_ROWS[0]
    with pytest.raises(SeesTheFuture, match="innocent"):
        assert_prefix_equal(leak, tables, change(tables, DAYS[rows - 1]), rows)


def test_ignoring_the_disclosure_time_is_caught(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(companies, "by_disclosure_time", lambda dates, times, calendar: dates.to_numpy())
    rows = CUT_ROWS[1]
    with pytest.raises(SeesTheFuture, match="fs_"):
        assert_prefix_equal(
            lambda t: build(t, {"fs": statements.GROUP}), tables, poisoned(tables, DAYS[rows - 1]), rows
        )


def test_using_a_flow_on_its_publication_day_is_caught(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "next_trading_day", lambda dates, calendar: dates.to_numpy())
    rows = CUT_ROWS[1]
    with pytest.raises(SeesTheFuture, match="flow_"):
        assert_prefix_equal(lambda t: build(t, {"flow": flow.GROUP}), tables, poisoned(tables, DAYS[rows - 1]), rows)


def test_comparison_of_nothing_is_refused(tables: Tables) -> None:
    with pytest.raises(ValueError, match="null"):
        assert_prefix_equal(lambda t: {"empty": np.full((9, 2), np.nan)}, tables, tables, 5)
    with pytest.raises(ValueError, match="nothing"):
        assert_prefix_equal(lambda t: {"x": np.ones((9, 2))}, tables, tables, 0)
