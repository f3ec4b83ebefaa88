"""What Dagster loads: assets, checks, jobs, schedules and resources of the one code location."""

import dagster as dg

from atft_pipeline.defs.jobs import JOBS
from atft_pipeline.defs.raw import RAW_ASSETS, RAW_CHECKS
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.defs.train_process import TrainingProcess

defs = dg.Definitions(
    assets=RAW_ASSETS,
    asset_checks=RAW_CHECKS,
    jobs=JOBS[2:3],
    resources={"pipeline": Pipeline(), "training_process": TrainingProcess()},
    executor=dg.in_process_executor,
)
