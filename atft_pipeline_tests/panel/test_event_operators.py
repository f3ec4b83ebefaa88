"""Events on the cells of an array, against loops over events and cells."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from atft_pipeline.panel.operators import (
    event_account,
    largest_over_rows,
    latest_events,
    nearest_over_rows,
    running_count,
    sum_over_rows,
)

SHAPE = (300, 240)  # large enough for several threads
EVENTS = 900


@pytest.fixture(scope="module")
def spans() -> dict[str, NDArray[np.generic]]:
    """Spans of rows, some empty, over few stocks, so that many overlap; distances repeat; one amount is unknown."""
    rng = np.random.default_rng(1)
    first = rng.integers(0, SHAPE[0], EVENTS)
    amount = rng.normal(size=EVENTS)
    amount[7] = np.nan
    return {
        "first": first,
        "end": np.minimum(first + rng.integers(-3, 90, EVENTS), SHAPE[0]),
        "entity": rng.integers(0, 40, EVENTS),
        "amount": amount,
        "distance": rng.integers(0, 6, EVENTS),
        "flag": rng.random(EVENTS) < 0.2,
    }


def cells(spans: dict[str, NDArray[np.generic]]) -> dict[tuple[int, int], list[int]]:
    """Cell -> the events that hold it, in order."""
    found: dict[tuple[int, int], list[int]] = {}
    for e in range(EVENTS):
        for t in range(int(spans["first"][e]), int(spans["end"][e])):
            found.setdefault((t, int(spans["entity"][e])), []).append(e)
    return found


def test_sums_are_those_of_the_spans_that_hold_the_cell(spans: dict[str, NDArray[np.generic]]) -> None:
    known = {**spans, "amount": np.nan_to_num(spans["amount"])}
    place = [known[name] for name in ("first", "end", "entity", "amount")]
    plain = np.full(SHAPE, np.nan)
    for cell, events in cells(known).items():
        plain[cell] = sum(known["amount"][e] for e in events)
    np.testing.assert_allclose(sum_over_rows(*place, SHAPE, np.nan), plain, rtol=1e-12)
    np.testing.assert_allclose(sum_over_rows(*place, SHAPE), np.nan_to_num(plain), rtol=1e-12)


def test_the_largest_and_the_nearest_are_found(spans: dict[str, NDArray[np.generic]]) -> None:
    place = [spans[name] for name in ("first", "end", "entity")]
    largest, near, total, flagged = (np.full(SHAPE, np.nan) for _ in range(4))
    for cell, events in cells(spans).items():
        largest[cell] = max(spans["distance"][e] for e in events)
        near[cell] = min(spans["distance"][e] for e in events)
        nearest = [e for e in events if spans["distance"][e] == near[cell]]
        total[cell] = sum(spans["amount"][e] for e in nearest)
        flagged[cell] = any(spans["flag"][e] for e in nearest)
    np.testing.assert_array_equal(largest_over_rows(*place, spans["distance"], SHAPE), largest)
    found = nearest_over_rows(*place, spans["distance"], spans["amount"], spans["flag"], SHAPE)
    for ours, plain in zip(found, (near, total, flagged), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-12)


def test_later_events_change_no_row_before_them_to_the_bit(spans: dict[str, NDArray[np.generic]]) -> None:
    order = np.argsort(spans["first"], kind="stable")
    spans = {name: values[order] for name, values in spans.items()}
    names = ("first", "end", "entity", "amount")
    early = spans["first"] < 150
    whole = sum_over_rows(*(spans[name] for name in names), SHAPE)
    cut = sum_over_rows(*(spans[name][early] for name in names), SHAPE)
    np.testing.assert_array_equal(whole[:150], cut[:150])
    assert (whole[150:] != cut[150:]).any()


def test_the_latest_event_holds_until_the_next_and_its_age_is_counted() -> None:
    rng = np.random.default_rng(2)
    first, entity = rng.integers(0, SHAPE[0], EVENTS), rng.integers(0, SHAPE[1] - 1, EVENTS)
    order = np.argsort(first, kind="stable")
    latest = latest_events(order, first, entity, SHAPE)
    plain = np.full(SHAPE, -1)
    for e in order:
        plain[first[e] :, entity[e]] = e
    np.testing.assert_array_equal(latest, plain)
    dates = 100 + np.arange(SHAPE[0])
    age, hits, early = event_account(latest, first, dates[first], dates)
    rows = np.arange(SHAPE[0])[:, None]
    np.testing.assert_array_equal(age, np.where(plain >= 0, rows - first[plain], -1))
    assert (hits, early) == ((plain >= 0).sum(), 0)
    assert event_account(latest, first, dates[first] + 1, dates)[2] == (age == 0).sum()  # a day too soon is noticed


def test_earlier_events_of_the_same_entity_are_counted() -> None:
    entity, order = np.array([2, 0, 2, 2, 0]), np.array([3, 0, 1, 2, 4])
    assert running_count(entity, order, 3).tolist() == [1, 0, 2, 0, 1]
