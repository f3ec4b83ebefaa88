"""Training speed: every data path, beside random windows through a DataLoader, and where the time goes.

    python benchmarks/train.py [--device cuda] [--part NAME ...] [--hidden 64 256] [--stocks 200 1000 3500] ...

Parts, each printing JSON lines:
  gather   windows per second out of the mapped panel, beside Parquet per sample
  modes    windows/s and s/epoch of the whole model (last phase) in each data-path mode, and of the first phase
  peer     500 stocks x 500 dates, H=64: encode-once blocks against random windows of 256 through a DataLoader
  place    FAN and SAN on the declared raw series, on the selected sequence, and on every raw input
  profile  the operations that a step's time goes to (torch.profiler)
  epoch    one full epoch of the whole model, every step of it: for a GPU
  phases   a full four-phase job through the training supervisor: for a GPU

On the CPU a few steps are timed and the epoch is extrapolated from them (`timed_steps` in the line); on a GPU `epoch`
runs all of it. The panel is generated here, in the format of the training panel; nothing else is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN, Block
from atft_pipeline.model.norm import AdaptiveNorm
from atft_pipeline.training import checkpoint, monitor
from atft_pipeline.training.batches import Days, cut, epoch_order
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.engine import Trainer, build_model
from atft_pipeline.training.losses import LossFunction
from atft_pipeline.training.machine import peak_memory_mb
from atft_pipeline.training.optimiser import StageOptimiser
from atft_pipeline.training.panel_data import PanelData, load_panel
from atft_pipeline.training.phases import freeze
from atft_pipeline.training.report import PlainReporter
from atft_pipeline.training.runs import open_run
from atft_pipeline.training.supervisor import run_training
from atft_pipeline_tests.training.random_panel import SPECTRAL, write_random_panel

WINDOW = 60
EPOCH_DATES = 1700
"""Dates of the epoch that CPU figures are extrapolated to: ten years less validation, test and warm-up."""
BASELINE, ADAPTIVE, WHOLE = 0, 1, 3
"""Phases: encoder and heads; with FAN and SAN; everything on."""
PASSES = 4
"""Times that every window's codes cross memory in an ideal step: written and read, forward and backward."""
MODES = ("resident", "mapped", "workers", "safe")


class Clock:
    """Wall and CPU time from its making on: on a shared machine the second says more."""

    def __init__(self) -> None:
        self.began, self.cpu = time.perf_counter(), time.process_time()

    def rates(self, windows: int) -> dict[str, int]:
        wall, cpu = time.perf_counter() - self.began, time.process_time() - self.cpu
        return {"windows_per_s": round(windows / wall), "windows_per_cpu_s": round(windows / max(cpu, 1e-9))}


