"""What every part is worth: the model phase by phase, without one part at a time, with 99 inputs; rivals beside it.

    python benchmarks/ablations.py [--stocks 400] [--days 1200] [--seeds 2,3] [--plant demo] [--variants whole,...]
        [--preset demo] [--set name=value] [--jobs 2] [--folder DIR]

Every variant is trained on the same panel through all of its phases, in a process of its own with one thread. Rows
`P0` to `P3` are the best checkpoints of the whole model's phases by validation; `no_*` rows are finished models without
the part; `optimised_highway` starts its highway from zero and leaves it to the optimiser; `highway_alone` has no
network beside it; `inputs_99` sees the groups that prices alone give.
Figures per row, at the tradable delay of one day: 1-day RankIC and its mean over horizons with Newey-West errors, net
Sharpe of the 5-day decile book with its 95 % interval, correlation with the oracle, windows trained per second of the
phases behind the row. `minus_P3` is the mean daily difference of the 1-day RankIC on the same dates.
One JSON line per row and market seed, then one per row over the seeds: markets are independent, so their errors add in
squares. With --folder, markets are kept and found again.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from oracle import (
    MACHINE,
    dataset_to_panel,
    evaluation_data,
    figures,
    market_to_dataset,
    options,
    scores_on,
    trainer_of,
)

VARIANTS: dict[str, dict[str, str]] = {
    "whole": {},
    "no_graph": {"without": '["graph"]'},
    "no_fan": {"without": '["fan"]'},
    "no_san": {"without": '["san"]'},
    "no_lstm": {"without": '["lstm"]'},
    "optimised_highway": {"fit_highway": "false"},
    "inputs_99": {},
    "highway_alone": {},
}
SETTINGS = {"mc_samples": "0", "dates_per_epoch": "240"}
DELAY = 1
COST_ONE_WAY = 0.001
BOOK_HORIZON = 5
PARTS = ("valid", "test")
Rows = dict[str, dict[str, Any]]
Series = dict[str, dict[str, np.ndarray]]
"""Row -> part -> daily 1-day RankIC."""


@dataclass(frozen=True)
class Task:
    """One variant on one market."""

    variant: str
    lakes: Mapping[str, Path]
    seed: int
    preset: str
    settings: Mapping[str, str]

    @property
    def lake(self) -> Path:
        return self.lakes["99" if self.variant == "inputs_99" else "all"]


def prepare(folder: Path, plant: str, seed: int, stocks: int, days: int) -> dict[str, Path]:
    """A market with two training panels, of all inputs and of 99, each in a lake with the market's oracle."""
    from atft_pipeline.dataset.training_panel import panel_dir
    from atft_pipeline.features import catalog

    base = {group.name for group in catalog.GROUPS if group.tier == "base"}
    whole = folder / f"ablations-{plant}-{seed}-{stocks}x{days}"
    lakes = {"all": whole, "99": whole.with_name(f"{whole.name}-99")}
    if (whole / "ready").exists():
        return lakes
    for lake in lakes.values():
        shutil.rmtree(lake, ignore_errors=True)
    market_to_dataset(whole, plant, seed, stocks, days)
    dataset_to_panel(whole, [c.name for c in catalog.columns("standard") if c.role == "feature" and c.group in base])
    lakes["99"].mkdir()
    shutil.move(panel_dir(whole), panel_dir(lakes["99"]))
    shutil.copytree(whole / "market", lakes["99"] / "market")
    dataset_to_panel(whole)
    for name in ("raw", "features", "dataset"):
        shutil.rmtree(whole / name, ignore_errors=True)
    (whole / "ready").touch()
    return lakes


def work(task: Task) -> tuple[Task, Rows, Series]:
    """Train the variant and judge it; the whole model also phase by phase, with its rivals."""
    import torch

    torch.set_num_threads(1)
    from atft_pipeline.evaluation.oracle import load_oracle
    from atft_pipeline.training import checkpoint
    from atft_pipeline.training.config import TrainingConfig
    from atft_pipeline.training.panel_data import load_panel
    from atft_pipeline.training.runs import open_run

    lake = task.lake
    settings = {**SETTINGS, **VARIANTS[task.variant], **task.settings}
    config = TrainingConfig.resolve(task.preset, env={}).with_settings(settings)
    folder = open_run(lake / "runs" / task.variant, load_panel(lake / "training_panel", verify=False).hash, config)
    trainer, data = trainer_of(lake, config, folder), evaluation_data(lake)
    oracle = load_oracle(lake / "market", data.dates, data.codes, data.delays, data.horizons)
    rows, series = Rows(), Series()

    def keep(name: str, scores: np.ndarray, **more: object) -> None:
        rows[name], series[name] = judged(data, scores, oracle)
        rows[name] |= more

    if task.variant == "highway_alone":
        keep(task.variant, highway_alone(trainer))
        return task, rows, series
    trainer.train()
    if task.variant == "whole":
        for phase in trainer.phases:
            trainer.load_result(checkpoint.load(folder.checkpoint(phase.number, "best"), trainer.device))
            keep(f"P{phase.number}", scores_on(trainer, PARTS), windows_per_s=speed(trainer, phase.number))
        rivals = rival_scores_of(data, scores_on(trainer, PARTS))
        for name, scores in rivals.items():
            keep(name, scores)
    else:
        keep(task.variant, scores_on(trainer, PARTS), windows_per_s=speed(trainer, trainer.phases[-1].number))
    return task, rows, series


def highway_alone(trainer: Any) -> np.ndarray:
    """Scores of the fitted highway, its neighbours' terms included, with the network's own scores taken out."""
    trainer._start_highway(trainer.phases[0])
    trainer._start_highway(next(phase for phase in trainer.phases if phase.graph))
    trainer.model.heads.quieten(0.0)
    return scores_on(trainer, PARTS)


