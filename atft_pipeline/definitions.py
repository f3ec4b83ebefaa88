"""What Dagster loads: assets, checks, jobs, schedules and resources of the one code location."""

import dagster as dg

from atft_pipeline.defs.dataset import DATASET_ASSETS, DATASET_CHECKS
from atft_pipeline.defs.evaluation import EVALUATION_ASSETS, EVALUATION_CHECKS
from atft_pipeline.defs.features import FEATURE_ASSETS, FEATURE_CHECKS
from atft_pipeline.defs.jobs import JOBS
from atft_pipeline.defs.maintenance import prune_job
from atft_pipeline.defs.nights import NIGHT_REPORT, SENSORS
from atft_pipeline.defs.raw import RAW_ASSETS
from atft_pipeline.defs.raw_checks import RAW_CHECKS
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.defs.schedules import SCHEDULES
from atft_pipeline.defs.search import HPO_STUDY, hpo
from atft_pipeline.defs.train_process import TrainingProcess
from atft_pipeline.defs.training import TRAINING_ASSETS, TRAINING_CHECKS
from atft_pipeline.defs.walk import WALK_CHECKS, WALK_FORWARD, walk_forward_job

defs = dg.Definitions(
    assets=[
        *RAW_ASSETS,
        *FEATURE_ASSETS,
        *DATASET_ASSETS,
        *TRAINING_ASSETS,
        *EVALUATION_ASSETS,
        NIGHT_REPORT,
        HPO_STUDY,
        WALK_FORWARD,
    ],
    asset_checks=[*RAW_CHECKS, *FEATURE_CHECKS, *DATASET_CHECKS, *TRAINING_CHECKS, *EVALUATION_CHECKS, *WALK_CHECKS],
    jobs=[*JOBS, hpo, walk_forward_job, prune_job],
    schedules=SCHEDULES,
    sensors=SENSORS,
    resources={"pipeline": Pipeline(), "training_process": TrainingProcess()},
    executor=dg.in_process_executor,
)
