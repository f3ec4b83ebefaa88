"""Where batches come from: the four data-path modes, how `auto` chooses, and the worker processes with their watchdog.

A batch is an index into one array, so nothing here computes; the modes differ in who prepares the next batch and in
what memory the panel lies. All give the same batches in the same order.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from atft_pipeline.model.atft_gat_fan import Block
from atft_pipeline.parent import die_with_parent
from atft_pipeline.training.batches import Batch, BlockSource, Days
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.faults import TrainingFault
from atft_pipeline.training.graph import GraphRules, GraphStore
from atft_pipeline.training.panel_data import load_panel
from atft_pipeline.training.targets import BlockTargets, Targets

RESIDENT_SHARE = 0.5
"""The panel is made resident when it fills at most this share of the free memory there."""

IN_FLIGHT = 2
"""Blocks that each worker may have prepared or in work."""

READY = b"ready"
START_SECONDS = 180.0
"""How long a worker may take to start: it imports torch and maps the panel."""

HANG_FACTOR = 20.0
"""A worker may take so many times the median of the blocks before, however short the limit is."""

STACK_SECONDS = 2.0
"""How long a hung worker may take to write its stacks before it is killed."""


Prepare = Callable[[BlockSource, Targets, Days, bool], Batch | None]


@dataclass(frozen=True)
class Mode:
    """The chosen data path and why."""

    name: str
    reason: str


def choose_mode(wanted: str, panel_bytes: int, device: torch.device, free_bytes: int) -> Mode:
    """`wanted` itself, or for `auto`: resident where the panel fits, else mapped."""
    if wanted != "auto":
        return Mode(wanted, "as set")
    where = "the GPU" if device.type == "cuda" else "memory"
    share = f"{panel_bytes / 1e9:.2f} GB of {free_bytes / 1e9:.1f} GB free on {where}"
    if panel_bytes <= RESIDENT_SHARE * free_bytes:
        return Mode("resident", f"the panel takes {share}")
    return Mode("mapped", f"the panel takes {share}, too much to be resident")


def free_memory(device: torch.device) -> int:
    """Bytes that may still be allocated on the device (CPU: the kernel's estimate of available memory)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    for line in Path("/proc/meminfo").read_text().splitlines() if sys.platform == "linux" else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@dataclass(frozen=True)
class Recipe:
    """What a worker process needs to prepare the same batches as this process."""

    panel: Path
    graphs: Path | None
    config: str
    """TrainingConfig.to_json()."""
    stacks: Path
    """Folder into which a hung worker writes its stacks."""
    prepare: Prepare


def prepare_block(source: BlockSource, targets: Targets, days: Days, with_graph: bool) -> Batch | None:
    """The batch of a block, targets included."""
    return source.batch(days, with_graph=with_graph, targets=targets)


class Feed:
    """Training batches in the order asked for, by the chosen mode.

    When a worker hangs or dies, `events` says so, the workers are stopped, and the batches go on from the same step in
    this process.
    """

    def __init__(
        self, mode: Mode, source: BlockSource, targets: Targets, config: TrainingConfig, recipe: Recipe,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.mode, self._source, self._targets, self._config, self._say = mode, source, targets, config, say
        self._recipe = recipe
        self._workers: list[_Worker] = []
        self._paces: list[float] = []
        self.events: list[dict[str, Any]] = []

    def batches(self, blocks: Sequence[Days], *, with_graph: bool) -> Iterator[Batch]:
        """The batches of `blocks`, empty ones left out."""
        done = 0
        if self.mode.name == "workers":
            try:
                for batch in self._from_workers(blocks, with_graph):
                    done += 1
                    if batch is not None:
                        yield batch
                return
            except WorkerLost as lost:
                self._fall_back(lost)
        yield from self._source.batches(
            blocks[done:], with_graph=with_graph, targets=self._targets, prefetch=self.prepares_ahead
        )

    @property
    def prepares_ahead(self) -> bool:
        """Whether a thread prepares the next block meanwhile: from a mapped file, and to keep a GPU from waiting."""
        on_gpu = self._source.device.type == "cuda" and self.mode.name == "resident"
        return self.mode.name == "mapped" or on_gpu

    def patience(self) -> float:
        """Seconds without an answer after which a worker counts as hung."""
        usual = statistics.median(self._paces) if self._paces else 0.0
        return max(self._config.worker_timeout, HANG_FACTOR * usual)

    def close(self) -> None:
        """Stop the worker processes."""
        for worker in self._workers:
            worker.stop()
        self._workers = []

    def _from_workers(self, blocks: Sequence[Days], with_graph: bool) -> Iterator[Batch | None]:
        if not self._workers:
            self._workers = [_Worker(n, self._recipe) for n in range(max(1, self._config.workers))]
        workers, finished = self._workers, False
        ahead = IN_FLIGHT * len(workers)
        try:
            for number in range(min(ahead, len(blocks))):
                workers[number % len(workers)].ask(blocks[number], with_graph)
            for number in range(len(blocks)):
                worker = workers[number % len(workers)]
                batch, pace = worker.receive(self.patience())
                self._paces.append(pace)
                if number + ahead < len(blocks):
                    worker.ask(blocks[number + ahead], with_graph)
                yield None if batch is None else batch.to(self._source.device)
            finished = True
        finally:
            if not finished:  # answers are still under way: the next epoch needs fresh workers
                self.close()

    def _fall_back(self, lost: WorkerLost) -> None:
        self.close()
        self.mode = Mode("safe", f"fell back from workers: {lost}")
        self.events.append({"event": "worker_fallback", "reason": str(lost), "stacks": lost.stacks})
        self._say(f"{lost}; training goes on from the same step in one process")


class WorkerLost(RuntimeError):
    """A worker hung or died. `stacks` is where it stood, as far as it could tell."""

    def __init__(self, message: str, stacks: str) -> None:
        super().__init__(message)
        self.stacks = stacks


class _Worker:
    """A spawned process that prepares blocks in the order asked for."""

    def __init__(self, number: int, recipe: Recipe) -> None:
        self.number = number
        self._stacks = recipe.stacks / f"worker-{number}.stacks"
        # spawn: a forked child would inherit the locks of other threads (Polars, torch) as they happen to be.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, recipe, self._stacks, os.getpid()), name=f"batches-{number}", daemon=True
        )
        self._process.start()
        self._is_ready = False
        theirs.close()

    def ask(self, days: Days, with_graph: bool) -> None:
        try:
            self._connection.send((days, with_graph))
        except OSError as error:
            raise WorkerLost(f"batch worker {self.number} ended: {error}", "") from error

    def receive(self, timeout: float) -> tuple[Batch | None, float]:
        """The answer to the oldest question and the seconds that it took.

        Raises `WorkerLost`, or `TrainingFault` with the worker's own error.
        """
        try:
            if not self._is_ready:
                if not self._connection.poll(max(timeout, START_SECONDS)):
                    raise WorkerLost(f"batch worker {self.number} did not start in {START_SECONDS:g} s", "")
                self._is_ready = self._connection.recv_bytes() == READY
            if not self._connection.poll(timeout):
                raise WorkerLost(f"batch worker {self.number} gave nothing for {timeout:g} s", self._dump())
            kind, content, seconds = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise WorkerLost(f"batch worker {self.number} ended: {error or 'end of file'}", "") from error
        if kind == "error":
            raise TrainingFault(f"batch worker {self.number} failed:\n{content}")
        return _from_arrays(content), seconds

    def stop(self) -> None:
        self._connection.close()  # an idle worker ends by itself
        self._process.join(0.5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    def _dump(self) -> str:
        """The stacks of all threads of the hung worker."""
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGUSR1)
        end, text = time.monotonic() + STACK_SECONDS, ""
        while time.monotonic() < end:
            before, text = text, self._stacks.read_text() if self._stacks.exists() else ""
            if text and text == before:  # it grows while it is written
                break
            time.sleep(0.1)
        return text or "no stacks: the worker did not react"


def _serve(connection: Connection, recipe: Recipe, stacks: Path, parent: int) -> None:
    """The life of a worker: build the same source and targets, then answer until the other end is gone."""
    die_with_parent()
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    torch.set_num_threads(1)
    stacks.parent.mkdir(parents=True, exist_ok=True)
    with stacks.open("w") as file:
        faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)
        source, targets = _source(recipe)
        connection.send_bytes(READY)
        while True:
            try:
                days, with_graph = connection.recv()
            except (EOFError, OSError):
                return
            began = time.monotonic()
            try:
                kind, content = "batch", _to_arrays(recipe.prepare(source, targets, days, with_graph))
            except Exception:
                kind, content = "error", traceback.format_exc()
            answer = kind, content, time.monotonic() - began
            try:
                connection.send_bytes(pickle.dumps(answer, protocol=5))
            except OSError:
                return


