"""The dataset contract, its statistics and the training panel, with the checks that stop a wrong one."""

from collections.abc import Callable

import dagster as dg

from atft_pipeline.dataset import quality
from atft_pipeline.dataset.contract import Contract, check_dataset, check_names, check_training_width, contract_of
from atft_pipeline.dataset.leak_scan import check_too_good
from atft_pipeline.dataset.scaling import (
    Statistics,
    check_coverage,
    check_saturation,
    histograms_path,
    worst_features,
)
from atft_pipeline.dataset.splits import check_label_overlap
from atft_pipeline.dataset.training_panel import check_training_panel
from atft_pipeline.defs.checks import column_schema, picture, verdict_check
from atft_pipeline.defs.partitions import ONE_RUN
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.evaluation.plots import columns_by_build, input_histograms, null_shares, rows_per_date
from atft_pipeline.features import catalog
from atft_pipeline.lake.store import read_json
from atft_pipeline.settings import Settings
from atft_pipeline.steps import build_dataset, build_statistics, build_training_panel, load_panel, split_of
from atft_pipeline.verdict import Verdict

PLAN = Settings.from_env().plan
BUILDS_SHOWN = 50
DATASET, STATISTICS, PANEL = (dg.AssetKey(name) for name in ("dataset", "normalization_stats", "training_panel"))


def _contract(pipeline: Pipeline) -> Contract:
    return contract_of(pipeline.settings.plan)


@dg.asset(
    key=DATASET,
    deps=[dg.AssetKey("market_panel"), *(dg.AssetKey(["features", group.name]) for group in catalog.groups(PLAN))],
    group_name="dataset",
    kinds={"polars", "parquet"},
    backfill_policy=ONE_RUN,
    metadata={
        "dagster/column_schema": column_schema({entry.name: entry.dtype for entry in catalog.columns(PLAN)}),
        "contract": f"{len(catalog.columns(PLAN))} columns on plan {PLAN}",
    },
)
def dataset(context: dg.AssetExecutionContext, pipeline: Pipeline) -> dg.MaterializeResult:
    """One row per listed code and trading day: keys, knowledge time, labels and every feature of the catalogue.

    The column set is a contract: exactly these, in this order, or nothing is written.
    """
    stored = build_dataset(pipeline.lake, pipeline.settings.plan, pipeline.market_name)
    axes = load_panel(pipeline.lake).axes
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": stored["rows"],
            "columns": stored["n_columns"],
            "hash": stored["hash"],
            "null share": picture(null_shares(*quality.null_shares(pipeline.lake, _contract(pipeline))), "null share"),
            "columns by build": picture(columns_by_build([*_earlier_widths(context), stored["n_columns"]]), "columns"),
            "rows per date": picture(rows_per_date(axes.dates, axes.listed.sum(axis=1).tolist()), "rows per date"),
        },
        data_version=dg.DataVersion(str(stored["hash"])[:16]),
    )


def _earlier_widths(context: dg.AssetExecutionContext) -> list[int]:
    """Columns of the last builds on record, oldest first."""
    records = context.instance.fetch_materializations(DATASET, limit=BUILDS_SHOWN).records
    found = [record.asset_materialization for record in reversed(records)]
    widths = [event.metadata["columns"].value for event in found if event and "columns" in event.metadata]
    return [int(str(width)) for width in widths]


@dg.asset(key=STATISTICS, deps=[DATASET], group_name="dataset", kinds={"numpy"}, backfill_policy=ONE_RUN)
def normalization_stats(pipeline: Pipeline) -> dg.MaterializeResult:
    """Scaling statistics of every feature over every training date; never from a validation or test row."""
    statistics = build_statistics(pipeline.lake, pipeline.settings.plan)
    coverage = statistics.coverage
    return dg.MaterializeResult(
        metadata={
            "rows": coverage.rows,
            "codes": coverage.codes,
            "dates": coverage.dates,
            "first": coverage.first,
            "last": coverage.last,
            "features": len(statistics.features),
            "most clipped inputs": picture(_histograms(pipeline, statistics), "most clipped inputs"),
        },
        data_version=dg.DataVersion(statistics.hash[:16]),
    )


