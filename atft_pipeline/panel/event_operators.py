"""Events laid on the cells of a [date, entity] array: the newest one, or all those whose span of rows holds a cell.

Spans are laid in the order in which the events are given and only ever added: a later event cannot move the last digit
of a row that it does not reach. Callers import from `operators`.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atft_pipeline.panel.element_operators import Array, in_threads

Ints = NDArray[np.integer]

STEP = 16
"""Entities per share of a thread at least: a cache line of positions."""


def latest_events(events: Ints, first: Ints, entity: Ints, shape: tuple[int, int]) -> NDArray[np.int32]:
    """[T, G]: the last of `events` (positions, in the order in which they became known) placed at or above each cell.

    Event e counts from row first[e] on for entity[e]; -1 where there is none yet.
    """
    latest = np.full(shape, -1, np.int32)
    _placed(np.asarray(events, np.int64), np.asarray(first, np.int64), np.asarray(entity, np.int64), latest)
    in_threads(lambda g0, g1: _carried(latest, g0, g1), shape[1], STEP, latest.size)
    return latest


def event_account(
    latest: NDArray[np.int32], first: Ints, days: Ints, dates: Ints
) -> tuple[NDArray[np.int32], int, int]:
    """Rows since each cell's event became usable, [T, G], -1 without one; cells with an event; and how many of them
    lie on a date before the event's day."""
    staleness = np.empty(latest.shape, np.int32)
    hits, early = np.zeros(len(latest), np.int64), np.zeros(len(latest), np.int64)
    rows = np.asarray(first, np.int64)
    in_threads(
        lambda t0, t1: _counted(latest, rows, days, dates, staleness, hits, early, t0, t1), len(latest), 1, latest.size
    )
    return staleness, int(hits.sum()), int(early.sum())


def running_count(entity: Ints, order: Ints, entities: int) -> NDArray[np.int64]:
    """How many of an entity's events come before each of them in `order`, [E]."""
    count = np.empty(len(entity), np.int64)
    _count_before(np.asarray(entity, np.int64), np.asarray(order, np.int64), entities, count)
    return count


def sum_over_rows(
    first: Ints, end: Ints, entity: Ints, amount: Array, shape: tuple[int, int], empty: float = 0.0
) -> Array:
    """[T, N]: sum of the amounts of the events whose rows first..end-1 hold the cell; `empty` where there is none."""
    spans = np.full(shape[::-1], np.nan)
    _sums(_int64(first), _int64(end), _int64(entity), np.asarray(amount, np.float64), spans)
    return _upright(spans, empty)


def largest_over_rows(
    first: Ints, end: Ints, entity: Ints, value: NDArray[np.generic], shape: tuple[int, int]
) -> Array:
    """[T, N]: largest value of the events whose rows first..end-1 hold the cell; null where there is none."""
    spans = np.full(shape[::-1], np.nan)
    _largest(_int64(first), _int64(end), _int64(entity), np.asarray(value, np.float64), spans)
    return _upright(spans, np.nan)


def nearest_over_rows(
    first: Ints,
    end: Ints,
    entity: Ints,
    distance: NDArray[np.generic],
    amount: Array,
    flag: NDArray[np.bool_],
    shape: tuple[int, int],
) -> tuple[Array, Array, Array]:
    """Of the events whose rows first..end-1 hold the cell those with the least distance, [T, N]: that distance, the sum
    of their amounts, and whether any is flagged, as 1 or 0. Null where there is none."""
    spans = np.full((3, *shape[::-1]), np.nan)
    values = np.asarray(distance, np.float64), np.asarray(amount, np.float64), np.asarray(flag, np.float64)
    _nearest(_int64(first), _int64(end), _int64(entity), *values, spans)
    least, sums, flags = (_upright(span, np.nan) for span in spans)
    return least, sums, flags


def _int64(values: Ints) -> NDArray[np.int64]:
    return np.asarray(values, np.int64)


def _upright(spans: Array, empty: float) -> Array:
    """[N, T] as [T, N]: a span of rows is laid where it is contiguous."""
    out = np.empty(spans.shape[::-1])
    in_threads(lambda t0, t1: _turned(spans, empty, out, t0, t1), len(out), STEP, out.size)
    return out


@njit(cache=True, nogil=True)
def _sums(first, end, entity, amount, spans):  # type: ignore[no-untyped-def]
    for e in range(len(first)):
        for t in range(first[e], end[e]):
            before = spans[entity[e], t]
            spans[entity[e], t] = before + amount[e] if before == before else amount[e]


@njit(cache=True, nogil=True)
def _largest(first, end, entity, value, spans):  # type: ignore[no-untyped-def]
    for e in range(len(first)):
        for t in range(first[e], end[e]):
            if not spans[entity[e], t] >= value[e]:
                spans[entity[e], t] = value[e]


@njit(cache=True, nogil=True)
def _nearest(first, end, entity, distance, amount, flag, spans):  # type: ignore[no-untyped-def]
    for e in range(len(first)):
        j = entity[e]
        for t in range(first[e], end[e]):
            if distance[e] == spans[0, j, t]:
                spans[1, j, t] += amount[e]
                spans[2, j, t] = max(spans[2, j, t], flag[e])
            elif not spans[0, j, t] < distance[e]:
                spans[0, j, t], spans[1, j, t], spans[2, j, t] = distance[e], amount[e], flag[e]


@njit(cache=True, nogil=True)
def _turned(spans, empty, out, t0, t1):  # type: ignore[no-untyped-def]
    for j0 in range(0, out.shape[1], STEP):
        for t in range(t0, t1):
            for j in range(j0, min(j0 + STEP, out.shape[1])):
                v = spans[j, t]
                out[t, j] = v if v == v else empty


@njit(cache=True, nogil=True)
def _placed(events, first, entity, latest):  # type: ignore[no-untyped-def]
    for e in events:
        latest[first[e], entity[e]] = e


@njit(cache=True, nogil=True)
def _carried(latest, g0, g1):  # type: ignore[no-untyped-def]
    for t in range(1, latest.shape[0]):
        for g in range(g0, g1):
            latest[t, g] = latest[t, g] if latest[t, g] >= 0 else latest[t - 1, g]


@njit(cache=True, nogil=True)
def _counted(latest, first, days, dates, staleness, hits, early, t0, t1):  # type: ignore[no-untyped-def]
    for t in range(t0, t1):
        for g in range(latest.shape[1]):
            e = latest[t, g]
            staleness[t, g] = -1
            if e >= 0:
                staleness[t, g] = t - first[e]
                hits[t] += 1
                early[t] += 1 if days[e] > dates[t] else 0


@njit(cache=True, nogil=True)
def _count_before(entity, order, entities, count):  # type: ignore[no-untyped-def]
    seen = np.zeros(entities, np.int64)
    for e in order:
        count[e] = seen[entity[e]]
        seen[entity[e]] += 1
