"""Alerts reach the file always and an address when one is set; the address is told to nobody."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from atft_pipeline.nights.alerts import SLACK, WEBHOOK, alerts_of, raise_alerts, read_alerts, send
from atft_pipeline.nights.record import FailedCheck, RunRecord

SECRET = "T0-secret-path-9f3a"
RECORD = RunRecord(
    "run-1", "nightly", False, "2024-01-10 19:30", "2024-01-10 19:40", 60.0, "2024-01-10",
    checks=(
        FailedCheck("raw/topix", "fresh", False, "warn", "a day late"),
        FailedCheck("dataset", "null_budget", True, "error", "too many nulls"),
    ),
)  # fmt: skip


@contextmanager
def listening(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A loopback server that keeps what it is sent: (its address, the bodies)."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"{address}/elsewhere")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}/{SECRET}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address, bodies
    finally:
        server.shutdown()
        server.server_close()


def test_the_file_is_written_without_any_address_and_once_a_run(tmp_path: Path) -> None:
    for _ in range(2):
        assert raise_alerts(tmp_path, alerts_of(RECORD), {}) == []
    found = [(row["kind"], row["subject"]) for row in read_alerts(tmp_path)]
    assert found == [
        ("run_failed", "nightly"), ("check_blocked", "dataset: null_budget"), ("check_warned", "raw/topix: fresh"),
    ]  # fmt: skip
    raise_alerts(tmp_path, alerts_of(replace(RECORD, run_id="run-2", success=True, checks=RECORD.checks[:1])), {})
    assert [row["run_id"] for row in read_alerts(tmp_path)][-1] == "run-2" and len(read_alerts(tmp_path)) == 4


def test_a_run_without_a_fault_raises_nothing(tmp_path: Path) -> None:
    assert alerts_of(replace(RECORD, success=True, checks=())) == []
    assert raise_alerts(tmp_path, [], {}) == [] and not (tmp_path / "alerts").exists()


def test_webhook_and_slack_receive_blocking_and_warning_apart(tmp_path: Path) -> None:
    with listening() as (hook, whole), listening() as (slack, texts):
        told = raise_alerts(tmp_path, alerts_of(RECORD), {WEBHOOK: hook, SLACK: slack})
    assert [(d.target, d.problem) for d in told] == [(WEBHOOK, ""), (SLACK, "")]
    assert [row["kind"] for row in whole[0]["alerts"]] == ["run_failed", "check_blocked", "check_warned"]
    assert texts[0].keys() == {"text"}
    assert "[blocked] dataset: null_budget: too many nulls" in texts[0]["text"]
    assert "[warning] raw/topix: fresh" in texts[0]["text"] and "run-1" in texts[0]["text"]


@pytest.mark.parametrize(("status", "said"), [(500, "HTTP 500"), (404, "HTTP 404"), (302, "HTTP 302")])
def test_a_refusing_webhook_is_told_without_its_address(tmp_path: Path, status: int, said: str) -> None:
    with listening(status) as (hook, bodies):
        (told,) = raise_alerts(tmp_path, alerts_of(RECORD), {WEBHOOK: hook})
    assert said in told.problem and len(bodies) == 1
    assert SECRET not in repr(told) and "127.0.0.1" not in repr(told)
    assert len(read_alerts(tmp_path)) == 3
    assert SECRET not in (tmp_path / "alerts" / "alerts.jsonl").read_text()


def test_an_address_that_cannot_be_used_is_told_without_it() -> None:
    with listening() as (hook, _):
        gone = hook
    for address in (
        gone,
        f"ftp://host/{SECRET}",
        SECRET,
        f"http://[{SECRET}",
        f"http://host:{SECRET}/",
        f"http://a b/{SECRET}",
    ):
        (told,) = send(alerts_of(RECORD), {SLACK: address})
        assert told.problem and SECRET not in told.problem and "host" not in told.problem, told
