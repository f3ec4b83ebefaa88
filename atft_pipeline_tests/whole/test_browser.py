"""The UI in a real browser: the asset graph with its groups, a materialisation launched by hand that succeeds and is
reported by the sensor, and pictures of the asset pages and of the report (data/screenshots, or ATFT_SCREENSHOTS).

Needs Debian's chromium and chromium-driver (any Chromium on the PATH with its driver will do).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from atft_pipeline_tests.whole.conftest import ROOT, Workplace

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("whole")]

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
DRIVER = shutil.which("chromedriver") or ""
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1700,1100",
)  # fmt: skip
SHOWN = {
    "market_panel": "dates", "dataset": "null share", "normalization_stats": "most clipped", "model": "learning curve",
    "evaluation": "summary", "promotion": "challenger", "predictions": "run_id", "night_report": "outcome",
}  # fmt: skip
"""Asset page -> what its metadata must show."""
GROUPS = ("raw", "panel", "features", "dataset", "training", "evaluation")

if not (BROWSER and DRIVER):
    pytest.skip(
        "no chromium with its driver on the PATH: apt-get install chromium chromium-driver", allow_module_level=True
    )


@pytest.fixture
def place(finished: Workplace, tmp_path: Path) -> Workplace:
    """A copy of the finished workplace."""
    return finished.copy(tmp_path / "place")


@pytest.fixture
def address(place: Workplace) -> Iterator[str]:
    """`dagster dev` over the workplace, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "-w",
        str(ROOT / "workspace.yaml"),
    ]
    with (place.folder / "ui.log").open("wb") as log:
        server = subprocess.Popen(
            command,
            cwd=place.folder,
            env=place.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(lambda: _answers(url), 120, "the UI did not start")
        yield url
    finally:
        os.killpg(server.pid, signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*QUIET, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def test_the_graph_is_shown_and_a_materialisation_succeeds(
    address: str, place: Workplace, browser: webdriver.Chrome
) -> None:
    pictures = _pictures()
    browser.get(f"{address}/asset-groups")
    page = WebDriverWait(browser, 60, ignored_exceptions=[StaleElementReferenceException])  # the page redraws itself
    page.until(lambda driver: all(group in _text(driver) for group in GROUPS))
    time.sleep(2)  # the layout settles
    browser.save_screenshot(str(pictures / "graph.png"))
    browser.get(f"{address}/assets/market_panel")
    before = _runs(address)
    page.until(lambda driver: _click(driver, "Materialize"))
    run_id = _wait(lambda: next(iter(set(_runs(address)) - set(before)), None), 60, "no run was launched")
    status = _wait(lambda: _done(_runs(address)[run_id]), 120, "the run did not end")
    assert status == "SUCCESS"
    told = place.lake / "nights" / f"{run_id}.md"
    _wait(told.exists, 120, "no sensor reported the run")
    assert "succeeded" in told.read_text()
    for name, said in SHOWN.items():
        browser.get(f"{address}/assets/{name}")
        page.until(lambda driver, said=said: said in _text(driver))
        time.sleep(2)
        browser.save_screenshot(str(pictures / f"{name}.png"))
    browser.get(f"{address}/assets/dataset?view=checks")
    page.until(lambda driver: "exact_columns" in _text(driver) and "not_too_good" in _text(driver))
    browser.save_screenshot(str(pictures / "dataset_checks.png"))


def test_the_report_opens_and_is_complete(finished: Workplace, browser: webdriver.Chrome) -> None:
    """From its file, without a server or a network: every picture is drawn, nothing is asked of anybody."""
    (report,) = (finished.lake / "evaluation").glob("*/report.html")
    browser.get(report.as_uri())
    broken = browser.execute_script(
        "return [...document.images].filter(i => !i.complete || i.naturalWidth === 0).map(i => i.alt)"
    )
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert broken == [] and [name for name in asked if not name.startswith(("data:", "file:"))] == []
    assert "rankic" in _text(browser) and len(browser.find_elements(By.TAG_NAME, "table")) > 3
    height = int(browser.execute_script("return document.documentElement.scrollHeight"))
    browser.set_window_size(1300, min(height + 200, 16_000))
    browser.save_screenshot(str(_pictures() / "report.png"))


def _pictures() -> Path:
    folder = Path(os.environ.get("ATFT_SCREENSHOTS", "data/screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _text(driver: webdriver.Chrome) -> str:
    return str(driver.find_element(By.TAG_NAME, "body").text).lower()


def _click(driver: webdriver.Chrome, label: str) -> bool:
    """Click the first enabled button with this label; False while there is none."""
    for button in driver.find_elements(By.TAG_NAME, "button"):
        if button.text.startswith(label) and button.is_enabled():
            button.click()
            return True
    return False


def _answers(url: str) -> bool:
    try:
        ok = requests.get(f"{url}/server_info", timeout=2).ok
    except requests.RequestException:
        return False
    return ok and bool(_query(url, "{repositoriesOrError{... on RepositoryConnection{nodes{name}}}}")
                       ["repositoriesOrError"].get("nodes"))  # fmt: skip


def _query(url: str, text: str) -> dict[str, dict[str, list[dict[str, str]]]]:
    answer = requests.post(f"{url}/graphql", json={"query": text}, timeout=20).json()
    return answer["data"]  # type: ignore[no-any-return]


def _runs(url: str) -> dict[str, str]:
    found = _query(url, "{runsOrError(limit:20){... on Runs{results{runId status}}}}")["runsOrError"]["results"]
    return {run["runId"]: run["status"] for run in found}


def _done(status: str) -> str | None:
    return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None


def _wait(ready: Callable[[], Any], seconds: float, complaint: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline, complaint
        time.sleep(0.3)
    return found
