"""One training from its inputs to its outputs: lock, run folder, reuse, training, scores, summary, failure report."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from atft_pipeline.training import checkpoint, monitor
from atft_pipeline.training.checkpoint import Progress
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.disk import require_space, survive
from atft_pipeline.training.engine import Trainer
from atft_pipeline.training.faults import Stopped
from atft_pipeline.training.files import write_array, write_json
from atft_pipeline.training.panel_data import PanelData, load_panel
from atft_pipeline.training.report import Reporter
from atft_pipeline.training.runs import RunFolder, exclusive, open_run
from atft_pipeline.training.summary import final_summary, phase_table


def run_training(
    panel_dir: Path, runs: Path, config: TrainingConfig, reporter: Reporter, stop: threading.Event | None = None
) -> RunFolder:
    """Train, or recognise a finished run of the same panel, config and code. Returns its folder.

    Raises `Stopped` after a request to stop, `Busy` when another training holds the lock too long; every other
    exception leaves a `failure_report.json`. The same call resumes in all cases.
    """
    stop = stop or threading.Event()
    with exclusive(runs, config.lock_wait_seconds, reporter.line):
        panel = load_panel(panel_dir)
        folder = open_run(runs, panel.hash, config)
        if folder.complete:
            reporter.line(f"run {folder.run_id} is finished already: same panel, settings and code")
            _report(folder, reporter, reused=True)
            return folder
        folder.set_state("running")
        write_json(folder.path / "config.json", {"config": config.to_json(), **folder.hashes})
        with monitor.Heartbeat(
            folder.path / "heartbeat.json", config.heartbeat_seconds, config.stall_seconds
        ) as heartbeat:
            _guarded(config, panel, folder, reporter, heartbeat, stop)
        _report(folder, reporter, reused=False)
        return folder


def _guarded(
    config: TrainingConfig, panel: PanelData, folder: RunFolder, reporter: Reporter, heartbeat: monitor.Heartbeat,
    stop: threading.Event,
) -> None:  # fmt: skip
    trainer: Trainer | None = None
    try:
        trainer = Trainer(config, panel, folder, reporter, heartbeat, stop)
        _train_and_score(trainer)
    except Stopped:
        folder.set_state("stopped")
        raise
    except BaseException as error:
        failure = error
        where = trainer.where if trainer is not None else {"stage": "start"}
        survive(lambda: monitor.write_failure(folder, failure, where), "failure_report.json")
        survive(lambda: folder.set_state("failed"), "status.json")
        reporter.line(f"training failed: {error}; details in {folder.path / 'failure_report.json'}")
        raise


def _train_and_score(trainer: Trainer) -> None:
    folder, started = trainer.folder, time.monotonic()
    trainer.reporter.line(
        f"run {folder.run_id}: {len(trainer.panel.dates)} dates, {len(trainer.panel.codes)} stocks, "
        f"{trainer.panel.n_features} features, {trainer.steps_per_epoch} steps per epoch on {trainer.device.type}"
    )
    trainer.reporter.line(f"data path: {trainer.feed.mode.name} ({trainer.feed.mode.reason})")
    weights = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
    panel, levels = trainer.panel, len(trainer.model.config.quantiles)
    require_space(folder.path, weights, 4 * panel.y.shape[0] * panel.y.shape[1] * len(panel.horizons) * (1 + levels))
    result = trainer.train()
    scores, quantiles = trainer.score_everything()
    disk, uncertainty = trainer.disk, trainer.uncertainty()
    disk.essential("scores.npy", lambda: write_array(folder.scores, scores))
    disk.essential("quantiles.npy", lambda: write_array(folder.quantiles, quantiles))
    if uncertainty is not None:
        disk.optional("uncertainty.npy", lambda: write_array(folder.uncertainty, uncertainty))
    trainer.heartbeat.update(stage="summary")
    rows = phase_table(trainer.history, _progresses(trainer))
    summary = final_summary(trainer, result, scores, rows)
    summary["seconds"] = time.monotonic() - started
    disk.essential("metrics_summary.json", lambda: write_json(folder.summary, summary))
    monitor.clear_failure(folder)
    trainer.graphs.prune()
    folder.set_state("complete")


def _progresses(trainer: Trainer) -> list[Progress]:
    paths = (trainer.folder.checkpoint(phase.number, "last") for phase in trainer.phases)
    return [Progress(**checkpoint.load(path)["progress"]) for path in paths]


def _report(folder: RunFolder, reporter: Reporter, *, reused: bool) -> None:
    """The result as flat metadata: numbers with their errors, named by split and delay."""
    summary = folder.read_summary()
    metadata: dict[str, Any] = {
        "run_id": folder.run_id,
        "run_dir": str(folder.path),
        "reused": reused,
        "n_params": summary["n_params"],
        "n_features": summary["n_features"],
        "best_phase": summary["phase"],
        "best_epoch": summary["epoch"],
        **{name: summary[name] for name in ("Sharpe", "IC", "RankIC", "RankIC_SE", "HitRate")},
    }
    for part, delays in summary["evaluation"].items():
        for delay, found in delays.items():
            mean = found["mean"]["rankic"]
            metadata[f"{part}_{delay}_rankic"] = mean["mean"]
            metadata[f"{part}_{delay}_rankic_se"] = mean["se"]
    for row in summary["phases"]:
        metadata[f"phase{row['phase']}_rankic"] = row["best_rank_ic"]
    for name in ("graph_grad_norm", "gates_grad_norm", "edges_per_date"):
        metadata[name] = summary["liveness"][name]
    reporter.result(metadata, folder.run_id)
