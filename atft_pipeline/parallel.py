"""Work that is done ahead of its consumer, on threads: numpy, numba, pyarrow and hashlib leave the interpreter free."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_order(job: Callable[[Given], Made], inputs: Iterable[Given], *, workers: int, waiting: int) -> Iterator[Made]:
    """job(input) for each input, by up to `workers` threads; results in the order of the inputs.

    Inputs are drawn in the caller's thread, and no more than `waiting` jobs run or have a result that nobody has taken:
    the next ones are under way while the caller uses a result. An error of a job comes out in its place.
    """
    with ThreadPoolExecutor(workers) as pool:
        running: deque[Future[Made]] = deque()
        for given in inputs:
            done = [running.popleft().result()] if len(running) == waiting else []
            running.append(pool.submit(job, given))
            yield from done
        while running:
            yield running.popleft().result()
