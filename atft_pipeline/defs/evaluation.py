"""Evaluation, the checks that decide whether a run may give predictions, the predictions, and the warehouse."""

from dataclasses import replace

import dagster as dg

from atft_pipeline.dataset.training_panel import read_manifest
from atft_pipeline.defs.checks import picture, verdict_check
from atft_pipeline.defs.partitions import ONE_RUN
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.evaluation.champion import RULES as PROMOTION_RULES
from atft_pipeline.evaluation.champion import challenge, champion_run, judged_rule, read_decision, store_decision
from atft_pipeline.evaluation.judge import RULES, judge_run, read_verdicts, store_verdict
from atft_pipeline.evaluation.plots import PREVIEWS, evaluation_plots
from atft_pipeline.evaluation.predictions import champions_predictions
from atft_pipeline.evaluation.readiness import judge_current
from atft_pipeline.evaluation.report import write_report
from atft_pipeline.evaluation.scorecard import evaluate_run, summary_table
from atft_pipeline.evaluation.scoring_kit import kit_of
from atft_pipeline.lake.warehouse import build_warehouse
from atft_pipeline.steps import last_run
from atft_pipeline.verdict import Verdict

EVALUATION = dg.AssetKey("evaluation")
PROMOTION = dg.AssetKey("promotion")


@dg.asset(
    key=EVALUATION,
    deps=[dg.AssetKey("model"), dg.AssetKey("training_panel")],
    group_name="evaluation",
    kinds={"python"},
    backfill_policy=ONE_RUN,
)
def evaluation(context: dg.AssetExecutionContext, pipeline: Pipeline) -> dg.MaterializeResult:
    """Scorecard and report of the newest run: model, ridge, LightGBM, reversal, momentum and, simulated, the oracle.

    IC and RankIC with standard errors on validation and test, at delays 0 and 1; books, differences, verdicts.
    """
    lake, settings = pipeline.lake, pipeline.settings
    run_id = last_run(lake)
    simulated = settings.market_dir if settings.market == "simulated" else None
    card = evaluate_run(lake, run_id, market_dir=simulated, market=pipeline.market_name)
    if judge_current(lake, read_manifest(lake)).passed:
        kit_of(lake, run_id)
    verdicts = judge_run(card, settings.thresholds)
    passed = store_verdict(lake, run_id, verdicts, card["panel_hash"])
    pictures = evaluation_plots(lake, card, lake / "runs" / run_id)
    report = write_report(lake, card, verdicts, pictures)
    context.log.info(f"run {run_id} {'passes' if passed else 'does not pass'} its rules\n{summary_table(card)}")
    return dg.MaterializeResult(
        metadata={
            "run_id": run_id,
            "passed": passed,
            "report": dg.MetadataValue.path(str(report)),
            "summary": dg.MetadataValue.md(f"```\n{summary_table(card)}\n```"),
            **{title: picture(pictures[title], title) for title in PREVIEWS if title in pictures},
        },
        data_version=dg.DataVersion(run_id),
    )


@dg.asset(key=PROMOTION, deps=[EVALUATION], group_name="evaluation", kinds={"python"}, backfill_policy=ONE_RUN)
def promotion(context: dg.AssetExecutionContext, pipeline: Pipeline) -> dg.MaterializeResult:
    """Which run gives predictions. The newest run challenges the champion and is promoted or refused, with the reason.

    The champion is scored on the present dataset for it, with the statistics it carries, on the same dates.

    Roll-back: python -m atft_pipeline.evaluation promote --to RUN_ID
    """
    decision = challenge(pipeline.lake, last_run(pipeline.lake), pipeline.settings.thresholds)
    store_decision(pipeline.lake, decision)
    context.log.info(f"{decision.challenger} {'promoted' if decision.promoted else 'not promoted'}: {decision.reason}")
    found = decision.comparison
    return dg.MaterializeResult(
        metadata={
            "champion": decision.champion or "none",
            "challenger": decision.challenger,
            "promoted": decision.promoted,
            "reason": decision.reason,
            **({"walk_forward": decision.walk_forward} if decision.walk_forward else {}),
            **({"difference": found.mean, "low": found.low, "high": found.high} if found else {}),
        }
    )


@dg.asset(
    deps=[PROMOTION, EVALUATION],
    group_name="evaluation",
    kinds={"parquet"},
    backfill_policy=ONE_RUN,
)
def predictions(pipeline: Pipeline) -> dg.MaterializeResult:
    """One row per code and horizon of the newest date: score, ranks, quantiles, spread under dropout, and the run.

    The champion's, which may have been trained on an earlier panel: it scores the present dataset with the statistics
    it carries. Refused, whatever started it, without a champion, unless its verdict passed, when a column is missing or
    means something else, and when the inputs are stale, incomplete or unlike those of training.
    """
    written = champions_predictions(pipeline.lake, pipeline.settings.thresholds, pipeline.now)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": written.rows,
            "run_id": written.run_id,
            "date": written.date,
            "stocks": written.stocks,
            "trained on an earlier panel": written.rescored,
            "path": dg.MetadataValue.path(str(written.path)),
            "history": dg.MetadataValue.path(str(written.history)),
            **{f"inputs {name}": verdict.message for name, verdict in written.readiness.items()},
        }
    )


@dg.asset(
    deps=[dg.AssetKey("dataset"), dg.AssetKey("predictions")],
    group_name="evaluation",
    kinds={"duckdb"},
    backfill_policy=ONE_RUN,
)
def warehouse(pipeline: Pipeline) -> dg.MaterializeResult:
    """A DuckDB file with one view per stored table; open it read-only."""
    path, views = build_warehouse(pipeline.lake)
    return dg.MaterializeResult(metadata={"path": dg.MetadataValue.path(str(path)), "views": ", ".join(views)})


def _rule(name: str) -> dg.AssetChecksDefinition:
    return verdict_check(EVALUATION, name, lambda pipeline: _judged(pipeline, name), description=RULES[name])


def _judged(pipeline: Pipeline, name: str) -> Verdict:
    """The newest run's verdict. Where another run is champion it warns: that one goes on giving predictions."""
    run_id, champion = last_run(pipeline.lake), champion_run(pipeline.lake)
    verdict = read_verdicts(pipeline.lake, run_id)[name]
    if verdict.passed or champion in (None, run_id):
        return verdict
    return replace(verdict, severity="warn", message=f"{verdict.message}. Champion {champion} gives the predictions")


def _promotion_rule(name: str) -> dg.AssetChecksDefinition:
    def judged(pipeline: Pipeline) -> Verdict:
        return judged_rule(read_decision(pipeline.lake, last_run(pipeline.lake)), name)

    # Not blocking: a refused challenger leaves a sound champion, which gives the night's predictions.
    return verdict_check(PROMOTION, name, judged, blocking=False, description=PROMOTION_RULES[name])


EVALUATION_ASSETS = [evaluation, promotion, predictions, warehouse]
EVALUATION_CHECKS = [*(_rule(name) for name in RULES), *(_promotion_rule(name) for name in PROMOTION_RULES)]
