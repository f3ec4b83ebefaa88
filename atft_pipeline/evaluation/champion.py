"""Which run gives predictions, and by which right: champion and challenger.

A champion is a recipe (training settings and code) and the run of it that was accepted last. It is never scored on a
panel that it was not trained on. When the panel has grown, the recipe is trained again, and that run succeeds the
champion unless it is worse on the dates that both were validated on. A run of another recipe must be better than the
champion, by a margin and beyond the noise. Everything is judged on validation at delay 1, as the gate is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from atft_pipeline.dataset.training_panel import read_manifest
from atft_pipeline.evaluation import metrics
from atft_pipeline.evaluation.judge import JUDGED, require_promotable
from atft_pipeline.evaluation.readiness import judge_current
from atft_pipeline.evaluation.scorecard import HEADLINE_DELAY, read_scorecard, scorecard_dir
from atft_pipeline.evaluation.walk_record import told_of_walk_forward
from atft_pipeline.lake.store import LakeError, read_json, read_table, write_json
from atft_pipeline.settings import HORIZONS, Thresholds
from atft_pipeline.verdict import ContractBroken, Verdict

BLOCK = 20
"""Mean length of a block of the bootstrap: labels of 20 days overlap."""


@dataclass(frozen=True)
class Comparison:
    """Challenger minus champion: daily RankIC (mean over horizons) on the dates that both were validated on."""

    champion: str
    challenger: str
    refit: bool
    """The same recipe on another panel."""
    n_dates: int
    first: str
    last: str
    mean: float
    se: float
    low: float
    high: float


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

    Raises `ContractBroken` unless the run was judged and passed.
    """
    require_promotable(lake, run_id)
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
    """The decision on a challenger; nothing is written."""
    champion = champion_run(lake)

    def kept(reason: str, *, regression: bool = False, comparison: Comparison | None = None) -> Decision:
        return Decision(run_id, champion, False, regression, reason, comparison)

    if champion == run_id:
        return kept("already the champion")
    manifest = read_manifest(lake)
    current = judge_current(lake, manifest)
    if not current.passed:
        return kept(current.message)
    try:
        require_promotable(lake, run_id, manifest["hash"])
    except ContractBroken as error:
        return kept(str(error))
    if champion is None:
        return Decision(run_id, run_id, True, False, "the first run that passed every rule")
    try:
        comparison = compare(lake, champion, run_id)
    except LakeError as error:
        return kept(f"the champion's evaluation cannot be read ({error}); promote a run by hand to go on")
    told = told_of(comparison)
    if comparison.n_dates < thresholds.min_common_dates:
        return kept(
            f"too few common validation dates. {told}; want {thresholds.min_common_dates}", comparison=comparison
        )
    worse = comparison.high < 0 or comparison.mean < -thresholds.max_regression
    if worse:
        return kept(f"a regression: worse than the champion. {told}", regression=True, comparison=comparison)
    if comparison.refit:
        return Decision(
            run_id, run_id, True, False, f"the champion's recipe on a newer panel, no worse. {told}", comparison
        )
    if comparison.mean > thresholds.promotion_margin and comparison.low > 0:
        return Decision(run_id, run_id, True, False, f"better than the champion. {told}", comparison)
    return kept(
        f"not better than the champion by {thresholds.promotion_margin:g} and beyond the noise. {told}",
        comparison=comparison,
    )


def compare(lake: Path, champion: str, challenger: str) -> Comparison:
    """Difference per day with a block bootstrap; never two separate means. Raises `LakeError` without evaluations."""
    old, new = _daily(lake, champion), _daily(lake, challenger)
    days = sorted(old.keys() & new.keys())
    gap = np.array([new[day] - old[day] for day in days], dtype=np.float64)
    low, high = metrics.block_bootstrap(gap, block=BLOCK)
    said = metrics.summarise_series(gap, max(HORIZONS) - 1)
    return Comparison(
        champion=champion,
        challenger=challenger,
        refit=_recipe(lake, champion) == _recipe(lake, challenger),
        n_dates=len(days),
        first=str(days[0]) if days else "",
        last=str(days[-1]) if days else "",
        mean=said["mean"],
        se=said["se"],
        low=low,
        high=high,
    )


def told_of(c: Comparison) -> str:
    """The comparison in a sentence."""
    return (
        f"{c.challenger} minus {c.champion}: daily RankIC {c.mean:+.4f} (95 % {c.low:+.4f} to {c.high:+.4f}) on "
        f"{c.n_dates} common validation dates {c.first} to {c.last}, delay {HEADLINE_DELAY}, mean over horizons"
    )


def judge_regression(decision: Decision, thresholds: Thresholds) -> Verdict:
    """The newest run is no worse than the champion on the dates that both were validated on."""
    found = decision.comparison
    got = found.mean if found else float("nan")
    details: dict[str, object] = {"promoted": decision.promoted, "champion": decision.champion or "none"}
    if found:
        details |= {"low": found.low, "high": found.high, "n_dates": found.n_dates}
    return Verdict(not decision.regression, got, -thresholds.max_regression, decision.reason, details)


def store_decision(lake: Path, decision: Decision) -> None:
    """Write promotion.json beside the challenger's scorecard."""
    write_json(scorecard_dir(lake, decision.challenger) / "promotion.json", asdict(decision))


def read_decision(lake: Path, run_id: str) -> Decision:
    """The stored decision on a run. Raises `LakeError` where it never challenged."""
    body = read_json(scorecard_dir(lake, run_id) / "promotion.json")
    found = body.pop("comparison")
    # JSON has no NaN: a difference over no dates was stored as null.
    known: dict[str, Any] = {k: float("nan") if v is None else v for k, v in (found or {}).items()}
    comparison = Comparison(**known) if found else None
    return Decision(**body, comparison=comparison)


def last_refusal(lake: Path) -> Decision | None:
    """The decision on the newest run, if it challenged and was refused."""
    link = lake / "runs" / "last"
    if not link.exists() or not (scorecard_dir(lake, link.resolve().name) / "promotion.json").exists():
        return None
    decision = read_decision(lake, link.resolve().name)
    return None if decision.promoted else decision


def _daily(lake: Path, run_id: str) -> dict[Any, float]:
    """Validation date -> mean over horizons of the run's RankIC, where defined."""
    rows = read_table(scorecard_dir(lake, run_id) / "daily.parquet").filter(
        pl.col("value").is_not_null(), model="model", measure="rank_ic", part=JUDGED, delay=HEADLINE_DELAY
    )
    wide = rows.pivot("horizon", index="date", values="value").sort("date")
    series = {h: wide[str(h)].to_numpy() for h in HORIZONS if str(h) in wide.columns}
    if not series:
        return {}
    mean = metrics.weighted_mean({h: v.astype(np.float64) for h, v in series.items()})
    return {day: float(v) for day, v in zip(wide["date"].to_list(), mean, strict=True) if np.isfinite(v)}


def _recipe(lake: Path, run_id: str) -> tuple[str, ...]:
    """What decides a run besides its panel: settings and code. A run that does not say is a recipe of its own."""
    summary = read_json(lake / "runs" / run_id / "metrics_summary.json")
    known = [summary.get(name) for name in ("config_hash", "source_hash")]
    return tuple(known) if all(known) else (run_id,)
