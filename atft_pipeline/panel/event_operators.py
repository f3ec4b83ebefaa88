"""Kernels of the as-of join: events laid on the cells of a [date, entity] array. Callers use `asof`."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atft_pipeline.panel.element_operators import in_threads

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
