"""Alerts: always a line in a file, and a message to a webhook or to Slack where the environment names one.

An address may hold a secret (Slack's does), so it is read where it is used, never stored, logged or part of an error.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from atft_pipeline.lake.store import replacing
from atft_pipeline.nights.record import RunRecord

WEBHOOK, SLACK = "ATFT_ALERT_WEBHOOK", "ATFT_SLACK_WEBHOOK"
SECONDS = 10.0
LINES = 10
"""Alerts that one message names; all of them are in the file."""

Kind = Literal["run_failed", "check_blocked", "check_warned"]


@dataclass(frozen=True)
class Alert:
    """One thing that somebody should look at. `check_blocked` stopped what lies behind it, `check_warned` did not."""

    at: str
    kind: Kind
    job: str
    run_id: str
    session: str
    subject: str
    text: str


@dataclass(frozen=True)
class Delivery:
    """What became of a message; `problem` is empty when it arrived, and never holds the address."""

    target: str
    problem: str = ""


def alerts_of(record: RunRecord) -> list[Alert]:
    """The run's failure first, then the checks that blocked, then those that only warned."""

    def alert(kind: Kind, subject: str, text: str) -> Alert:
        return Alert(record.ended, kind, record.job, record.run_id, record.session, subject, text)

    found = [] if record.success else [alert("run_failed", record.job, record.outcome)]
    for check in sorted(record.checks, key=lambda c: not c.stops):
        kind: Kind = "check_blocked" if check.stops else "check_warned"
        found.append(alert(kind, f"{check.asset}: {check.name}", check.message))
    return found


def alerts_path(lake: Path) -> Path:
    return lake / "alerts" / "alerts.jsonl"


def read_alerts(lake: Path) -> list[dict[str, Any]]:
    """All alerts, oldest first."""
    path = alerts_path(lake)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def raise_alerts(lake: Path, alerts: Sequence[Alert], env: Mapping[str, str]) -> list[Delivery]:
    """Add the alerts to the file and send them; a run that is already in the file is not told again. A failing webhook
    fails nothing: its problem is in the answer."""
    known = {row["run_id"] for row in read_alerts(lake)}
    fresh = [alert for alert in alerts if alert.run_id not in known]
    if not fresh:
        return []
    path = alerts_path(lake)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    with replacing(path) as part:
        lines = "".join(json.dumps(asdict(alert), ensure_ascii=False) + "\n" for alert in fresh)
        part.write_text(before + lines, encoding="utf-8")
    return send(fresh, env)


def send(alerts: Sequence[Alert], env: Mapping[str, str]) -> list[Delivery]:
    """Post the alerts to whatever address `env` names: all fields to a webhook, a text to Slack."""
    text = message(alerts)
    bodies: dict[str, dict[str, object]] = {
        WEBHOOK: {"text": text, "alerts": [asdict(alert) for alert in alerts]},
        SLACK: {"text": text},
    }
    return [Delivery(name, _post(env[name], body)) for name, body in bodies.items() if env.get(name)]


def message(alerts: Sequence[Alert]) -> str:
    """The alerts as a few lines of text."""
    words = {"run_failed": "FAILED", "check_blocked": "blocked", "check_warned": "warning"}
    lines = [f"[{words[a.kind]}] {a.subject}: {a.text}" for a in alerts[:LINES]]
    rest = [f"and {len(alerts) - LINES} more"] if len(alerts) > LINES else []
    return "\n".join([f"{alerts[0].job} {alerts[0].session}".strip() + f", run {alerts[0].run_id}", *lines, *rest])


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A message goes to the named address or nowhere."""

    def redirect_request(self, *args: Any) -> None:
        return None


def _post(address: str, body: Mapping[str, object]) -> str:
    """Empty when it arrived, else what went wrong, in words that cannot hold the address."""
    if not address.startswith(("http://", "https://")):
        return "the address is no http(s) address"
    try:
        data, head = json.dumps(body).encode(), {"Content-Type": "application/json"}
        with urllib.request.build_opener(_NoRedirect()).open(
            urllib.request.Request(address, data=data, headers=head), timeout=SECONDS
        ) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        with error:
            return f"it answered HTTP {error.code}"
    except urllib.error.URLError as error:
        # The reason's own text can name the host, as in a certificate error.
        return f"it cannot be reached ({type(error.reason).__name__})"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"it cannot be reached ({type(error).__name__})"
    return ""
