"""The hyperparameter search: a job of its own, in no other job and in no selection of all assets.

`hpo_study` is therefore an asset that Dagster shows but cannot materialise: the job's one step reports it.
"""

import sys
from pathlib import Path

import dagster as dg

from atft_pipeline.dataset.contract import contract_of
from atft_pipeline.dataset.training_panel import require_trainable
from atft_pipeline.defs.checks import picture
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.defs.train_process import TrainingProcess
from atft_pipeline.lake.store import read_json
from atft_pipeline.parent import die_with_parent
from atft_pipeline.steps import search_command

HPO_STUDY = dg.AssetSpec(
    "hpo_study",
    deps=[dg.AssetKey("training_panel")],
    group_name="training",
    kinds={"python"},
    description="Trials of a hyperparameter search on purged folds, ranked, with the deflated Sharpe of the best. The "
    "job `hpo` makes it; nothing takes its settings unless it is told to.",
)


class SearchConfig(dg.Config):
    """How much to search. The same inputs resume their study; a higher `trials` lengthens it. `preset` empty: the
    settings' own; `overrides` change single values of it."""

    trials: int = 20
    workers: int = 1
    folds: int = 2
    seed: int = 7
    prune: bool = True
    preset: str = ""
    overrides: dict[str, str] = {}  # noqa: RUF012  (a pydantic field)


@dg.op(pool="gpu")
def search_hyperparameters(
    context: dg.OpExecutionContext, config: SearchConfig, pipeline: Pipeline, training_process: TrainingProcess
) -> None:
    """Run or resume the study of the present training panel, and report it as `hpo_study`."""
    die_with_parent()
    settings = pipeline.settings
    require_trainable(pipeline.lake, contract_of(settings.plan), settings.contract)
    preset = config.preset or settings.training_preset
    counts = {"trials": config.trials, "workers": config.workers, "folds": config.folds, "seed": config.seed}
    command = search_command(pipeline.lake, sys.executable, preset, counts, config.overrides, config.prune)
    study = pipeline.lake / "hpo" / "last"
    training_process.run(context, command, heartbeat=study / "heartbeat.json")
    context.log_event(dg.AssetMaterialization(HPO_STUDY.key, metadata=study_metadata(study.resolve())))


def study_metadata(study: Path) -> dict[str, dg.MetadataValue | str | int | float]:
    """What the asset's page shows: numbers, the paths of page and best settings, pictures."""
    from atft_pipeline.search.pictures import search_pictures  # optuna comes with it: definitions load without

    results = read_json(study / "results.json")
    best, deflated = results["best"], results["deflated"]
    found: dict[str, dg.MetadataValue | str | int | float | None] = {
        "study": results["study"],
        "trials": sum(results["counts"].values()),
        **{f"trials {kind}": count for kind, count in results["counts"].items()},
        "best_trial": best["trial"],
        "best_objective": best["value"],
        "deflated_sharpe": deflated["probability"],
        "page": dg.MetadataValue.path(str(study / "page.html")),
        "best settings": dg.MetadataValue.path(str(study / "best.json")),
        **{title: picture(png, title) for title, png in search_pictures(results).items()},
    }
    return {name: value for name, value in found.items() if value is not None}


@dg.job(
    name="hpo", description="Search hyperparameters on the present training panel; run it again to resume or lengthen."
)
def hpo() -> None:
    search_hyperparameters()
