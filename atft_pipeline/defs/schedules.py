"""When jobs run, in Tokyo time."""

import dagster as dg

from atft_pipeline.defs.jobs import nightly, retrain
from atft_pipeline.defs.maintenance import prune_job
from atft_pipeline.defs.nights import MISSED, SESSION, WHY
from atft_pipeline.defs.partitions import MONTHS, RANGE_END, RANGE_START, TIMEZONE, month_of
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.nights.plan import NightPlan, months_in_motion, plan_night, stored_months
from atft_pipeline.settings import Settings

EVENING = ["30 19 * * 1-5", "30 21 * * 1-5", "30 23 * * 1-5", "30 8 * * 2-6"]
"""19:30: bars, indices (16:30), master (17:30) and statements (18:00, first pass) are out. The later ticks try again
where a table was late; the morning's is the last before the market opens."""

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def night_tags(settings: Settings, plan: NightPlan) -> dict[str, str]:
    """Tags of a night's run: its months, computed now as a code server lives long, and what the plan said."""
    keys = {month_of(key): key for key in MONTHS.get_partition_keys()}
    first, last = months_in_motion(stored_months(settings.lake), settings.today())
    span = [key for month, key in keys.items() if first <= month <= last] or list(keys.values())[-1:]
    told = {
        SESSION: str(plan.session or ""),
        WHY: plan.reason,
        MISSED: ",".join(day.isoformat() for day in plan.missed),
    }
    return {RANGE_START: span[0], RANGE_END: span[-1], **{name: text for name, text in told.items() if text}}


@dg.schedule(
    job=nightly,
    cron_schedule=EVENING,
    execution_timezone=TIMEZONE,
    description="19:30 on weekdays, again at 21:30, 23:30 and 08:30 until the newest session has predictions.",
)
def nightly_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """One decision a tick: run, or skip with the reason (a holiday, nothing new, a run in progress)."""
    pipeline = Pipeline()
    settings = pipeline.settings
    running = context.instance.get_runs(dg.RunsFilter(job_name=nightly.name, statuses=UNFINISHED), limit=1)
    if running:
        return dg.SkipReason(f"run {running[0].run_id} of {nightly.name} is not finished yet")
    plan = plan_night(settings.lake, pipeline.now or settings.clock())
    if not plan.run:
        return dg.SkipReason(plan.reason)
    tick = context.scheduled_execution_time.strftime("%Y-%m-%dT%H:%M")
    return dg.RunRequest(run_key=f"{plan.session} at {tick}", tags=night_tags(settings, plan))


@dg.schedule(
    job=retrain,
    cron_schedule="0 10 * * 6",
    execution_timezone=TIMEZONE,
    description="Saturdays at 10:00: train on the week's last panel; a run that Friday's night finished is recognised.",
)
def weekly_retrain_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    settings: Settings = Pipeline().settings
    if not (settings.lake / "training_panel" / "manifest.json").exists():
        return dg.SkipReason("there is no training panel yet: run full_rebuild once")
    return dg.RunRequest(run_key=_day(context))


@dg.schedule(job=prune_job, cron_schedule="0 6 * * 0", execution_timezone=TIMEZONE, description="Sundays at 06:00.")
def prune_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return dg.RunRequest(run_key=_day(context))


def _day(context: dg.ScheduleEvaluationContext) -> str:
    return context.scheduled_execution_time.date().isoformat()


SCHEDULES = [nightly_schedule, weekly_retrain_schedule, prune_schedule]
