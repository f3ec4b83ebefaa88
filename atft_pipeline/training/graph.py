"""Which stocks are neighbours on a date: residual-return correlations of the last 60 sessions, and sector mates.

One builder serves training, validation and prediction. A graph is refreshed every few sessions and uses returns known
by the close of its as-of date, never later ones. Edges are stored as panel columns, that is by code identity, and put
onto a day's nodes by look-up.
"""

from __future__ import annotations

import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atft_pipeline.training.disk import is_full
from atft_pipeline.training.files import write_npz
from atft_pipeline.training.panel_data import PanelData

EDGE_DIM = 3
"""Attributes, in this order: signed correlation, same sector, same market."""


@dataclass(frozen=True)
class GraphRules:
    """How a graph is drawn. The rules and the window's content are the key of a stored graph."""

    window: int = 60
    half_life: float = 30.0
    min_joint: int = 40
    shrinkage: float = 0.95
    neighbours: int = 16
    min_correlation: float = 0.3
    min_degree: int = 5
    """A node with fewer neighbours gets sector mates, picked by a hash of the two codes, up to this number."""
    refresh: int = 5
    version: int = 1


@dataclass(frozen=True)
class Graph:
    """Directed edges both ways between panel columns, without self-loops, as of one date."""

    source: NDArray[np.int32]
    target: NDArray[np.int32]
    attributes: NDArray[np.float32]
    """[E, 3]"""


def correlations(returns: NDArray[np.float32], rules: GraphRules) -> NDArray[np.float32]:
    """[L, n] returns (NaN missing) -> [n, n] shrunk weighted correlation of market-residual returns.

    0 on the diagonal and where fewer than `min_joint` sessions are shared. Weights halve every `half_life` sessions.
    """
    seen = np.isfinite(returns)
    filled = np.where(seen, returns, 0).astype(np.float64)
    market = filled.sum(axis=1, keepdims=True) / np.maximum(seen.sum(axis=1, keepdims=True), 1)
    weight = 0.5 ** (np.arange(len(returns))[::-1, None] / rules.half_life)
    mass = np.maximum((weight * seen).sum(axis=0), 1e-12)
    residual = np.where(seen, filled - market, 0)
    residual = np.where(seen, residual - (weight * residual).sum(axis=0) / mass, 0)
    std = np.sqrt((weight * residual**2).sum(axis=0) / mass)
    z = (np.sqrt(weight) * residual / np.where(std > 1e-8, std, np.inf)).astype(np.float32)
    m = (np.sqrt(weight) * seen).astype(np.float32)
    joint = seen.astype(np.float32)
    # In place: at 4,000 stocks each array has 64 MB, and a fresh one costs more than the product in it.
    rho, other = z.T @ z, m.T @ m
    np.divide(rho, np.maximum(other, 1e-6, out=other), out=rho)
    rho[np.matmul(joint.T, joint, out=other) < rules.min_joint] = 0
    np.fill_diagonal(rho, 0)
    return np.multiply(np.clip(rho, -1, 1, out=rho), np.float32(rules.shrinkage), out=rho)


def code_seeds(codes: NDArray[np.str_]) -> NDArray[np.uint64]:
    """One stable number per code; equal codes give equal numbers in every panel."""
    return np.array([zlib.crc32(str(code).encode()) for code in codes], dtype=np.uint64)


