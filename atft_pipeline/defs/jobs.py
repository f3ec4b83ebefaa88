"""Jobs: the whole graph at once, the nightly part of it, and its pieces."""

import dagster as dg

from atft_pipeline.defs.partitions import MONTHS, range_tags

NIGHTLY_MONTHS = 2
"""The running month and the one before it: what corrections and late rows can still touch."""

EVERYTHING = dg.AssetSelection.all()

full_rebuild = dg.define_asset_job(
    "full_rebuild",
    selection=EVERYTHING,
    tags=range_tags(MONTHS),
    description="Everything, every month: raw tables, features, dataset, statistics, model, evaluation, predictions.",
)

nightly = dg.define_asset_job(
    "nightly",
    selection=EVERYTHING,
    # Started again when its process died (training resumes), not when a step failed: the next tick decides that.
    tags={
        **range_tags(MONTHS, NIGHTLY_MONTHS),
        "dagster/max_retries": "2",
        "dagster/retry_on_asset_or_op_failure": "false",
    },
    description="The months in motion, then everything downstream of them.",
)

backfill_raw = dg.define_asset_job(
    "backfill_raw",
    selection=dg.AssetSelection.groups("raw"),
    tags=range_tags(MONTHS),
    description="Every month of every raw table; months that are stored complete cost no request.",
)

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.groups("training", "evaluation"),
    tags={"dagster/max_retries": "1"},
    description="Train on the present training panel, evaluate, predict. Retried once: training resumes.",
)

JOBS = [full_rebuild, nightly, backfill_raw, retrain]
