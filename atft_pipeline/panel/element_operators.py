"""Element-wise operators, and how operators share the cores: every thread owns whole rows or whole columns.

A plain numpy expression over a full market runs on one core and walks the memory once per operation. Here the rows are
taken a cache-sized piece at a time, by one thread per core. The result of a cell does not depend on the pieces. Callers
import from `operators`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atft_pipeline.panel.window_operators import EPS

Array = NDArray[np.float64]
Made = TypeVar("Made")

SMALL = 1 << 16
"""Cells below which a thread costs more than it saves."""
PIECE = 1 << 15
"""Cells per piece: a few arrays of 256 KB stay in the second-level cache."""
CREW = "operators"
"""Names of the threads that work for an operator; an operator called by one of them runs in it."""
SHARES = 8
"""Shares per core: dates differ in cost (early ones have fewer members), and a core may be taken for a while."""


def in_threads(
    job: Callable[[int, int], object], length: int, step: int, cells: int, shares: int = SHARES
) -> list[object]:
    """Call job(first, end) over 0..length on every core, cut at multiples of `step`; the results in order.

    An array of few `cells` is one call in the caller's thread. `shares` is how many calls a core makes at least.
    """
    workers = min(len(os.sched_getaffinity(0)), -(-length // step))
    if cells < SMALL or workers < 2 or threading.current_thread().name.startswith(CREW):
        return [job(0, length)]
    share = -(-length // (workers * shares * step)) * step
    pool = _crew.get(workers)
    jobs = [pool.submit(job, first, min(first + share, length)) for first in range(0, length, share)]
    wait(jobs)  # all of them, before an error of one lets go of the arrays
    return [done.result() for done in jobs]


class _Crew:
    """The threads of `in_threads`, kept from call to call: to start them takes as long as a cheap operator.

    A forked child has the object but none of its threads, and forgets it.
    """

    def __init__(self) -> None:
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self._making = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def get(self, workers: int) -> ThreadPoolExecutor:
        with self._making:
            if workers not in self._pools:
                self._pools[workers] = ThreadPoolExecutor(workers, thread_name_prefix=CREW)
            return self._pools[workers]

    def _forget(self) -> None:
        self._pools, self._making = {}, threading.Lock()


_crew = _Crew()


def on_every_core(job: Callable[..., Made], *inputs: Iterable[Any]) -> list[Made]:
    """job(*one of each input) for all of them, several at a time; the results in order."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(job, *inputs))


def divide(numerator: NDArray[np.generic] | float, denominator: NDArray[np.generic]) -> Array:
    """numerator / denominator where |denominator| > 1e-12, else null; never an epsilon added to the denominator."""

    def ratio(out: Array, above: NDArray[np.generic], below: NDArray[np.generic]) -> None:
        np.divide(above, below, out=out, dtype=np.float64)
        np.copyto(out, np.nan, where=np.abs(np.asarray(below, np.float64)) <= EPS)

    return _by_pieces(ratio, np.asarray(numerator), np.asarray(denominator))


def past_change(x: NDArray[np.generic], k: int) -> Array:
    """x / (x k >= 0 rows earlier) - 1 in one pass over the memory; null on the first k rows and where `divide` is."""

    values = np.ascontiguousarray(x, np.float64)
    first = min(k, len(values))
    out = np.empty(values.shape)
    out[:first] = np.nan
    _by_pieces(_change, values[first:], values[: len(values) - first], into=out[first:])
    return out


def relative(x: NDArray[np.generic], base: NDArray[np.generic]) -> Array:
    """x / base - 1: `divide(x, base) - 1`, to the bit, in one pass over the memory."""
    return _by_pieces(_change, np.asarray(x), np.asarray(base))


def _change(out: Array, above: NDArray[np.generic], below: NDArray[np.generic]) -> None:
    np.divide(above, below, out=out, dtype=np.float64)
    np.copyto(out, np.nan, where=np.abs(np.asarray(below, np.float64)) <= EPS)
    out -= 1.0


def log(x: NDArray[np.generic]) -> Array:
    """Natural logarithm; null where x is not positive."""

    def logarithm(out: Array, value: NDArray[np.generic]) -> None:
        np.log(value, out=out, dtype=np.float64)
        np.copyto(out, np.nan, where=~(np.asarray(value) > 0))

    return _by_pieces(logarithm, np.asarray(x))


def where_known(condition: NDArray[np.bool_], *inputs: NDArray[np.generic]) -> Array:
    """1 where the condition holds, 0 where not, null where any input is null: a comparison alone hides nulls as 0."""

    def flag(out: Array, holds: NDArray[np.generic], *values: NDArray[np.generic]) -> None:
        out[...] = holds
        for value in values:
            np.copyto(out, np.nan, where=np.isnan(value))

    return _by_pieces(flag, np.asarray(condition), *(np.asarray(value) for value in inputs))


def where(
    condition: NDArray[np.bool_], x: NDArray[np.generic] | float, other: NDArray[np.generic] | float = np.nan
) -> Array:
    """x where the condition holds, else `other`, by default null; on every core."""

    def choose(out: Array, holds: NDArray[np.generic], given: NDArray[np.generic], rest: NDArray[np.generic]) -> None:
        out[...] = rest
        np.copyto(out, given, where=np.asarray(holds, np.bool_))

    return _by_pieces(choose, np.asarray(condition), np.asarray(x), np.asarray(other))


