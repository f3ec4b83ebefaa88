"""Sensors, schedules and waiting, on small jobs: what a run leaves behind, when a night is asked for."""

import json
from datetime import date, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from atft_pipeline.defs.jobs import nightly
from atft_pipeline.defs.nights import MISSED, NIGHT_REPORT, SENSORS, SESSION, report_failure, report_success
from atft_pipeline.defs.partitions import RANGE_END, RANGE_START
from atft_pipeline.defs.raw import waiting_for_late_rows
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.defs.schedules import nightly_schedule, weekly_retrain_schedule
from atft_pipeline.jquants.errors import IncompleteError
from atft_pipeline.jquants.tables import CALENDAR, TABLES, partition_path
from atft_pipeline.lake.store import write_table
from atft_pipeline.nights.alerts import SLACK, WEBHOOK, read_alerts
from atft_pipeline.nights.record import read_log
from atft_pipeline.settings import TOKYO, SettingError, Settings
from atft_pipeline_tests.nights.test_alerts import SECRET, listening


@dg.asset(key=["raw", "bars_daily"])
def bars() -> dg.MaterializeResult:  # type: ignore[type-arg]
    return dg.MaterializeResult(metadata={"rows": 4000, "requests": 3, "revision": "2024-01: 1 row changed"})


@dg.asset(deps=[bars])
def predictions() -> dg.MaterializeResult:  # type: ignore[type-arg]
    return dg.MaterializeResult(metadata={"date": "2024-01-10", "stocks": 200, "run_id": "abcdef"})


@dg.asset(deps=[bars], key="late")
def late() -> None:
    try:
        raise IncompleteError("bars of 2024-01-10 are not out", endpoint="/x", request="", status=200)
    except IncompleteError as error:
        raise ValueError("prices are late: look at raw/bars_daily") from error


def check(name: str, passed: bool, severity: dg.AssetCheckSeverity, blocking: bool) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=bars, name=name, blocking=blocking)
    def judged() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=passed, severity=severity, description=f"{name} says why")

    return judged


WARN = check("fresh", False, dg.AssetCheckSeverity.WARN, True)
ERROR = check("complete", False, dg.AssetCheckSeverity.ERROR, True)


def ran(sensor: dg.RunStatusSensorDefinition, *defs: object, tags: dict[str, str] | None = None) -> dg.DagsterInstance:
    """Run the assets and checks as the job nightly, then the sensor as the daemon would."""
    assets = [d for d in defs if isinstance(d, dg.AssetsDefinition) and not isinstance(d, dg.AssetChecksDefinition)]
    checks = [d for d in defs if isinstance(d, dg.AssetChecksDefinition)]
    job = dg.define_asset_job("nightly", selection=dg.AssetSelection.all())
    loaded = dg.Definitions(assets=assets, asset_checks=checks, jobs=[job], executor=dg.in_process_executor)
    instance = dg.DagsterInstance.ephemeral()
    done = loaded.resolve_job_def("nightly").execute_in_process(instance=instance, raise_on_error=False, tags=tags)
    ended = (dg.DagsterEventType.PIPELINE_SUCCESS, dg.DagsterEventType.PIPELINE_FAILURE)
    event = [event for event in done.all_events if event.event_type in ended][-1]
    run = instance.get_run_by_id(done.run_id)
    assert run is not None
    context = dg.build_run_status_sensor_context(sensor.name, event, instance, run)
    sensor(context)
    return instance


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATFT_DATA_DIR", str(tmp_path))
    for name in ("JQUANTS_API_KEY", "JQUANTS_BASE_URL", WEBHOOK, SLACK):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "simulated"


