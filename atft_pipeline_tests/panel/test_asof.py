"""The as-of join: newest known event per cell, proven to be known, whatever the order of the input."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from atft_pipeline.panel import asof
from atft_pipeline.panel.asof import as_of
from atft_pipeline.panel.axes import Axes
from atft_pipeline.verdict import ContractBroken

DATES = np.array(["2024-01-04", "2024-01-05", "2024-01-09", "2024-01-10", "2024-01-11"], "datetime64[D]")


@pytest.fixture
def axes() -> Axes:
    listed = np.ones((5, 2), np.bool_)
    listed[:2, 1] = False
    return Axes(DATES, np.array(["13010", "13020"]), listed)


def days(*texts: str) -> np.ndarray:
    return np.array(texts, "datetime64[D]")


def test_newest_available_event_holds_until_the_next(axes: Axes) -> None:
    joined = as_of(days("2024-01-05", "2024-01-10", "2023-12-01"), np.array([0, 0, 1]), axes)
    np.testing.assert_array_equal(joined.index, [[-1, 2], [0, 2], [0, 2], [1, 2], [1, 2]])
    np.testing.assert_array_equal(joined.staleness_td, [[-1, 0], [0, 1], [1, 2], [0, 3], [1, 4]])
    assert joined.available_on[2, 0] == np.datetime64("2024-01-05") and np.isnat(joined.available_on[0, 0])
    np.testing.assert_array_equal(joined.take(np.array([10.0, 20.0, 30.0]))[:, 0], [np.nan, 10, 10, 20, 20])


def test_event_available_on_a_closed_day_counts_from_the_next_row(axes: Axes) -> None:
    joined = as_of(days("2024-01-06"), np.array([0]), axes)
    np.testing.assert_array_equal(joined.index[:, 0], [-1, -1, 0, 0, 0])
    assert joined.staleness_td[2, 0] == 0


def test_stale_values_can_be_left_out(axes: Axes) -> None:
    joined = as_of(days("2024-01-04"), np.array([0]), axes)
    np.testing.assert_array_equal(joined.take(np.array([7.0]), max_staleness=1)[:, 0], [7, 7, np.nan, np.nan, np.nan])


def test_later_vintage_wins_on_one_day_by_the_given_order_then_by_position(axes: Axes) -> None:
    available, entity = days(*["2024-01-05"] * 3), np.zeros(3, int)
    by_time = as_of(available, entity, axes, order=[pl.Series(["14:00", "09:00", "13:00"])])
    assert by_time.index[1, 0] == 0
    by_position = as_of(available, entity, axes)
    assert by_position.index[1, 0] == 2
    second_key = as_of(available, entity, axes, order=[pl.Series([1, 1, 1]), pl.Series([None, "b", "a"])])
    assert second_key.index[1, 0] == 1


def test_result_does_not_depend_on_the_input_order(axes: Axes) -> None:
    rng = np.random.default_rng(0)
    available = DATES[rng.integers(0, 5, 40)]
    entity, number = rng.integers(0, 2, 40), np.arange(40.0)
    shuffle = rng.permutation(40)
    straight = as_of(available, entity, axes, order=[number]).take(number)
    shuffled = as_of(available[shuffle], entity[shuffle], axes, order=[number[shuffle]]).take(number[shuffle])
    np.testing.assert_array_equal(straight, shuffled)


def test_later_events_change_no_earlier_row(axes: Axes) -> None:
    early = as_of(days("2024-01-05"), np.array([0]), axes)
    more = as_of(days("2024-01-05", "2024-01-10", "2025-01-01"), np.array([0, 0, 0]), axes)
    np.testing.assert_array_equal(early.index[:3], more.index[:3])


def test_groups_have_their_own_width(axes: Axes) -> None:
    joined = as_of(days("2024-01-04", "2024-01-09"), np.array([3, 0]), axes, entities=4)
    assert joined.index.shape == (5, 4)
    np.testing.assert_array_equal(joined.index[-1], [1, -1, -1, 0])


def test_audit_counts_what_was_seen(axes: Axes) -> None:
    joined = as_of(days("2024-01-05", "2024-02-01", "2024-01-04"), np.array([0, 0, -1]), axes)
    audit = joined.audit
    assert (audit.events, audit.unknown_entity, audit.not_yet_available) == (3, 1, 1)
    assert audit.rows_inspected == 4
    assert audit.hit_rate == pytest.approx(4 / 8)  # of the eight listed cells


def test_row_that_uses_the_future_is_refused(axes: Axes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant the fault: a placement one row too early, as an off-by-one in the rule would give."""
    right = asof.place
    monkeypatch.setattr(asof, "place", lambda available, axes: right(available, axes) - 1)
    with pytest.raises(ContractBroken, match="before it is available"):
        as_of(days("2024-01-09"), np.array([0]), axes)


def test_verdict_names_the_first_violation_and_the_number_inspected(axes: Axes) -> None:
    index = np.zeros((5, 2), np.int32)
    available_on = np.full((5, 2), np.datetime64("2024-01-05"))
    verdict = asof.verify(index, available_on, axes)
    assert not verdict.passed and verdict.got == 2
    assert verdict.details["rows_inspected"] == 10
    assert "2024-01-04 uses one of 2024-01-05" in verdict.message


def test_broken_key_join_is_refused(axes: Axes) -> None:
    codes = axes.code_index(np.array(["1301", "1302"]))  # four characters: another form of the key
    with pytest.raises(ContractBroken, match="none of 2 events"):
        as_of(days("2024-01-05", "2024-01-05"), codes, axes)


def test_event_without_availability_is_refused(axes: Axes) -> None:
    with pytest.raises(ContractBroken, match="no availability day"):
        as_of(days("2024-01-05", "NaT"), np.array([0, 0]), axes)


def test_no_events_give_no_values(axes: Axes) -> None:
    joined = as_of(pl.Series([], dtype=pl.Date), pl.Series([], dtype=pl.Int64), axes)
    assert (joined.index == -1).all() and joined.audit.rows_inspected == 0
    assert np.isnan(joined.take(np.array([]))).all()


def test_only_some_cells_know_their_event(axes: Axes) -> None:
    joined = as_of(days("2024-01-04", "2024-01-04"), np.array([0, 1]), axes)
    cells = np.ones((5, 2), np.bool_)
    cells[1:3, 0] = False
    limited = joined.only(cells)
    np.testing.assert_array_equal(limited.index, [[0, 1], [-1, 1], [-1, 1], [0, 1], [0, 1]])
    values = np.array([1.5, 2.5])
    np.testing.assert_array_equal(limited.take(values), np.where(cells, joined.take(values), np.nan))
    np.testing.assert_array_equal(limited.column(values), limited.take(values).astype(np.float32))
    np.testing.assert_array_equal(joined.column(values, 2), joined.take(values, 2).astype(np.float32))
