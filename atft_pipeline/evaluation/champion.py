"""Which run gives predictions, and by which right: champion and challenger.

A champion is a recipe (training settings and code) and the run of it that was accepted last. It carries what it needs
to score data that came after it (`scoring_kit.py`), so a challenger that is refused leaves the nights with predictions.
When the panel has grown, the recipe is trained again, and that run succeeds the champion unless it is worse on the
present panel's validation dates. A run of another recipe must be better there, by a margin and beyond the noise. What
can be known without luck is asked first: `RULES`. Everything is judged on validation at delay 1, as the gate is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from atft_pipeline.dataset.training_panel import read_manifest
from atft_pipeline.evaluation.comparison import Comparison, compare, told_of
from atft_pipeline.evaluation.judge import require_promotable
from atft_pipeline.evaluation.likeness import judge_inputs_alive, judge_objective
from atft_pipeline.evaluation.readiness import judge_current
from atft_pipeline.evaluation.scorecard import read_scorecard, scorecard_dir
from atft_pipeline.evaluation.scoring_kit import kit_of
from atft_pipeline.evaluation.walk_record import told_of_walk_forward
from atft_pipeline.lake.store import LakeError, read_json, write_json
from atft_pipeline.settings import Thresholds
from atft_pipeline.verdict import ContractBroken, Verdict

RULES = {
    "inputs_current": "The challenger's panel, dataset, statistics and market panel belong together.",
    "inputs_alive": "Inputs that told the champion something are not flat in the challenger's training data.",
    "objective_kept": "No term of the champion's loss is switched off in the challenger's.",
    "regression_against_champion": "The challenger is no worse than the champion on the present validation dates.",
}
"""What a challenger is held to, by name, in this order. The first that is broken is the reason."""


@dataclass(frozen=True)
class Decision:
    """What became of a challenger. `reason` is for people; `regression` says that it is worse than the champion."""

    challenger: str
    champion: str | None
    """Who gives predictions now."""
    promoted: bool
    regression: bool
    reason: str
    comparison: Comparison | None = None
    rules: Mapping[str, Verdict] = field(default_factory=dict)
    """Those of `RULES` that were judged: without a champion only the first."""
    walk_forward: str = ""
    """What the walk-forward of the present dataset says, where there is one. It is shown and decides nothing."""


def champion_path(lake: Path) -> Path:
    return lake / "champion" / "champion.json"


def champion_history(lake: Path) -> list[dict[str, Any]]:
    """All promotions, oldest first; the last one is in force."""
    path = champion_path(lake)
    return list(read_json(path)["history"]) if path.exists() else []


def champion_run(lake: Path) -> str | None:
    """Id of the run that gives predictions; None before the first promotion."""
    history = champion_history(lake)
    return str(history[-1]["run_id"]) if history else None


def require_champion(lake: Path) -> str:
    """As `champion_run`. Raises `ContractBroken` when there is none."""
    run_id = champion_run(lake)
    if run_id is None:
        raise ContractBroken(
            "there is no champion, so nothing may give predictions: no run has passed its rules yet. Materialise "
            "promotion after a passing evaluation"
        )
    return run_id


def promote(lake: Path, run_id: str, reason: str, comparison: Comparison | None = None) -> None:
    """Make `run_id` the champion; the earlier ones stay in the file. One rename: there is never none or two.

    Raises `ContractBroken` unless the run was judged, passed, and carries what it needs to score newer data.
    """
    require_promotable(lake, run_id)
    kit_of(lake, run_id)
    entry = {
        "run_id": run_id,
        "panel_hash": read_scorecard(lake, run_id)["panel_hash"],
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": reason,
        "before": champion_run(lake),
        "comparison": asdict(comparison) if comparison else None,
    }
    write_json(champion_path(lake), {"run_id": run_id, "history": [*champion_history(lake), entry]})


def challenge(lake: Path, run_id: str, thresholds: Thresholds) -> Decision:
    """Let `run_id` challenge the champion, and promote it if it has the right to it."""
    decision = decide(lake, run_id, thresholds)
    if decision.promoted:
        promote(lake, run_id, decision.reason, decision.comparison)
    return replace(decision, walk_forward=told_of_walk_forward(lake, run_id))


def decide(lake: Path, run_id: str, thresholds: Thresholds) -> Decision:
    """The decision on a challenger. The champion may be scored on the present dataset for it; nobody is promoted."""
    champion = champion_run(lake)
    if champion == run_id:
        return Decision(run_id, champion, False, False, "already the champion")
    manifest = read_manifest(lake)
    rules = {"inputs_current": judge_current(lake, manifest)}
    unfit = "" if rules["inputs_current"].passed else rules["inputs_current"].message
    try:
        require_promotable(lake, run_id, manifest["hash"])
    except ContractBroken as error:
        unfit = unfit or str(error)
    if champion is None:
        reason = unfit or "the first run that passed every rule"
        return Decision(run_id, None if unfit else run_id, not unfit, False, reason, rules=rules)
    comparison, problem = None, ""
    try:
        rules["inputs_alive"] = judge_inputs_alive(lake, champion, run_id, thresholds)
        rules["objective_kept"] = judge_objective(lake, champion, run_id)
        comparison = compare(lake, champion, run_id)
        rules["regression_against_champion"] = _judge_regression(comparison, thresholds)
    except (LakeError, ContractBroken) as error:
        problem = f"it cannot be held against the champion: {error}. To take it all the same: {by_hand(run_id)}"
    broken = [verdict.message for verdict in rules.values() if not verdict.passed]
    regression = comparison is not None and not rules["regression_against_champion"].passed
    refused = unfit or next(iter(broken), "") or problem
    if comparison is None or refused:
        return Decision(run_id, champion, False, regression, refused, comparison, rules)
    right, reason = _has_the_right(comparison, thresholds)
    return Decision(run_id, run_id if right else champion, right, False, reason, comparison, rules)


def by_hand(run_id: str) -> str:
    """The command that makes a run the champion."""
    return f"python -m atft_pipeline.evaluation promote --to {run_id}"


def _has_the_right(comparison: Comparison, thresholds: Thresholds) -> tuple[bool, str]:
    """Whether a challenger that broke no rule succeeds the champion, and why."""
    told = told_of(comparison)
    if comparison.n_dates < thresholds.min_common_dates:
        return False, f"too few common validation dates. {told}; want {thresholds.min_common_dates}"
    if comparison.refit:
        return True, f"the champion's recipe on a newer panel, no worse. {told}"
    if comparison.mean > thresholds.promotion_margin and comparison.low > 0:
        return True, f"better than the champion. {told}"
    return False, f"not better than the champion by {thresholds.promotion_margin:g} and beyond the noise. {told}"


def _judge_regression(comparison: Comparison, thresholds: Thresholds) -> Verdict:
    """Worse: the interval of the difference lies below zero, or its mean below what is allowed. Too few dates prove
    nothing, so they break no rule; they give no right either."""
    worse = comparison.high < 0 or comparison.mean < -thresholds.max_regression
    worse = worse and comparison.n_dates >= thresholds.min_common_dates
    told = told_of(comparison)
    return Verdict(
        not worse,
        comparison.mean,
        -thresholds.max_regression,
        f"a regression: worse than the champion. {told}" if worse else told,
        {name: getattr(comparison, name) for name in ("champion", "low", "high", "n_dates", "rescored")},
    )


def judged_rule(decision: Decision, rule: str) -> Verdict:
    """One of `RULES` as it was judged; passed where it could not be, with the reason."""
    found = decision.rules.get(rule)
    return found or Verdict(True, float("nan"), float("nan"), f"not judged: {decision.reason}")


def store_decision(lake: Path, decision: Decision) -> None:
    """Write promotion.json beside the challenger's scorecard."""
    body = {**asdict(decision), "rules": {name: verdict.to_json() for name, verdict in decision.rules.items()}}
    write_json(scorecard_dir(lake, decision.challenger) / "promotion.json", body)


def read_decision(lake: Path, run_id: str) -> Decision:
    """The stored decision on a run. Raises `LakeError` where it never challenged."""
    body = read_json(scorecard_dir(lake, run_id) / "promotion.json")
    found = body.pop("comparison")
    # JSON has no NaN: a difference over no dates was stored as null.
    known: dict[str, Any] = {k: float("nan") if v is None else v for k, v in (found or {}).items()}
    rules = {name: Verdict.from_json(rule) for name, rule in body.pop("rules", {}).items()}
    return Decision(**body, comparison=Comparison(**known) if found else None, rules=rules)