def rival_scores_of(data: Any, own: np.ndarray) -> dict[str, np.ndarray]:
    """The rivals' scores where the model has one."""
    from atft_pipeline.evaluation.rivals import rival_scores

    seen = np.isfinite(own)
    return {name: np.where(seen, score, np.nan) for name, score in rival_scores(data, DELAY).scores.items()}


def speed(trainer: Any, last_phase: int) -> int:
    """Windows per second of training up to a phase."""
    records = [record["throughput"] for record in trainer.history if record["phase"] <= last_phase]
    return round(sum(r["windows"] for r in records) / sum(r["sec_train"] for r in records))


def judged(data: Any, scores: np.ndarray, oracle: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A row's figures per part, and its daily 1-day RankIC."""
    from atft_pipeline.evaluation import metrics

    row: dict[str, Any] = {}
    daily: dict[str, np.ndarray] = {}
    first, book_at = data.horizons.index(1), data.horizons.index(BOOK_HORIZON)
    longest = max(data.horizons) - 1
    for part in PARTS:
        span, y = data.part(part), data.labels(part, DELAY)
        own = np.where(data.scored[span][:, :, None], scores[span], np.nan)
        by_horizon = {h: metrics.rank_ic(own[..., i], y[..., i]) for i, h in enumerate(data.horizons)}
        daily[part] = by_horizon[1]
        known = np.isfinite(y[..., first]).any(axis=1)
        book = metrics.decile_book(
            own[known][..., book_at], y[known][..., first], horizon=BOOK_HORIZON, cost=COST_ONE_WAY
        )
        traded = metrics.book_summary(book, cost=COST_ONE_WAY)
        row[part] = {
            "rank_ic": figures(metrics.summarise_series(by_horizon[1], 0)),
            "rank_ic_mean": figures(metrics.summarise_series(metrics.weighted_mean(by_horizon), longest)),
            "sharpe_net": _plain(traded["sharpe_net_ann"]),
            "sharpe_ci95": [_plain(end) for end in traded["ci95"]],  # type: ignore[attr-defined]
            "oracle": figures(metrics.summarise_series(
                metrics.ic(own[..., first], oracle.expected[DELAY, 1][span]), longest)),
            "n_dates": int(np.isfinite(by_horizon[1]).sum()),
        }  # fmt: skip
    return row, daily


def _plain(value: Any) -> float | None:
    return round(float(value), 2) if math.isfinite(value) else None


def with_differences(rows: Rows, series: Series) -> Rows:
    """Every row of a market beside the finished whole model, day by day."""
    from atft_pipeline.evaluation import metrics

    for name in rows:
        for part in PARTS:
            gap = series[name][part] - series["P3"][part]
            rows[name][part]["minus_P3"] = figures(metrics.summarise_series(gap, 0))
    return rows


def over_seeds(by_seed: Sequence[Rows]) -> Rows:
    """Mean of the markets' figures; errors of independent markets add in squares."""
    table = Rows()
    for name in by_seed[0]:
        table[name] = {part: {} for part in PARTS}
        for part in PARTS:
            for measure in ("rank_ic", "rank_ic_mean", "oracle", "minus_P3"):
                cells = [rows[name][part][measure] for rows in by_seed]
                if all(cell["mean"] is not None for cell in cells):
                    errors = [cell["se"] or 0.0 for cell in cells]
                    table[name][part][measure] = {
                        "mean": round(float(np.mean([cell["mean"] for cell in cells])), 4),
                        "se": round(math.sqrt(sum(e * e for e in errors)) / len(cells), 4),
                    }
            table[name][part]["sharpe_net"] = [rows[name][part]["sharpe_net"] for rows in by_seed]
    return table


def main() -> int:
    parser = options(__doc__, seeds="2,3")
    parser.add_argument("--plant", default="demo")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    settings = dict(text.split("=", 1) for text in chosen.set)
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    variants = chosen.variants.split(",")
    if "whole" not in variants:
        raise SystemExit("the variant `whole` is what the others are held against; leave it in")
    with tempfile.TemporaryDirectory() as temporary:
        folder, began = chosen.folder or Path(temporary), time.monotonic()
        rows: dict[int, Rows] = {seed: {} for seed in seeds}
        series: dict[int, Series] = {seed: {} for seed in seeds}
        with multiprocessing.get_context("spawn").Pool(chosen.jobs, maxtasksperchild=1) as pool:
            lakes = pool.starmap(
                prepare, [(folder, chosen.plant, seed, chosen.stocks, chosen.days) for seed in seeds], chunksize=1
            )
            tasks = [
                Task(variant, found, seed, chosen.preset, settings)
                for variant in variants
                for seed, found in zip(seeds, lakes, strict=True)
            ]
            for task, found_rows, found_series in pool.imap_unordered(work, tasks):
                rows[task.seed] |= found_rows
                series[task.seed] |= found_series
                print(f"{task.variant}, seed {task.seed}: done", file=sys.stderr, flush=True)
        for seed in seeds:
            for name, row in with_differences(rows[seed], series[seed]).items():
                print(json.dumps({"row": name, "seed": seed, **row}), flush=True)
        for name, row in over_seeds([rows[seed] for seed in seeds]).items():
            print(json.dumps({"row": name, "seeds": len(seeds), **row}), flush=True)
        spent = round(time.monotonic() - began, 1)
        print(json.dumps({"benchmark": "ablations", "stocks": chosen.stocks, "days": chosen.days,
                          "plant": chosen.plant, "preset": chosen.preset, "settings": {**SETTINGS, **settings},
                          "seconds": spent, "machine": MACHINE}))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
