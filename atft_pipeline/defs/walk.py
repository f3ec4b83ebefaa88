"""The walk-forward evaluation: a job of its own, in no other job and in no selection of all assets, as it trains often.

`walk_forward` is therefore an asset that Dagster shows but does not materialise by itself: the job's one step reports
it, with its checks. The checks can be run again alone.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from atft_pipeline.defs.checks import check_result, picture, verdict_check
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.defs.train_process import TrainingProcess
from atft_pipeline.evaluation.walk_record import walks_dir
from atft_pipeline.lake.store import read_table
from atft_pipeline.parent import die_with_parent
from atft_pipeline.settings import Settings
from atft_pipeline.steps import walk_forward_command
from atft_pipeline.verdict import Verdict
from atft_pipeline.walk_forward.checks import CHECKS, judge_walk, read_walk

WALK_FORWARD = dg.AssetSpec(
    "walk_forward",
    deps=[dg.AssetKey("dataset"), dg.AssetKey("training_panel")],
    group_name="evaluation",
    kinds={"pytorch", "parquet"},
    description="Out-of-sample scores of model, ridge, LightGBM, reversal, momentum and a constant: purged folds, each "
    "with statistics, training panel and models of its own. The job `walk_forward` makes it and goes on with it.",
)


class WalkForwardConfig(dg.Config):
    """`preset`, `overrides` and `overrides_file` as in the asset `model`. `walk` changes how the calendar is cut, for
    instance {"folds": "6", "seeds": "7,8,9"}: any ATFT_WALK_<NAME>."""

    preset: str = ""
    overrides: dict[str, str] = {}  # noqa: RUF012  (a pydantic field)
    overrides_file: str = ""
    walk: dict[str, str] = {}  # noqa: RUF012  (a pydantic field)


@dg.op(pool="gpu")
def evaluate_walk_forward(
    context: dg.OpExecutionContext, config: WalkForwardConfig, pipeline: Pipeline, training_process: TrainingProcess
) -> Iterator[Any]:
    """Train and score every fold that is not finished, and report table and checks as `walk_forward`."""
    die_with_parent()
    preset = config.preset or pipeline.settings.training_preset
    command = walk_forward_command(pipeline.lake, sys.executable, preset, config.overrides, config.overrides_file)
    last = walks_dir(pipeline.lake) / "last"
    environment = {**pipeline.overrides, **{f"ATFT_WALK_{name.upper()}": text for name, text in config.walk.items()}}
    plan = Settings.from_env({**os.environ, **environment}).walk_forward
    training_process.run(
        context, command, heartbeat=last / "heartbeat.json", env=environment, trainings=plan.folds * len(plan.seeds)
    )
    walk = last.resolve()
    # Yielded, not logged: what a step logs before it raises is lost.
    yield dg.AssetMaterialization(WALK_FORWARD.key, metadata=walk_metadata(walk))
    verdicts = judge_walk(*read_walk(walk))
    for name, verdict in verdicts.items():
        yield _evaluation(name, verdict)
    broken = [f"{name}: {verdict.message}" for name, verdict in verdicts.items() if not verdict.passed]
    if broken:
        raise dg.Failure(
            description=f"the walk-forward must not be believed. {' | '.join(broken)}", allow_retries=False
        )
    yield dg.Output(None)


def _evaluation(name: str, verdict: Verdict) -> Any:
    result = check_result(verdict, name)
    return dg.AssetCheckEvaluation(
        check_name=name, asset_key=WALK_FORWARD.key, passed=result.passed, metadata=result.metadata or {},
        severity=result.severity, description=result.description,
    )  # fmt: skip


def walk_metadata(walk: Path) -> dict[str, Any]:
    """What the asset's page shows: the headline numbers, the table, the page's path, pictures."""
    from atft_pipeline.walk_forward.pictures import walk_pictures
    from atft_pipeline.walk_forward.results import summary_table

    _, results = read_walk(walk)
    own = results["models"]["model"]["delay_1"]
    found: dict[str, Any] = {
        "walk": results["walk"],
        "folds": len(results["folds"]),
        "test dates": own["1"]["rank_ic"]["all"]["n_dates"],
        "rank_ic": own["1"]["rank_ic"]["all"]["mean"],
        "rank_ic mean over horizons": own["mean"]["rank_ic"]["all"]["mean"],
    }
    for rival, card in results["differences"].items():
        gap = card["delay_1"]["1"]["all"]
        found |= {f"minus {rival}": gap["mean"], f"minus {rival}, standard error": gap["se"]}
    return {
        **{name: value for name, value in found.items() if value is not None},
        "table": dg.MetadataValue.md(f"```\n{summary_table(results)}\n```"),
        "page": dg.MetadataValue.path(str(walk / "page.html")),
        "scores": dg.MetadataValue.path(str(walk / "scores")),
        **{
            title: picture(png, title)
            for title, png in walk_pictures(results, read_table(walk / "daily.parquet")).items()
        },
    }


def _judge(name: str) -> Callable[[Pipeline], Verdict]:
    return lambda pipeline: judge_walk(*read_walk(walks_dir(pipeline.lake) / "last"))[name]


WALK_CHECKS = [
    verdict_check(WALK_FORWARD.key, name, _judge(name), blocking=False, description=text)
    for name, text in CHECKS.items()
]


@dg.job(
    name="walk_forward",
    description="Purged walk-forward evaluation of model and rivals; run it again to go on or after new data.",
)
def walk_forward_job() -> None:
    evaluate_walk_forward()
