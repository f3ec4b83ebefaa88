"""What hangs on the raw tables is stale in Dagster exactly when a stored fact has changed."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from atft_pipeline.defs.raw import CONTENTS_KEY, raw_contents
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.jquants.contents import table_contents
from atft_pipeline.jquants.revisions import facts_hash
from atft_pipeline.jquants.tables import BARS_DAILY, partition_path
from atft_pipeline.lake.store import write_table


@dg.asset(deps=[CONTENTS_KEY])
def downstream() -> None:
    """Anything that is made of raw tables."""


def _store(lake: Path, month: str, **values: float) -> None:
    """A month of one bar, with its record as ingestion writes it."""
    row: dict[str, object] = dict.fromkeys(BARS_DAILY.schema)
    row |= {"Date": date.fromisoformat(f"{month}-14"), "Code": "13010", "C": 100.0, "AdjC": 100.0} | values
    frame = pl.DataFrame([row], schema=dict(BARS_DAILY.schema))
    source = {"from": f"{month}-01", "to": f"{month}-28", "facts_hash": facts_hash(BARS_DAILY, frame)}
    write_table(lake / partition_path(BARS_DAILY, month), frame, keys=BARS_DAILY.keys, source=source)


def test_downstream_is_stale_when_a_fact_changed_and_only_then(tmp_path: Path) -> None:
    instance = dg.DagsterInstance.ephemeral()
    resources = {"pipeline": Pipeline(overrides={"ATFT_DATA_DIR": str(tmp_path), "ATFT_MARKET": "simulated"})}
    graph = dg.Definitions(assets=[raw_contents, downstream], resources=resources).get_repository_def().asset_graph

    def status_after(*assets: dg.AssetsDefinition) -> StaleStatus:
        assert dg.materialize([raw_contents, downstream], instance=instance, resources=resources, selection=assets)
        now = CachingStaleStatusResolver(
            instance=instance, asset_graph=graph, loading_context=LoadingContextForTest(instance)
        )
        return now.get_status(dg.AssetKey("downstream"))

    lake = tmp_path / "simulated"
    _store(lake, "2024-05")
    assert status_after(raw_contents, downstream) is StaleStatus.FRESH
    assert status_after(raw_contents) is StaleStatus.FRESH  # read again, nothing new
    _store(lake, "2024-05", AdjC=50.0)
    assert status_after(raw_contents) is StaleStatus.FRESH  # a split restated the past
    _store(lake, "2024-05", AdjC=50.0, C=101.0)
    assert status_after(raw_contents) is StaleStatus.STALE  # a correction
    assert status_after(raw_contents, downstream) is StaleStatus.FRESH
    _store(lake, "2024-06")
    assert status_after(raw_contents) is StaleStatus.STALE  # another month


def test_the_contents_say_what_is_stored(tmp_path: Path) -> None:
    for month in ("2024-05", "2024-06"):
        _store(tmp_path, month)
    contents = table_contents(tmp_path, BARS_DAILY)
    assert (contents.months, contents.rows) == (2, 2)
    assert (contents.first, contents.last) == ("2024-05-01", "2024-06-28")
    with pytest.raises(AttributeError):
        contents.rows = 3  # type: ignore[misc]
