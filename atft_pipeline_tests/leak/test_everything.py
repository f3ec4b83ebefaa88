"""Every column of the largest plan, built at once: nothing that is published after a day changes what was known then.

Two cuts: at 180 rows a code that lists later is not on the axis yet; at 300 rows every column has values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.dataset.assemble import knowledge_time
from atft_pipeline.dataset.labels import label_columns
from atft_pipeline.features import catalog, prices
from atft_pipeline.features.group import Column, Group, Inputs, compute_group
from atft_pipeline.panel.asof import as_of
from atft_pipeline.panel.availability import next_trading_day
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline_tests.leak.cases import proof
from atft_pipeline_tests.leak.invariance import SeesTheFuture, assert_prefix_equal
from atft_pipeline_tests.synthetic import DATED, Frames, market, session_before
from atft_pipeline_tests.synthetic_premium import TEXTS, scale_texts

EARLY, LATE = 180, 300
PAGE = Path(__file__).parents[2] / "docs" / "leaks.md"
GROUPS = catalog.groups("premium")
NEXT_DAY = (
    "investor_types", "margin_alert", "short_ratio", "short_sale_report", "breakdown", "options_225", "futures",
)  # fmt: skip
"""Tables whose rows the next trading day is the first to know."""
EVENTS = ("fin_summary", "investor_types", "margin_interest", *NEXT_DAY[1:5], "dividend")
"""Tables of which half of the later rows never come in the poisoned market."""
CALENDAR_ONLY = {column.name for group in GROUPS if group.name == "cal" for column in group.columns}

SILENT = ("O", "H", "L", "C", "Vo", "Va")
NOT_PRICES = CALENDAR_ONLY | {"meta_listing_age_td", "meta_is_recent_ipo"}
"""Columns that no later price, filing or flow can change at any row."""

Change = Callable[[Frames, date], Frames]
Values = NDArray[np.generic]


@pytest.fixture(scope="module")
def frames() -> Frames:
    return market()


def inputs_of(frames: Frames) -> Inputs:
    return Inputs(build_panel(frames.calendar, frames.master, frames.bars), frames.events)


def build(frames: Frames, codes: Sequence[str], groups: Sequence[Group] = GROUPS) -> dict[str, NDArray[np.float32]]:
    """Every column of the groups for the given codes, [T, codes]."""
    return features_of(inputs_of(frames), codes, groups)


def features_of(
    inputs: Inputs, codes: Sequence[str], groups: Sequence[Group] = GROUPS
) -> dict[str, NDArray[np.float32]]:
    place = inputs.panel.axes.code_index(np.array(codes))
    return {name: values[:, place] for group in groups for name, values in compute_group(group, inputs).items()}


def build_whole_dataset(frames: Frames, codes: Sequence[str]) -> dict[str, Values]:
    """Every column of the dataset, [T, codes], values on the row where they are known: labels h rows on."""
    inputs = inputs_of(frames)
    place = inputs.panel.axes.code_index(np.array(codes))
    labels = {name: _once_known(name, values[:, place]) for name, values in label_columns(inputs.panel).items()}
    keys = {name: np.where(inputs.panel.axes.listed, v, np.nan)[:, place] for name, v in _keys(inputs.panel).items()}
    return {**keys, **labels, **features_of(inputs, codes)}


def _keys(panel: Panel) -> dict[str, Values]:
    """The keys as numbers that float32 holds exactly: code, days and half hours since 1970."""
    half_days = frozenset(panel.calendar.half_days.astype("datetime64[D]").tolist())
    known = [knowledge_time(day, half_days) for day in panel.axes.dates.astype("datetime64[D]").tolist()]
    half_hours = np.array(known, dtype="datetime64[m]").astype(np.int64) / 30
    days = panel.axes.dates.astype("datetime64[D]").astype(np.int64)
    return {"code": panel.axes.codes.astype(np.int64), "date": days[:, None], "asof_ts": half_hours[:, None]}


def _once_known(label: str, values: Values) -> Values:
    """A label moved down by its horizon, the rows that it looks ahead."""
    horizon = int(label.removesuffix("d").rsplit("_", 1)[1])
    return np.vstack([np.full((horizon, values.shape[1]), np.nan), values[:-horizon]])


def codes_of(frames: Frames, rows: int) -> list[str]:
    """The codes that were listed at some time in the first `rows` rows."""
    return frames.master.filter(pl.col("Date") <= frames.dates[rows - 1])["Code"].unique().sort().to_list()


def known_by(table: str, day: date) -> pl.Expr:
    """Rows of a raw table that row `day` may use."""
    if table in NEXT_DAY:
        return pl.col(DATED[table]) < day
    if table == "margin_interest":
        weekly = pl.col("PubDate").is_null() & (pl.col("Date") <= session_before(day, 3))
        return weekly | (pl.col("PubDate") < day)
    if table == "dividend":
        return (pl.col("PubDate") < day) | ((pl.col("PubDate") == day) & (pl.col("PubTime") < "15:00"))
    if table in ("fin_summary", "fin_details"):
        return (pl.col("DiscDate") < day) | ((pl.col("DiscDate") == day) & (pl.col("DiscTime") < "15:00:00"))
    return pl.col(DATED[table]) <= day


def truncated(frames: Frames, day: date) -> Frames:
    return replace(frames, **{name: getattr(frames, name).filter(known_by(name, day)) for name in DATED})


def poisoned(frames: Frames, day: date) -> Frames:
    """Everything after `day` is another world: prices, volumes, limits, segments, sectors, filings, flows.

    Five days on, every third code splits 1 to 2; codes fall silent or delist, one lists in the middle of the axis, and
    half of the filings and weekly records never come.
    """
    rng = np.random.default_rng(17)
    changed = {name: _scaled(getattr(frames, name), known_by(name, day), rng) for name in DATED}
    changed |= {n: scale_texts(n, changed[n], known_by(n, day), rng) for n in TEXTS}
    later = [d for d in frames.dates if d > day]
    after, place = pl.col("Date") > day, pl.col("Code").cast(pl.Int64) // 70
    splits = (pl.col("Date") == later[4]) & (place % 3 == 0)
    silent = after & (place % 7 == 2)
    bars = changed["bars"].with_columns(
        pl.when(splits).then(0.5).otherwise("AdjFactor").alias("AdjFactor"),
        *(
            pl.when(after & (place % 5 == k)).then(pl.lit("1")).otherwise(c).alias(c)
            for k, c in enumerate(("UL", "LL", "MUL", "MLL"))
        ),
    )
    bars = bars.with_columns(pl.when(silent).then(None).otherwise(pl.col(c)).alias(c) for c in SILENT)
    master = changed["master"].with_columns(
        pl.when(after).then(pl.lit(text)).otherwise(c).alias(c)
        for c, text in {"Mkt": "0113", "S17": "3", "S33": "2050", "ScaleCat": "TOPIX Core30", "Mrgn": "3"}.items()
    )
    gone = after & (place % 11 == 5)
    stays = {"master": master.filter(~gone), "bars": bars.filter(~gone)}
    twin = after & (pl.col("Code") == frames.master["Code"].max())
    listing = {
        name: pl.concat([frame, frame.filter(twin).with_columns(Code=pl.lit("15555"))]) for name, frame in stays.items()
    }
    events = {
        name: changed[name].filter(known_by(name, day) | pl.Series(rng.random(changed[name].height) < 0.5))
        for name in EVENTS
    }
    return replace(frames, **{**changed, **listing, **events})


def _scaled(frame: pl.DataFrame, known: pl.Expr, rng: np.random.Generator) -> pl.DataFrame:
    """Every number that is not known yet times a random factor of its own."""
    numbers = [name for name, dtype in frame.schema.items() if dtype == pl.Float64 and name != "AdjFactor"]
    factors = {name: pl.Series(np.exp(rng.normal(0, 0.7, frame.height))) for name in numbers}
    return frame.with_columns(
        pl.when(known).then(pl.col(name)).otherwise(pl.col(name) * factors[name]).alias(name) for name in numbers
    )


@pytest.mark.parametrize("change", [truncated, poisoned])
@pytest.mark.parametrize("rows", [EARLY, LATE])
def test_no_feature_row_changes_with_what_comes_after_it(frames: Frames, rows: int, change: Change) -> None:
    codes, changed = codes_of(frames, rows), change(frames, frames.dates[rows - 1])
    assert_prefix_equal(lambda f: build_whole_dataset(f, codes), frames, changed, rows)


def test_the_proof_covers_every_column_of_the_contract(frames: Frames) -> None:
    """A column that is null before the cut, or one that nobody built, would pass unproven."""
    built = build_whole_dataset(frames, codes_of(frames, LATE))
    proven = [name for name, values in built.items() if np.isfinite(values[:LATE].astype(np.float64)).any()]
    assert tuple(proven) == tuple(catalog.expected_columns("premium"))
    assert proof(len(proven)) in PAGE.read_text(encoding="utf-8")


def test_a_label_on_the_row_before_it_is_known_is_caught(frames: Frames) -> None:
    """The labels' part of the proof rests on the rows by which they are moved: one fewer and they see the future."""

    def too_early(f: Frames) -> dict[str, Values]:
        panel = inputs_of(f).panel
        place = panel.axes.code_index(np.array(codes_of(frames, LATE)))
        found = {name: _once_known(name, values[:, place]) for name, values in label_columns(panel).items()}
        return {name: np.vstack([values[1:], values[-1:]]) for name, values in found.items()}

    with pytest.raises(SeesTheFuture) as caught:
        assert_prefix_equal(too_early, frames, poisoned(frames, frames.dates[LATE - 1]), LATE)
    assert [
        e.name for e in catalog.KEY_ENTRIES if e.role == "label" and f"{e.name} (first" not in str(caught.value)
    ] == []