class Aside(PlainReporter):
    """Lines about a run go to stderr: stdout carries figures only."""

    def line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Bench:
    """The sizes and the machine of one call, and the panels made for it."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments, self.folder, self.runs = arguments, folder, 0
        self.cuda = arguments.device == "cuda"
        card = torch.cuda.get_device_name() if self.cuda else platform.machine()
        threads = f"{arguments.threads} threads of {os.cpu_count()}"
        self.machine = {"date": date.today().isoformat(), "machine": f"{card}, {threads}", "torch": torch.__version__}

    def say(self, part: str, **figures: Any) -> None:
        print(json.dumps({"benchmark": "train", "part": part, **self.machine, **figures}), flush=True)

    def panel(self, stocks: int, train: int) -> PanelData:
        """A panel of these sizes, made once."""
        folder = self.folder / f"panel-{train}x{stocks}x{self.arguments.features}"
        if not (folder / "manifest.json").exists():
            write_random_panel(folder, train=train, stocks=stocks, features=self.arguments.features, window=WINDOW)
        return load_panel(folder, verify=False)

    def config(self, hidden: int, **changes: Any) -> TrainingConfig:
        a = self.arguments
        preset = "large" if hidden >= 256 else "small"
        given = {"hidden": hidden, "sequence_length": WINDOW, "device": a.device, "threads": a.threads,
                 "precision": a.precision, "dates_per_step": a.dates_per_step, "retrain": True}  # fmt: skip
        config = TrainingConfig.resolve(preset, env={}, overrides={**given, **changes})
        return config.with_settings(dict(pair.split("=", 1) for pair in a.set))

    def trainer(
        self, panel: PanelData, config: TrainingConfig,
        make_model: Callable[[TrainingConfig, PanelData], ATFTGATFAN] = build_model,
    ) -> Trainer:  # fmt: skip
        """A trainer with a run folder of its own."""
        self.runs += 1
        folder = open_run(self.folder / f"runs{self.runs}", panel.hash, config)
        beat = monitor.Heartbeat(folder.path / "heartbeat.json", 60.0)
        return Trainer(config, panel, folder, Aside(), beat, threading.Event(), make_model)

    def synchronise(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()


def steps_of(trainer: Trainer, number: int, blocks: Sequence[Days]) -> Iterator[int]:
    """Train the blocks as the last stage of phase `number` does; after each step, the windows that it held."""
    phase = trainer.phases[number]
    stage = phase.stages[-1]
    trainer.model.set_switches(adaptive_norm=phase.adaptive_norm, graph=phase.graph)
    trainer.model.train()
    groups = freeze(trainer.model, stage, stage.thaw_after)
    optimiser = StageOptimiser(trainer.model, groups, stage, trainer.steps_per_epoch, trainer.config)
    loss = LossFunction(stage.weights, trainer.panel.horizons, trainer.model.config.quantiles)
    sums = checkpoint.empty_sums()
    for batch in trainer.feed.batches(blocks, with_graph=phase.graph):
        trainer._step(stage, phase.clip, batch, groups, optimiser, loss, sums)
        yield len(batch.block.pairs)


def time_steps(bench: Bench, trainer: Trainer, number: int, steps: int) -> dict[str, Any]:
    """windows/s over `steps` steps after those that warm up, graphs built beforehand (an epoch reuses them)."""
    warm = bench.arguments.warm
    blocks = epoch_order(trainer.train_blocks, 0, number, 0, 0, steps=warm + steps)
    began, built = time.perf_counter(), trainer.graphs.built
    if trainer.phases[number].graph:
        days = (day for block in blocks for day in range(block.first, block.first + block.count))
        trainer.graphs.prepare(days, os.cpu_count() or 1 if bench.cuda else bench.arguments.threads)
    graphs = (time.perf_counter() - began) / max(trainer.graphs.built - built, 1)
    if bench.cuda:
        torch.cuda.reset_peak_memory_stats()
    windows, began, cpu = 0, time.perf_counter(), time.process_time()
    try:
        for done, held in enumerate(steps_of(trainer, number, blocks), start=1):
            bench.synchronise()
            if done <= warm:
                began, cpu = time.perf_counter(), time.process_time()
            else:
                windows += held
    finally:
        trainer.feed.close()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    dates = sum(days.count for days in blocks[warm:])
    return {
        "windows_per_s": round(windows / seconds), "windows_per_cpu_s": round(windows / cpu),
        "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "timed_steps": len(blocks) - warm,
        "warm_steps": warm, "dates": dates,
        "windows_per_date": round(windows / dates), "graph_build_s": round(graphs, 2),
        "peak_gpu_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if bench.cuda else None,
        "peak_rss_mb_so_far": peak_memory_mb(),
    }  # fmt: skip


def sizes(trainer: Trainer, number: int) -> dict[str, Any]:
    config = trainer.config
    return {
        "hidden": config.hidden, "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "stocks": len(trainer.panel.codes), "features": trainer.panel.n_features, "window": config.sequence_length,
        "dates_per_step": config.dates_per_step, "phase": trainer.phases[number].name, "mode": trainer.feed.mode.name,
        "precision": "bf16" if trainer.autocast._enabled else "fp32",
    }  # fmt: skip


def part_gather(bench: Bench) -> None:
    """How fast windows leave the mapped panel: as training takes them, and written out one by one."""
    for stocks in bench.arguments.stocks:
        trainer = bench.trainer(bench.panel(stocks, 64), bench.config(64, mode="mapped"))
        source, panel = trainer.source, trainer.panel
        blocks = cut(panel.part("train"), trainer.config.dates_per_step)
        blocks_clock, windows = Clock(), 0
        for batch in source.batches(blocks, with_graph=False):
            windows += len(batch.block.pairs)
        as_blocks = blocks_clock.rates(windows)
        rng, flat = np.random.default_rng(1), panel.x.reshape(-1, panel.n_features)
        day = rng.integers(WINDOW - 1, len(panel.dates), 4096)
        rows = (day[:, None] + np.arange(1 - WINDOW, 1)) * stocks + rng.integers(0, stocks, (4096, 1))
        out, single_clock = np.empty((256, WINDOW, panel.n_features), np.float16), Clock()
        for start in range(0, len(rows), 256):
            np.take(flat, rows[start : start + 256], axis=0, out=out, mode="clip")
        one_by_one = single_clock.rates(len(rows))
        parquet = _parquet_per_sample(bench.folder, panel)
        bench.say(
            "gather", stocks=stocks, features=panel.n_features, window=WINDOW,
            as_blocks=as_blocks, one_by_one=one_by_one, parquet_per_sample=parquet,
            ratio_to_parquet_by_cpu=round(as_blocks["windows_per_cpu_s"] / parquet["windows_per_cpu_s"]),
        )  # fmt: skip


def _parquet_per_sample(folder: Path, panel: PanelData, samples: int = 40) -> dict[str, int]:
    """One file per stock, sorted by date; a sample reads its 60 rows of every column."""
    import polars as pl  # the training machine need not have it

    names = [f"f{i}" for i in range(panel.n_features)]
    for stock in range(4):
        pl.from_numpy(panel.x[:, stock].astype(np.float32), schema=names).write_parquet(folder / f"{stock}.parquet")
    clock = Clock()
    for sample in range(samples):
        pl.read_parquet(folder / f"{sample % 4}.parquet").slice(sample, WINDOW).to_numpy()
    return clock.rates(samples)


def part_modes(bench: Bench) -> None:
    a = bench.arguments
    for hidden in a.hidden:
        for stocks in a.stocks:
            panel = bench.panel(stocks, a.dates_per_step * (a.steps + 2))
            first = [] if a.whole_only else [(BASELINE, a.modes[0])]
            for number, mode in (*first, *((WHOLE, mode) for mode in a.modes)):
                trainer = bench.trainer(panel, bench.config(hidden, mode=mode))
                found = time_steps(bench, trainer, number, a.steps)
                epoch = EPOCH_DATES * found["windows_per_date"] / found["windows_per_s"]
                bench.say("modes", **sizes(trainer, number), **found, epoch_dates=EPOCH_DATES,
                          epoch_s_extrapolated=round(epoch, 1))  # fmt: skip


class RandomWindows(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """The usual way: an item is one stock's window with its labels."""

    def __init__(self, trainer: Trainer) -> None:
        panel, source = trainer.panel, trainer.source
        self.x, targets = panel.x, trainer.targets
        span = panel.part("train")
        self.items = np.argwhere(source.eligible[span.start : span.stop]) + np.array([span.start, 0])
        self.first, self.labels, self.sector = span.start, targets.standardised, panel.sector

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        day, stock = self.items[number]
        window = torch.from_numpy(self.x[day - WINDOW + 1 : day + 1, stock].astype(np.float32))
        label = torch.from_numpy(self.labels[day - self.first, stock])
        return window, label, torch.tensor(int(self.sector[day, stock]))


