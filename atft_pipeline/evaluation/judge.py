"""Whether a run may give predictions: thresholds, degeneracy, liveness, and results too good to be true.

Judged on validation at delay 1 (the test part is reported, never judged, so that it stays unseen by decisions).
RankIC and IC must reach their level as means over all horizons weighted by 1/sqrt(h), the quantity by which training
stops and picks its best epoch, and must stand clear of zero both there and at the 1-day horizon. Labels of 20 days
overlap: on a market without signal, Newey-West t-values of that mean spread by 1.4 instead of 1 over half a year, those
of the 1-day horizon by 1.0, so only the latter prove a signal. Sharpe is the net one of the 5-day book.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atft_pipeline.evaluation.scorecard import BOOK_HORIZON, HEADLINE_DELAY, HEADLINE_HORIZON, scorecard_dir
from atft_pipeline.lake.store import LakeError, read_json, write_json
from atft_pipeline.settings import Thresholds
from atft_pipeline.verdict import ContractBroken, Verdict

JUDGED = "valid"
WHERE = f"validation, delay {HEADLINE_DELAY}, mean over horizons"

RULES = {
    "rank_ic": f"RankIC above its threshold ({WHERE}), and there and at 1 day above zero by several standard errors.",
    "ic": f"IC above its threshold ({WHERE}), and there and at 1 day above zero by several standard errors.",
    "sharpe": f"Net Sharpe of the {BOOK_HORIZON}-day decile book above its threshold (validation, delay 1).",
    "degeneracy": "Scores differ between stocks at every horizon: a collapsed score gives no predictions.",
    "liveness": "Graph and normalisation gates received gradient, and graphs had edges, where they train.",
    "too_good": "No mean 1-day RankIC beyond what an honest signal reaches.",
}
"""The rules by name, each with what it demands."""


def judge_run(card: Mapping[str, Any], thresholds: Thresholds) -> dict[str, Verdict]:
    """Every rule's verdict by name. A missing or undefined number fails: what was not measured was not passed."""
    cells = card["models"]["model"][JUDGED][f"delay_{HEADLINE_DELAY}"]
    errors = thresholds.min_standard_errors
    return {
        "rank_ic": _signal("RankIC", "rank_ic", cells, thresholds.min_rank_ic, errors),
        "ic": _signal("IC", "ic", cells, thresholds.min_ic, errors),
        "sharpe": _sharpe(card, thresholds),
        "degeneracy": judge_degeneracy(card, thresholds),
        "liveness": judge_liveness(card, thresholds),
        "too_good": judge_too_good(card, thresholds),
    }


def store_verdict(lake: Path, run_id: str, verdicts: Mapping[str, Verdict], panel_hash: str) -> bool:
    """Write verdict.json beside the scorecard; returns whether all rules hold."""
    passed = all(verdict.passed for verdict in verdicts.values())
    body = {"run_id": run_id, "panel_hash": panel_hash, "passed": passed}
    rules = {name: verdict.to_json() for name, verdict in verdicts.items()}
    write_json(scorecard_dir(lake, run_id) / "verdict.json", {**body, "rules": rules})
    return passed


def read_verdicts(lake: Path, run_id: str) -> dict[str, Verdict]:
    """The stored verdicts by rule. Raises `LakeError` where the run was not judged."""
    body = read_json(scorecard_dir(lake, run_id) / "verdict.json")
    return {name: Verdict.from_json(rule) for name, rule in body["rules"].items()}


def require_promotable(lake: Path, run_id: str, panel_hash: str | None = None) -> None:
    """Raise `ContractBroken`, naming each rule that failed, unless the run was judged and passed (on this panel)."""
    path = scorecard_dir(lake, run_id) / "verdict.json"
    try:
        body = read_json(path)
    except LakeError as error:
        raise ContractBroken(f"run {run_id} was not judged ({error}); evaluate it first") from error
    if body["run_id"] != run_id or (panel_hash is not None and body["panel_hash"] != panel_hash):
        raise ContractBroken(f"{path} judges another run or panel; evaluate run {run_id} again")
    failed = [f"{name}: {rule['message']}" for name, rule in body["rules"].items() if not rule["passed"]]
    if failed or not body["rules"]:
        raise ContractBroken(f"run {run_id} may not give predictions. " + " | ".join(failed or ["no rule was judged"]))


def judge_degeneracy(card: Mapping[str, Any], thresholds: Thresholds) -> Verdict:
    """Scores differ between stocks: per-date spread and share of distinct values, at every horizon."""
    state = card["scores"][JUDGED]
    spread, unique = _number(state["smallest_score_std"]), _number(state["smallest_unique_ratio"])
    alive = spread >= thresholds.min_score_std and unique >= thresholds.min_unique_ratio
    message = f"smallest median spread of a date's scores {spread:.3g}, distinct values {unique:.1%} ({JUDGED})"
    if not alive:
        message = (
            f"the scores have collapsed: spread {spread:.3g} (want {thresholds.min_score_std:g}), distinct values "
            f"{unique:.1%} (want {thresholds.min_unique_ratio:.0%}); look at the loss terms' contributions per epoch"
        )
    return Verdict(alive, spread, thresholds.min_score_std, message, {"unique_ratio": unique})