def test_every_table_that_groups_read_is_cut_and_poisoned(frames: Frames) -> None:
    """A table that `DATED` leaves out would be the same on both sides of every comparison."""
    read = {table for group in GROUPS for table in group.tables} - {"calendar", "bars_daily"}
    assert {"bars_daily" if name == "bars" else name for name in DATED} == {"master", *frames.events}
    assert read <= set(DATED)


def test_the_poison_reaches_every_column_that_tables_can_change(frames: Frames) -> None:
    """Poison that does not change a column's later rows proves nothing about its earlier ones."""
    codes = codes_of(frames, EARLY)
    before, after = (build(f, codes) for f in (frames, poisoned(frames, frames.dates[EARLY - 1])))
    listed = np.isfinite(before["meta_market_id"]) & np.isfinite(after["meta_market_id"])
    listed[:EARLY] = False
    untouched = {n for n, v in before.items() if np.array_equal(v[listed], after[n][listed], equal_nan=True)}
    assert untouched == NOT_PRICES


def test_groups_change_neither_the_panel_nor_each_other(frames: Frames) -> None:
    inputs, fresh = inputs_of(frames), inputs_of(frames)
    forward = [compute_group(group, inputs) for group in GROUPS]
    backward = [compute_group(group, fresh) for group in reversed(GROUPS)][::-1]
    for one, other in zip(forward, backward, strict=True):
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)
    untouched = inputs_of(frames).panel
    for name in ("close", "volume", "factor", "split", "c", "v", "ret_1d", "universe"):
        np.testing.assert_array_equal(getattr(inputs.panel, name), getattr(untouched, name), err_msg=name)


