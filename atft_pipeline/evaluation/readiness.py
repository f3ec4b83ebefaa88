"""May the newest inputs be scored? Refused when they are stale, incomplete or unlike what training has seen.

A fault here is one of the night, not of the model: the same run gives predictions again when its inputs are in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from atft_pipeline.dataset.contract import dataset_dir
from atft_pipeline.dataset.scaling import stats_path
from atft_pipeline.evaluation.drift import RECENT, Drift, measure_drift
from atft_pipeline.evaluation.inputs import EvaluationData
from atft_pipeline.jquants.checks.publication import PUBLICATIONS, newest_due
from atft_pipeline.lake.store import read_array, read_json
from atft_pipeline.settings import Thresholds
from atft_pipeline.verdict import ContractBroken, Verdict

Pair = tuple[str, str, str, str]
"""What was made, of what, the hash it names, the hash that is stored."""

NAMED = 8
"""How many inputs a message names; all of them are in the details."""


def judge_readiness(
    lake: Path, data: EvaluationData, thresholds: Thresholds, now: datetime | None = None
) -> dict[str, Verdict]:
    """Verdicts `current`, `complete` and `in_range` of a run on its own panel, and `fresh` where `now` (aware), the
    market's clock, is given."""
    return {"current": judge_current(lake, data.manifest), **judge_inputs(lake, data, thresholds, now)}


def judge_inputs(
    lake: Path, data: EvaluationData, thresholds: Thresholds, now: datetime | None = None
) -> dict[str, Verdict]:
    """As `judge_readiness`, without what the files say of one another."""
    drifts = measure_drift(data.x, data.row_ok, data.ranges)
    verdicts = {
        "complete": judge_complete(data, thresholds),
        "in_range": judge_range(drifts, thresholds, str(data.dates[-1])),
    }
    if now is not None:
        sessions = read_array(lake / "market_panel" / "calendar_days.npy", mmap=False)
        verdicts["fresh"] = judge_fresh(data.dates[-1], sessions, now, thresholds)
    return verdicts


def require_ready(verdicts: Mapping[str, Verdict], run_id: str) -> None:
    """Raise `ContractBroken` with every reason."""
    failed = [f"{name}: {verdict.message}" for name, verdict in verdicts.items() if not verdict.passed]
    if failed:
        raise ContractBroken(f"no predictions of run {run_id}: its inputs are not in order. " + " | ".join(failed))


def judge_current(lake: Path, manifest: Mapping[str, Any]) -> Verdict:
    """The training panel is made of the stored market panel, dataset and statistics, and these of one another."""
    dataset, statistics = read_json(dataset_dir(lake) / "metadata.json"), read_json(stats_path(lake))
    pairs = [
        ("training_panel", "normalization_stats", manifest["stats_hash"], statistics["hash"]),
        ("normalization_stats", "dataset", statistics["dataset_hash"], dataset["hash"]),
    ]
    return _judge_pairs([*_dataset_pairs(lake, manifest, dataset), *pairs])


def judge_dataset(lake: Path, manifest: Mapping[str, Any]) -> Verdict:
    """As `judge_current`, without the stored statistics: a run from an earlier panel carries its own."""
    return _judge_pairs(_dataset_pairs(lake, manifest, read_json(dataset_dir(lake) / "metadata.json")))


