"""What can be known of a challenger without luck: that it was trained on living inputs, and for the same objective.

A difference of RankIC between two trainings is noise unless it is large. Half of the inputs zeroed, or a loss term
switched off, is a fact of the run, and refuses it whatever its score.
"""

from __future__ import annotations

import json
from pathlib import Path

from atft_pipeline.evaluation.inputs import run_dir
from atft_pipeline.evaluation.scoring_kit import kit_of
from atft_pipeline.lake.store import LakeError
from atft_pipeline.settings import Thresholds
from atft_pipeline.verdict import Verdict

NAMED = 8


def judge_inputs_alive(lake: Path, champion: str, challenger: str, thresholds: Thresholds) -> Verdict:
    """Few of the inputs that had more than one value in the champion's training have a single one in the challenger's,
    or are no inputs of it any more."""
    before, now = kit_of(lake, champion), kit_of(lake, challenger)
    living = {known.name for known in now.ranges if not known.dead}
    told = [known.name for known in before.ranges if not known.dead]
    lost = [name for name in told if name not in living]
    share = len(lost) / max(len(told), 1)
    passed = share <= thresholds.max_lost_inputs
    message = f"{len(lost)} of the {len(told)} inputs that told the champion something are flat or gone"
    if lost:
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        message += f": {', '.join(lost[:NAMED])}{more}"
    if not passed:
        message += (
            f"; at most {thresholds.max_lost_inputs:.0%} may be. Look at the tables behind them, then train again"
        )
    return Verdict(passed, share, thresholds.max_lost_inputs, message, {"lost": ", ".join(lost)})


def judge_objective(lake: Path, champion: str, challenger: str) -> Verdict:
    """Every loss term that has a weight in some stage of the champion's training has one in the challenger's."""
    before, now = loss_weights(lake, champion), loss_weights(lake, challenger)
    off = [term for term, weight in before.items() if weight > 0 and not now.get(term, 0.0) > 0]
    message = "loss terms of the challenger: " + ", ".join(f"{term} {weight:g}" for term, weight in now.items())
    if off:
        message = (
            f"loss terms switched off: {', '.join(f'{term} (champion {before[term]:g})' for term in off)}. If that is "
            "meant, promote the run by hand"
        )
    return Verdict(not off, float(len(off)), 0.0, message, {"champion": before, "challenger": now})


def loss_weights(lake: Path, run_id: str) -> dict[str, float]:
    """Loss term -> its largest weight over the stages that the run trained, as its epochs recorded them.

    Raises `LakeError` where the run recorded none."""
    path = run_dir(lake, run_id) / "metrics.jsonl"
    found: dict[str, float] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        for term, weight in json.loads(line)["train"].get("weights", {}).items():
            found[term] = max(found.get(term, 0.0), float(weight))
    if not found:
        raise LakeError(f"{path}: no loss weights recorded; train the run again")
    return found
