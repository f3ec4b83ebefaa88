"""A night in Dagster after the exchange changed the past: found, recorded, and everything downstream is stale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from atft_pipeline.defs.features import FEATURE_ASSETS, PANEL_KEY
from atft_pipeline.defs.partitions import RANGE_END, RANGE_START
from atft_pipeline.defs.raw import CONTENTS_KEY, RAW_ASSETS
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.exchange.process import ensure_market
from atft_pipeline.exchange.revisions import parse_revision
from atft_pipeline.jquants.revisions import read_revisions
from atft_pipeline.settings import MarketSize
from atft_pipeline_tests.exchange import wire
from atft_pipeline_tests.reliability.small_market import Service, service

SIZE = MarketSize(stocks=25, start=date(2024, 3, 1), end=date(2024, 5, 31), plant="null")
FRIDAY, SATURDAY, SUNDAY = date(2024, 5, 10), date(2024, 5, 11), date(2024, 5, 12)
TABLES = ("calendar", "master", "bars_daily", "topix", "fin_summary", "investor_types")
DOWNSTREAM = (PANEL_KEY, dg.AssetKey(["features", "ret"]), dg.AssetKey(["features", "px"]))
MARCH, LAST_WEEK, SPLIT_DAY = "2024-03-12", "2024-05-02", "2024-04-16"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The exchange; on Sunday it corrects a bar five trading days back and a bar in March, whose bulk file it writes
    anew, appends a corrected week of flows, and announces a split of April."""
    folder = tmp_path_factory.mktemp("night")
    ensure_market(SIZE, folder / "market")
    bars = pl.read_parquet(folder / "market" / "tables" / "bars_daily.parquet").drop_nulls("C")
    code, other = (
        bars.filter(pl.col("Date") == day)["Code"].sort()[at] for day, at in ((LAST_WEEK, 0), (SPLIT_DAY, -1))
    )
    week = pl.read_parquet(folder / "market" / "tables" / "investor_types.parquet")["PubDate"]
    published = week.filter(week <= str(FRIDAY)).max()
    since = f"since={SUNDAY}T12:00"
    texts = [
        f"correct:bars_daily:{since}:date={LAST_WEEK}:code={code}:column=C:factor=1.01",
        f"correct:bars_daily:{since}:date={MARCH}:code={code}:column=Vo:factor=2",
        f"append:investor_types:{since}:date={published}:Section=TSEPrime:factor=1.1",
        f"split:bars_daily:{since}:date={SPLIT_DAY}:code={other}:factor=0.5",
    ]
    revisions = [parse_revision(text) for text in texts]
    now = datetime(2024, 5, 10, 20)
    with service(folder, SIZE, requests_per_minute=1_000_000, revisions=revisions, now=now) as found:
        yield found


class Night:
    """Dagster over one lake: runs of the raw tables and of what hangs on them."""

    def __init__(self, served: Service, folder: Path) -> None:
        self.served, self.folder = served, folder
        self.instance = dg.DagsterInstance.ephemeral()
        self.raw = [asset for asset in RAW_ASSETS if asset.key == CONTENTS_KEY or asset.key.path[-1] in TABLES]
        kept = [asset for asset in FEATURE_ASSETS if asset.key in DOWNSTREAM]
        self.assets = [*self.raw, *kept]

    def run(self, day: date, keys: Sequence[dg.AssetKey], first_month: str) -> None:
        """Materialise `keys` as on the evening of `day`; raw months from `first_month` to May."""
        self.served.exchange.clock.set(datetime(day.year, day.month, day.day, 20))
        settings = {
            "ATFT_MARKET": "jquants", "JQUANTS_BASE_URL": self.served.url, "JQUANTS_PLAN": "standard",
            "JQUANTS_REQUESTS_PER_MINUTE": "1000000", "ATFT_START": str(SIZE.start), "ATFT_END": str(day),
            "ATFT_DATA_DIR": str(self.folder),
        }  # fmt: skip
        definitions = dg.Definitions(assets=self.assets, resources={"pipeline": Pipeline(overrides=settings)})
        job = definitions.resolve_implicit_global_asset_job_def()
        tags = {RANGE_START: f"{first_month}-01", RANGE_END: "2024-05-01"}
        assert job.execute_in_process(instance=self.instance, asset_selection=list(keys), tags=tags).success

    def raw_night(self, day: date, first_month: str = "2024-04") -> None:
        self.run(day, [asset.key for asset in self.raw], first_month)

    def statuses(self) -> set[StaleStatus]:
        """Of the assets downstream of raw tables."""
        graph = dg.Definitions(assets=self.assets, resources={"pipeline": Pipeline()}).get_repository_def().asset_graph
        now = CachingStaleStatusResolver(
            instance=self.instance, asset_graph=graph, loading_context=LoadingContextForTest(self.instance)
        )
        return {now.get_status(key) for key in DOWNSTREAM}

    def revision_texts(self, table: str) -> list[str]:
        """What the newest events of the table's months say of revisions."""
        records = self.instance.fetch_materializations(dg.AssetKey(["raw", table]), limit=100).records
        shown = [
            record.asset_materialization.metadata.get("revision") for record in records if record.asset_materialization
        ]
        return [str(text.value) for text in shown if text is not None]


@pytest.fixture
def night(served: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    monkeypatch.setenv("JQUANTS_API_KEY", wire.KEY)
    return Night(served, tmp_path)


def test_what_the_exchange_changed_makes_everything_downstream_stale(night: Night) -> None:
    night.raw_night(FRIDAY, "2024-03")
    night.run(FRIDAY, DOWNSTREAM, "2024-03")
    assert night.statuses() == {StaleStatus.FRESH}

    night.raw_night(SATURDAY)
    assert night.statuses() == {StaleStatus.FRESH}, "an unchanged night"
    lake = night.folder / "jquants"
    assert read_revisions(lake, "bars_daily") == [] and night.revision_texts("bars_daily") == []

    night.raw_night(SUNDAY)
    assert night.statuses() == {StaleStatus.STALE}
    logged: dict[str, dict[str, Any]] = {entry["month"]: entry for entry in read_revisions(lake, "bars_daily")}
    assert logged["2024-05"]["columns"]["C"] == 1 and logged["2024-05"]["dates"] == [LAST_WEEK]
    assert logged["2024-03"]["columns"]["Vo"] == 1, "the file of March, a month that the night does not ask for"
    assert logged["2024-04"]["columns"]["AdjFactor"] == 1 and SPLIT_DAY in logged["2024-04"]["dates"]
    assert [entry["added"] for entry in read_revisions(lake, "investor_types")] == [1]
    texts = [*night.revision_texts("bars_daily"), *night.revision_texts("investor_types")]
    assert {text.split(":")[0] for text in texts} == {
        "bars_daily 2024-03", "bars_daily 2024-04", "bars_daily 2024-05", "investor_types 2024-05"
    }  # fmt: skip

    night.run(SUNDAY, DOWNSTREAM, "2024-04")
    assert night.statuses() == {StaleStatus.FRESH}
