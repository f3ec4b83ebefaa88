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


def test_a_refusal_stops_everyone() -> None:
    clock = Clock()
    limiter = Limiter(plan_windows(120, 60), clock=clock, sleep=clock.sleep)
    assert limiter.refused(limiter.acquire(), lambda strike: 300.0 * strike) == 300.0
    limiter.acquire("/equities/master")
    assert clock.now == 1300.0


def test_requests_that_were_on_their_way_belong_to_the_same_refusal() -> None:
    clock = Clock()
    limiter = Limiter([Window(100)], clock=clock, sleep=clock.sleep)
    sent = [limiter.acquire() for _ in range(3)]
    clock.now += 1.0
    pauses = [limiter.refused(moment, lambda strike: 10.0 * strike) for moment in sent]
    assert pauses == [10.0, 10.0, 10.0]
    again = limiter.acquire()
    assert again == 1011.0
    clock.now += 1.0
    assert limiter.refused(again, lambda strike: 10.0 * strike) == 20.0
    answered = limiter.acquire()
    limiter.accepted(answered)
    clock.now += 1.0
    assert limiter.refused(limiter.acquire(), lambda strike: 10.0 * strike) == 10.0


def test_free_requests_are_counted() -> None:
    clock = Clock()
    limiter = Limiter([Window(5), Window(3, 10.0)], clock=clock, sleep=clock.sleep)
    assert limiter.free() == 3
    limiter.acquire()
    assert limiter.free() == 2
    limiter.refused(clock.now, lambda strike: 5.0)
    assert limiter.free() == 0


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


def test_a_process_sees_what_another_one_sent(tmp_path: Path) -> None:
    file = tmp_path / "requests"
    program = (
        "from pathlib import Path; from atft_pipeline.jquants.limiter import Limiter, Window\n"
        f"limiter = Limiter([Window(5)], Path({str(file)!r}))\n"
        "for _ in range(3): limiter.acquire()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

    class Waited(Exception):
        """Raised instead of sleeping, with the seconds."""

    def sleep(seconds: float) -> None:
        raise Waited(seconds)

    limiter = Limiter([Window(5)], file, sleep=sleep)
    assert limiter.free() == 2
    limiter.acquire()
    limiter.acquire()
    with pytest.raises(Waited) as waited:
        limiter.acquire()
    assert 0 < waited.value.args[0] <= 60.0 * MARGIN
    limiter.close()


CROWD = """
import sys, time
from pathlib import Path
from atft_pipeline.jquants.limiter import Limiter, Window
limiter = Limiter([Window(6, 1.0)], Path(sys.argv[1]))
times = []
for number in range(6):
    times.append(limiter.acquire())
    if number == 2 and sys.argv[2] == "0":
        left = limiter.refused(times[-1], lambda strike: 0.5)
        times += [time.time(), times[-1] + left]  # from here to there at least nobody sends
print(*times)
"""


def test_processes_at_once_keep_one_limit_and_one_pause(tmp_path: Path) -> None:
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", CROWD, str(tmp_path / "requests"), str(number)], stdout=subprocess.PIPE, text=True
        )
        for number in range(3)
    ]
    answers = [child.communicate(timeout=60)[0] for child in crowd]
    first, *others = [[float(moment) for moment in answer.split()] for answer in answers]
    begins, ends = first[3:5]
    sent = [*first[:3], *first[5:], *(moment for times in others for moment in times)]
    assert len(sent) == 18
    assert max(sum(start <= moment < start + 1.0 for moment in sent) for start in sent) <= 6
    assert not [moment for moment in sent if begins < moment < ends]
