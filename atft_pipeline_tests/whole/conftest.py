"""One small market, served by the real exchange to the real client, and whole Dagster runs over it in child processes.

The exchange is reached as a user's own service would be: by base URL and key from the environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest

import atft_pipeline
from atft_pipeline.exchange.process import Exchange, ensure_market, running_exchange
from atft_pipeline.settings import MarketSize

ROOT = Path(atft_pipeline.__file__).parent.parent
KEY = "canary-key-5d1f0c9e7b3a"
SIZE = MarketSize(stocks=220, start=date(2021, 6, 1), end=date(2024, 1, 31), seed=3)
"""As small as every column allows: sector ranks need 20 sectors of five, some statement columns two fiscal years."""

TINY_TRAINING = {
    "hidden": "8", "value_width": "4", "attention_heads": "2", "sequence_length": "10", "dates_per_step": "16",
    "dates_per_epoch": "64", "epochs": "[2, 1, 2, 2, 1]", "checkpoint_every": "1", "threads": "1",
}  # fmt: skip
INSTANCE = "telemetry: {enabled: false}\nnux: {enabled: false}\n"
LENIENT = {
    "ATFT_CHECK_MIN_RANK_IC": "-1", "ATFT_CHECK_MIN_IC": "-1", "ATFT_CHECK_MIN_SHARPE": "-99",
    "ATFT_CHECK_MIN_STANDARD_ERRORS": "-99", "ATFT_CHECK_TOO_GOOD_MODEL_IC": "1",
}  # fmt: skip
"""These runs prove that the machinery works, not that a model of 8 units is good."""


@dataclass
class Workplace:
    """A folder with its own lake and Dagster home, and the environment of commands run there."""

    folder: Path
    environment: dict[str, str] = field(repr=False)

    @property
    def lake(self) -> Path:
        return self.folder / "data" / "jquants"

    def copy(self, folder: Path) -> Workplace:
        """The same state in another folder: what a test breaks stays there."""
        shutil.copytree(self.folder, folder, symlinks=True)
        moved = {"DAGSTER_HOME": str(folder / "home"), "ATFT_DATA_DIR": str(folder / "data")}
        return Workplace(folder, {**self.environment, **moved})

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "dagster", *arguments, "-m", "atft_pipeline.definitions"]

    def start(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as out:
            return subprocess.Popen(
                self.command(*arguments), cwd=self.folder, env=self.environment, stdout=out, stderr=subprocess.STDOUT
            )

    def run(self, *arguments: str, name: str = "run") -> tuple[int, str]:
        """Exit code and output of a Dagster command."""
        log = self.folder / f"{name}.log"
        process = self.start(*arguments, log=log)
        return process.wait(timeout=600), log.read_text(errors="replace")

    def full_rebuild(self, name: str = "full_rebuild") -> tuple[int, str]:
        config = self.folder / "run.yaml"
        config.write_text(json.dumps({"ops": {"model": {"config": {"overrides": TINY_TRAINING}}}}))
        return self.run("job", "execute", "-j", "full_rebuild", "-c", str(config), name=name)


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the one market."""
    folder = tmp_path_factory.mktemp("exchange") / "market"
    ensure_market(SIZE, folder)
    return folder


@pytest.fixture(scope="session")
def exchange(market: Path) -> Iterator[Exchange]:
    """The market's exchange, for the whole session."""
    with running_exchange(market, requests_per_minute=100_000, api_key=KEY) as served:
        yield served


def make_workplace(folder: Path, exchange: Exchange, **extra: str) -> Workplace:
    (folder / "home").mkdir(parents=True)
    (folder / "home" / "dagster.yaml").write_text(INSTANCE)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JQUANTS_", "ATFT_"))}
    environment = {
        **kept,
        **LENIENT,
        "PYTHONPATH": str(ROOT),
        "DAGSTER_HOME": str(folder / "home"),
        "ATFT_DATA_DIR": str(folder / "data"),
        "JQUANTS_API_KEY": KEY,
        "JQUANTS_BASE_URL": exchange.base_url,
        "JQUANTS_REQUESTS_PER_MINUTE": "100000",
        "ATFT_START": SIZE.start.isoformat(),
        "ATFT_END": SIZE.end.isoformat(),
        "ATFT_TRAINING_PRESET": "demo",
        **extra,
    }
    return Workplace(folder, environment)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, exchange: Exchange) -> Workplace:
    """A workplace in which `full_rebuild` has run to its end. Read it; break only copies of it."""
    place = make_workplace(tmp_path_factory.mktemp("whole") / "place", exchange)
    code, output = place.full_rebuild()
    assert code == 0, output[-6000:]
    return place
