"""Pacing: windows hold, endpoint caps count apart, and processes share one window."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from atft_pipeline.jquants.limiter import MARGIN, Limiter, Window, plan_windows
from atft_pipeline_tests.jquants.conftest import Clock


def test_no_window_ever_holds_more_than_its_limit() -> None:
    clock = Clock()
    limiter = Limiter([Window(5, 60.0), Window(2, 10.0)], clock=clock, sleep=clock.sleep)
    sent = []
    for _ in range(23):
        limiter.acquire()
        sent.append(clock.now)
    for start in sent:
        assert sum(start <= t < start + 60.0 for t in sent) <= 5
        assert sum(start <= t < start + 10.0 for t in sent) <= 2


def test_a_full_minute_is_used_and_no_more_time_is_lost() -> None:
    clock = Clock()
    limiter = Limiter([Window(5, 60.0)], clock=clock, sleep=clock.sleep)
    for _ in range(11):
        limiter.acquire()
    assert clock.now - 1000.0 == pytest.approx(2 * 60.0 * MARGIN)


def test_an_endpoint_cap_slows_only_that_endpoint() -> None:
    clock = Clock()
    limiter = Limiter([Window(100), Window(2, endpoint="/fins/summary")], clock=clock, sleep=clock.sleep)
    for _ in range(2):
        limiter.acquire("/fins/summary")
    limiter.acquire("/equities/master")
    assert clock.now == 1000.0
    limiter.acquire("/fins/summary")
    assert clock.now >= 1060.0


def test_a_pause_stops_everyone() -> None:
    clock = Clock()
    limiter = Limiter(plan_windows(120, 60), clock=clock, sleep=clock.sleep)
    limiter.pause(300.0)
    limiter.acquire("/equities/master")
    assert clock.now == 1300.0


def test_a_clock_that_was_set_back_does_not_block_for_hours() -> None:
    clock = Clock()
    limiter = Limiter([Window(1)], clock=clock, sleep=clock.sleep)
    limiter.acquire()
    clock.now -= 500.0
    limiter.acquire()
    assert clock.now == 500.0


def test_threads_together_keep_the_limit() -> None:
    clock = Clock()
    limiter = Limiter([Window(10)], clock=clock, sleep=clock.sleep)
    sent: list[float] = []

    def work() -> None:
        for _ in range(10):
            limiter.acquire()
            sent.append(clock.now)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == 40
    assert clock.now >= 1000.0 + 3 * 60.0


def test_processes_share_the_window_through_its_file(tmp_path: Path) -> None:
    file = tmp_path / "requests"
    program = (
        "from pathlib import Path; from atft_pipeline.jquants.limiter import Limiter, Window\n"
        f"limiter = Limiter([Window(5)], Path({str(file)!r}))\n"
        "for _ in range(3): limiter.acquire()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    waits: list[float] = []

    class Waited(Exception):
        pass

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        raise Waited

    limiter = Limiter([Window(5)], file, sleep=sleep)
    taken = 0
    try:
        for _ in range(5):
            limiter.acquire()
            taken += 1
    except Waited:
        pass
    limiter.close()
    assert taken == 2
    assert 0 < waits[0] <= 60.0 * MARGIN