def test_a_code_alone_has_the_same_columns_as_among_others(frames: Frames) -> None:
    """Q1: a window that is not closed over the code reads the code before it."""
    codes = [frames.master["Code"].unique().sort()[i] for i in (3, 5, 8)]
    compares_stocks = {"xs", "idx", "sec", "gr"}
    groups = [group for group in GROUPS if group.name not in compares_stocks]
    every = build(frames, codes, groups)
    for place, code in enumerate(codes):
        own = {name: getattr(frames, name).filter(pl.col("Code") == code) for name in ("bars", "master")}
        anchor = frames.master["Code"].unique().sort()[0]  # listed throughout, so that every date has a row
        kept = {name: getattr(frames, name).filter(pl.col("Code").is_in([code, anchor])) for name in own}
        for name, values in build(replace(frames, **kept), [code], groups).items():
            if name != "liq_tv_mkt_share_bp":
                np.testing.assert_array_equal(values[:, 0], every[name][:, place], err_msg=f"{name} of {code}")


def test_the_same_comparison_catches_every_label(frames: Frames) -> None:
    def labels(f: Frames) -> dict[str, NDArray[np.float32]]:
        panel = inputs_of(f).panel
        place = panel.axes.code_index(np.array(codes_of(frames, LATE)))
        return {name: values[:, place] for name, values in label_columns(panel).items()}

    for change in (truncated, poisoned):
        with pytest.raises(SeesTheFuture) as caught:
            assert_prefix_equal(labels, frames, change(frames, frames.dates[LATE - 1]), LATE)
        labelled = [entry.name for entry in catalog.columns("premium") if entry.role == "label"]
        assert len(labelled) == 10
        assert [name for name in labelled if f"{name} (first at row" not in str(caught.value)] == []


