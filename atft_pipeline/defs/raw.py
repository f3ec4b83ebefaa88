"""The raw tables as assets, one per J-Quants endpoint. Their checks are in `raw_checks.py`."""

from datetime import timedelta
from typing import Any

import dagster as dg

from atft_pipeline.defs.checks import column_schema
from atft_pipeline.defs.partitions import MONTHS, ONE_RUN, month_of
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.jquants.fetch import ingest_calendar, ingest_month
from atft_pipeline.jquants.plans import get_plan
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import CALENDAR, TABLES
from atft_pipeline.settings import Settings

CALENDAR_AHEAD = timedelta(days=120)
"""Days of calendar asked for beyond the last date: distances to month ends, SQ days and next sessions need them."""


class IngestConfig(dg.Config):
    """`refetch` reads months again that are already stored complete."""

    refetch: bool = False


def _described(table: Table) -> dict[str, Any]:
    return {
        "group_name": "raw",
        "kinds": {"parquet", "jquants"},
        "backfill_policy": ONE_RUN,
        "metadata": {
            "dagster/column_schema": column_schema({name: str(dtype) for name, dtype in table.schema.items()}),
            "endpoint": table.path,
            "key": ", ".join(table.keys),
            "availability": table.availability,
        },
    }


@dg.asset(
    key=["raw", CALENDAR.name],
    description="One row per calendar day: business, half or closed day.",
    **_described(CALENDAR),
)
def raw_calendar(pipeline: Pipeline, config: IngestConfig) -> dg.MaterializeResult:
    settings = pipeline.settings
    report = ingest_calendar(
        pipeline.client(),
        pipeline.lake,
        settings.start.replace(day=1),
        pipeline.last_date + CALENDAR_AHEAD,
        refetch=config.refetch,
    )
    return dg.MaterializeResult(
        metadata={"dagster/row_count": report.rows, "requests": report.requests, "reused": report.reused}
    )


def raw_table(table: Table) -> dg.AssetsDefinition:
    """The asset of one monthly table."""
    upstream = [raw_calendar.key] + ([dg.AssetKey(["raw", table.covers])] if table.covers else [])

    @dg.asset(
        key=["raw", table.name],
        partitions_def=MONTHS,
        deps=upstream,
        description=f"Rows of `{table.path}` as delivered, typed. {table.availability}",
        **_described(table),
    )
    def asset(context: dg.AssetExecutionContext, pipeline: Pipeline, config: IngestConfig) -> dg.MaterializeResult:
        client, rows, requests, reused = pipeline.client(), 0, 0, 0
        keys = context.partition_keys
        for done, key in enumerate(keys, start=1):
            report = ingest_month(
                client, pipeline.lake, table, month_of(key), last_date=pipeline.last_date, refetch=config.refetch
            )
            rows, requests, reused = rows + report.rows, requests + report.requests, reused + report.reused
            context.add_asset_metadata({"dagster/partition_row_count": report.rows}, partition_key=key)
            if done == len(keys) or (not report.reused and done % 6 == 0):
                context.log.info(
                    f"{table.name} {report.month}: {report.rows:,} rows, {report.requests} requests, "
                    f"{report.seconds:.1f} s ({done}/{len(keys)} months, {reused} reused)"
                )
        return dg.MaterializeResult(metadata={"rows": rows, "requests": requests, "months_reused": reused})

    return asset


_PLAN = get_plan(Settings.from_env().plan)
PLAN_TABLES = [table for table in TABLES.values() if _PLAN.includes(table.plan)]
RAW_ASSETS: list[dg.AssetsDefinition] = [
    raw_calendar,
    *(raw_table(table) for table in PLAN_TABLES if table is not CALENDAR),
]
