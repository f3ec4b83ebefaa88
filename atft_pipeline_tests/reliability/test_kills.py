"""SIGKILL at fifty random moments: the lake ends as if nothing had happened, and next to nothing is fetched twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atft_pipeline.jquants.ingest import AHEAD
from atft_pipeline.jquants.tables import TABLES
from atft_pipeline.lake.leftovers import collect
from atft_pipeline.lake.manifest import NAME, fetched
from atft_pipeline_tests.reliability.small_market import Service, service

KILLS = 25
"""By each way, so fifty together."""
KILLS_A_LAKE = 5
SEED = 20261125

pytestmark = pytest.mark.xdist_group("kills")


class Nursery:
    """The forking process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "atft_pipeline_tests.reliability.ingesting"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, url: str, lake: Path, bulk: bool, kill_after: float | None = None) -> int:
        """Ingest in a child, perhaps killed after so many seconds; its exit code, -9 when the kill met it alive."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"url": url, "lake": str(lake), "bulk": bulk}) + "\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):  # it was done before
                os.kill(child, signal.SIGKILL)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    found = Nursery()
    yield found
    found.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("kills"), requests_per_minute=1_000_000) as found:
        yield found


def _asked(served: Service) -> Counter[str]:
    """Answered requests since the last call, by what was asked for."""
    served.clock.sleep(1000.0)
    counts = Counter(
        json.dumps([record.path, record.params, record.page])
        for record in served.exchange.requests
        if record.status == 200
    )
    served.exchange.requests.clear()
    return counts


def _content(lake: Path) -> dict[str, Any]:
    """Every file: its bytes; of a manifest all but when it was fetched and with how many requests."""
    return {
        str(path.relative_to(lake)): _manifest(path) if path.name == NAME else path.read_bytes()
        for path in sorted(lake.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def _manifest(path: Path) -> dict[str, Any]:
    """The entry in force of each partition: after a kill it may be the one noted as coming."""
    said = {file.name: fetched(file) or {} for file in sorted(path.parent.glob("*.parquet"))}
    return {name: (entry.get("content_hash"), entry.get("rows")) for name, entry in said.items()}


@pytest.mark.parametrize("bulk", [False, True], ids=["by date", "by bulk file"])
def test_fifty_kills_leave_the_lake_of_an_undisturbed_run(
    served: Service, nursery: Nursery, tmp_path: Path, bulk: bool
) -> None:
    moments = random.Random(SEED + bulk)
    began = time.monotonic()
    assert nursery.run(served.url, tmp_path / "clean", bulk) == 0
    seconds = time.monotonic() - began
    once, wanted = _asked(served), _content(tmp_path / "clean")
    # A unit is in flight when the kill comes. By bulk every run asks for the lists, one file is at work and some lie
    # ahead, waiting for their month.
    allowed = len(TABLES) + 1 + AHEAD if bulk else 1
    kills = round_number = 0
    while kills < KILLS:
        lake, met = tmp_path / f"lake{round_number}", 0
        round_number += 1
        for _ in range(min(KILLS_A_LAKE, KILLS - kills)):
            delay = moments.uniform(0.0, 2 * seconds / KILLS_A_LAKE)
            if nursery.run(served.url, lake, bulk, kill_after=delay) != -signal.SIGKILL:
                break
            met += 1
        assert nursery.run(served.url, lake, bulk) == 0
        kills += met
        again = _asked(served) - once
        assert again.total() <= met * allowed, f"after {met} kills these were fetched again: {again}"
        collect(lake, set(TABLES))
        assert _content(lake) == wanted, f"round {round_number}, {met} kills"
    assert kills == KILLS
