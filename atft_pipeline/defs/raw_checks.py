"""The checks of the raw tables: keys, schema, completeness."""

from collections.abc import Callable, Sequence

import dagster as dg

from atft_pipeline.defs.checks import verdict_check
from atft_pipeline.defs.partitions import MONTHS, month_of
from atft_pipeline.defs.raw import PLAN_TABLES
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.jquants.completeness import check_completeness, check_keys, check_schema
from atft_pipeline.jquants.table import Table
from atft_pipeline.verdict import Verdict


def _checks(table: Table) -> list[dg.AssetChecksDefinition]:
    def judged(judge: Callable[..., Verdict]) -> Callable[[Pipeline], Verdict]:
        def run(pipeline: Pipeline) -> Verdict:
            return judge(pipeline.lake, table, _present(pipeline, table))

        run.__doc__ = judge.__doc__
        return run

    key = dg.AssetKey(["raw", table.name])
    return [
        verdict_check(key, "keys_unique", judged(check_keys)),
        verdict_check(key, "schema_as_declared", judged(check_schema)),
        verdict_check(key, "complete", judged(check_completeness)),
    ]


def _present(pipeline: Pipeline, table: Table) -> Sequence[str]:
    """Months to judge: from the oldest stored one to the newest, so that a hole inside the history is a failure."""
    stored = {path.stem for path in (pipeline.lake / "raw" / table.name).glob("*.parquet")}
    months = [month_of(key) for key in MONTHS.get_partition_keys()]
    first = min((months.index(m) for m in months if m in stored), default=0)
    last = max((months.index(m) for m in months if m in stored), default=len(months) - 1)
    return months[first : last + 1]


RAW_CHECKS: list[dg.AssetChecksDefinition] = [check for table in PLAN_TABLES for check in _checks(table)]
