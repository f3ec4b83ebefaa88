"""Whether a walk-forward may be believed: judged from its files, not from what its processes said."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from atft_pipeline.dataset.scaling import Statistics
from atft_pipeline.dataset.splits import Split, check_label_overlap
from atft_pipeline.evaluation.out_of_sample import NO_SEED
from atft_pipeline.evaluation.rivals import RIVALS
from atft_pipeline.lake.store import read_json, read_table
from atft_pipeline.settings import Thresholds
from atft_pipeline.verdict import ContractBroken, Verdict
from atft_pipeline.walk_forward.spec import WalkSpec

CHECKS = {
    "every_test_date_scored": "Every test date of every fold has scores of every model and seed, on enough stocks.",
    "purged": "No training label reaches a fold's validation or test, no validation label its test; tests never meet.",
    "statistics_of_training_only": "Each fold's statistics were fitted on its own training dates, and on no later one.",
    "not_too_good": "No mean 1-day RankIC, overall or in a fold, beyond what an honest signal reaches.",
}
"""The checks by name, each with what it demands."""


def judge_walk(spec: WalkSpec, results: Mapping[str, Any]) -> dict[str, Verdict]:
    """Every check's verdict by name."""
    limits = spec.limits()
    return {
        "every_test_date_scored": judge_coverage(spec, limits),
        "purged": judge_purged(spec),
        "statistics_of_training_only": judge_statistics(spec),
        "not_too_good": judge_too_good(results, limits),
    }


def read_walk(path: Path) -> tuple[WalkSpec, dict[str, Any]]:
    """A finished walk-forward. Raises `LakeError` where there is none."""
    return WalkSpec.load(path / "spec.json"), read_json(path / "results.json")


def judge_coverage(spec: WalkSpec, limits: Thresholds) -> Verdict:
    """Dates that should have scores against those that have, for every fold, model and seed."""
    wanted, found, missing, thin = 0, 0, [], []
    for k, fold in enumerate(spec.folds):
        days = set(fold["test_dates"])
        rows = read_table(spec.fold(k).scores, ["model", "seed", "date"])
        have = {
            (str(model), int(str(seed))): {str(day) for day in own["date"].unique()}
            for (model, seed), own in rows.group_by("model", "seed")
        }
        for who in [*(("model", seed) for seed in spec.seeds), *((name, NO_SEED) for name in RIVALS)]:
            absent = sorted(days - have.get(who, set()))
            wanted, found = wanted + len(days), found + len(days) - len(absent)
            if absent:
                missing.append(f"fold {k + 1} {who[0]} {absent[0]}")
        record = read_json(spec.fold(k).record)
        share = np.array(record["scored"]) / np.maximum(record["tradable"], 1)
        thin += [
            f"{day} {s:.0%}" for day, s in zip(fold["test_dates"], share, strict=True) if s < limits.min_scored_share
        ]
    share = found / max(wanted, 1)
    message = f"{found:,} of {wanted:,} (date, model, seed) have scores"
    if missing:
        message += f"; none for {', '.join(missing[:6])}: remove the fold's folder and start again"
    if thin:
        message += f"; too few of the tradable stocks are scored on {', '.join(thin[:6])}"
    return Verdict(not missing and not thin, share, 1.0, message, {"missing": len(missing), "thin_dates": len(thin)})


def judge_purged(spec: WalkSpec) -> Verdict:
    """Sessions between the last label of a part and the first of the next, the smallest of all folds."""
    gaps, faults = {}, []
    for k, fold in enumerate(spec.folds):
        stored = read_json(spec.fold(k).manifest)["split_index"]
        if stored != fold["index"]:
            faults.append(f"fold {k + 1}: its training panel was cut at {stored}, not at {fold['index']}")
        parts = {name: (int(first), int(end)) for name, (first, end) in stored.items()}
        verdict = check_label_overlap(Split(np.empty(0, "datetime64[D]"), **parts, embargo_days=0))
        gaps[k] = verdict.got
        if not verdict.passed:
            faults.append(f"fold {k + 1}: {verdict.message}")
    for (k, before), (_, after) in pairwise(enumerate(spec.folds)):
        if after["index"]["test"][0] < before["index"]["test"][1]:
            faults.append(f"the tests of folds {k + 1} and {k + 2} overlap")
    smallest = min(gaps.values())
    message = f"labels of two parts lie {smallest:g} session or more apart, in all {len(gaps)} folds"
    return Verdict(
        not faults, smallest, 1.0, "; ".join(faults) or message, {f"fold {k + 1}": gap for k, gap in gaps.items()}
    )


def judge_statistics(spec: WalkSpec) -> Verdict:
    """Folds whose stored statistics are whole, of their own split, and end with its training dates."""
    faults = []
    for k, fold in enumerate(spec.folds):
        try:
            statistics = Statistics.load(spec.fold(k).path)
        except ContractBroken as broken:
            faults.append(f"fold {k + 1}: {broken}")
            continue
        last, end = statistics.coverage.last, fold["split"]["train"][1]
        if dict(statistics.split) != fold["split"] or last > end:
            faults.append(f"fold {k + 1}: statistics reach {last}, training ends {end}")
        if statistics.hash != read_json(spec.fold(k).manifest)["stats_hash"]:
            faults.append(f"fold {k + 1}: the panel was scaled by other statistics")
    sound, folds = len(spec.folds) - len(faults), len(spec.folds)
    message = f"statistics of {folds} folds end with their training dates"
    return Verdict(not faults, sound, folds, "; ".join(faults) or message)


def judge_too_good(results: Mapping[str, Any], limits: Thresholds) -> Verdict:
    """The largest mean 1-day RankIC of any score but the oracle's, at delay 1, over all dates or one fold."""
    found: dict[str, float] = {}
    for name, card in results["models"].items():
        own = card["delay_1"]["1"]["rank_ic"]
        if name != "oracle":
            found |= {name: own["all"]["mean"]} | {
                f"{name}, fold {k + 1}": f["mean"] for k, f in enumerate(own["folds"])
            }
    known = {name: value for name, value in found.items() if value is not None and np.isfinite(value)}
    if not known:
        return Verdict(False, float("nan"), limits.too_good_model_ic, "no score has a RankIC; nothing was measured")
    worst = max(known, key=lambda name: known[name])
    message = f"largest mean daily RankIC: {worst}, {known[worst]:+.4f}"
    passed = known[worst] <= limits.too_good_model_ic
    if not passed:
        message += (
            f", above {limits.too_good_model_ic:g}: look for a leak (a label among the inputs, a missing embargo)"
        )
    return Verdict(passed, known[worst], limits.too_good_model_ic, message)
