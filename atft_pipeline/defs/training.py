"""The model asset: a guarded child process that trains in four phases and reports every epoch to the run."""

import sys
from pathlib import Path
from typing import Any

import dagster as dg

from atft_pipeline.dataset.contract import contract_of
from atft_pipeline.dataset.training_panel import require_trainable
from atft_pipeline.defs.checks import picture, verdict_check
from atft_pipeline.defs.partitions import ONE_RUN
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.defs.train_process import TrainingProcess
from atft_pipeline.evaluation.plots import learning_curve
from atft_pipeline.evaluation.plots_training import gates_and_gradients, utilisation
from atft_pipeline.evaluation.run_checks import check_gradients, check_phases
from atft_pipeline.parent import die_with_parent
from atft_pipeline.steps import last_run, training_command

MODEL = dg.AssetKey("model")


class TrainConfig(dg.Config):
    """`preset` is demo, small or large (empty: the settings' own). `overrides` change single values of the preset, for
    instance {"seed": "8"}; `overrides_file` is a file of them, such as hpo/last/best.json of a search (relative to the
    lake), and `overrides` go on top. A finished run of the same inputs is reused unless `retrain`."""

    preset: str = ""
    overrides: dict[str, str] = {}  # noqa: RUF012  (a pydantic field)
    overrides_file: str = ""
    retrain: bool = False


@dg.asset(
    key=MODEL,
    deps=[dg.AssetKey("training_panel")],
    group_name="training",
    kinds={"pytorch"},
    backfill_policy=ONE_RUN,
    pool="gpu",
)
def model(
    context: dg.AssetExecutionContext, config: TrainConfig, pipeline: Pipeline, training_process: TrainingProcess
) -> dg.MaterializeResult:
    """ATFT-GAT-FAN, trained in four phases: Baseline, Adaptive Norm, GAT, Fine-tune.

    Runs in a process of its own. The same panel, settings and code give the same run: a killed training resumes in the
    middle of its phase, a finished one is recognised.
    """
    die_with_parent()
    settings = pipeline.settings
    require_trainable(pipeline.lake, contract_of(settings.plan), settings.contract)
    values: dict[str, object] = {**config.overrides, "retrain": str(config.retrain).lower()}
    preset = config.preset or settings.training_preset
    command = training_command(pipeline.lake, sys.executable, preset, values, config.overrides_file)
    runs = pipeline.lake / "runs"
    results = training_process.run(
        context,
        command,
        heartbeat=runs / "last" / "heartbeat.json",
        when_out_of_memory=["--set", "rungs_down=1"],
    )
    metadata = _reported(results)
    if config.overrides_file:
        metadata["overrides_file"] = dg.MetadataValue.path(str(pipeline.lake / config.overrides_file))
    run = runs / "last"
    if (run / "metrics.jsonl").exists():
        pictures = {
            "learning curve": learning_curve(run),
            "gates and gradients": gates_and_gradients(run),
            "utilisation": utilisation(run),
        }
        metadata |= {title: picture(png, title) for title, png in pictures.items()}
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(last_run(pipeline.lake)))


def _reported(results: Any) -> dict[str, Any]:
    """The metadata that the child reported with its one materialisation."""
    return {name: value for result in results for name, value in (result.metadata or {}).items()}


def run_dir(pipeline: Pipeline) -> Path:
    return pipeline.lake / "runs" / last_run(pipeline.lake)


TRAINING_ASSETS = [model]
TRAINING_CHECKS = [
    verdict_check(MODEL, "gradients_alive", lambda p: check_gradients(run_dir(p), p.settings.thresholds),
                  description="Every block, the graph and both gates included, receives a gradient in its phase."),
    verdict_check(MODEL, "phases_complete", lambda p: check_phases(run_dir(p)),
                  description="All four phases ran, each from the best of the one before."),
]  # fmt: skip
