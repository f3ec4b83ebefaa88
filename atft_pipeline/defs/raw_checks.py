"""The checks of the raw tables: one function per table reads its months once and reports all of them."""

from collections.abc import Iterator

import dagster as dg

from atft_pipeline.defs.checks import check_result
from atft_pipeline.defs.partitions import MONTHS, month_of
from atft_pipeline.defs.raw import PLAN_TABLES
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.jquants.checks.judge import checks_of, judge_table
from atft_pipeline.jquants.table import Table


def table_checks(table: Table) -> dg.AssetChecksDefinition:
    """All checks of one table as one step: a step of its own for each would cost more than the checks."""
    key = dg.AssetKey(["raw", table.name])
    specs = [
        dg.AssetCheckSpec(check.name, asset=key, blocking=check.blocking, description=check.description)
        for check in checks_of(table)
    ]

    @dg.multi_asset_check(name=f"raw_{table.name}_checks", specs=specs)
    def judge(pipeline: Pipeline) -> Iterator[dg.AssetCheckResult]:
        now = pipeline.settings.clock()
        verdicts = judge_table(
            pipeline.lake, table, present_months(pipeline, table), now=now, end=pipeline.settings.end
        )
        for name, verdict in verdicts.items():
            yield check_result(verdict, name)

    return judge


def present_months(pipeline: Pipeline, table: Table) -> list[str]:
    """Months to judge: from the oldest stored one to the newest, so that a hole inside the history is a failure."""
    stored = {path.stem for path in (pipeline.lake / "raw" / table.name).glob("*.parquet")}
    months = [month_of(key) for key in MONTHS.get_partition_keys()]
    first = min((months.index(m) for m in months if m in stored), default=0)
    last = max((months.index(m) for m in months if m in stored), default=len(months) - 1)
    return months[first : last + 1]


RAW_CHECKS: list[dg.AssetChecksDefinition] = [table_checks(table) for table in PLAN_TABLES]