def peer_windows_per_s(
    trainer: Trainer, number: int, workers: int, batches: int, size: int = 256
) -> tuple[float, float]:  # fmt: skip
    """The same model, optimiser and precision on shuffled windows. Huber and pinball: ranks need whole dates.

    Windows per second of wall time and of this process's CPU time.
    """
    phase = trainer.phases[number]
    stage = phase.stages[-1]
    trainer.model.set_switches(adaptive_norm=phase.adaptive_norm, graph=False)
    trainer.model.train()
    groups = freeze(trainer.model, stage, stage.thaw_after)
    optimiser = StageOptimiser(trainer.model, groups, stage, 1000, trainer.config)
    levels = torch.tensor(trainer.model.config.quantiles)
    pairs = torch.stack([torch.zeros(size, dtype=torch.long), torch.arange(size)], 1)
    observed = torch.ones(WINDOW, size, dtype=torch.bool)
    loader = DataLoader(RandomWindows(trainer), size, shuffle=True, num_workers=workers, drop_last=True)
    began, cpu = time.perf_counter(), time.process_time()
    for done, (windows, label, sector) in enumerate(loader):
        if done == 1:
            began, cpu = time.perf_counter(), time.process_time()
        with trainer.autocast:
            output = trainer.model(Block(windows.transpose(0, 1).contiguous(), observed, pairs, sector))
        error = label[..., None] - output.quantiles
        pinball = torch.maximum(levels * error, (levels - 1) * error).mean()
        (F.smooth_l1_loss(output.score, label) + 0.3 * pinball).backward()
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), phase.clip)
        optimiser.step()
        trainer.model.zero_grad(set_to_none=True)
        if done == batches:
            break
    return batches * size / (time.perf_counter() - began), batches * size / (time.process_time() - cpu)


