"""Housekeeping that Dagster leaves to its users: closing runs whose process is gone, and pruning old ones.

`python -m atft_pipeline.defs.maintenance sweep` runs before the UI starts, when no run can be alive; the job `prune`
runs weekly.
"""

import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from atft_pipeline.jquants.tables import TABLES
from atft_pipeline.lake.leftovers import collect
from atft_pipeline.settings import Settings

OPEN_STATES = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]


def close_dead_runs(instance: dg.DagsterInstance) -> int:
    """Mark every open run failed. For start-up only, when no run can be alive: after a crash they hold the queue."""
    runs = instance.get_runs(dg.RunsFilter(statuses=OPEN_STATES))
    for run in runs:
        instance.report_run_failed(run, "closed at start-up: its process is gone")
    return len(runs)


def runs_to_prune(instance: dg.DagsterInstance, older_than: timedelta, now: datetime | None = None) -> list[str]:
    """Finished runs older than `older_than`, except those that own the latest materialisation of any partition.

    Deleting such a run would make Dagster forget that the partition is filled.
    """
    before = (now or datetime.now(UTC)) - older_than
    finished = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    old = instance.get_run_records(dg.RunsFilter(statuses=finished, updated_before=before))
    owners = _latest_owners(instance)
    return [record.dagster_run.run_id for record in old if record.dagster_run.run_id not in owners]


def _latest_owners(instance: dg.DagsterInstance) -> set[str]:
    owners: set[str] = set()
    for key in instance.all_asset_keys():
        event = instance.get_latest_materialization_event(key)
        if event is not None:
            owners.add(event.run_id)
        seen: set[str] = set()
        cursor: str | None = None
        while True:
            page = instance.fetch_materializations(key, limit=1000, cursor=cursor)
            for record in page.records:
                if record.partition_key and record.partition_key not in seen:
                    seen.add(record.partition_key)
                    owners.add(record.run_id)
            if not page.has_more:
                break
            cursor = page.cursor
    return owners


def prune(instance: dg.DagsterInstance, older_than: timedelta) -> int:
    """Delete old runs with their logs; returns how many."""
    run_ids = runs_to_prune(instance, older_than)
    storage = Path(instance.storage_directory())
    for run_id in run_ids:
        instance.delete_run(run_id)
        shutil.rmtree(storage / run_id, ignore_errors=True)  # compute logs, which delete_run leaves
    return len(run_ids)


class PruneConfig(dg.Config):
    """Finished runs older than this many days are deleted."""

    days: int = 90


@dg.op
def prune_runs(context: dg.OpExecutionContext, config: PruneConfig) -> None:
    """Delete old finished runs, keeping those that own a partition's latest event."""
    count = prune(context.instance, timedelta(days=config.days))
    context.log.info(f"deleted {count} runs older than {config.days} days")


@dg.job(name="prune", description="Delete old runs and their logs; keeps every run that a partition's status rests on.")
def prune_job() -> None:
    prune_runs()


def main(arguments: list[str]) -> int:
    if arguments != ["sweep"]:
        print("usage: python -m atft_pipeline.defs.maintenance sweep", file=sys.stderr)
        return 2
    with dg.DagsterInstance.get() as instance:
        closed = close_dead_runs(instance)
    removed = len(collect(Settings.from_env().lake, TABLES))
    print(f"start-up sweep: {closed} dead runs closed, {removed} leftovers removed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
