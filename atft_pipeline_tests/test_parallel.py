"""Work done ahead: in order, bounded, with its errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from atft_pipeline.parallel import in_order


def test_results_come_in_order_whoever_ends_first() -> None:
    later = threading.Event()

    def job(number: int) -> int:
        if number == 0:
            assert later.wait(10)  # ends after the second one
        if number == 1:
            later.set()
        return 10 * number

    assert list(in_order(job, range(5), workers=2, waiting=3)) == [0, 10, 20, 30, 40]
    assert list(in_order(job, [], workers=2, waiting=3)) == []


def test_the_next_job_runs_while_a_result_is_used_and_no_more_inputs_are_drawn() -> None:
    drawn: list[int] = []
    begun = {number: threading.Event() for number in range(6)}

    def inputs() -> Iterator[int]:
        for number in range(6):
            drawn.append(number)
            yield number

    def job(number: int) -> int:
        begun[number].set()
        return number

    results = in_order(job, inputs(), workers=1, waiting=2)
    assert next(results) == 0
    assert begun[1].wait(10) and begun[2].wait(10)
    assert drawn == [0, 1, 2]
    assert list(results) == [1, 2, 3, 4, 5]


def test_an_error_comes_out_in_its_place() -> None:
    def job(number: int) -> float:
        return 1 / (2 - number)

    results = in_order(job, range(4), workers=2, waiting=2)
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)