def part_peer(bench: Bench) -> None:
    a = bench.arguments
    stocks, dates = a.peer_sizes
    panel = bench.panel(stocks, dates)
    for number in (BASELINE, ADAPTIVE):
        trainer = bench.trainer(panel, bench.config(64, mode="resident"))
        ours = time_steps(bench, trainer, number, a.steps)
        peers = {workers: peer_windows_per_s(trainer, number, workers, a.steps) for workers in (0, 2)}
        best, by_cpu = max(wall for wall, _ in peers.values()), peers[0][1]
        epoch = ours["windows_per_date"] * dates
        bench.say(
            "peer", **sizes(trainer, number), **ours, train_dates=dates,
            dataloader_windows_per_s={f"{n} workers": round(wall, 1) for n, (wall, _) in peers.items()},
            dataloader_windows_per_cpu_s=round(by_cpu, 1),
            epoch_s_extrapolated=round(epoch / ours["windows_per_s"], 1),
            dataloader_epoch_s_extrapolated=round(epoch / best, 1), ratio=round(ours["windows_per_s"] / best, 2),
            ratio_by_cpu=round(ours["windows_per_cpu_s"] / by_cpu, 2),
        )  # fmt: skip


class SelectedPlace(ATFTGATFAN):
    """FAN and SAN on the selected sequence [m, hidden, T]; with shut gates the same function as on the raw series."""

    def __init__(self, plain: ATFTGATFAN) -> None:
        super().__init__(plain.config)
        c = plain.config
        self.adaptive_norm = AdaptiveNorm(c.hidden, c.fan_k, c.fan_includes_dc, c.san_period)

    def _row_codes(self, x: Tensor) -> tuple[Tensor, ...]:
        plain, weights = self.selection.row_sums(x)
        return (self.selection.codes(plain, weights, x[:, self.selection.spectral]),)

    def _encode_windows(self, rows: Tensor, sector: Tensor, observed: Tensor, *shared: Tensor) -> Tensor:
        codes = F.embedding(rows, shared[0])  # [T, m, hidden]
        if self.uses_adaptive_norm:
            codes = self.adaptive_norm(codes.permute(1, 2, 0)).permute(2, 0, 1)
        return self.temporal(codes + self.static(sector), observed[rows])


