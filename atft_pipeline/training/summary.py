"""The run's documents: the record of an epoch, the line that people read, and `metrics_summary.json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from atft_pipeline.evaluation import metrics
from atft_pipeline.model.atft_gat_fan import ATFTGATFAN
from atft_pipeline.revision import git_revision
from atft_pipeline.training.checkpoint import Progress
from atft_pipeline.training.optimiser import StageOptimiser
from atft_pipeline.training.phases import Phase, Stage
from atft_pipeline.training.scoring import evaluate

if TYPE_CHECKING:
    from atft_pipeline.training.engine import Trainer


def describe(trainer: Trainer) -> dict[str, Any]:
    """Which run this is: identity, sizes, splits, precision. The same in every document."""
    panel, config = trainer.panel, trainer.config
    return {
        "run_id": trainer.folder.run_id,
        **trainer.folder.hashes,
        "feature_hash": panel.feature_hash,
        "git_rev": git_revision(),
        "seed": config.seed,
        "preset": config.preset,
        "n_features": panel.n_features,
        "n_params": sum(p.numel() for p in trainer.model.parameters()),
        "horizons": list(panel.horizons),
        "delay": config.delay,
        "split": panel.manifest["split"],
        "train_dates": sum(b.count for b in trainer.train_blocks),
        "steps_per_epoch": trainer.steps_per_epoch,
        "precision": "bf16" if trainer.autocast._enabled else "fp32",
        "device": trainer.device.type,
        "mode": {"name": trainer.feed.mode.name, "reason": trainer.feed.mode.reason},
        "memory": asdict(trainer.ladder.footing),
        "oom_events": sum(event["event"] == "out_of_memory" for event in trainer.ladder.events),
        "events": [*trainer.ladder.events, *trainer.feed.events, *trainer.disk.events, *trainer.graphs.events],
    }


def epoch_record(
    phase: Phase, stage: Stage, progress: Progress, groups: list[str], optimiser: StageOptimiser, model: ATFTGATFAN
) -> dict[str, Any]:
    """One line of `metrics.jsonl`; validation is added by the caller. `epoch` counts the phase's monitored epochs."""
    sums = progress.sums
    steps = max(sums["steps"], 1)
    norms = np.median(np.asarray(sums["norms"]), axis=0)
    gates = model.adaptive_norm
    earlier = sum(1 for r in progress.history if r["monitored"])
    return {
        "phase": phase.number,
        "phase_name": phase.name,
        "stage": stage.name,
        "monitored": stage.monitored,
        "epoch": earlier + 1 if stage.monitored else progress.epoch + 1,
        "lr": optimiser.rates(),
        "peak_lr": dict(zip(optimiser.labels, optimiser.peaks, strict=True)),
        "train": {
            "total": sums["total"] / steps,
            "terms": {k: v / steps for k, v in sums["terms"].items()},
            "weights": stage.weights.as_dict(),
            "contributions": {k: v / steps for k, v in sums["contributions"].items()},
        },
        "model": {
            "grad_norm": {
                g: n for g, n in zip(groups, norms.tolist(), strict=True) if not stage.frozen(g, progress.epoch)
            },
            "alpha": float(model.fusion.gamma.detach().sigmoid()),
            "fan_gate_abs_mean": _mean_size(gates.fan_gate),
            "san_gate_abs_mean": _mean_size(gates.san_gate),
            "edges_per_date": sums["edges"] / max(sums["dates"], 1),
        },
        "throughput": {"steps": sums["steps"], "dates": sums["dates"], "windows": sums["windows"]},
    }


def _mean_size(gate: Tensor | None) -> float | None:
    """Mean absolute value of a gate's channels; None in a model without that part."""
    return None if gate is None else float(gate.detach().abs().mean())


def epoch_line(record: dict[str, Any]) -> str:
    """What a person reads after an epoch."""
    head = f"phase {record['phase']} {record['stage']:<10} epoch {record['epoch']}"
    terms = " ".join(f"{k} {v:.3f}" for k, v in record["train"]["contributions"].items())
    text = f"{head}  loss {record['train']['total']:.4f} ({terms})"
    if "val" in record:
        text += f"  val RankIC {record['rank_ic']:+.4f} (SE {record['rank_ic_se']:.4f})"
        text += " *" if record["improved"] else ""
    return f"{text}  {record['throughput']['sec_per_epoch']:.1f} s"