def next_return(inputs: Inputs) -> Values:
    c = inputs.panel.c
    return np.vstack([c[1:] / c[:-1] - 1, np.full((1, c.shape[1]), np.nan)])


def centred_mean(inputs: Inputs) -> Values:
    c = inputs.panel.c
    return np.vstack([c[:1], (c[:-2] + c[1:-1] + c[2:]) / 3, c[-1:]])


def days_to_the_next_split(inputs: Inputs) -> Values:
    is_ex = (inputs.panel.factor != 1) & inputs.panel.axes.listed
    rows = np.arange(len(is_ex))[:, None]
    ahead = np.minimum.accumulate(np.where(is_ex, rows, 999)[::-1], axis=0)[::-1]
    return np.minimum(ahead - rows, 250)


def price_adjusted_by_every_split(inputs: Inputs) -> Values:
    """What the API's adjusted columns hold: each later split rewrites them."""
    return inputs.panel.c * inputs.panel.split[-1]


def score_over_all_history(inputs: Inputs) -> Values:
    r = inputs.panel.ret_1d
    return (r - np.nanmean(r, axis=0)) / np.nanstd(r, axis=0)


def todays_segment_for_all_history(inputs: Inputs) -> Values:
    return np.broadcast_to(inputs.panel.market[-1], inputs.panel.market.shape)


def profit_from_the_period_end(inputs: Inputs) -> Values:
    filings, axes = inputs.tables["fin_summary"], inputs.panel.axes
    joined = as_of(filings["CurPerEn"], axes.code_index(filings["Code"].to_numpy().astype(axes.codes.dtype)), axes)
    return joined.take(filings["NP"].to_numpy())


def profit_whatever_the_hour(inputs: Inputs) -> Values:
    filings, axes = inputs.tables["fin_summary"], inputs.panel.axes
    joined = as_of(filings["DiscDate"], axes.code_index(filings["Code"].to_numpy().astype(axes.codes.dtype)), axes)
    return joined.take(filings["NP"].to_numpy())


def flow_from_the_week_itself(inputs: Inputs) -> Values:
    weeks = inputs.tables["investor_types"].filter(pl.col("Section") == "TSEPrime")
    joined = as_of(weeks["EnDate"], np.zeros(weeks.height, np.int64), inputs.panel.axes, entities=1)
    return joined.take(weeks["FrgnBal"].to_numpy())


