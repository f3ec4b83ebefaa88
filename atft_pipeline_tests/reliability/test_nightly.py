"""A night on plan Standard, over two processes that share one limit: few requests, never above the limit."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from atft_pipeline.settings import MarketSize
from benchmarks.nightly import MOST_REQUESTS, NAMES, measure

SIZE = MarketSize(stocks=25, start=date(2024, 4, 1), end=date(2024, 5, 17), plant="null")


@pytest.mark.xdist_group("nightly")
def test_a_night_takes_few_requests_and_keeps_the_limit(tmp_path: Path) -> None:
    found = measure(SIZE, date(2024, 5, 15), "03:30", 2, tmp_path)
    assert found["failed_processes"] == 0
    assert len(NAMES) <= found["requests"] <= MOST_REQUESTS
    for bucket in found["busiest_minute"].values():
        assert bucket["requests"] <= bucket["limit"]