def elementwise(formula: Callable[..., NDArray[np.generic]], *inputs: NDArray[np.generic]) -> Array:
    """formula(*inputs), made of element-wise numpy operations alone, on every core and in cache-sized pieces.

    Inputs broadcast; infinities and nulls inside the formula raise no warning.
    """

    def write(out: Array, *values: NDArray[np.generic]) -> None:
        if isinstance(formula, np.ufunc) and formula.nout == 1:
            formula(*values, out=out, dtype=np.float64)
        else:
            out[...] = formula(*values)

    return _by_pieces(write, *(np.asarray(value) for value in inputs))


def square_root(x: Array) -> Array:
    """np.sqrt(x) in the memory of x."""
    return _by_pieces(lambda out, value: np.sqrt(value, out=out), x, into=x)


def lag(x: NDArray[np.generic], k: int) -> Array:
    """x k >= 0 rows earlier; null on the first k rows."""
    values = np.asarray(x)
    out = np.empty(values.shape)
    first = min(k, len(out))
    out[:first] = np.nan

    def copy(start: int, end: int) -> None:
        out[first + start : first + end] = values[start:end]

    in_threads(copy, len(out) - first, 1, out.size)
    return out


def gather(
    values: NDArray[np.generic], index: NDArray[np.int32], age: NDArray[np.int32] | None = None, oldest: int = 0
) -> Array:
    """values [E] at positions [T, N]; null where the position is negative, or its `age` [T, N] is above `oldest`."""
    out = np.empty(index.shape)
    _gather(np.ascontiguousarray(values, np.float64), index, age, oldest, out)
    return out


def gather_column(
    values: NDArray[np.generic], index: NDArray[np.int32], age: NDArray[np.int32] | None = None, oldest: int = 0
) -> NDArray[np.float32]:
    """As `gather`, in float32: for what becomes a column as it is, with half the memory to walk."""
    out = np.empty(index.shape, np.float32)
    _gather(np.ascontiguousarray(values, np.float32), index, age, oldest, out)
    return out


def _gather(
    values: NDArray[np.floating], index: NDArray[np.int32], age: NDArray[np.int32] | None, oldest: int,
    out: NDArray[np.floating],
) -> None:  # fmt: skip
    ages = index if age is None else age
    limit = np.iinfo(np.int32).max if age is None else oldest

    def take(first: int, end: int) -> None:
        _gathered(values, index[first:end], ages[first:end], limit, out[first:end])

    in_threads(take, len(out), 1, out.size)


def scatter(values: Array, cell: NDArray[np.int64], into: Array) -> None:
    """Write values [E] to the flat positions `cell` [E] of `into`, no two of them the same, on every core."""
    flat = into.reshape(-1)

    def put(first: int, end: int) -> None:
        _scattered(values[first:end], cell[first:end], flat)

    in_threads(put, len(cell), 1, len(cell))


def pick_cells(values: Array, cell: NDArray[np.int64]) -> Array:
    """The values at the flat positions `cell` [E], on every core."""
    flat, out = np.ascontiguousarray(values).reshape(-1), np.empty(len(cell))
    in_threads(lambda first, end: _picked(flat, cell[first:end], out[first:end]), len(cell), 1, len(cell))
    return out


def on_listed(values: NDArray[np.generic], listed: NDArray[np.bool_]) -> tuple[NDArray[np.float32], bool]:
    """`values` [T, N] or [T, 1] as float32 [T, N], null where not listed; and whether all of it is finite or null."""
    small = (np.float64, np.float32, np.int8, np.bool_)
    dense = np.asarray(values) if values.dtype in small else np.asarray(values, np.float64)
    out = np.empty(listed.shape, np.float32)
    finite = in_threads(
        lambda first, end: _masked(dense[first:end], listed[first:end], out[first:end]), len(out), 1, out.size
    )
    return out, all(finite)


@njit(cache=True, nogil=True, error_model="numpy")
def _gathered(values, index, age, oldest, out):  # type: ignore[no-untyped-def]
    for t in range(out.shape[0]):
        for j in range(out.shape[1]):
            i = index[t, j]
            out[t, j] = values[i] if i >= 0 and age[t, j] <= oldest else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _scattered(values, cell, into):  # type: ignore[no-untyped-def]
    for i in range(len(cell)):
        into[cell[i]] = values[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _picked(values, cell, out):  # type: ignore[no-untyped-def]
    for i in range(len(cell)):
        out[i] = values[cell[i]]


@njit(cache=True, nogil=True, error_model="numpy")
def _masked(x, listed, out):  # type: ignore[no-untyped-def]
    step = 1 if x.shape[1] == out.shape[1] else 0
    infinite = 0
    for t in range(out.shape[0]):
        for j in range(out.shape[1]):
            v = np.float32(x[t, j * step]) if listed[t, j] else np.float32(np.nan)
            infinite += 1 if v - v != 0.0 and v == v else 0
            out[t, j] = v
    return infinite == 0


def _by_pieces(operation: Callable[..., None], *inputs: NDArray[np.generic], into: Array | None = None) -> Array:
    """operation(out, *inputs) over pieces of rows of the broadcast shape, [T, N] or [E]."""
    shape = np.broadcast_shapes(*(value.shape for value in inputs))
    out = np.empty(shape) if into is None else into
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if not shape or out.size < SMALL:
            operation(out, *inputs)
            return out
    rows = shape[0]
    height = max(1, PIECE // max(out.size // rows, 1))

    def piece(value: NDArray[np.generic], first: int, end: int) -> NDArray[np.generic]:
        full = value.ndim == len(shape) and len(value) == rows
        return value[first:end] if full else value

    def some_rows(first: int, end: int) -> None:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for at in range(first, end, height):
                stop = min(at + height, end)
                operation(out[at:stop], *(piece(value, at, stop) for value in inputs))

    in_threads(some_rows, rows, 1, out.size)
    return out