def _histograms(pipeline: Pipeline, statistics: Statistics) -> bytes:
    stored = read_json(histograms_path(pipeline.lake))
    worst = worst_features(statistics)
    notes = {f.name: f"clipped {f.saturation:.1%}, null {f.null_share:.0%}" for f in worst}
    return input_histograms(stored["edges"], {f.name: stored["counts"][f.name] for f in worst}, notes)


@dg.asset(key=PANEL, deps=[DATASET, STATISTICS], group_name="dataset", kinds={"numpy"}, backfill_policy=ONE_RUN)
def training_panel(pipeline: Pipeline) -> dg.MaterializeResult:
    """Scaled float16 inputs [date, stock, feature], labels at delays 0 and 1, masks and ids: what training reads."""
    settings = pipeline.settings
    manifest = build_training_panel(
        pipeline.lake, settings.plan, settings.thresholds, smaller_contract=settings.contract
    )
    return dg.MaterializeResult(
        metadata={
            "dates": manifest["n_dates"],
            "stocks": manifest["n_stocks"],
            "features": manifest["n_features"],
            "split": dg.MetadataValue.json(manifest["split"]),
            "hash": manifest["hash"],
        },
        data_version=dg.DataVersion(str(manifest["hash"])[:16]),
    )


def _on_contract(judge: Callable[..., Verdict]) -> Callable[[Pipeline], Verdict]:
    return lambda pipeline: judge(pipeline.lake, _contract(pipeline))


def _rows_per_date(pipeline: Pipeline) -> Verdict:
    axes = load_panel(pipeline.lake).axes
    return quality.check_rows_per_date(pipeline.lake, _contract(pipeline), axes, pipeline.settings.thresholds)


def _too_good(pipeline: Pipeline) -> Verdict:
    axes = load_panel(pipeline.lake).axes
    return check_too_good(pipeline.lake, _contract(pipeline), axes, pipeline.settings.thresholds)


DATASET_ASSETS = [dataset, normalization_stats, training_panel]
DATASET_CHECKS = [
    verdict_check(DATASET, "exact_columns", _on_contract(check_dataset),
                  description="Exactly the catalogue's columns, in order; a missing group is named."),
    verdict_check(DATASET, "wide_enough_to_train",
                  lambda p: check_training_width(_contract(p), p.settings.contract), blocking=False,
                  description="At least 306 columns, or ATFT_CONTRACT names this smaller contract; training refuses."),
    verdict_check(DATASET, "no_forbidden_inputs", lambda p: check_names(_contract(p)),
                  description="No model input has a label's name or role."),
    verdict_check(DATASET, "keys_unique", _on_contract(quality.check_keys)),
    verdict_check(DATASET, "rows_per_date", _rows_per_date,
                  description="Rows per date within 5 % of the listed issues."),
    verdict_check(DATASET, "null_budget", _on_contract(quality.check_nulls)),
    verdict_check(DATASET, "no_dead_columns", _on_contract(quality.check_dead_columns)),
    verdict_check(DATASET, "value_ranges", _on_contract(quality.check_ranges)),
    verdict_check(DATASET, "identities", _on_contract(quality.check_identities)),
    verdict_check(DATASET, "availability", _on_contract(quality.check_availability)),
    verdict_check(DATASET, "not_too_good", _too_good,
                  description="No feature correlates with a label as only a leak would."),
    verdict_check(STATISTICS, "coverage",
                  lambda p: check_coverage(Statistics.load(p.lake), p.settings.thresholds),
                  description="Enough rows, codes and dates behind the statistics, over the whole training span."),
    verdict_check(STATISTICS, "saturation",
                  lambda p: check_saturation(Statistics.load(p.lake), p.settings.thresholds),
                  description="No feature is clipped on more than 5 % of its values."),
    verdict_check(PANEL, "no_label_overlap", lambda p: check_label_overlap(split_of(load_panel(p.lake))),
                  description="No label interval of one part reaches the next part."),
    verdict_check(PANEL, "intact", lambda p: check_training_panel(p.lake),
                  description="Every array matches the manifest's hash."),
]  # fmt: skip
