"""The walk-forward from its inputs to its results: folds, their processes, tables and page."""

from __future__ import annotations

import threading
from pathlib import Path

from atft_pipeline.dataset.contract import Contract, contract_of
from atft_pipeline.settings import Settings
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.report import Reporter
from atft_pipeline.training.runs import exclusive
from atft_pipeline.walk_forward.course import Course, point_last
from atft_pipeline.walk_forward.results import summary_table, write_results
from atft_pipeline.walk_forward.spec import WalkSpec, specify


def walk_forward(
    lake: Path, settings: Settings, config: TrainingConfig, reporter: Reporter, stop: threading.Event | None = None,
    contract: Contract | None = None,
) -> WalkSpec:  # fmt: skip
    """Evaluate `config` by walk-forward on the lake's dataset, or go on with it; returns what was walked.

    It holds the training lock, so no training runs beside it. Raises `Stopped` after a request to stop (the same call
    goes on), `ContractBroken` when the data do not allow it, `TrainingFault` when a fold fails.
    """
    market = settings.size.name if settings.market == "simulated" else f"J-Quants, plan {settings.plan}"
    with exclusive(lake / "runs", config.lock_wait_seconds, reporter.line):
        spec = specify(lake, settings, config, contract=contract or contract_of(settings.plan), market=market)
        spec.save()
        point_last(spec.path)
        reporter.line(
            f"walk-forward {spec.id}: {len(spec.folds)} folds, seeds {', '.join(map(str, spec.seeds))}, "
            f"{spec.walk['workers']} at a time"
        )
        Course(spec, reporter, stop or threading.Event()).run()
        results = write_results(spec)
    broken = [f"{name}: {rule['message']}" for name, rule in results["verdicts"].items() if not rule["passed"]]
    reporter.line(f"{summary_table(results)}\npage: {spec.path / 'page.html'}")
    if broken:
        reporter.line(f"checks that do not hold: {'; '.join(broken)}")
    return spec
