"""After every run: its page, its line in the log of nights, and its alerts. Two sensors, on by default.

`python -m atft_pipeline.defs.nights RUN_ID` does the same by hand, for runs of a command line without the daemon.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import dagster as dg

from atft_pipeline.nights.alerts import Delivery, alerts_of, raise_alerts
from atft_pipeline.nights.record import Challenge, FailedCheck, RunRecord, StepRecord, TableRecord, Written, page, store
from atft_pipeline.settings import TOKYO, Settings

SESSION, WHY, MISSED = "atft/session", "atft/why", "atft/missed"
"""Run tags of a scheduled night: what the plan said."""

NIGHT_REPORT = dg.AssetSpec(
    "night_report",
    deps=[dg.AssetKey("predictions")],
    group_name="evaluation",
    kinds={"markdown"},
    description="One page a run: what ran, rows and requests, checks that failed and why, predictions written or the "
    "reason why not, the model. Written by a sensor after every run, failed ones too; no job builds it.",
)


def report_run(
    instance: dg.DagsterInstance, run: dg.DagsterRun, settings: Settings
) -> tuple[RunRecord, list[Delivery]]:
    """Write the run's page, log line and alerts, and show the page on the asset `night_report`."""
    record = record_of(instance, run, settings)
    path = store(settings.lake, record)
    deliveries = raise_alerts(settings.lake, alerts_of(record), os.environ)
    metadata: dict[str, Any] = {
        "page": dg.MetadataValue.md(page(record)),
        "path": dg.MetadataValue.path(str(path)),
        "outcome": record.outcome,
        "success": record.success,
        "job": record.job,
        "checks that did not pass": len(record.checks),
        "requests": sum(table.requests for table in record.tables),
    }
    instance.report_runless_asset_event(dg.AssetMaterialization(NIGHT_REPORT.key, metadata=metadata))
    return record, deliveries


def record_of(instance: dg.DagsterInstance, run: dg.DagsterRun, settings: Settings) -> RunRecord:
    """What the run's event log tells."""
    entries = [entry for entry in instance.all_logs(run.run_id) if entry.dagster_event]
    times = [entry.timestamp for entry in entries] or [settings.clock().timestamp()]
    failures = [e for entry in entries if (e := entry.dagster_event) and e.event_type_value == "PIPELINE_FAILURE"]
    made = _materialized(entries)
    written, decided = made.get("predictions"), made.get("promotion", {})
    challenge = None
    if "champion" in decided:
        challenge = Challenge(
            str(decided["champion"]), str(decided["challenger"]), bool(decided["promoted"]), str(decided["reason"])
        )
    return RunRecord(
        run_id=run.run_id,
        job=run.job_name,
        success=instance_status(instance, run) == dg.DagsterRunStatus.SUCCESS,
        began=_tokyo(settings, times[0]),
        ended=_tokyo(settings, times[-1]),
        seconds=times[-1] - times[0],
        session=run.tags.get(SESSION, ""),
        why=run.tags.get(WHY, ""),
        missed=tuple(day for day in run.tags.get(MISSED, "").split(",") if day),
        steps=tuple(_steps(instance, run, entries)),
        tables=tuple(
            TableRecord(
                name.removeprefix("raw/"),
                int(found.get("rows", found.get("dagster/row_count", 0))),
                int(found["requests"]),
            )
            for name, found in made.items()
            if name.startswith("raw/") and "requests" in found
        ),
        checks=tuple(_failed_checks(entries)),
        revisions=tuple(_revisions(entries)),
        predictions=Written(str(written["date"]), int(written["stocks"]), str(written["run_id"])) if written else None,
        challenge=challenge,
        failure=_first_line(failures[-1].message or "") if failures else "",
    )


def instance_status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    """The stored status: the run that a sensor or a caller holds may be an older copy."""
    stored = instance.get_run_by_id(run.run_id)
    return stored.status if stored else run.status


def _tokyo(settings: Settings, timestamp: float) -> str:
    at = settings.now or datetime.fromtimestamp(timestamp, TOKYO)
    return at.strftime("%Y-%m-%d %H:%M")