def _pair_hash(seeds: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """[n, n] symmetric mixing of two codes' seeds (splitmix64's finaliser)."""
    x = (seeds[:, None] ^ seeds[None, :]) * np.uint64(0x9E3779B97F4A7C15) + (seeds[:, None] + seeds[None, :])
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def build_graph(
    returns: NDArray[np.float32], nodes: NDArray[np.int64], sector: NDArray[np.int8], market: NDArray[np.int8],
    seeds: NDArray[np.uint64], rules: GraphRules,
) -> Graph:  # fmt: skip
    """Draw the graph over `nodes` (panel columns); the other arguments are already restricted to them.

    returns [L, n], sector, market, seeds [n].
    """
    n = len(nodes)
    if n < 2:
        empty = np.zeros(0, np.int32)
        return Graph(empty, empty, np.zeros((0, EDGE_DIM), np.float32))
    rho = correlations(returns, rules)
    linked = _strongest(np.abs(rho), rules)
    linked |= linked.T
    linked |= _sector_mates(linked, sector, seeds, rules)
    source, target = np.nonzero(linked)
    attributes = np.stack(
        [
            rho[source, target],
            (sector[source] == sector[target]) & (sector[source] > 0),
            market[source] == market[target],
        ],
        axis=1,
    ).astype(np.float32)
    return Graph(nodes[source].astype(np.int32), nodes[target].astype(np.int32), attributes)


def _strongest(strength: NDArray[np.float32], rules: GraphRules) -> NDArray[np.bool_]:
    """[n, n]: the `neighbours` largest values of each row that reach `min_correlation`."""
    k = rules.neighbours
    linked = strength >= rules.min_correlation
    counts = np.count_nonzero(linked, axis=1)
    crowded = np.flatnonzero(counts > k)  # only these have to choose, and only among what reaches the minimum
    if len(crowded):
        row, column = np.nonzero(linked[crowded])
        place = np.arange(len(row)) - np.repeat(np.cumsum(counts[crowded]) - counts[crowded], counts[crowded])
        width = int(counts[crowded].max())
        candidates = np.full((len(crowded), width), -1, np.float32)
        columns = np.zeros((len(crowded), width), np.int64)
        candidates[row, place], columns[row, place] = strength[crowded[row], column], column
        best = np.argpartition(candidates, width - k, axis=1)[:, width - k :]
        linked[crowded] = False
        linked[crowded[:, None], np.take_along_axis(columns, best, axis=1)] = True
    return linked


def _sector_mates(
    linked: NDArray[np.bool_], sector: NDArray[np.int8], seeds: NDArray[np.uint64], rules: GraphRules
) -> NDArray[np.bool_]:
    """[n, n] symmetric: for each node of low degree, the missing neighbours from its sector, in hash order."""
    missing = np.maximum(rules.min_degree - linked.sum(axis=1), 0)
    added = np.zeros_like(linked)
    for group in np.unique(sector[(missing > 0) & (sector > 0)]):
        members = np.flatnonzero(sector == group)
        order = _pair_hash(seeds[members])
        taken = linked[np.ix_(members, members)]
        np.fill_diagonal(taken, True)
        order[taken] = np.iinfo(np.uint64).max
        rank = np.argsort(np.argsort(order, axis=1, kind="stable"), axis=1, kind="stable")
        added[np.ix_(members, members)] = (rank < missing[members][:, None]) & ~taken
    return added | added.T


class GraphStore:
    """Graphs of a panel's dates, built once, kept in memory and (with a folder) on disk by content."""

    def __init__(self, panel: PanelData, folder: Path | None = None, rules: GraphRules | None = None) -> None:
        self.panel, self.folder = panel, folder
        self.rules = rules or GraphRules()
        self._seeds = code_seeds(panel.codes)
        self._graphs: dict[int, Graph] = {}
        self._used: set[str] = set()
        self._counting = threading.Lock()
        self.built = self.reused = 0
        self.events: list[dict[str, Any]] = []
        """A full disk, once: graphs are then built again by the next run."""

    def as_of(self, day: int) -> int:
        """The refresh date that serves date position `day`: never later than it. Refreshes are counted on the axis of
        the panel that the model was trained on, so a date keeps its graph when another panel begins elsewhere."""
        return max(0, day - (day + self.panel.first_position) % self.rules.refresh)

    def graph(self, day: int) -> Graph:
        """The graph that serves `day`."""
        position = self.as_of(day)
        if position not in self._graphs:
            self._graphs[position] = self._load_or_build(position)
        return self._graphs[position]

    def prepare(self, days: Iterable[int], threads: int, progress: Callable[[], None] | None = None) -> None:
        """Have the graphs of `days` ready, `threads` of them in work at once; `progress` hears of each.

        They are the same as those built one by one when they are asked for.
        """
        positions = sorted({self.as_of(day) for day in days} - self._graphs.keys())
        with ThreadPoolExecutor(threads) as pool:
            for position, graph in zip(positions, pool.map(self._load_or_build, positions), strict=True):
                self._graphs[position] = graph
                if progress is not None:
                    progress()

    def edges(self, day: int, columns: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Edges among the day's nodes (panel `columns`, in node order) and one self-loop [1, 1, 1] each.

        Returns ([2, E] node positions, [E, 3]). Edges with an absent node are dropped.
        """
        graph = self.graph(day)
        position = np.full(len(self._seeds), -1, np.int64)
        position[columns] = np.arange(len(columns))
        source, target = position[graph.source], position[graph.target]
        kept = (source >= 0) & (target >= 0)
        loops = np.arange(len(columns))
        index = np.stack([np.append(source[kept], loops), np.append(target[kept], loops)])
        ones = np.ones((len(columns), EDGE_DIM), np.float32)
        return index, np.concatenate([graph.attributes[kept], ones])

    def prune(self) -> int:
        """Delete stored graphs that this run did not use. Returns how many."""
        if self.folder is None or not self.folder.exists():
            return 0
        stale = [p for p in self.folder.glob("*.npz") if p.stem not in self._used]
        for path in stale:
            path.unlink()
        return len(stale)

    def _load_or_build(self, position: int) -> Graph:
        panel, rules = self.panel, self.rules
        nodes = np.flatnonzero(panel.row_ok[position])
        first = max(0, position - rules.window + 1)
        returns = np.ascontiguousarray(panel.returns[first : position + 1][:, nodes])
        sector, market = panel.sector[position, nodes], panel.market[position, nodes]
        if self.folder is None:
            self._count(built=1)
            return build_graph(returns, nodes, sector, market, self._seeds[nodes], rules)
        digest = hashlib.sha256(repr(sorted(asdict(rules).items())).encode())
        for array in (returns, nodes, sector, market, self._seeds[nodes]):
            digest.update(np.ascontiguousarray(array).tobytes())
        key = digest.hexdigest()[:24]
        path = self.folder / f"{key}.npz"
        if path.exists():
            self._count(key, reused=1)
            os.utime(path)  # garbage collection goes by the last use
            with np.load(path) as stored:
                return Graph(stored["source"], stored["target"], stored["attributes"])
        self._count(key, built=1)
        graph = build_graph(returns, nodes, sector, market, self._seeds[nodes], rules)
        self._store(path, graph)
        return graph

    def _store(self, path: Path, graph: Graph) -> None:
        try:
            write_npz(path, source=graph.source, target=graph.target, attributes=graph.attributes)
        except OSError as error:
            if not is_full(error):
                raise
            if not self.events:
                self.events.append({"event": "disk_full", "file": "graphs", "error": str(error)})

    def _count(self, key: str = "", *, built: int = 0, reused: int = 0) -> None:
        with self._counting:
            self.built, self.reused = self.built + built, self.reused + reused
            if key:
                self._used.add(key)


def join_days(parts: list[tuple[NDArray[np.int64], NDArray[np.float32]]], sizes: list[int]) -> tuple[Tensor, Tensor]:
    """The disjoint union of several days' graphs: node numbers are shifted by the nodes of the days before."""
    if not parts:
        return torch.zeros(2, 0, dtype=torch.long), torch.zeros(0, EDGE_DIM)
    shifts = np.cumsum([0, *sizes[:-1]])
    index = np.concatenate([part[0] + shift for part, shift in zip(parts, shifts, strict=True)], axis=1)
    return torch.from_numpy(index), torch.from_numpy(np.concatenate([part[1] for part in parts]))