def _dataset_pairs(lake: Path, manifest: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[Pair]:
    pairs = [("training_panel", "dataset", manifest["dataset_hash"], dataset["hash"])]
    market = lake / "market_panel" / "panel.json"
    claimed = dataset.get("source", {}).get("panel")
    if claimed and market.exists():
        pairs.append(("dataset", "market_panel", claimed, read_json(market)["hash"]))
    return pairs


def _judge_pairs(pairs: Sequence[Pair]) -> Verdict:
    stale = [f"{made} was made of another {of} than the stored one" for made, of, had, has in pairs if had != has]
    names = list(dict.fromkeys(name for made, of, _, _ in pairs for name in (made, of)))
    message = f"{', '.join(names[:-1])} and {names[-1]} belong together"
    if stale:
        message = f"stale inputs: {'; '.join(stale)}. Materialise training_panel and what is before it"
    return Verdict(not stale, float(len(stale)), 0.0, message)


def judge_fresh(newest: np.datetime64, sessions: np.ndarray, now: datetime, thresholds: Thresholds) -> Verdict:
    """The newest date is the last trading day whose prices were out at `now`."""
    days = sessions.astype("datetime64[D]").tolist()
    due = newest_due(PUBLICATIONS["bars_daily"], days, now)
    have = newest.astype("datetime64[D]").item()
    late = sum(have < day <= due for day in days) if due else 0
    message = f"newest date {have}, the prices of {due} were out at {now:%Y-%m-%d %H:%M}"
    if late > thresholds.max_sessions_late:
        message += f": {late} trading days late; fetch the raw tables again"
    return Verdict(late <= thresholds.max_sessions_late, float(late), float(thresholds.max_sessions_late), message)


def judge_complete(data: EvaluationData, thresholds: Thresholds) -> Verdict:
    """About as many usable rows as on the days before, and a score and an uncertainty for almost each tradable one."""
    rows = data.row_ok[-RECENT - 1 :].sum(axis=1)
    usual = float(np.median(rows[:-1]))
    share = float(rows[-1]) / max(usual, 1.0)
    tradable = data.tradable[-1]
    scored = float((np.isfinite(data.scores[-1]).all(axis=1) & tradable).sum()) / max(int(tradable.sum()), 1)
    wrong = []
    if share < 1 - thresholds.max_lost_rows:
        wrong.append(f"{int(rows[-1])} usable rows, usually {usual:.0f}")
    if not scored >= thresholds.min_scored_share:
        wrong.append(f"{scored:.0%} of {int(tradable.sum())} tradable stocks scored")
    message = f"{int(rows[-1])} usable rows (usually {usual:.0f}), {scored:.0%} of the tradable stocks scored"
    if wrong:
        message = f"incomplete on {data.dates[-1]}: {'; '.join(wrong)}. See the checks of raw/bars_daily and raw/master"
    return Verdict(not wrong, share, 1 - thresholds.max_lost_rows, message, {"scored_share": scored})


def judge_range(drifts: list[Drift], thresholds: Thresholds, newest: str) -> Verdict:
    """Few inputs have drifted from the training span (population stability index), and none has died."""
    drifted = sorted(
        (d for d in drifts if d.exceeds(thresholds.max_psi, thresholds.psi_over_usual)),
        key=lambda d: -max(d.newest - d.usual_newest, d.recent - d.usual_recent),
    )
    dead = [d for d in drifts if d.dead]
    share = len(drifted) / max(len(drifts), 1)
    wrong = []
    if share > thresholds.max_drifted_share:
        wrong.append(
            f"{len(drifted)} of {len(drifts)} inputs are outside the training range, e.g. "
            + ", ".join(f"{d.name} (PSI {d.newest:.2f}, usual {d.usual_newest:.2f})" for d in drifted[:NAMED])
        )
    if dead:
        wrong.append(f"no spread between stocks in {', '.join(d.name for d in dead[:NAMED])}")
    names = ", ".join(d.name for d in drifted[:NAMED]) or "none"
    message = f"{len(drifted)} of {len(drifts)} inputs drifted on {newest}: {names}"
    if wrong:
        message = (
            f"inputs of {newest}: {'; '.join(wrong)}. Look whether their tables arrived; if the market has changed for "
            "good, train on newer dates or raise max_drifted_share"
        )
    details = {"drifted": {d.name: [d.newest, d.usual_newest, d.recent, d.usual_recent] for d in drifted}}
    return Verdict(not wrong, share, thresholds.max_drifted_share, message, {**details, "dead": len(dead)})
