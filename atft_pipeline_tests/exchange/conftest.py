"""A module's own `app`, served on loopback and read by the official client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from jquantsapi import ClientV2
from starlette.applications import Starlette

from atft_pipeline.exchange.server import Exchange
from atft_pipeline_tests.exchange import wire


@pytest.fixture(scope="module")
def base_url(app: Starlette) -> Iterator[str]:
    with wire.serving(app) as url:
        yield url


@pytest.fixture
def client(base_url: str) -> ClientV2:
    return wire.official_client(base_url)


@pytest.fixture
def exchange(app: Starlette) -> Iterator[Exchange]:
    """The state behind `app`; its clock and faults are put back after the test."""
    yield app.state.exchange
    app.state.exchange.clock.set(None)
    app.state.exchange.set_faults([])
