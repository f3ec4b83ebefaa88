"""What a run did, in plain values, and the one page that tells it; the log of nights, and the account of each session.

<lake>/nights/<run id>.md      the page of a run
<lake>/nights/nights.jsonl     one line a run: when, for which session, the outcome, the reason
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from atft_pipeline.lake.store import replacing

REASON = 900
"""Characters of a reason in the log and on the page; the whole error is in the run's own log."""


@dataclass(frozen=True)
class StepRecord:
    """One step. `status`: ok, failed, blocked (by its own checks, which tell why), interrupted (its process was killed)
    or skipped (something before it failed)."""

    name: str
    status: str
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class TableRecord:
    """What a raw table's asset reported: rows stored, requests sent."""

    name: str
    rows: int
    requests: int


@dataclass(frozen=True)
class FailedCheck:
    """A check that did not pass. `blocking` and of severity error: it stopped what lies behind it."""

    asset: str
    name: str
    blocking: bool
    severity: str
    message: str

    @property
    def stops(self) -> bool:
        return self.blocking and self.severity == "error"


@dataclass(frozen=True)
class Written:
    """The predictions that a run wrote."""

    date: str
    stocks: int
    run_id: str


@dataclass(frozen=True)
class Challenge:
    """How the run that was trained stood against the champion. `champion`: who gives predictions since."""

    champion: str
    challenger: str
    promoted: bool
    reason: str

    @property
    def refused(self) -> bool:
        return not self.promoted and self.challenger != self.champion

    def __str__(self) -> str:
        if not self.refused:
            return f"{self.champion} ({self.reason})"
        if self.champion == "none":
            return f"no champion; challenger {self.challenger} was refused: {self.reason}"
        return f"champion {self.champion} stays; challenger {self.challenger} was refused: {self.reason}"


@dataclass(frozen=True)
class RunRecord:
    """One Dagster run. `began`, `ended`: Tokyo time, ISO. `session`, `why`, `missed`: the plan that started it, empty
    when it was started by hand."""

    run_id: str
    job: str
    success: bool
    began: str
    ended: str
    seconds: float
    session: str = ""
    why: str = ""
    missed: tuple[str, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    tables: tuple[TableRecord, ...] = ()
    checks: tuple[FailedCheck, ...] = ()
    revisions: tuple[str, ...] = ()
    predictions: Written | None = None
    challenge: Challenge | None = None
    failure: str = ""
    """What the run itself reported when no step did, for instance that its process died."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it did not end well, first causes only: steps that were skipped behind them are left out."""
        stopped = [f"check {c.asset}: {c.name}: {c.message}" for c in self.checks if c.stops]
        told = {f"{c.asset}: {c.name}" for c in self.checks if c.stops}
        failed = [f"{s.name}: {s.reason}" for s in self.steps if s.status == "failed" and s.name not in told]
        return tuple(text[:REASON] for text in [*failed, *stopped]) or (
            (self.failure[:REASON],) if self.failure else ()
        )

    @property
    def outcome(self) -> str:
        """In a sentence: the predictions written, or why there are none."""
        if self.predictions:
            p = self.predictions
            text = f"predictions of {p.date}: {p.stocks} stocks by model {p.run_id}"
            return f"{text}; {self.challenge}"[:REASON] if self.challenge and self.challenge.refused else text
        if self.reasons:
            return "no predictions: " + " | ".join(self.reasons)
        return "no predictions: this run did not ask for them"


def page(record: RunRecord) -> str:
    """The run on one page, as Markdown."""
    state = "succeeded" if record.success else "FAILED"
    lines = [f"# {record.job} {record.session or record.began[:10]}: {state}", "", f"**{record.outcome}**", ""]
    lines += [f"- run `{record.run_id}`, {record.began} to {record.ended} (Tokyo), {record.seconds:.0f} s"]
    lines += [f"- why: {record.why}"] if record.why else []
    if record.missed:
        lines += [f"- sessions without predictions before it: {', '.join(record.missed)}; their rows were fetched"]
    lines += [f"- model: {record.challenge}"] if record.challenge else []
    rows = [(c.asset, c.name, "blocking" if c.stops else "warning", c.message) for c in record.checks]
    lines += _table("Checks that did not pass", ("asset", "check", "kind", "message"), rows) if rows else [
        "- no check failed"
    ]  # fmt: skip
    lines += [f"- revision: {text}" for text in record.revisions]
    failed = [(s.name, s.reason) for s in record.steps if s.status == "failed"]
    lines += _table("Steps that failed", ("step", "reason"), failed) if failed else []
    skipped = [s.name for s in record.steps if s.status == "skipped"]
    lines += ["", f"Not run because of them: {', '.join(skipped)}"] if skipped else []
    told = [(t.name, f"{t.rows:,}", str(t.requests)) for t in record.tables]
    total = ("all", f"{sum(t.rows for t in record.tables):,}", str(sum(t.requests for t in record.tables)))
    lines += _table("Tables", ("table", "rows", "requests"), [*told, total]) if told else []
    done = sorted((s for s in record.steps if s.status != "skipped"), key=lambda s: -s.seconds)
    lines += _table(
        f"Steps, slowest first ({len(done)})", ("step", "status", "s"),
        [(s.name, s.status, f"{s.seconds:.1f}") for s in done],
    )  # fmt: skip
    return "\n".join(lines) + "\n"


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[" ".join(str(cell).split()).replace("|", "/")[:REASON] for cell in row] for row in rows]
    rule = ["---"] * len(head)
    return ["", f"## {title}", "", *(f"| {' | '.join(row)} |" for row in [list(head), rule, *cells]), ""]


def log_path(lake: Path) -> Path:
    return lake / "nights" / "nights.jsonl"


def store(lake: Path, record: RunRecord) -> Path:
    """Write the page and the run's line in the log (once, however often it is called); returns the page's path."""
    path = lake / "nights" / f"{record.run_id}.md"
    with replacing(path) as part:
        part.write_text(page(record), encoding="utf-8")
    line = {
        "run_id": record.run_id, "job": record.job, "at": record.ended, "success": record.success,
        "session": record.session, "why": record.why, "missed": list(record.missed), "outcome": record.outcome,
        "predictions": asdict(record.predictions) if record.predictions else None,
    }  # fmt: skip
    others = [row for row in read_log(lake) if row["run_id"] != record.run_id]
    with replacing(log_path(lake)) as part:
        part.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [*others, line]), encoding="utf-8"
        )
    return path


def read_log(lake: Path) -> list[dict[str, Any]]:
    """All logged runs, oldest first."""
    path = log_path(lake)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def account(
    sessions: Sequence[date], predicted: Mapping[date, str], log: Sequence[Mapping[str, Any]], first: date, last: date
) -> list[tuple[date, bool, str]]:
    """(session, has predictions, by which model or why not) of every session in [first, last]. `predicted`: day ->
    model."""
    found = []
    for day in (day for day in sessions if first <= day <= last):
        runs = [row for row in log if row["session"] == day.isoformat()]
        later = [row for row in log if day.isoformat() in row["missed"]]
        if day in predicted:
            tries = f", at try {len(runs)}: first {runs[0]['outcome']}" if len(runs) > 1 else ""
            found.append((day, True, f"model {predicted[day]}{tries}"))
        elif runs:
            found.append((day, False, str(runs[-1]["outcome"])))
        else:
            filled = f"; its rows came with the run for {later[0]['session']}" if later else ""
            found.append((day, False, f"no run that night: the schedule did not tick or the machine was down{filled}"))
    return found