def part_place(bench: Bench) -> None:
    a = bench.arguments

    def on_every_input(config: TrainingConfig, panel: PanelData) -> ATFTGATFAN:
        return ATFTGATFAN(replace(build_model(config, panel).config, spectral=tuple(range(panel.n_features))))

    places: dict[str, Callable[[TrainingConfig, PanelData], ATFTGATFAN]] = {
        f"{SPECTRAL} raw series": build_model,
        "selected sequence": lambda config, panel: SelectedPlace(build_model(config, panel)),
        "every raw input": on_every_input,
    }
    stocks = a.stocks[0]
    panel = bench.panel(stocks, a.dates_per_step * (a.steps + 2))
    for hidden in a.hidden:
        for place, make_model in places.items():
            trainer = bench.trainer(panel, bench.config(hidden, mode="resident", pair_chunk=512), make_model)
            found: dict[str, dict[str, int]] = {"windows_per_s": {}, "windows_per_cpu_s": {}}
            for phase, number in (("baseline", BASELINE), ("adaptive_norm", ADAPTIVE)):
                timed = time_steps(bench, trainer, number, a.steps)
                for unit, values in found.items():
                    values[phase] = timed[unit]
            bench.say("place", **{**sizes(trainer, ADAPTIVE), "phase": "both"}, place=place, **found)


def part_profile(bench: Bench) -> None:
    """Where a step's time goes: operations by their own time, and on a GPU the share of time that it is busy."""
    a = bench.arguments
    for hidden in a.hidden:
        stocks = a.stocks[-1]
        trainer = bench.trainer(bench.panel(stocks, a.dates_per_step * (a.steps + 2)), bench.config(hidden))
        blocks = epoch_order(trainer.train_blocks, 0, WHOLE, 0, 0, steps=1 + a.steps)
        steps = steps_of(trainer, WHOLE, blocks)
        next(steps)
        bench.synchronise()
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.cuda else [])]
        began = time.perf_counter()
        with profile(activities=kinds) as profiler:
            for _ in steps:
                bench.synchronise()
        wall = time.perf_counter() - began
        events, own = profiler.key_averages(), "self_device_time_total" if bench.cuda else "self_cpu_time_total"
        total = sum(getattr(e, own) for e in events)
        top = sorted(events, key=lambda e: -getattr(e, own))[:25]
        bench.say(
            "profile", **sizes(trainer, WHOLE), timed_steps=len(blocks) - 1, wall_s=round(wall, 3),
            gpu_busy_share=round(total / 1e6 / wall, 3) if bench.cuda else None,
            operations=[{"name": e.key[:80], "share": round(getattr(e, own) / total, 4),
                         "ms": round(getattr(e, own) / 1e3, 1), "calls": e.count} for e in top],
        )  # fmt: skip


def bytes_per_epoch(trainer: Trainer, dates: int, windows: int) -> float:
    """What an epoch must move at least: every block's rows once, and every window's codes PASSES times, in 2 bytes."""
    config, panel = trainer.config, trainer.panel
    rows = dates / config.dates_per_step * (config.dates_per_step + WINDOW - 1) * len(panel.codes)
    return float(2 * rows * panel.n_features + 2 * PASSES * windows * WINDOW * config.hidden)


def bandwidth(bench: Bench) -> float:
    """Bytes per second of a copy on the device, read and written."""
    size = (1 << 30) if bench.cuda else (1 << 26)
    a, b = (torch.empty(size, dtype=torch.uint8, device=bench.arguments.device) for _ in range(2))
    b.copy_(a)
    bench.synchronise()
    began = time.perf_counter()
    for _ in range(10):
        b.copy_(a)
    bench.synchronise()
    return 20 * size / (time.perf_counter() - began)