def judge_liveness(card: Mapping[str, Any], thresholds: Thresholds) -> Verdict:
    """The graph and the normalisation gates received gradient, and graphs had edges, in the phases that train them."""
    found = card["liveness"]
    norms = {name: _number(found.get(f"{name}_grad_norm")) for name in ("graph", "gates")}
    edges = _number(found.get("edges_per_date"))
    dead = [name for name, norm in norms.items() if not norm > thresholds.min_gradient_norm]
    if not edges > 0:
        dead.append("edges")
    smallest = min(norms.values(), key=lambda norm: norm if np.isfinite(norm) else -1.0)
    message = f"gradient norms: graph {norms['graph']:.3g}, gates {norms['gates']:.3g}; {edges:.0f} edges per date"
    if dead:
        message = f"not alive: {', '.join(dead)}. {message}; the block did not learn, see metrics.jsonl"
    return Verdict(not dead, smallest, thresholds.min_gradient_norm, message, {"edges_per_date": edges, **norms})


def judge_too_good(card: Mapping[str, Any], thresholds: Thresholds) -> Verdict:
    """No part or delay has a mean 1-day RankIC beyond what an honest signal reaches."""
    values = {
        f"{part} {delay}": _number(cells[str(HEADLINE_HORIZON)]["rank_ic"]["mean"])
        for part, delays in card["models"]["model"].items()
        for delay, cells in delays.items()
    }
    known = {where: value for where, value in values.items() if np.isfinite(value)}
    where = max(known, key=lambda k: abs(known[k])) if known else "nowhere"
    largest = abs(known[where]) if known else 0.0
    honest = largest <= thresholds.too_good_model_ic
    message = f"largest mean 1-day RankIC {largest:.3f} ({where})"
    if not honest:
        message += f" is above {thresholds.too_good_model_ic:g}: a leak until proven otherwise"
    return Verdict(honest, largest, thresholds.too_good_model_ic, message)


def _signal(name: str, metric: str, cells: Mapping[str, Any], least: float, errors: float) -> Verdict:
    """The mean over horizons above its threshold, and it and the 1-day horizon above zero by more than `errors`
    standard errors: signal, not luck."""
    mean, se, ratio = _with_error(cells["mean"][metric])
    day, day_se, day_ratio = _with_error(cells[str(HEADLINE_HORIZON)][metric])
    passed = mean > least and ratio > errors and day_ratio > errors
    message = (
        f"{name} {mean:+.4f}, SE {se:.4f}, over {cells['mean'][metric]['n_dates']} dates ({WHERE}); "
        f"at 1 day {day:+.4f}, SE {day_se:.4f}"
    )
    if not passed:
        message += f"; want above {least:g}, and both above {errors:g} SE"
    details = {"se": se, "standard_errors": ratio, "one_day": day, "one_day_standard_errors": day_ratio}
    return Verdict(passed, mean, least, message, {**details, "n_dates": cells["mean"][metric]["n_dates"]})


def _with_error(cell: Mapping[str, Any]) -> tuple[float, float, float]:
    """Mean, standard error and their ratio; NaN where there is no error."""
    mean, se = _number(cell["mean"]), _number(cell["se"])
    return mean, se, mean / se if se > 0 else float("nan")


def _sharpe(card: Mapping[str, Any], thresholds: Thresholds) -> Verdict:
    """Net Sharpe of the 5-day book above its threshold. Its error is shown, not demanded: over half a year the standard
    error of any Sharpe ratio is about 1.4, so RankIC and IC carry the proof of signal."""
    book = card["models"]["model"][JUDGED][f"delay_{HEADLINE_DELAY}"][str(BOOK_HORIZON)]["book"]
    net = _number(book["sharpe_net_ann"])
    low, high = (_number(bound) for bound in book["ci95"])
    message = (
        f"net Sharpe {net:+.2f} a year (95 % {low:+.2f} to {high:+.2f}) at {book['cost_one_way'] * 1e4:.0f} bp "
        f"one-way, gross {_number(book['sharpe_gross_ann']):+.2f}, of the {BOOK_HORIZON}-day decile book "
        f"(validation, delay {HEADLINE_DELAY})"
    )
    passed = net > thresholds.min_sharpe
    return Verdict(passed, net, thresholds.min_sharpe, message, {"ci_low": low, "ci_high": high})


def _number(value: Any) -> float:
    """JSON's null is NaN here: every comparison with it is false, so an undefined number never passes."""
    return float("nan") if value is None else float(value)
