"""The one partition scheme: calendar months, shared by every raw table; everything downstream is unpartitioned."""

import dagster as dg

from atft_pipeline.settings import Settings

ONE_RUN = dg.BackfillPolicy.single_run()
"""On every asset, partitioned or not: only then can one run hold the whole graph."""

TIMEZONE = "Asia/Tokyo"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def monthly(settings: Settings) -> dg.MonthlyPartitionsDefinition:
    """Months from the first to the last date of `settings`; the running month is included when the end is open."""
    start = settings.start.replace(day=1)
    if settings.end is None:
        return dg.MonthlyPartitionsDefinition(start_date=start.isoformat(), timezone=TIMEZONE, end_offset=1)
    last = settings.end
    after = last.replace(year=last.year + last.month // 12, month=last.month % 12 + 1, day=1)
    return dg.MonthlyPartitionsDefinition(start_date=start.isoformat(), end_date=after.isoformat(), timezone=TIMEZONE)


MONTHS = monthly(Settings.from_env())


def month_of(partition_key: str) -> str:
    """'2024-05-01' -> '2024-05', the name of a stored partition."""
    return partition_key[:7]


def range_tags(months: dg.MonthlyPartitionsDefinition, last: int | None = None) -> dict[str, str]:
    """Run tags that select all months, or the `last` few of them."""
    keys = months.get_partition_keys()
    keys = keys[-last:] if last else keys
    return {RANGE_START: keys[0], RANGE_END: keys[-1]}
