"""The training loop: reads the phase table, trains, validates, keeps the best, and can be killed anywhere.

A phase starts from the best checkpoint of the one before it, with a fresh optimiser and scheduler per stage. After each
epoch, and every few steps, the whole state is saved; a resumed run computes what the uninterrupted one would have.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN, ModelConfig
from atft_pipeline.training import checkpoint, monitor
from atft_pipeline.training.averaging import WeightAverage
from atft_pipeline.training.batches import Batch, BlockSource, cut, epoch_order
from atft_pipeline.training.checkpoint import Progress
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.disk import DiskKeeper
from atft_pipeline.training.faults import Stopped, TrainingFault
from atft_pipeline.training.feed import Feed, Prepare, Recipe, choose_mode, free_memory, prepare_block
from atft_pipeline.training.files import write_json
from atft_pipeline.training.graph import GraphRules, GraphStore
from atft_pipeline.training.highway_start import HighwayFitter
from atft_pipeline.training.losses import LossFunction
from atft_pipeline.training.machine import peak_memory_mb
from atft_pipeline.training.memory import MemoryLadder, is_out_of_memory, rows_at_once
from atft_pipeline.training.optimiser import StageOptimiser, clip_gradients
from atft_pipeline.training.panel_data import PanelData
from atft_pipeline.training.phases import Phase, Stage, freeze, resolve_phases
from atft_pipeline.training.report import Reporter
from atft_pipeline.training.runs import RunFolder
from atft_pipeline.training.scoring import score_dates
from atft_pipeline.training.step import Judged, StepGradient, random_state, restore
from atft_pipeline.training.summary import describe, epoch_line, epoch_record, headline
from atft_pipeline.training.targets import Targets
from atft_pipeline.training.uncertainty import mc_dropout
from atft_pipeline.training.validation import Validator

MOST_WAVES, SHORTEST_WAVE = 6, 5
"""The highway reads at most so many waves of a window, none shorter than a week."""


QUIET = 0.05
"""Share of their usual size that the heads' first weights keep beside a fitted highway: at full size the untrained
network's random scores are as large as what the highway has found, and take epochs to unlearn."""