def _materialized(entries: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Asset -> metadata of its last event; the months of a table tell the same totals."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        event = entry.dagster_event
        if event.event_type_value == "ASSET_MATERIALIZATION":
            told = event.step_materialization_data.materialization
            found.setdefault(told.asset_key.to_user_string(), {}).update(
                {name: value.value for name, value in told.metadata.items()}
            )
    return found


def _revisions(entries: Sequence[Any]) -> list[str]:
    texts = []
    for entry in entries:
        event = entry.dagster_event
        if event.event_type_value == "ASSET_MATERIALIZATION":
            told = event.step_materialization_data.materialization.metadata.get("revision")
            texts += [str(told.value)] if told and str(told.value) not in texts else []
    return texts


def _failed_checks(entries: Sequence[Any]) -> list[FailedCheck]:
    found = []
    for entry in entries:
        event = entry.dagster_event
        if event.event_type_value == "ASSET_CHECK_EVALUATION" and not event.event_specific_data.passed:
            told = event.event_specific_data
            severity = "warn" if told.severity == dg.AssetCheckSeverity.WARN else "error"
            name = told.asset_key.to_user_string()
            found.append(FailedCheck(name, told.check_name, told.blocking, severity, told.description or ""))
    return found


def _steps(instance: dg.DagsterInstance, run: dg.DagsterRun, entries: Sequence[Any]) -> list[StepRecord]:
    began: dict[str, float] = {}
    found: dict[str, StepRecord] = {}
    failed_checks = {
        (event.step_key or "")
        for entry in entries
        if (event := entry.dagster_event).event_type_value == "ASSET_CHECK_EVALUATION"
        and not event.event_specific_data.passed
    }
    for entry in entries:
        event = entry.dagster_event
        key, kind = event.step_key, event.event_type_value
        if not key:
            continue
        seconds = entry.timestamp - began.get(key, entry.timestamp)
        if kind == "STEP_START":
            began.setdefault(key, entry.timestamp)
        elif kind == "STEP_SUCCESS":
            found[key] = StepRecord(key, "ok", seconds)
        elif kind == "STEP_FAILURE":
            # A step that is nothing but failed checks is told by them.
            reason = _cause(event.event_specific_data.error)
            told = key in failed_checks and "blocking" in reason.lower()
            found[key] = StepRecord(key, "blocked" if told else "failed", seconds, reason)
    plan = run.execution_plan_snapshot_id
    planned = instance.get_execution_plan_snapshot(plan).step_keys_to_execute if plan else list(began)
    left = {key: "interrupted" if key in began else "skipped" for key in planned if key not in found}
    return [*found.values(), *(StepRecord(key, status, 0.0) for key, status in left.items())]


def _cause(error: Any) -> str:
    """The error inside Dagster's own wrapping, in one line, without its class path."""
    while error is not None and error.cause is not None and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    if error is None:
        return "no reason was recorded"
    if error.cls_name == "DagsterExecutionInterruptedError":
        return "interrupted: somebody stopped the run, or its machine went down; the next try resumes"
    return _first_line(error.message)


def _first_line(text: str) -> str:
    head = " ".join(text.split())
    name, colon, rest = head.partition(": ")
    return rest if colon and "." in name and " " not in name else head


def _report(context: dg.RunStatusSensorContext) -> None:
    record, deliveries = report_run(context.instance, context.dagster_run, Settings.from_env())
    context.log.info(record.outcome)
    for delivery in deliveries:
        if delivery.problem:
            context.log.warning(f"the alert did not reach {delivery.target}: {delivery.problem}; it is in the file")


RUNNING = dg.DefaultSensorStatus.RUNNING


@dg.run_status_sensor(run_status=dg.DagsterRunStatus.SUCCESS, default_status=RUNNING)
def report_success(context: dg.RunStatusSensorContext) -> None:
    """The page of a run that ended well, and alerts for checks that only warned."""
    _report(context)


@dg.run_status_sensor(run_status=dg.DagsterRunStatus.FAILURE, default_status=RUNNING)
def report_failure(context: dg.RunStatusSensorContext) -> None:
    """The page of a run that failed, and its alerts: the failure, checks that blocked, checks that only warned."""
    _report(context)


SENSORS = [report_success, report_failure]


def main(arguments: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Report runs by id; exit status 2 for an unknown one."""
    if not arguments:
        print("usage: python -m atft_pipeline.defs.nights RUN_ID...", file=sys.stderr)
        return 2
    with dg.DagsterInstance.get() as instance:
        for run_id in arguments:
            run = instance.get_run_by_id(run_id)
            if run is None:
                print(f"no run {run_id}; `dagster run list` names them", file=sys.stderr)
                return 2
            record, _ = report_run(instance, run, Settings.from_env(env))
            print(page(record))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