def _source(recipe: Recipe) -> tuple[BlockSource, Targets]:
    config, panel = TrainingConfig.from_json(recipe.config), load_panel(recipe.panel, verify=False)
    graphs = GraphStore(panel, recipe.graphs, GraphRules(refresh=config.graph_refresh))
    source = BlockSource(
        panel, graphs, length=config.sequence_length, min_window_share=config.min_window_share,
        min_cross_section=config.min_cross_section, device=torch.device("cpu"),
    )  # fmt: skip
    targets = Targets(
        panel.labels(config.delay), source.counted(), panel.horizons, panel.part("train"), config.min_cross_section
    )
    return source, targets


def _to_arrays(batch: Batch | None) -> Any:
    """A batch as numpy arrays: plain bytes on the pipe, no shared memory that could be left behind."""
    if batch is None:
        return None
    assert batch.targets is not None
    parts = {part: {f.name: getattr(getattr(batch, part), f.name).numpy() for f in fields(getattr(batch, part))}
             for part in ("block", "targets")}  # fmt: skip
    return {"days": batch.days, "columns": batch.columns, **parts}


def _from_arrays(content: Any) -> Batch | None:
    if content is None:
        return None
    block, targets = (
        {name: torch.from_numpy(array) for name, array in content[part].items()} for part in ("block", "targets")
    )
    return Batch(content["days"], Block(**block), content["columns"], BlockTargets(**targets))