def choose_device(config: TrainingConfig) -> torch.device:
    """The configured device; `auto` prefers CUDA."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def build_model(config: TrainingConfig, panel: PanelData) -> ATFTGATFAN:
    """The model at the config's sizes for the panel's features; the seed fixes its start."""
    checkpoint.seed_everything(config.seed)
    return ATFTGATFAN(
        ModelConfig(
            n_features=panel.n_features, spectral=panel.spectral, return_channel=panel.return_channel,
            hidden=config.hidden, value_width=config.value_width, sequence_length=config.sequence_length,
            attention_heads=config.attention_heads, dropout=config.dropout, horizons=panel.horizons,
            row_chunk=rows_at_once(config, panel.n_features, choose_device(config)),
            pair_chunk=config.pair_chunk, student_t=config.student_weight > 0,
            fan="fan" not in config.without, san="san" not in config.without, lstm="lstm" not in config.without,
            highway_waves=min(MOST_WAVES, config.sequence_length // SHORTEST_WAVE),
        )
    )  # fmt: skip


class Trainer:
    """One run: `train()` goes through the phases that are not finished yet."""

    def __init__(
        self, config: TrainingConfig, panel: PanelData, folder: RunFolder, reporter: Reporter,
        heartbeat: monitor.Heartbeat, stop: threading.Event,
        make_model: Callable[[TrainingConfig, PanelData], ATFTGATFAN] = build_model, prepare: Prepare | None = None,
    ) -> None:  # fmt: skip
        self.config, self.panel, self.folder, self.reporter = config, panel, folder, reporter
        self.heartbeat, self.stop = heartbeat, stop
        self.device = choose_device(config)
        if config.threads:
            torch.set_num_threads(config.threads)
        half = config.precision == "bf16" or (config.precision == "auto" and self.device.type == "cuda")
        self.autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half)
        self.model = make_model(config, panel).to(self.device)
        self.phases = resolve_phases(config)
        graphs = folder.path.parent / "graphs"
        self.graphs = GraphStore(panel, graphs, GraphRules(refresh=config.graph_refresh))
        self.source = BlockSource(
            panel, self.graphs, length=config.sequence_length, min_window_share=config.min_window_share,
            min_cross_section=config.min_cross_section, device=self.device,
        )  # fmt: skip
        self.train_blocks = cut(self._trained_dates(), config.dates_per_step)
        wanted = config.dates_per_epoch or len(self._trained_dates())
        self.steps_per_epoch = min(-(-wanted // config.dates_per_step), len(self.train_blocks))
        self.targets = self._targets(panel.part("train"))
        mode = choose_mode(config.mode, panel.x.nbytes, self.device, free_memory(self.device))
        if mode.name == "resident":
            self.source.make_resident()
        if mode.name == "safe":
            torch.set_num_threads(1)
        recipe = Recipe(panel.folder, graphs, config.to_json(), folder.path, prepare or prepare_block)
        self.feed = Feed(mode, self.source, self.targets, config, recipe, reporter.line)
        self.ladder = MemoryLadder(
            self.model, config, len(panel.codes), self.device, folder.path.parent / "memory.json"
        )
        for _ in range(config.rungs_down):
            killed = MemoryError("the kernel killed the attempt before for its memory")
            reporter.line(self.ladder.climb_down(killed, {"stage": "start"}))
        self.disk = DiskKeeper(folder.path, graphs, reporter.line)
        self.gradient = StepGradient(self.model, self.autocast, self.device)
        self.validator = Validator(config, panel, self._targets(panel.part("valid")))
        self.history: list[dict[str, Any]] = []
        self.highway: dict[str, Any] = folder.read_highway()
        self.where: dict[str, Any] = {}
        self._state: dict[str, Any] | None = None
        self.average: WeightAverage | None = None
        if self.model.config.horizons != panel.horizons:
            raise TrainingFault(f"the model predicts {self.model.config.horizons}, the labels are {panel.horizons}")

    def train(self, after_phase: Callable[[Phase, Progress], None] | None = None) -> dict[str, Any]:
        """Run the unfinished phases. Returns the best checkpoint's content; `final.pt` holds it too.

        `after_phase` hears of each phase, also of those that a resumed run had finished; what it raises ends training.
        """
        try:
            for place, phase in enumerate(self.phases):
                progress = self._open(place, phase)
                if not progress.finished:
                    self._run_phase(phase, progress)
                self.history.extend(progress.history)
                if after_phase is not None:
                    after_phase(phase, progress)
        finally:
            self.feed.close()
        result = checkpoint.load(self.folder.checkpoint(self.phases[-1].number, "best"), self.device)
        self.disk.essential("final.pt", lambda: checkpoint.save(self.folder.final, result))
        self.load_result(result)
        return result

    def load_result(self, result: dict[str, Any]) -> None:
        """Put a result's weights and switches into the model."""
        self.model.load_state_dict(result["model"])
        self.model.set_switches(adaptive_norm=result["adaptive_norm"], graph=result["graph"])

    def score_validation(self) -> np.ndarray:
        """Scores [D, N, H] of the validation dates."""
        return self._score(self.validator.dates)[0]

    def score_everything(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores [T, N, H] and quantiles [T, N, H, Q] of every date from the first full window to the newest."""
        self.heartbeat.update(stage="scoring")
        first, end = self.config.sequence_length - 1, len(self.panel.dates)
        scores, quantiles = self._score(range(first, end))
        pad = [(first, 0), (0, 0), (0, 0)]
        filled = np.pad(scores, pad, constant_values=np.nan)
        return filled, np.pad(quantiles, [*pad, (0, 0)], constant_values=np.nan)

    def uncertainty(self) -> np.ndarray | None:
        """[2, mc_dates, N, H] mean and standard deviation of Monte-Carlo dropout; None when it is switched off."""
        if not self.config.mc_samples:
            return None
        self.heartbeat.update(stage="mc_dropout")
        last = len(self.panel.dates)
        dates = range(max(self.config.sequence_length - 1, last - self.config.mc_dates), last)
        with self.autocast:
            found = mc_dropout(
                self.model, self.source, dates, samples=self.config.mc_samples, seed=self.config.seed,
                progress=self._alive,
            )  # fmt: skip
        return np.stack(found)

    # Phases and stages

    def _open(self, place: int, phase: Phase) -> Progress:
        """Resume the phase from its last checkpoint, or start it from the best of the phase before."""
        last = self.folder.checkpoint(phase.number, "last")
        self._state = self.average = None
        if last.exists():
            state = checkpoint.load(last, self.device)
            progress = Progress(**state["progress"])
            # Of a finished phase too: a run killed before the next phase's first checkpoint draws on from here.
            checkpoint.restore_random_state(state["random"])
            if not progress.finished:
                self.model.load_state_dict(state["model"])
                self._state = state
                self.reporter.line(
                    f"phase {phase.number} ({phase.name}): resuming at stage {progress.stage + 1}, "
                    f"epoch {progress.epoch + 1}, step {progress.step}"
                )
            return progress
        progress = Progress(phase.number)
        if place > 0:
            start = checkpoint.load(self.folder.checkpoint(self.phases[place - 1].number, "best"), self.device)
            self.model.load_state_dict(start["model"])
            progress.best = progress.start_value = float(start["rank_ic"])
        progress.start_hash = checkpoint.weights_hash(self.model.state_dict())
        if self.config.fit_highway and (place == 0 or phase.graph > self.phases[place - 1].graph):
            self._start_highway(phase)
            if place > 0:
                self._judge_start(phase, progress)
        return progress

    def _judge_start(self, phase: Phase, progress: Progress) -> None:
        """The start with the neighbours' terms that were just fitted: unless validation speaks against them, it is what
        the phase's epochs must improve on, and the phase's result if none does."""
        value = self.validator.rank_ic(self.score_validation())
        if value >= progress.best:
            progress.best, progress.best_epoch = value, 0
            best = self._result(phase, {"epoch": 0, "rank_ic": value})
            self.disk.essential("best.pt", lambda: checkpoint.save(self.folder.checkpoint(phase.number, "best"), best))

    def _prepare_graphs(self) -> None:
        """The graphs of training and validation, on all threads at once where there are several."""
        threads = self.config.threads or os.cpu_count() or 1
        if threads > 1:
            self.heartbeat.update(stage="graphs")
            days = (*self._trained_dates(), *self.validator.dates)
            self.graphs.prepare(days, threads, progress=self._alive)

    def _start_highway(self, phase: Phase) -> None:
        """Fit the highway on the training dates, or its neighbours' terms where the graph comes on. What was found is
        said, and kept in `highway.json`."""
        self.heartbeat.update(stage="highway")
        horizons = self.panel.horizons
        fitter = HighwayFitter(
            self.model, self.source, self.targets, self.train_blocks, horizons, max(horizons) + self.config.delay,
            self._alive,
        )  # fmt: skip
        self.model.set_switches(adaptive_norm=phase.adaptive_norm, graph=phase.graph)
        fits = {"own": fitter.start} if phase is self.phases[0] else {}
        if phase.graph:
            self._prepare_graphs()
            fits["neighbours"] = fitter.start_peers
        if "own" in fits:
            self.model.heads.quieten(QUIET)
        for name, work in fits.items():
            found = work()
            self.highway[name] = found.describe()
            self.reporter.line(f"highway, {name}: {found.told()}")
        self.disk.optional("highway.json", lambda: write_json(self.folder.highway, self.highway))

    def _run_phase(self, phase: Phase, progress: Progress) -> None:
        if phase.graph:
            self._prepare_graphs()
        self.model.set_switches(adaptive_norm=phase.adaptive_norm, graph=phase.graph)
        if self.config.average_decay:
            self.average = WeightAverage(self.model, self.config.average_decay)
            if self._state is not None:
                self.average.load_state_dict(self._state["average"])
        for number in range(progress.stage, len(phase.stages)):
            self._run_stage(phase, phase.stages[number], progress)
            progress.stage, progress.epoch = number + 1, 0
            self._state = None
            if number + 1 < len(phase.stages):
                self._save(progress, None)
        if progress.best_epoch is None:
            self._keep_start(phase)
        progress.finished = True
        self._save(progress, None)

    def _keep_start(self, phase: Phase) -> None:
        """No epoch improved on the start: the phase's result is the checkpoint that it started from."""
        place = self.phases.index(phase)
        start = checkpoint.load(self.folder.checkpoint(self.phases[place - 1].number, "best"))
        self.disk.essential("best.pt", lambda: checkpoint.save(self.folder.checkpoint(phase.number, "best"), start))
        self.reporter.line(f"phase {phase.number} ({phase.name}): no epoch improved on the start, which is kept")

    def _run_stage(self, phase: Phase, stage: Stage, progress: Progress) -> None:
        groups = freeze(self.model, stage, progress.epoch)
        optimiser = StageOptimiser(self.model, groups, stage, self.steps_per_epoch, self.config)
        loss = LossFunction(stage.weights, self.panel.horizons, self.model.config.quantiles)
        if self._state is not None and self._state["optimiser"] is not None:
            optimiser.load_state_dict(self._state["optimiser"])
        shown = {k: v for k, v in stage.weights.as_dict().items() if v}
        self.reporter.line(f"phase {phase.number} ({phase.name}), stage {stage.name}: effective loss weights {shown}")
        while progress.epoch < stage.epochs and not _out_of_patience(phase, stage, progress):
            freeze(self.model, stage, progress.epoch)
            started, cpu = time.monotonic(), time.process_time()
            self._train_epoch(phase, stage, progress, groups, optimiser, loss)
            trained, cpu = time.monotonic(), time.process_time() - cpu
            record = epoch_record(phase, stage, progress, list(groups), optimiser, self.model)
            if stage.monitored:
                self._validate(phase, progress, loss, record)
            record["throughput"] |= {
                "sec_train": trained - started, "sec_per_epoch": time.monotonic() - started,
                "dates_per_s": record["throughput"]["dates"] / max(trained - started, 1e-9),
                "windows_per_s": record["throughput"]["windows"] / max(trained - started, 1e-9),
                "cpu_percent": round(100 * cpu / max(trained - started, 1e-9)),
                "gpu_percent": self.heartbeat.sampler.gpu_since(started), "peak_mem_mb": peak_memory_mb(),
            }  # fmt: skip
            progress.history.append(record)
            progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
            self._save(progress, optimiser)
            self._publish(record, progress)
            if self.heartbeat.sampler.is_idle():
                self.reporter.line("the GPU is mostly idle: try mode=resident, more dates_per_step, a larger preset")
        if _out_of_patience(phase, stage, progress):
            self.reporter.line(f"phase {phase.number}: no gain for {phase.patience} epochs, stopping early")

    # One epoch

    def _train_epoch(
        self, phase: Phase, stage: Stage, progress: Progress, groups: dict[str, list[nn.Parameter]],
        optimiser: StageOptimiser, loss: LossFunction,
    ) -> None:  # fmt: skip
        config = self.config
        self.model.train()
        place = phase.number, progress.stage, progress.epoch
        order = epoch_order(self.train_blocks, config.seed, *place, steps=self.steps_per_epoch)
        sums = progress.sums = progress.sums or checkpoint.empty_sums()
        for batch in self.feed.batches(order[progress.step :], with_graph=phase.graph):
            self.where = {
                "phase": phase.number, "stage": stage.name, "epoch": progress.epoch + 1, "step": progress.step + 1,
                "dates": [str(self.panel.dates[batch.days.first]), batch.days.count],
            }  # fmt: skip
            found = self._step(stage, phase.clip, batch, groups, optimiser, loss, sums)
            progress.step += 1
            self.heartbeat.update(**{**self.where, "stage": "training", "loss": found})
            if self.stop.is_set():
                self._save(progress, optimiser)
                raise Stopped(f"stopped on request after step {progress.step} of epoch {progress.epoch + 1}")
            if progress.step % config.checkpoint_every == 0 and progress.step < len(order):
                self._save(progress, optimiser)
        if not sums["steps"]:
            raise TrainingFault("no training date has a cross-section of valid windows; the panel is too short")
        if phase.graph and not sums["edges"]:
            raise TrainingFault(
                "the graph phase saw no edge beside self-loops in a whole epoch: the graph is dead; look at the "
                "panel's returns (60 sessions, 40 shared) and at the sector ids"
            )

    def _step(
        self, stage: Stage, clip: float, batch: Batch, groups: dict[str, list[nn.Parameter]],
        optimiser: StageOptimiser, loss: LossFunction, sums: dict[str, Any],
    ) -> float:  # fmt: skip
        """One optimiser step; returns the loss. Raises `TrainingFault` before a non-finite loss can do harm."""
        start = random_state()
        while True:
            try:
                judged = self._backward(stage, batch, groups, loss)
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                for parameters in groups.values():
                    for p in parameters:
                        p.grad = None
                restore(start)
                line = self.ladder.climb_down(error, self.where)
            self.reporter.line(line)
        found, edges, total = judged.loss, judged.edges, float(judged.loss.total.detach())
        norms = clip_gradients(groups, clip)
        optimiser.step()
        if self.average is not None:
            self.average.update(self.model)
        # All numbers of the step in one transfer: each one would make the processor wait for a GPU.
        numbers = iter(torch.cat([torch.stack([*found.terms.values(), *found.contributions.values()]), norms]).tolist())
        for kind in ("terms", "contributions"):
            for name in getattr(found, kind):
                sums[kind][name] = sums[kind].get(name, 0.0) + next(numbers)
        sums["norms"].append(list(numbers))
        sums["total"] += total
        sums["steps"] += 1
        sums["dates"] += batch.days.count
        sums["windows"] += len(batch.block.pairs)
        sums["edges"] += edges
        return total

    def _backward(
        self, stage: Stage, batch: Batch, groups: dict[str, list[nn.Parameter]], loss: LossFunction
    ) -> Judged:
        """The batch's loss with its gradient left in the parameters, in as many pieces as memory asks for."""
        pieces, backward = self.ladder.footing.pieces, None
        if pieces == 1:
            judged = self.gradient.judge(stage, batch, loss)
        else:
            judged, backward = self.gradient.judge_in_pieces(stage, batch, loss, pieces)
        total = float(judged.loss.total.detach())
        if not np.isfinite(total):
            raise TrainingFault(
                f"the loss is {total} at {self.where}: terms "
                + ", ".join(f"{k}={float(v):.4g}" for k, v in judged.loss.terms.items())
            )
        for parameters in groups.values():
            for p in parameters:
                p.grad = None
        if backward is None:
            judged.loss.total.backward()
        else:
            backward.run(judged.loss.total)
        return judged

    # Validation

    def _validate(self, phase: Phase, progress: Progress, loss: LossFunction, record: dict[str, Any]) -> None:
        """Score all validation dates, judge the epoch, and save it if it is the best so far."""
        self.heartbeat.update(stage="validation")
        candidates = {"raw": self._measure(loss)}
        if self.average is not None:
            with self.average.in_place_of_the_weights(self.model):
                candidates["average"] = self._measure(loss)
            record["rank_ic_by_weights"] = {name: found["rank_ic"] for name, (found, _) in candidates.items()}
        chosen = max(candidates, key=lambda name: np.nan_to_num(candidates[name][0]["rank_ic"], nan=-np.inf))
        found, scores = candidates[chosen]
        record |= found
        record["weights"], value = chosen, found["rank_ic"]
        self.validator.guard(scores, value, progress)
        record["improved"] = value > progress.best + self.config.min_delta
        if record["improved"]:
            progress.best, progress.best_epoch, progress.epochs_without_gain = value, record["epoch"], 0
            best = self._result(phase, record)
            if chosen == "average" and self.average is not None:
                best["model"] |= {name: value.detach().cpu().clone() for name, value in self.average.shadow.items()}
            self.disk.essential("best.pt", lambda: checkpoint.save(self.folder.checkpoint(phase.number, "best"), best))
        else:
            progress.epochs_without_gain += 1

    def _measure(self, loss: LossFunction) -> tuple[dict[str, Any], np.ndarray]:
        """Metrics and scores of the validation dates with the model's present weights."""
        scores, quantiles = self._score(self.validator.dates)
        return self.validator.measure(scores, quantiles, loss), scores

    # State

    def _result(self, phase: Phase, record: dict[str, Any]) -> dict[str, Any]:
        """What `best.pt` and `final.pt` hold: weights, switches, and where they come from."""
        return {
            "model": self._weights(), "adaptive_norm": phase.adaptive_norm, "graph": phase.graph,
            "phase": phase.number, "epoch": record["epoch"], "rank_ic": record["rank_ic"],
            "model_config": asdict(self.model.config), "config": self.config.to_json(),
            "feature_hash": self.panel.feature_hash, "panel_hash": self.panel.hash, "run_id": self.folder.run_id,
        }  # fmt: skip

    def _save(self, progress: Progress, optimiser: StageOptimiser | None) -> None:
        state = {
            "model": self._weights(),
            "optimiser": None if optimiser is None else optimiser.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "random": checkpoint.random_state(),
            "progress": asdict(progress),
            "run_id": self.folder.run_id,
            "panel_hash": self.panel.hash,
            "feature_hash": self.panel.feature_hash,
            "config": self.config.to_json(),
        }
        path = self.folder.checkpoint(progress.phase, "last")
        self.disk.optional("last.pt", lambda: checkpoint.save(path, state))

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def _publish(self, record: dict[str, Any], progress: Progress) -> None:
        history = [*self.history, *progress.history]
        shown = headline(record["val"]) if "val" in record else {}
        latest = {**describe(self), **record, **shown}
        self.disk.optional("latest_metrics.json", lambda: monitor.write_epoch(self.folder, latest, history))
        self.reporter.line(epoch_line(record))

    def _alive(self) -> None:
        self.heartbeat.update()
        if self.stop.is_set():
            raise Stopped("stopped on request while scoring; the last checkpoint is resumed")

    def _score(self, dates: range) -> tuple[np.ndarray, np.ndarray]:
        while True:
            try:
                with self.autocast:
                    return score_dates(
                        self.model, self.source, dates, dates_per_block=self.ladder.footing.eval_dates,
                        progress=self._alive, prefetch=self.feed.prepares_ahead,
                    )  # fmt: skip
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                line = self.ladder.climb_down(error, {"stage": "scoring"})
            self.reporter.line(line)

    def _targets(self, dates: range) -> Targets:
        panel = self.panel
        return Targets(
            panel.labels(self.config.delay), self.source.counted(), panel.horizons, dates, self.config.min_cross_section
        )

    def _trained_dates(self) -> range:
        """Training dates with a full window before them."""
        part = self.panel.part("train")
        return range(max(part.start, self.config.sequence_length - 1), part.stop)


def _out_of_patience(phase: Phase, stage: Stage, progress: Progress) -> bool:
    """Whether the stage ends early. Asked before an epoch, so that a run killed just after the last one stops too."""
    if not stage.monitored or phase.patience is None or not progress.epoch:
        return False
    return progress.epochs_without_gain >= phase.patience
