"""Housekeeping closes dead runs and never deletes a run that a partition's status rests on."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from atft_pipeline.defs.maintenance import close_dead_runs, prune, runs_to_prune

MONTHS = dg.MonthlyPartitionsDefinition(start_date="2024-01-01", end_date="2024-04-01")


@dg.asset(partitions_def=MONTHS)
def monthly() -> None: ...


@dg.asset
def plain() -> None: ...


def test_the_sweep_closes_runs_whose_process_is_gone() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.DagsterRun(job_name="j", status=dg.DagsterRunStatus.STARTED)
        instance.add_run(run)
        assert close_dead_runs(instance) == 1
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE  # type: ignore[union-attr]


def test_pruning_keeps_every_owner_of_a_partitions_latest_event() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for key in ("2024-01-01", "2024-02-01", "2024-01-01"):
            assert dg.materialize([monthly], partition_key=key, instance=instance).success
        for _ in range(2):
            assert dg.materialize([plain], instance=instance).success
        later = datetime.now(UTC) + timedelta(days=100)
        doomed = runs_to_prune(instance, timedelta(days=30), now=later)
        assert len(doomed) == 2  # the first January run and the first plain run
        assert runs_to_prune(instance, timedelta(days=200), now=later) == []
        before = instance.get_materialized_partitions(monthly.key)
        assert prune(instance, timedelta(days=-1)) == 2
        assert instance.get_materialized_partitions(monthly.key) == before == {"2024-01-01", "2024-02-01"}