def test_a_good_run_leaves_its_page_and_warnings(lake: Path) -> None:
    tags = {SESSION: "2024-01-10", MISSED: "2024-01-05,2024-01-09"}
    instance = ran(report_success, bars, predictions, WARN, tags=tags)
    (row,) = read_log(lake)
    assert row["success"] and row["session"] == "2024-01-10" and row["missed"] == ["2024-01-05", "2024-01-09"]
    assert row["outcome"] == "predictions of 2024-01-10: 200 stocks by model abcdef"
    assert [(a["kind"], a["text"]) for a in read_alerts(lake)] == [("check_warned", "fresh says why")]
    event = instance.get_latest_materialization_event(NIGHT_REPORT.key)
    assert event is not None and event.asset_materialization is not None
    shown = event.asset_materialization.metadata
    assert "| bars_daily | 4,000 | 3 |" in str(shown["page"].value) and shown["requests"].value == 3
    assert "1 row changed" in str(shown["page"].value)


def test_a_blocked_run_names_the_check_and_what_did_not_run(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as (hook, bodies):
        monkeypatch.setenv(WEBHOOK, hook)
        ran(report_failure, bars, predictions, WARN, ERROR)
    (row,) = read_log(lake)
    assert not row["success"] and row["outcome"] == (
        "no predictions: check raw/bars_daily: complete: complete says why"
    )
    assert [a["kind"] for a in bodies[0]["alerts"]] == ["run_failed", "check_blocked", "check_warned"]
    (page,) = (lake / "nights").glob("*.md")
    assert "Not run because of them: predictions" in page.read_text()


def test_a_failed_step_gives_its_own_words_and_a_dead_webhook_fails_nothing(
    lake: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with listening(500) as (hook, _):
        monkeypatch.setenv(SLACK, hook)
        instance = ran(report_failure, bars, late)
    assert read_log(lake)[0]["outcome"] == "no predictions: late: ValueError: prices are late: look at raw/bars_daily"
    logged = json.dumps([str(entry) for run in instance.get_runs() for entry in instance.all_logs(run.run_id)])
    written = " ".join(path.read_text() for path in lake.rglob("*") if path.is_file())
    assert SECRET not in logged + written + "".join(capfd.readouterr())


def test_the_sensors_are_on_by_default() -> None:
    assert {sensor.default_status for sensor in SENSORS} == {dg.DefaultSensorStatus.RUNNING}


@pytest.fixture
def stored(lake: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lake of the real service with a calendar of May 2024 and a month of prices."""
    monkeypatch.setenv("JQUANTS_API_KEY", "none")
    monkeypatch.setenv("JQUANTS_PLAN", "standard")
    lake = lake.with_name("jquants")
    days = [date(2024, 5, day) for day in range(1, 32)]
    closed = {3, 4, 5, 6, 11, 12, 18, 19, 25, 26}
    frame = pl.DataFrame({"Date": days, "HolDiv": ["0" if day.day in closed else "1" for day in days]})
    write_table(lake / partition_path(CALENDAR), frame, keys=("Date",), source={})
    prices = pl.DataFrame({"Date": days[:2], "Code": ["13010", "13010"]})
    write_table(lake / "raw" / "bars_daily" / "2024-05.parquet", prices, keys=("Date",), source={})
    return lake


def predicted(lake: Path, *days: str) -> None:
    (lake / "predictions").mkdir(exist_ok=True)
    for day in days:
        (lake / "predictions" / f"{day}.parquet").touch()


def tick(moment: str, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    monkeypatch.setenv("ATFT_NOW", moment)
    at = datetime.fromisoformat(moment).replace(tzinfo=TOKYO)
    answer = nightly_schedule(dg.build_schedule_context(instance=instance, scheduled_execution_time=at))
    assert isinstance(answer, dg.RunRequest | dg.SkipReason)
    return answer


def test_ticks_skip_holidays_and_done_nights_and_carry_the_plan(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predicted(stored, "2024-05-02")
    with dg.DagsterInstance.local_temp(str(stored)) as instance:
        holiday = tick("2024-05-06T19:30", monkeypatch, instance)
        assert isinstance(holiday, dg.SkipReason) and "2024-05-06 is no trading day" in str(holiday.skip_message)
        night = tick("2024-05-08T19:30", monkeypatch, instance)
        assert isinstance(night, dg.RunRequest)
        assert night.tags[SESSION] == "2024-05-08" and night.tags[MISSED] == "2024-05-07"
        assert (night.tags[RANGE_START], night.tags[RANGE_END]) == ("2024-04-01", "2024-05-01")
        later = tick("2024-05-08T21:30", monkeypatch, instance)
        assert isinstance(later, dg.RunRequest) and later.run_key != night.run_key
        predicted(stored, "2024-05-08")
        assert isinstance(tick("2024-05-08T23:30", monkeypatch, instance), dg.SkipReason)


def test_a_tick_does_not_overtake_a_run(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.DagsterInstance.local_temp(str(stored)) as instance:
        run = instance.create_run(
            job_name=nightly.name, run_id=None, run_config=None, status=dg.DagsterRunStatus.STARTED, tags={},
            root_run_id=None, parent_run_id=None, step_keys_to_execute=None, execution_plan_snapshot=None,
            job_snapshot=None, parent_job_snapshot=None, asset_selection=None, asset_check_selection=None,
            resolved_op_selection=None, op_selection=None, remote_job_origin=None, job_code_origin=None,
            asset_graph=dg.Definitions().resolve_asset_graph(),
        )  # fmt: skip
        answer = tick("2024-05-08T19:30", monkeypatch, instance)
        assert isinstance(answer, dg.SkipReason) and run.run_id in str(answer.skip_message)


def test_the_weekly_training_wants_a_panel(lake: Path) -> None:
    saturday = datetime(2024, 5, 11, 10, tzinfo=TOKYO)
    context = dg.build_schedule_context(scheduled_execution_time=saturday)
    assert isinstance(weekly_retrain_schedule(context), dg.SkipReason)
    (lake / "training_panel").mkdir(parents=True)
    (lake / "training_panel" / "manifest.json").write_text("{}")
    asked = weekly_retrain_schedule(context)
    assert isinstance(asked, dg.RunRequest) and asked.run_key == "2024-05-11"


def test_only_a_scheduled_night_waits_for_a_late_table() -> None:
    late_error = IncompleteError("bars are not out", endpoint="/x", request="", status=200)
    settings = Settings(late_tries=3, late_wait_minutes=2)
    with pytest.raises(dg.RetryRequested) as asked, waiting_for_late_rows(settings, is_night=True):
        raise late_error
    assert asked.value.max_retries == 3 and asked.value.seconds_to_wait == 120
    for known, night in ((settings, False), (Settings(late_tries=0), True)):
        with pytest.raises(IncompleteError), waiting_for_late_rows(known, is_night=night):
            raise late_error


def test_a_late_table_is_asked_again_in_the_same_run() -> None:
    tries = []

    @dg.asset
    def table() -> None:
        tries.append(1)
        with waiting_for_late_rows(Settings(late_tries=2, late_wait_minutes=0), is_night=True):
            if len(tries) < 3:
                raise IncompleteError("not out", endpoint="/x", request="", status=200)

    assert dg.materialize([table], instance=dg.DagsterInstance.ephemeral()).success and len(tries) == 3


def test_the_pipeline_stands_at_the_time_that_is_set(stored: Path) -> None:
    """Newest dates, what is asked of late tables, and freshness go by it; a wrong one is refused by name."""
    evening = Pipeline(overrides={"ATFT_NOW": "2024-05-08T19:30", "ATFT_END": "2024-06-28"})
    assert evening.last_date == date(2024, 5, 8)
    assert evening.now == datetime(2024, 5, 8, 19, 30, tzinfo=TOKYO)
    asked = {name: evening.asked_until(TABLES[name]) for name in ("bars_daily", "options_225")}
    assert asked == {"bars_daily": date(2024, 5, 8), "options_225": date(2024, 5, 7)}
    past_its_end = Pipeline(overrides={"ATFT_NOW": "2024-07-08T19:30", "ATFT_END": "2024-06-28"})
    assert past_its_end.last_date == date(2024, 6, 28)
    with pytest.raises(SettingError, match="ATFT_NOW"):
        Settings.from_env({"ATFT_NOW": "yesterday"})
