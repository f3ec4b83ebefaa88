"""The market panel and one asset per feature group, declared from the catalogue."""

import dagster as dg

from atft_pipeline.defs.checks import column_schema, verdict_check
from atft_pipeline.defs.partitions import ONE_RUN
from atft_pipeline.defs.raw import CONTENTS_KEY
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.features import catalog
from atft_pipeline.features.group import Group
from atft_pipeline.panel.quality import check_listing
from atft_pipeline.settings import Settings
from atft_pipeline.steps import PANEL_TABLES, build_features, build_market_panel, load_panel

PANEL_KEY = dg.AssetKey("market_panel")


@dg.asset(
    key=PANEL_KEY,
    deps=[CONTENTS_KEY, *(dg.AssetKey(["raw", table]) for table in PANEL_TABLES)],
    group_name="panel",
    kinds={"numpy"},
    backfill_policy=ONE_RUN,
)
def market_panel(pipeline: Pipeline) -> dg.MaterializeResult:
    """Quotes and listing state as dense date x stock arrays, one cell per listed code and trading day.

    Prices are adjusted by the product of the split factors up to each day, so a later split changes no earlier value.
    """
    summary = build_market_panel(pipeline.lake)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": summary.rows,
            "dates": summary.dates,
            "codes": summary.codes,
            "first": summary.first,
            "last": summary.last,
        },
        data_version=dg.DataVersion(summary.hash[:16]),
    )


def feature_asset(group: Group) -> dg.AssetsDefinition:
    """The asset of one group of the catalogue."""
    events = [table for table in group.tables if table not in PANEL_TABLES]
    events += ["bars_daily"] if group.bar_columns else []
    formulas = {column.name: column.formula for column in group.columns}

    @dg.asset(
        key=["features", group.name],
        # Dagster passes staleness on one step at a time: with the contents as parent, no group waits for the panel's.
        deps=[PANEL_KEY, CONTENTS_KEY, *(dg.AssetKey(["raw", table]) for table in events)],
        group_name="features",
        kinds={"numpy", "parquet"},
        backfill_policy=ONE_RUN,
        description=f"{len(group.columns)} columns per listed code and trading day. Known: {group.availability}.",
        metadata={
            "dagster/column_schema": column_schema({c.name: c.dtype for c in group.columns}, formulas),
            "columns": len(group.columns),
        },
    )
    def asset(pipeline: Pipeline) -> dg.MaterializeResult:
        stored = build_features(pipeline.lake, group.name)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": stored.rows,
                "files_written": stored.written,
                "files_unchanged": stored.unchanged,
            },
            data_version=dg.DataVersion(stored.hash[:16]),
        )

    return asset


FEATURE_ASSETS = [market_panel, *(feature_asset(group) for group in catalog.groups(Settings.from_env().plan))]
FEATURE_CHECKS = [
    verdict_check(PANEL_KEY, "listing_is_whole", lambda pipeline: check_listing(load_panel(pipeline.lake)),
                  description="Every business day of the panel's span is a row, and each code's life has no gap."),
]  # fmt: skip
