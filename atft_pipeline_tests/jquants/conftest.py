"""A scripted exchange, a client that never really sleeps, and a lake with the calendar in it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from atft_pipeline.jquants.client import Client, Patience, connect
from atft_pipeline.jquants.fetch import ingest_calendar
from atft_pipeline_tests.jquants.scripted import API_KEY, FIRST, LAST, ScriptedExchange


@pytest.fixture
def exchange() -> Iterator[ScriptedExchange]:
    server = ScriptedExchange()
    yield server
    server.close()


class Clock:
    """Time that passes only by sleeping; `naps` are the waits that were asked for, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds
            self.naps.append(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(exchange: ScriptedExchange, clock: Clock) -> Client:
    patience = Patience(attempts=4, pages=6)
    return connect(exchange.base_url, API_KEY, "premium", 120_000, patience=patience, sleep=clock.sleep, clock=clock)


@pytest.fixture
def lake(tmp_path: Path, client: Client, exchange: ScriptedExchange) -> Path:
    """A lake that holds the calendar of the scripted market."""
    ingest_calendar(client, tmp_path / "lake", FIRST, LAST)
    exchange.forget()
    return tmp_path / "lake"
