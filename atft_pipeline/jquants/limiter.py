"""Request pacing: sliding windows that every thread, and every process of a run, shares.

State is a few numbers in a memory-mapped file beside the lake (or in memory when no file is given): for each window a
ring of the latest request times; and the pause in force: until when nobody may send, when it was ordered, and how many
pauses came without an accepted request in between. Processes take turns with flock, threads with a lock, so a run of
several step processes keeps to one limit, and pauses once when the service locks its key out.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MARGIN = 1.02
"""Windows are kept 2 % longer than the service's own: it counts at arrival, we count at sending."""

_UNTIL, _ORDERED, _STRIKES, _HEADER = 0, 1, 2, 3
"""Cells before the rings: end of the pause, when it was ordered, pauses in a row; and their number."""

LONGEST_PAUSE = 600.0


@dataclass(frozen=True)
class Window:
    """At most `limit` requests in any `seconds`; counts only endpoints that start with `endpoint`."""

    limit: int
    seconds: float = 60.0
    endpoint: str = ""


def plan_windows(per_minute: int, fins_per_minute: int) -> tuple[Window, ...]:
    """The windows of a plan: its limit per minute, a sixth of it in ten seconds (bursts trigger the service's
    five-minute lockout), and the separate caps of the statement endpoints."""
    return (
        Window(per_minute),
        Window(math.ceil(per_minute / 6), 10.0),
        Window(fins_per_minute, endpoint="/fins/summary"),
        Window(fins_per_minute, endpoint="/fins/details"),
    )


class Limiter:
    """Blocks until a request may be sent. `clock` must agree between processes, hence wall time."""

    def __init__(
        self,
        windows: Sequence[Window],
        file: Path | None = None,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._windows = tuple(windows)
        self._clock = clock
        self._sleep = sleep
        self._threads = threading.Lock()
        offsets = [_HEADER]
        for window in self._windows:
            offsets.append(offsets[-1] + 1 + window.limit)
        self._offsets = offsets[:-1]
        self._handle: int | None
        self._cells: memoryview[float]
        self._handle, self._cells = self._open(file, offsets[-1])

    def acquire(self, endpoint: str = "") -> float:
        """Wait for a free slot in every window that counts `endpoint`, and take it; returns its time."""
        while True:
            with self._exclusive():
                wait, now = self._take(endpoint)
            if wait <= 0:
                return now
            self._sleep(wait)

    def refused(self, sent: float, pause: Callable[[int], float]) -> float:
        """The service said that we were too fast (429) to a request that was sent at `sent`: nobody sends for a while.

        `pause` gives the seconds from the number of pauses in a row. A request that was on its way already when the
        pause in force was ordered says nothing new: everybody pauses once. Returns the seconds that are left of it.
        """
        with self._exclusive():
            now = self._clock()
            if sent > self._cells[_ORDERED] or self._cells[_ORDERED] > now:  # or the clock was set back
                self._cells[_STRIKES] += 1
                self._cells[_UNTIL] = now + min(pause(int(self._cells[_STRIKES])), LONGEST_PAUSE)
                self._cells[_ORDERED] = now
            return max(0.0, self._cells[_UNTIL] - now)

    def accepted(self, sent: float) -> None:
        """A request that was sent at `sent` was answered: the next refusal is the first one again."""
        if self._cells[_STRIKES] and sent > self._cells[_ORDERED]:
            with self._exclusive():
                self._cells[_STRIKES] = 0.0

    def free(self, endpoint: str = "") -> int:
        """Requests to `endpoint` that may be sent at once."""
        with self._exclusive():
            now = self._clock()
            counts = []
            for window, offset in self._counting(endpoint):
                ring = self._cells[offset + 1 : offset + 1 + window.limit]
                counts.append(sum(now - sent >= window.seconds * MARGIN or sent > now + 1.0 for sent in ring))
            return 0 if self._cells[_UNTIL] > now else min(counts, default=0)

    def close(self) -> None:
        """Release the shared file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _take(self, endpoint: str) -> tuple[float, float]:
        """Record one request now and return 0, or the seconds until it is worth asking again; and the time."""
        now = self._clock()
        counting = self._counting(endpoint)
        wait = self._bounded(self._cells[_UNTIL] - now, LONGEST_PAUSE)
        for window, offset in counting:
            oldest = self._cells[offset + 1 + int(self._cells[offset])]
            span = window.seconds * MARGIN
            if oldest:  # zero: this slot was never used
                wait = max(wait, self._bounded(oldest + span - now, span))
        if wait > 0:
            return wait, now
        for window, offset in counting:
            position = int(self._cells[offset])
            self._cells[offset + 1 + position] = now
            self._cells[offset] = float((position + 1) % window.limit)
        return 0.0, now

    def _counting(self, endpoint: str) -> list[tuple[Window, int]]:
        """Windows that count `endpoint`, with the place of their ring."""
        pairs = zip(self._windows, self._offsets, strict=True)
        return [(window, offset) for window, offset in pairs if endpoint.startswith(window.endpoint)]

    @staticmethod
    def _bounded(wait: float, longest: float) -> float:
        # A wall clock that was set back must not block for hours; one second absorbs rounding.
        return wait if wait <= longest + 1.0 else 0.0

    def _open(self, file: Path | None, cells: int) -> tuple[int | None, memoryview[float]]:
        if file is None:
            return None, memoryview(bytearray(8 * cells)).cast("d")
        shape = "-".join(str(number) for number in (_HEADER, *(window.limit for window in self._windows)))
        file.parent.mkdir(parents=True, exist_ok=True)
        # Another limit is another layout, hence another file.
        handle = os.open(file.with_name(f"{file.name}.{shape}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if os.fstat(handle).st_size < 8 * cells:
            os.ftruncate(handle, 8 * cells)
        return handle, memoryview(mmap.mmap(handle, 8 * cells)).cast("d")

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._threads:
            if self._handle is None:
                yield
                return
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._handle, fcntl.LOCK_UN)
