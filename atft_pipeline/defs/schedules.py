"""When jobs run, in Tokyo time."""

import dagster as dg

from atft_pipeline.defs.jobs import NIGHTLY_MONTHS, nightly
from atft_pipeline.defs.maintenance import prune_job
from atft_pipeline.defs.partitions import MONTHS, TIMEZONE, range_tags


@dg.schedule(
    job=nightly,
    cron_schedule="30 19 * * 1-5",
    execution_timezone=TIMEZONE,
    description="19:30 on weekdays: bars, indices (16:30), master (17:30) and statements (18:00, first pass) are out.",
)
def nightly_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """The range is computed at each tick: a long-lived code server must not keep last month's."""
    day = context.scheduled_execution_time.date().isoformat()
    return dg.RunRequest(run_key=day, tags=range_tags(MONTHS, NIGHTLY_MONTHS))


@dg.schedule(job=prune_job, cron_schedule="0 6 * * 0", execution_timezone=TIMEZONE, description="Sundays at 06:00.")
def prune_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return dg.RunRequest(run_key=context.scheduled_execution_time.date().isoformat())


SCHEDULES = [nightly_schedule, prune_schedule]