def part_epoch(bench: Bench) -> None:
    a = bench.arguments
    for hidden in a.hidden:
        panel = bench.panel(a.stocks[-1], a.dates)
        trainer = bench.trainer(panel, bench.config(hidden, mode=a.modes[0]))
        found = time_steps(bench, trainer, WHOLE, len(trainer.train_blocks) - a.warm)
        moved = bytes_per_epoch(trainer, found["dates"], found["dates"] * found["windows_per_date"])
        bound = moved / bandwidth(bench)
        bench.say("epoch", **sizes(trainer, WHOLE), **found, byte_bound_s=round(bound, 2),
                  share_of_byte_bound=round(bound / found["seconds"], 3))  # fmt: skip


def part_phases(bench: Bench) -> None:
    a = bench.arguments
    for hidden in a.hidden:
        panel = bench.panel(a.stocks[-1], a.dates)
        config = bench.config(hidden, mode=a.modes[0], epochs=tuple(a.epochs), patience=99)
        began = time.perf_counter()
        summary = run_training(panel.folder, bench.folder / f"job{hidden}", config, Aside()).read_summary()
        bench.say(
            "phases", hidden=hidden, stocks=len(panel.codes), features=panel.n_features, train_dates=a.dates,
            seconds=round(time.perf_counter() - began, 1), epochs=sum(a.epochs), throughput=summary["throughput"],
            seconds_by_phase={row["name"]: round(row["seconds"], 1) for row in summary["phases"]},
            memory=summary["memory"], oom_events=summary["oom_events"], mode=summary["mode"],
            peak_gpu_gb=round(torch.cuda.max_memory_allocated() / 1e9, 2) if bench.cuda else None,
        )  # fmt: skip


PARTS: dict[str, Callable[[Bench], None]] = {
    "gather": part_gather, "modes": part_modes, "peer": part_peer, "place": part_place, "profile": part_profile,
    "epoch": part_epoch, "phases": part_phases,
}  # fmt: skip
ON_CPU, ON_GPU = ("gather", "modes", "peer", "place", "profile"), ("profile", "epoch", "phases")


def parser() -> argparse.ArgumentParser:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--part", nargs="+", choices=sorted(PARTS))
    given.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given.add_argument("--hidden", nargs="+", type=int)
    given.add_argument("--stocks", nargs="+", type=int)
    given.add_argument("--features", type=int, default=300)
    given.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    given.add_argument("--whole-only", action="store_true", help="modes: leave the first phase out")
    given.add_argument("--threads", type=int, default=1)
    given.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    given.add_argument("--dates-per-step", type=int, default=8)
    given.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change one training setting")
    given.add_argument("--steps", type=int, default=2, help="timed steps of each figure")
    given.add_argument("--warm", type=int, default=1, help="steps before them that do not count")
    given.add_argument("--dates", type=int, default=2000, help="training dates of epoch and phases")
    given.add_argument("--epochs", nargs=5, type=int, default=[4, 1, 5, 4, 3], help="of the stages of phases")
    given.add_argument("--peer-sizes", nargs=2, type=int, default=[500, 500], metavar=("STOCKS", "DATES"))
    given.add_argument("--folder", type=Path, help="where panels and runs go; removed at the end if not given")
    return given


def main() -> int:
    arguments = parser().parse_args()
    cuda = arguments.device == "cuda"
    if cuda and not torch.cuda.is_available():
        print("no CUDA device: run with --device cpu", file=sys.stderr)
        return 2
    arguments.hidden = arguments.hidden or ([64, 256] if cuda else [64])
    arguments.stocks = arguments.stocks or ([4000] if cuda else [200, 1000])
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(arguments, arguments.folder or Path(temporary))
        for part in arguments.part or (ON_GPU if cuda else ON_CPU):
            PARTS[part](bench)
    return 0


if __name__ == "__main__":
    sys.exit(main())