def headline(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The four top-level keys that consumers of earlier systems read, and what they are measured on."""
    mean = evaluation["mean"]
    return {
        "Sharpe": evaluation["portfolio"]["sharpe_net_ann"],
        "IC": mean["ic"]["mean"],
        "RankIC": mean["rankic"]["mean"],
        "RankIC_SE": mean["rankic"]["se"],
        "HitRate": mean["hit_rate"]["mean"],
        "headline": {"split": "valid", "delay": evaluation["delay"], "horizon": "mean over horizons by 1/sqrt(h)"},
    }


def liveness(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Proofs that every block learnt: the smallest epoch median of each block's gradient norm, per phase and stage.

    A block counts in the epochs in which it trains. `graph_grad_norm`, `gates_grad_norm` and `edges_per_date` are
    the smallest over the phases in which they train; None where none did.
    """
    stages: dict[str, dict[str, Any]] = {}
    for record in history:
        key = f"phase{record['phase']}/{record['stage']}"
        entry = stages.setdefault(key, {"grad_norm": {}, "alpha": [], "edges_per_date": []})
        for group, value in record["model"]["grad_norm"].items():
            entry["grad_norm"].setdefault(group, []).append(value)
        entry["alpha"].append(record["model"]["alpha"])
        entry["edges_per_date"].append(record["model"]["edges_per_date"])
    result: dict[str, Any] = {}
    for key, entry in stages.items():
        result[key] = {
            "grad_norm": {g: min(v) for g, v in entry["grad_norm"].items()},
            "alpha": entry["alpha"][-1],
            "edges_per_date": min(entry["edges_per_date"]),
        }

    def smallest(group: str) -> float | None:
        found = [entry["grad_norm"][group] for entry in result.values() if group in entry["grad_norm"]]
        return min(found) if found else None

    edges = [entry["edges_per_date"] for entry in result.values() if "graph" in entry["grad_norm"]]
    return {
        "stages": result,
        "graph_grad_norm": smallest("graph"),
        "gates_grad_norm": smallest("gates"),
        "edges_per_date": min(edges) if edges else None,
    }


def phase_table(history: list[dict[str, Any]], progresses: list[Progress]) -> list[dict[str, Any]]:
    """One row per phase: start, best, which epoch, whether the start was kept, peak rates, seconds."""
    rows = []
    for progress in progresses:
        records = [r for r in history if r["phase"] == progress.phase]
        monitored = [r for r in records if r["monitored"]]
        rows.append(
            {
                "phase": progress.phase,
                "name": records[0]["phase_name"],
                "start_rank_ic": progress.start_value,
                "best_rank_ic": progress.best,
                "best_epoch": progress.best_epoch,
                "kept_start": not progress.best_epoch,
                "epochs": len(monitored),
                "rank_ic_by_epoch": [r["rank_ic"] for r in monitored],
                "rank_ic_se": monitored[-1]["rank_ic_se"] if monitored else None,
                "windows_per_s": float(np.mean([r["throughput"]["windows_per_s"] for r in records])),
                "seconds": sum(r["throughput"]["sec_per_epoch"] for r in records),
            }
        )
    return rows


def final_summary(
    trainer: Trainer, result: dict[str, Any], scores: np.ndarray, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """`metrics_summary.json`. The test dates are read here and nowhere else."""
    panel, config, history = trainer.panel, trainer.config, trainer.history
    evaluation: dict[str, Any] = {}
    for part in ("valid", "test"):
        dates = panel.part(part)
        span = scores[dates.start : dates.stop]
        evaluation[part] = {
            f"delay_{delay}": evaluate(span, panel, dates, delay, config, intervals=True) for delay in panel.delays
        }
    own = [r for r in history if r["phase"] == result["phase"] and r["monitored"] and r["epoch"] == result["epoch"]]
    valid = evaluation["valid"][f"delay_{config.delay}"]
    last = panel.part("test").stop
    return {
        **describe(trainer),
        "complete": True,
        "phase": result["phase"],
        "epoch": result["epoch"],
        "lr": own[-1]["lr"],
        "peak_lr": own[-1]["peak_lr"],
        "train": own[-1]["train"],
        "val": {**valid, "loss": own[-1]["val"]["loss"]},
        "test": evaluation["test"][f"delay_{config.delay}"],
        "evaluation": evaluation,
        **headline(valid),
        "phases": rows,
        "liveness": liveness(history),
        "degeneracy": valid["degeneracy"],
        "model": own[-1]["model"],
        "rank_autocorrelation": _autocorrelations(scores[:last], panel.horizons.index(1)),
        "data": {
            "train_cells_skipped": trainer.targets.skipped_cells,
            "dates_dropped": trainer.source.dates_dropped,
            "graphs_built": trainer.graphs.built,
            "graphs_reused": trainer.graphs.reused,
        },
        "throughput": {
            "windows_per_s": float(np.mean([r["throughput"]["windows_per_s"] for r in history])),
            "dates_per_s": float(np.mean([r["throughput"]["dates_per_s"] for r in history])),
            "sec_per_epoch": float(np.mean([r["throughput"]["sec_per_epoch"] for r in history])),
            "gpu_util": trainer.heartbeat.sampler.gpu_summary(),
            "peak_mem": max(r["throughput"]["peak_mem_mb"] for r in history),
        },
    }


def _autocorrelations(scores: np.ndarray, day: int) -> dict[str, float]:
    """Rank autocorrelation of the 1-day score at 1, 5 and 20 days over all scored dates."""
    found = {}
    for lag in (1, 5, 20):
        series = metrics.rank_autocorrelation(scores[..., day], lag)
        good = series[np.isfinite(series)]
        found[str(lag)] = float(good.mean()) if len(good) else float("nan")
    return found
