"""Element-wise operators and the threads they share: numpy's results to the bit, at sizes that are cut in pieces."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

from atft_pipeline.panel import element_operators
from atft_pipeline.panel.operators import (
    divide,
    elementwise,
    gather,
    gather_column,
    group_column,
    group_take,
    pick_cells,
    relative,
    scatter,
    where,
)

SHAPE = (700, 311)
assert SHAPE[0] * SHAPE[1] > element_operators.SMALL


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    rng = np.random.default_rng(5)
    values = rng.standard_normal(SHAPE)
    values[rng.random(SHAPE) < 0.1] = np.nan
    values[rng.random(SHAPE) < 0.1] = 0.0
    return values


def test_where_is_numpys_with_null_for_the_rest(x: np.ndarray) -> None:
    np.testing.assert_array_equal(where(x > 0, x), np.where(x > 0, x, np.nan))
    np.testing.assert_array_equal(where(x > 0, 1.0, x), np.where(x > 0, 1.0, x))
    np.testing.assert_array_equal(where(x[:, :1] > 0, x, 0.0), np.where(x[:, :1] > 0, x, 0.0))


def test_relative_is_a_division_less_one_and_null_at_a_zero_base(x: np.ndarray) -> None:
    base = x[::-1].copy()
    found = relative(x, base)
    np.testing.assert_array_equal(found, divide(x, base) - 1)
    assert np.isnan(found[base == 0]).all() and np.isfinite(found).any()


def test_a_long_vector_is_cut_too() -> None:
    long = np.random.default_rng(1).standard_normal(3 * element_operators.SMALL + 17)
    np.testing.assert_array_equal(elementwise(np.square, long), np.square(long))
    np.testing.assert_array_equal(divide(long, long[::-1]), long / long[::-1])


def test_columns_are_the_gathered_values_as_float32(x: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    values = rng.standard_normal(1000)
    index, age = rng.integers(-1, 1000, SHAPE).astype(np.int32), rng.integers(0, 50, SHAPE).astype(np.int32)
    np.testing.assert_array_equal(gather_column(values, index), gather(values, index).astype(np.float32))
    np.testing.assert_array_equal(
        gather_column(values, index, age, 20), gather(values, index, age, 20).astype(np.float32)
    )
    table, ids = rng.standard_normal((SHAPE[0], 7)), rng.integers(-1, 8, SHAPE)
    np.testing.assert_array_equal(group_column(table, ids), group_take(table, ids).astype(np.float32))


def test_what_is_scattered_is_picked_up_again() -> None:
    cell = np.random.default_rng(3).permutation(SHAPE[0] * SHAPE[1])[: 2 * element_operators.SMALL]
    values, into = np.arange(len(cell), dtype=np.float64), np.full(SHAPE, np.nan)
    scatter(values, cell, into)
    assert np.isfinite(into).sum() == len(cell)
    np.testing.assert_array_equal(pick_cells(into, cell), values)


def test_an_operator_inside_an_operators_thread_runs_in_it(x: np.ndarray) -> None:
    """Waiting there for a free thread of the same crew would be waiting for itself."""
    jobs = [lambda first, end: np.nansum(elementwise(np.abs, x)) for _ in range(8)]
    sums = element_operators.in_threads(lambda first, end: jobs[first](first, end), 8, 1, x.size)
    np.testing.assert_array_equal(sums, np.full(len(sums), np.nansum(np.abs(x))))


def test_an_error_in_one_piece_is_raised(x: np.ndarray) -> None:
    def fails(values: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("in a piece")

    with pytest.raises(ZeroDivisionError, match="in a piece"):
        elementwise(fails, x)
    np.testing.assert_array_equal(elementwise(np.negative, x), -x)


def _compute_and_exit(x: np.ndarray) -> None:
    raise SystemExit(0 if np.array_equal(elementwise(np.negative, x), -x, equal_nan=True) else 1)


def test_a_forked_child_makes_threads_of_its_own(x: np.ndarray) -> None:
    elementwise(np.negative, x)  # the parent has threads, which a fork does not copy
    child = multiprocessing.get_context("fork").Process(target=_compute_and_exit, args=(x,))
    child.start()
    child.join(60)
    alive = child.is_alive()
    child.kill()
    assert not alive and child.exitcode == 0
