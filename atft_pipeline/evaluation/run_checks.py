"""Checks of a training run by its own record: every block learnt, and every phase was run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atft_pipeline.lake.store import read_json
from atft_pipeline.settings import Thresholds
from atft_pipeline.verdict import Verdict

PHASES = ("baseline", "adaptive_norm", "graph", "fine_tune")


def check_gradients(run_dir: Path, thresholds: Thresholds) -> Verdict:
    """Smallest epoch median of any block's gradient norm, over the stages that train it."""
    stages: dict[str, Any] = read_json(run_dir / "metrics_summary.json")["liveness"]["stages"]
    norms = {
        f"{stage} {block}": float("nan") if norm is None else float(norm)
        for stage, entry in stages.items()
        for block, norm in entry["grad_norm"].items()
    }
    least = thresholds.min_gradient_norm
    dead = [name for name, norm in norms.items() if not norm > least]
    smallest = min(norms, key=lambda name: norms[name]) if norms else ""
    message = f"{len(norms)} block-stages; smallest gradient norm {norms.get(smallest, 0.0):.2g} ({smallest})"
    if dead or not norms:
        message = f"without gradient: {', '.join(dead) or 'everything'}; these blocks did not learn: see metrics.jsonl"
    return Verdict(bool(norms) and not dead, norms.get(smallest, 0.0), least, message, {"dead": ", ".join(dead)})


def check_phases(run_dir: Path) -> Verdict:
    """The four phases in order, each with at least one validated epoch."""
    rows: list[dict[str, Any]] = read_json(run_dir / "metrics_summary.json")["phases"]
    done = [row["name"] for row in rows if row["epochs"] > 0]
    told = "; ".join(
        f"{row['name']} {row['best_rank_ic']:+.4f}{' (kept its start)' if row['kept_start'] else ''}" for row in rows
    )
    missing = [name for name in PHASES if name not in done]
    message = f"best validation RankIC by phase: {told}"
    if missing:
        message = f"phases not run: {', '.join(missing)}; give each at least one epoch. {message}"
    return Verdict(done == list(PHASES), len(done), len(PHASES), message)
