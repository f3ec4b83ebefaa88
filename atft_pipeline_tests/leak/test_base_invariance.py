"""No base column sees the future: truncation (G-A), poisoning with a planted split (G-B), splits themselves (L20)."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.dataset.labels import label_columns
from atft_pipeline.features.catalog import GROUPS
from atft_pipeline.features.group import Inputs, compute_columns
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline_tests.leak.invariance import SeesTheFuture, assert_prefix_equal
from atft_pipeline_tests.synthetic import Frames, market

BASE = [group for group in GROUPS if group.tier == "base"]
CUT = 275
"""Row T of the tests; the 75 rows after it are what must not be seen."""


@pytest.fixture(scope="module")
def frames() -> Frames:
    """350 days, and a code that lists after the cut, in the middle of the code axis."""
    whole = market(days=350)
    late, first = whole.master["Code"].unique().sort()[60], whole.dates[CUT + 10]
    keep = (pl.col("Code") != late) | (pl.col("Date") >= first)
    return replace(whole, master=whole.master.filter(keep), bars=whole.bars.filter(keep))


def build(frames: Frames) -> Panel:
    return build_panel(frames.calendar, frames.master, frames.bars)


def base_columns(frames: Frames) -> dict[str, NDArray[np.float32]]:
    """All 99 base columns on the codes that are listed by the cut."""
    panel = build(frames)
    known = panel.axes.listed[: CUT + 1].any(axis=0)
    return {n: v[:, known] for group in BASE for n, v in compute_columns(group, Inputs(panel, {}))}


def poisoned(frames: Frames, seed: int) -> Frames:
    """Every number after the cut times a random factor, flags flipped, and a split of every code at T + 5."""
    rng = np.random.default_rng(seed)
    bars, last, split = frames.bars, frames.dates[CUT], frames.dates[CUT + 5]
    later = (pl.col("Date") > last).alias("later")
    numeric = [name for name, dtype in bars.schema.items() if dtype == pl.Float64]
    factors = {f"{n}_x": pl.Series(f"{n}_x", rng.uniform(0.2, 5.0, bars.height)) for n in numeric}
    changed = bars.with_columns(**factors).with_columns(
        *[pl.when(later).then(pl.col(n) * pl.col(f"{n}_x")).otherwise(n).alias(n) for n in numeric],
        UL=pl.when(later).then(pl.lit("1")).otherwise("UL"),
    )
    at_split = pl.when(pl.col("Date") == split).then(0.5).when(later).then(1.0).otherwise("AdjFactor")
    return replace(frames, bars=changed.with_columns(AdjFactor=at_split).drop(list(factors)))


def test_truncation_changes_no_bit(frames: Frames) -> None:
    """G-A. The cut frames also lack the code that lists later, so the code axis itself is shorter."""
    cut = frames.until(frames.dates[CUT])
    assert len(build(cut).axes.codes) == len(build(frames).axes.codes) - 1
    assert_prefix_equal(base_columns, frames, cut, CUT + 1)


def test_thirty_more_days_change_no_bit(frames: Frames) -> None:
    cut, more = frames.until(frames.dates[CUT]), frames.until(frames.dates[CUT + 30])
    assert_prefix_equal(base_columns, more, cut, CUT + 1)


@pytest.mark.parametrize("seed", [1, 2])
def test_poisoned_future_changes_no_bit(frames: Frames, seed: int) -> None:
    """G-B."""
    assert_prefix_equal(base_columns, frames, poisoned(frames, seed), CUT + 1)


def test_the_same_check_catches_labels(frames: Frames) -> None:
    """The guard itself: labels do see the future, and it says so."""

    def labels(given: Frames) -> dict[str, NDArray[np.float32]]:
        panel = build(given)
        return {n: v[:, panel.axes.listed[: CUT + 1].any(axis=0)] for n, v in label_columns(panel).items()}

    with pytest.raises(SeesTheFuture, match="target_ret_1d"):
        assert_prefix_equal(labels, frames, poisoned(frames, 1), CUT + 1)


def with_split(frames: Frames, code: str, day: date) -> Frames:
    """The same market in which `code` splits 1 to 2 on `day`: raw prices halve from there on, volume doubles."""
    after = (pl.col("Code") == code) & (pl.col("Date") >= day)
    change = {name: pl.when(after).then(pl.col(name) * 0.5).otherwise(name) for name in "OHLC"}
    factor = pl.when((pl.col("Code") == code) & (pl.col("Date") == day)).then(0.5).otherwise("AdjFactor")
    volume = pl.when(after).then(pl.col("Vo") * 2).otherwise("Vo")
    return replace(frames, bars=frames.bars.with_columns(**change, Vo=volume, AdjFactor=factor))


def test_split_ahead_leaves_earlier_rows_alone(frames: Frames) -> None:
    """L20, first half: adjusted levels that are rewritten by a later split would move here."""
    code = build(frames).axes.codes[0]
    split = with_split(frames, str(code), frames.dates[CUT + 5])
    assert_prefix_equal(base_columns, frames, split, CUT + 1)


def test_split_on_the_day_moves_only_what_is_raw(frames: Frames) -> None:
    """L20, second half: every scale-free column of a split market equals that of the market without the split."""
    code, day = str(build(frames).axes.codes[0]), frames.dates[CUT]
    plain, split = base_columns(frames), base_columns(with_split(frames, code, day))
    moved = {
        name
        for name, values in plain.items()
        if not np.allclose(values[CUT:, 0], split[name][CUT:, 0], rtol=2e-5, atol=1e-6, equal_nan=True)
    }
    raw = {"px_open", "px_high", "px_low", "px_close", "px_volume", "split_is_ex", "split_td_since"}
    assert moved == raw
    gap = np.diff(split["ta_px_to_sma_20"][CUT - 1 : CUT + 1, 0])[0]
    assert abs(gap) < 0.1
