"""Blocks of consecutive whole dates: which dates go together, in which order, and their tensors.

A block is an index into one array. Every date of the span is in exactly one block. Who prepares the blocks, and in what
memory the array lies, is the business of `feed.py`.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from atft_pipeline.model.atft_gat_fan import Block
from atft_pipeline.training.graph import GraphStore, join_days
from atft_pipeline.training.panel_data import PanelData
from atft_pipeline.training.targets import BlockTargets, Targets


@dataclass(frozen=True)
class Days:
    """`count` consecutive date positions from `first`."""

    first: int
    count: int


def cut(dates: range, dates_per_block: int) -> list[Days]:
    """Consecutive blocks that cover `dates` exactly once, none shorter than `dates_per_block` if that is possible."""
    if not len(dates):
        return []
    blocks = max(1, len(dates) // dates_per_block)
    edges = np.linspace(dates.start, dates.stop, blocks + 1).round().astype(int)
    return [Days(int(a), int(b - a)) for a, b in itertools.pairwise(edges)]


def epoch_order(
    blocks: Sequence[Days], seed: int, phase: int, stage: int, epoch: int, *, steps: int | None = None
) -> list[Days]:
    """A shuffled order (its first `steps` blocks) that depends on the arguments alone: a resumed epoch repeats it."""
    rng = np.random.default_rng([seed, phase, stage, epoch])
    return [blocks[i] for i in rng.permutation(len(blocks))[:steps]]


@dataclass
class Batch:
    """A block, the panel columns of its stocks, and (in training) its targets."""

    days: Days
    block: Block
    columns: NDArray[np.int64]
    targets: BlockTargets | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on another device."""
        targets = None if self.targets is None else self.targets.to(device)
        return replace(self, block=self.block.to(device), targets=targets)


class BlockSource:
    """Builds batches of a panel on a device."""

    def __init__(
        self, panel: PanelData, graphs: GraphStore, *, length: int, min_window_share: float, min_cross_section: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.panel, self.graphs, self.length, self.device = panel, graphs, length, device
        eligible = panel.windows(length, min_window_share)
        thin = eligible.sum(axis=1) < min_cross_section
        self.dates_dropped = int((thin & eligible.any(axis=1)).sum())
        """Dates with some valid windows, but too few for a cross-section: not scored."""
        eligible[thin] = False
        self.eligible = eligible
        self._x = torch.from_numpy(panel.x)

    def make_resident(self) -> None:
        """Copy the features from the mapped file to the device (on the CPU: to memory)."""
        self._x = self._x.clone() if self.device.type == "cpu" else self._x.to(self.device)

    def counted(self) -> NDArray[np.bool_]:
        """[T, N]: stocks that are scored and may be traded."""
        return self.eligible & self.panel.tradable

    def batch(
        self, days: Days, *, with_graph: bool, targets: Targets | None = None, all_observed: bool = False
    ) -> Batch | None:
        """The block of `days`; None when no stock has a valid window on any of them.

        It holds the stocks that are scored or, with `all_observed`, all that are observed on any of its rows.
        """
        span = slice(days.first, days.first + days.count)
        rows = slice(days.first - self.length + 1, days.first + days.count)
        eligible = self.eligible[span]
        if not eligible.any():
            return None
        columns = np.flatnonzero((self.panel.row_ok[rows] if all_observed else eligible).any(axis=0))
        pairs = np.argwhere(eligible[:, columns])
        chosen = torch.from_numpy(columns)
        x = self._x[rows].index_select(1, chosen.to(self._x.device))
        sector = self.panel.sector[span][pairs[:, 0], columns[pairs[:, 1]]]
        block = Block(
            x=x.to(self.device, non_blocking=True).float(),
            observed=torch.from_numpy(self.panel.row_ok[rows][:, columns]),
            pairs=torch.from_numpy(pairs),
            sector=torch.from_numpy(sector.astype(np.int64)),
        )
        if with_graph:
            block.edge_index, block.edge_attr = self._edges(days, pairs, columns)
        found = targets.block(days.first, days.count, columns).to(self.device) if targets is not None else None
        return Batch(days, block.to(self.device), columns, found)

    def rows(self, day: int, columns: NDArray[np.int64]) -> torch.Tensor:
        """[n, F]: the rows of one date at the panel's `columns`."""
        chosen = torch.from_numpy(columns).to(self._x.device)
        return self._x[day].index_select(0, chosen).to(self.device).float()

    def batches(
        self, blocks: Sequence[Days], *, with_graph: bool, targets: Targets | None = None, prefetch: bool = False,
        all_observed: bool = False,
    ) -> Iterator[Batch]:  # fmt: skip
        """The batches of `blocks` in order, empty ones left out; `prefetch` prepares the next one in a thread."""
        made = (self.batch(days, with_graph=with_graph, targets=targets, all_observed=all_observed) for days in blocks)
        for batch in _ahead(made) if prefetch else made:
            if batch is not None:
                yield batch

    def _edges(
        self, days: Days, pairs: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        parts, sizes = [], []
        for d in range(days.count):
            nodes = columns[pairs[pairs[:, 0] == d, 1]]
            parts.append(self.graphs.edges(days.first + d, nodes))
            sizes.append(len(nodes))
        return join_days(parts, sizes)


def _ahead(items: Iterator[Batch | None]) -> Iterator[Batch | None]:
    """Run `items` one element ahead in a daemon thread; its exception is raised here."""
    ready: queue.Queue[tuple[str, object]] = queue.Queue(maxsize=1)
    closed = threading.Event()

    def put(kind: str, value: object) -> bool:
        while not closed.is_set():
            try:
                ready.put((kind, value), timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except Exception as error:
            put("error", error)

    threading.Thread(target=produce, name="prefetch", daemon=True).start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, Exception)
                raise value
            yield value  # type: ignore[misc]
    finally:
        closed.set()
