"""One weekday of `benchmarks/month.py`: prices late, but in time. Holidays: defs/test_nights.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from atft_pipeline.lake.verify import verify_lake
from atft_pipeline_tests.whole.conftest import ROOT

pytestmark = pytest.mark.night


def test_a_late_night_is_repaired(market: Path, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JQUANTS_", "ATFT_", "DAGSTER_"))}
    out = tmp_path / "month.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "month.py"), "--first", "2024-01-10", "--nights", "1"]
    command += ["--market", str(market), "--folder", str(tmp_path), "--out", str(out)]
    done = subprocess.run(
        command, env=kept | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert [(day, has) for day, has, _ in found["sessions"]] == [("2024-01-10", True)]
    ticks = {row["clock"]: row for row in found["ticks"]}
    late = ticks["2024-01-10T19:30"]["outcome"]
    assert late.startswith("no predictions") and "bars" in late and "2024-01-10" in late
    assert ticks["2024-01-10T23:30"]["predictions"] == "2024-01-10"
    assert found["alerts"]["run_failed"] == 1
    lake = tmp_path / "data" / "jquants"
    assert verify_lake(lake).faults == [] and len(list((lake / "nights").glob("*.md"))) == 3
