"""A small market behind the real exchange, in this process, under a clock that only sleeping moves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from atft_pipeline.exchange.faults import parse_fault
from atft_pipeline.exchange.process import ensure_market
from atft_pipeline.exchange.server import Exchange, create_app
from atft_pipeline.jquants.client import Client, Patience, connect
from atft_pipeline.settings import MarketSize
from atft_pipeline_tests.exchange import wire

PLAN = "premium"
SIZE = MarketSize(stocks=25, start=date(2024, 3, 1), end=date(2024, 5, 10), plant="null")
"""Ends in the middle of May, so that April has a month file and May is in motion."""


@dataclass
class Clock:
    """Seconds that pass only by sleeping: back-off and lockouts cost no time. Shared by client and exchange."""

    now: float = 1_000_000.0
    _mutex: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._mutex:
            self.now += seconds


class Impatient(HTTPAdapter):
    """Gives up on a silent server after `seconds` instead of the official client's 30."""

    def __init__(self, seconds: float) -> None:
        super().__init__(max_retries=0)
        self._seconds = seconds

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        return super().send(request, *args, **{**options, "timeout": self._seconds})


@dataclass
class Service:
    """The running exchange, its state, and clients for it."""

    url: str
    exchange: Exchange
    clock: Clock

    def client(self, timeout: float | None = None) -> Client:
        """A new client with the real patience and the plan's real limits; `timeout` in seconds for each reply."""
        client = connect(
            self.url, wire.KEY, PLAN, patience=Patience(), today=SIZE.end, sleep=self.clock.sleep, clock=self.clock
        )
        if timeout:
            client._request_session().mount("http://", Impatient(timeout))
        return client

    def plant(self, *faults: str) -> None:
        """Put these faults in force instead of the present ones, after every lockout has ended."""
        self.clock.sleep(1000.0)
        self.exchange.set_faults([parse_fault(text) for text in faults])

    @property
    def faults_met(self) -> int:
        """Requests that the faults in force have met so far."""
        return sum(self.exchange.faults._met)


@contextmanager
def service(folder: Path, size: MarketSize = SIZE, **options: Any) -> Iterator[Service]:
    """The exchange over the market of `size`, generated in `folder`; `options` go to `create_app`."""
    ensure_market(size, folder / "market")
    clock = Clock()
    app = create_app(folder / "market", plan=PLAN, api_keys={wire.KEY}, clock=clock, **options)
    with wire.serving(app) as url:
        yield Service(url, app.state.exchange, clock)
