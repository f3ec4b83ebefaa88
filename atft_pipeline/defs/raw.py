"""The raw tables as assets, one per J-Quants endpoint. Their checks are in `raw_checks.py`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import dagster as dg

from atft_pipeline.defs.checks import column_schema
from atft_pipeline.defs.nights import SESSION
from atft_pipeline.defs.partitions import MONTHS, ONE_RUN, month_of
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.jquants.contents import table_contents, version
from atft_pipeline.jquants.errors import IncompleteError
from atft_pipeline.jquants.fetch import ingest_calendar
from atft_pipeline.jquants.ingest import ingest_table
from atft_pipeline.jquants.months import MonthReport
from atft_pipeline.jquants.plans import get_plan
from atft_pipeline.jquants.progress import Progress, routes_of
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import CALENDAR, TABLES
from atft_pipeline.settings import Settings

CALENDAR_AHEAD = timedelta(days=120)
"""Days of calendar asked for beyond the last date: distances to month ends, SQ days and next sessions need them."""


CONTENTS_KEY = dg.AssetKey(["raw", "contents"])


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
    # To the end of a month: a calendar that grew by a day every night would make everything stale every night.
    ahead = pipeline.last_date + CALENDAR_AHEAD
    end = (ahead.replace(day=1) + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    start = settings.start.replace(day=1)
    report = ingest_calendar(pipeline.client(), pipeline.lake, start, end, refetch=config.refetch)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": report.rows,
            "covers": report.covers,
            "requests": report.requests,
            "reused": report.reused,
        },
        data_version=dg.DataVersion(report.content_hash[:16]),
    )


def _describe(context: dg.AssetExecutionContext, report: MonthReport, key: str | None) -> None:
    """Metadata of one month. A month outside the run's own (`key` None), read because its bulk file was overwritten,
    gets an event of its own."""
    metadata: dict[str, Any] = {
        "dagster/partition_row_count": report.rows,
        "covers": report.covers or "outside the plan's dates",
        "route": report.route,
        "content": report.content_hash[:16],
        "facts": report.facts_hash[:16],
    }
    if report.revision:
        metadata["revision"] = report.revision.text
        metadata["revision_examples"] = report.revision.examples
    if key is not None:
        context.add_asset_metadata(metadata, partition_key=key)
        return
    event = dg.AssetMaterialization(context.asset_key, partition=f"{report.month}-01", metadata=metadata)
    context.log_event(event)


@contextmanager
def waiting_for_late_rows(settings: Settings, *, is_night: bool) -> Iterator[None]:
    """In a scheduled night a table that is not out yet is asked again a little later, as often as the settings say.

    Nothing downstream starts meanwhile. A run started by hand fails at once and says what is missing.
    """
    try:
        yield
    except IncompleteError as error:
        if not is_night or not settings.late_tries:
            raise
        raise dg.RetryRequested(settings.late_tries, seconds_to_wait=60 * settings.late_wait_minutes) from error


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
        client, last_date = pipeline.client(), pipeline.asked_until(table)
        keys = {month_of(key): key for key in context.partition_keys}
        early = [month for month in keys if f"{month}-01" > last_date.isoformat()]
        if early:
            context.log.info(f"{table.name}: nothing of {', '.join(early)} is published yet")
        months = [month for month in keys if month not in early]
        progress, reports = Progress(table.name, len(months)), []
        with waiting_for_late_rows(pipeline.settings, is_night=SESSION in context.run.tags):
            for report in ingest_table(
                client, pipeline.lake, table, months, last_date=last_date, refetch=config.refetch
            ):
                progress.add(report)
                reports.append(report)
                if report.revision:
                    context.log.warning(report.revision.text)
                _describe(context, report, keys.get(report.month))
                if progress.is_due:
                    context.log.info(progress.text(client.requests_free))
        context.log.info(progress.text(client.requests_free))
        metadata: dict[str, Any] = {"requests_free": client.requests_free, "routes": routes_of(reports)}
        return dg.MaterializeResult(metadata={**progress.totals(), **metadata})

    return asset


_PLAN = get_plan(Settings.from_env().plan)
PLAN_TABLES = [table for table in TABLES.values() if _PLAN.includes(table.plan)]
RAW_ASSETS: list[dg.AssetsDefinition] = [
    raw_calendar,
    *(raw_table(table) for table in PLAN_TABLES if table is not CALENDAR),
]


@dg.asset(
    key=CONTENTS_KEY,
    deps=[asset.key for asset in RAW_ASSETS],
    group_name="raw",
    kinds={"jquants"},
    backfill_policy=ONE_RUN,
)
def raw_contents(pipeline: Pipeline) -> dg.MaterializeResult:
    """What the raw tables hold: months, rows, dates and a hash of the facts of each table.

    Its data version changes exactly when a stored fact does. Everything downstream depends on it, as Dagster holds no
    unpartitioned asset against the single months of a partitioned one.
    """
    contents = [table_contents(pipeline.lake, table) for table in PLAN_TABLES]
    rows = [f"| {c.table} | {c.months} | {c.rows:,} | {c.first} | {c.last} | {c.facts[:12]} |" for c in contents]
    head = ["| table | months | rows | first | last | facts |", "|---|---|---|---|---|---|"]
    return dg.MaterializeResult(
        metadata={
            "tables": dg.MetadataValue.md("\n".join(head + rows)),
            "dagster/row_count": sum(item.rows for item in contents),
        },
        data_version=dg.DataVersion(version(contents)[:16]),
    )


RAW_ASSETS.append(raw_contents)
