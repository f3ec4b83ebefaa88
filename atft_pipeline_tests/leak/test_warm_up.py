"""L13: a history that starts later gives the same rows once the declared warm-up is over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features import catalog
from atft_pipeline.features.group import Column, Group, Inputs, compute_group
from atft_pipeline.panel.operators import ts_ema
from atft_pipeline.panel.panel import build_panel
from atft_pipeline_tests.synthetic import Frames, market

LATER = 120
"""Rows by which the second history starts later."""
TRADED = [0, 1, 2, 3, 4, 5, 7, 9, 10]
"""Not the code that trades every other day: recursive means step over its gaps, and forget half as fast."""
OWN = [group for group in catalog.GROUPS if group.name in ("px", "ret", "vol", "ta", "liq", "evt", "mkt", "mb", "gr")]
"""Groups whose columns are windows over prices: no counters since the first day, no records of another frequency."""


@pytest.fixture(scope="module")
def frames() -> Frames:
    return market(codes=11, days=catalog.WARM_UP_DAYS + LATER + 10)


def build(frames: Frames, groups: list[Group]) -> dict[str, NDArray[np.float32]]:
    inputs = Inputs(build_panel(frames.calendar, frames.master, frames.bars), frames.events)
    return {name: values for group in groups for name, values in compute_group(group, inputs).items()}


def assert_same_after_warm_up(frames: Frames, groups: list[Group]) -> None:
    first = frames.dates[LATER]
    tables = {name: getattr(frames, name).filter(pl.col("Date") >= first) for name in ("master", "bars", "topix")}
    early, late = build(frames, groups), build(replace(frames, **tables), groups)
    ripe = LATER + catalog.WARM_UP_DAYS
    for name, values in early.items():
        same = (late[name][ripe - LATER :, TRADED], values[ripe:, TRADED])
        np.testing.assert_allclose(*same, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_history_that_starts_later_gives_the_same_rows_after_the_warm_up(frames: Frames) -> None:
    assert_same_after_warm_up(frames, OWN)


def test_a_window_longer_than_the_warm_up_would_be_noticed(frames: Frames) -> None:
    def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
        yield "planted", inputs.panel.c / ts_ema(inputs.panel.c, 400)

    column = Column("planted", "f32", "", "", "", "cross_section")
    with pytest.raises(AssertionError, match="planted"):
        assert_same_after_warm_up(frames, [Group("planted", "base", ("bars_daily",), "T", (column,), compute)])