def margin_from_the_next_business_day(inputs: Inputs) -> Values:
    """A weekly balance is published two business days after its date."""
    rows, axes = inputs.tables["margin_interest"], inputs.panel.axes
    stock = axes.code_index(rows["Code"].to_numpy().astype(axes.codes.dtype))
    return as_of(next_trading_day(rows["Date"], inputs.panel.calendar), stock, axes).take(rows["LongVol"].to_numpy())


def position_from_its_calculation(inputs: Inputs) -> Values:
    rows, axes = inputs.tables["short_sale_report"], inputs.panel.axes
    stock = axes.code_index(rows["Code"].to_numpy().astype(axes.codes.dtype))
    joined = as_of(next_trading_day(rows["CalcDate"], inputs.panel.calendar), stock, axes)
    return joined.take(rows["ShrtPosToSO"].to_numpy())


def breakdown_of_the_day_itself(inputs: Inputs) -> Values:
    rows, axes = inputs.tables["breakdown"], inputs.panel.axes
    stock = axes.code_index(rows["Code"].to_numpy().astype(axes.codes.dtype))
    return as_of(rows["Date"], stock, axes).take(rows["LongBuyVa"].to_numpy())


def next_dividend_in_later_notices(inputs: Inputs) -> Values:
    notices, axes = inputs.tables["dividend"], inputs.panel.axes
    ex = notices["ExDate"].str.to_date().dt.offset_by("-100d")  # whenever it was announced
    joined = as_of(ex, axes.code_index(notices["Code"].to_numpy().astype(axes.codes.dtype)), axes)
    return joined.take(notices["DivRate"].cast(pl.Float64, strict=False).to_numpy())


def volatility_on_its_own_date(inputs: Inputs) -> Values:
    options, axes = inputs.tables["options_225"], inputs.panel.axes
    joined = as_of(options["Date"], np.zeros(options.height, np.int64), axes, entities=1)
    return np.broadcast_to(joined.take(options["IV"].to_numpy()), axes.shape)


LEAKS = (
    next_return,
    centred_mean,
    days_to_the_next_split,
    price_adjusted_by_every_split,
    score_over_all_history,
    todays_segment_for_all_history,
    profit_from_the_period_end,
    profit_whatever_the_hour,
    flow_from_the_week_itself,
    margin_from_the_next_business_day,
    position_from_its_calculation,
    breakdown_of_the_day_itself,
    next_dividend_in_later_notices,
    volatility_on_its_own_date,
)


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
def test_a_planted_column_that_sees_the_future_is_named(frames: Frames, leak: Callable[[Inputs], Values]) -> None:
    def compute(inputs: Inputs) -> Iterator[tuple[str, Values]]:
        yield "planted", leak(inputs)

    column = Column("planted", "f32", "", "", "", "cross_section")
    groups = [prices.GROUP, Group("planted", "base", ("bars_daily",), "T", (column,), compute)]
    filings = frames.fin_summary
    day = filings.filter(pl.col("DiscTime") >= "15:00:00", pl.col("DiscDate").is_in(frames.dates[250:LATE]))["DiscDate"]
    rows = frames.dates.index(day[0]) + 1  # a day on which a company reports after the close
    codes = codes_of(frames, rows)
    with pytest.raises(SeesTheFuture, match=r"before the cut: planted \(first at row \d+ of \d+\)$"):
        assert_prefix_equal(lambda f: build(f, codes, groups), frames, poisoned(frames, frames.dates[rows - 1]), rows)


def test_panels_agree_on_the_axis_before_the_cut(frames: Frames) -> None:
    """The poisoned market has another code axis, so the proof above does not rest on equal positions."""
    whole, changed = (inputs_of(f).panel for f in (frames, poisoned(frames, frames.dates[LATE - 1])))
    assert len(changed.axes.codes) == len(whole.axes.codes) + 1
    assert changed.axes.codes.tolist().index("15555") < len(whole.axes.codes) // 2
    short = inputs_of(truncated(frames, frames.dates[EARLY - 1])).panel
    assert short.axes.shape == (EARLY, len(whole.axes.codes) - 1)
