"""What a search found: ranked trials, importance, the deflated Sharpe, and the best settings as a file."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from atft_pipeline.evaluation.deflated import Deflated, deflated_sharpe
from atft_pipeline.evaluation.metrics import TRADING_DAYS, Array
from atft_pipeline.lake.store import replacing, write_json
from atft_pipeline.search.page import render
from atft_pipeline.search.pictures import search_pictures
from atft_pipeline.search.space import SPACE
from atft_pipeline.search.study import (
    StudyFolder,
    StudySpec,
    counted,
    first_number,
    outcome,
    ranked,
    read_fold,
    trial_value,
)
from atft_pipeline.training.config import PRESETS, TrainingConfig


def write_results(folder: StudyFolder, study: optuna.Study) -> dict[str, Any]:
    """Write results.json, the page, and best.json where a trial is complete; return the results."""
    spec = folder.read_spec()
    results = collect(folder, spec, study)
    write_json(folder.results, results)
    if results["best"]:
        write_json(folder.best, best_settings(spec, results))
    with replacing(folder.page) as part:
        part.write_text(render(results, search_pictures(results)), encoding="utf-8")
    return results


def collect(folder: StudyFolder, spec: StudySpec, study: optuna.Study) -> dict[str, Any]:
    """Everything that the page shows: `trials` best first, `counts` by outcome, `importance`, `deflated`, `best`."""
    trials = study.get_trials(deepcopy=False)
    rows = [trial_row(folder, spec, trial, first_number(trial, trials)) for trial in ranked(trials)]
    complete = [row for row in rows if row["outcome"] == "complete"]
    deflated = deflate(folder, spec, complete, len(counted(trials)))
    return {
        "study": spec.id,
        "panel_hash": spec.panel_hash,
        "preset": spec.base.preset,
        "delay": spec.base.delay,
        "book_horizon": spec.base.book_horizon,
        "seed": spec.seed,
        "folds": [fold_dates(folder, spec, complete, k) for k in range(len(spec.folds))],
        "counts": dict(Counter(row["outcome"] for row in rows)),
        "attempts": len(trials),
        "trials": rows,
        "importance": importance(study, complete),
        "deflated": asdict(deflated) if deflated else None,
        "annual": TRADING_DAYS,
        "best": complete[0] if complete else None,
    }


def trial_row(folder: StudyFolder, spec: StudySpec, trial: FrozenTrial, number: int) -> dict[str, Any]:
    """One trial as plain values. Raises ValueError when the stored value is not the one that its files give."""
    kind = outcome(trial)
    row: dict[str, Any] = {
        "trial": number,
        "outcome": kind,
        "value": None,
        "params": dict(trial.params),
        "attempts": int(trial.user_attrs.get("attempt", 1)),
        "reason": trial.user_attrs.get("reason") or ("its process was killed" if kind == "failed" else ""),
        "phases": [trial.intermediate_values[k] for k in sorted(trial.intermediate_values)],
        "rank_ics": [],
        "sharpe": None,
    }
    if kind == "complete":
        value = trial_value(folder, number, len(spec.folds))
        if value != trial.value:
            raise ValueError(f"trial {number}: the study says {trial.value}, its files {value}; delete {folder.path}")
        row["value"] = value
        row["rank_ics"] = [read_fold(folder, number, k)["rank_ic"] for k in range(len(spec.folds))]
        row["sharpe"] = period_sharpe(net_returns(folder, spec, number))
    return row


def net_returns(folder: StudyFolder, spec: StudySpec, number: int) -> Array:
    """Daily net returns of a trial's book over the validation dates of all folds, which do not overlap."""
    found = [read_fold(folder, number, k)["net_returns"] for k in range(len(spec.folds))]
    return np.array([math.nan if r is None else r for fold in found for r in fold], np.float64)


def period_sharpe(returns: Array) -> float:
    """Mean over standard deviation (ddof=1) per day; NaN when constant."""
    x = returns[np.isfinite(returns)]
    return float(x.mean() / x.std(ddof=1)) if len(x) > 1 and x.max() > x.min() else math.nan


def deflate(folder: StudyFolder, spec: StudySpec, complete: Sequence[dict[str, Any]], trials: int) -> Deflated | None:
    """The best trial's Sharpe against the luck of all trials that were tried; None without a complete trial."""
    if not complete:
        return None
    rivals = [row["sharpe"] for row in complete]
    return deflated_sharpe(net_returns(folder, spec, complete[0]["trial"]), rivals, trials)


def importance(study: optuna.Study, complete: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Share of each parameter in telling good trials from the others (PED-ANOVA); empty below five complete trials."""
    if len(complete) < 5 or len({row["value"] for row in complete}) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    names = [parameter.name for parameter in SPACE]
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
    return {name: float(value) for name, value in found.items()}


def fold_dates(folder: StudyFolder, spec: StudySpec, complete: Sequence[dict[str, Any]], fold: int) -> dict[str, Any]:
    """Sizes of a fold, and its validation dates where a trial finished it."""
    train, valid = spec.folds[fold]
    dates = read_fold(folder, complete[0]["trial"], fold)["dates"] if complete else []
    return {"train_days": train[1] - train[0], "valid_days": valid[1] - valid[0], "valid": dates}


def best_settings(spec: StudySpec, results: dict[str, Any]) -> dict[str, Any]:
    """What `python -m atft_pipeline.training --overrides` takes: every setting in which the best trial differs from the
    preset, and where it comes from. Left out are the seed and what belongs to the machine."""
    best = results["best"]
    found = json.loads(spec.config_of(best["params"], best["trial"]).to_json())
    preset = json.loads(TrainingConfig(**{"preset": spec.base.preset, **PRESETS[spec.base.preset]}).to_json())
    own = {f.name for f in fields(TrainingConfig) if f.metadata.get("operational")} | {"seed", "device", "threads"}
    return {
        "study": spec.id,
        "trial": best["trial"],
        "value": best["value"],
        "deflated_sharpe": results["deflated"]["probability"],
        "preset": spec.base.preset,
        "overrides": {name: value for name, value in found.items() if name not in own and value != preset[name]},
    }
