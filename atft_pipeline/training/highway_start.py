"""The highway's start: an elastic net on the training dates, with the pairs of features whose product tells something.

Daily returns are nearly all noise. A few hundred weights moved by every step of a stochastic optimiser carry more of it
than signal, while their best sparse values follow from sums of products that one pass collects. So the weights are
fitted once, before the first phase, and held until the last one:

1. Moments of the highway's terms and the standardised labels, centred per date, by fold of the training span.
2. The elastic net (Zou and Hastie 2005) by accelerated proximal gradient (FISTA, Beck and Teboulle 2009). Its penalty,
   one per horizon, is the one with the best mean correlation on left-out folds, a label's reach away from the rest.
3. Pairs: per date the mean of residual x product for every pair of features, and the t-ratio of its mean over dates
   (Fama and MacBeth 1973). Those above sqrt(2 ln n) of n pairs, where the largest of n null ratios lies, become terms.
4. The elastic net once more with the pairs.
5. When the graph comes on: the neighbours' terms, on what those weights leave of the labels.

Only training dates are read; validation plays no part.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atft_pipeline.evaluation.metrics import horizon_weights
from atft_pipeline.model.atft_gat_fan import ATFTGATFAN, ModelConfig
from atft_pipeline.training.batches import BlockSource, Days
from atft_pipeline.training.targets import Targets

Array = NDArray[np.float64]

FOLDS = 5
MAX_ROWS = 1_000_000
"""Above it every k-th block of dates is used."""
SHARES = np.geomspace(1.0, 0.03, 15)
"""L1 penalties, as shares of the smallest one that leaves no term."""
L2 = 0.02
"""Ridge part, in units of a term's variance: it lets near-copies share a weight."""
STEPS = 200
CLOSE = 1e-5


@dataclass(frozen=True)
class Moments:
    """Sums over dates. `gram` [W, W], `cross` [W, H], rows counted."""

    gram: Array
    cross: Array
    rows: int

    @classmethod
    def nothing(cls, width: int, horizons: int) -> Moments:
        return cls(np.zeros((width, width)), np.zeros((width, horizons)), 0)

    def only(self, columns: NDArray[np.intp]) -> Moments:
        """Of these terms."""
        return Moments(self.gram[np.ix_(columns, columns)], self.cross[columns], self.rows)

    def left_by(self, weights: Array) -> Moments:
        """With the labels replaced by what `weights` [W, H] leave of them."""
        return Moments(self.gram, self.cross - self.gram @ weights, self.rows)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.gram + other.gram, self.cross + other.cross, self.rows + other.rows)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.gram - other.gram, self.cross - other.cross, self.rows - other.rows)


@dataclass(frozen=True)
class Fit:
    """An elastic net per horizon."""

    weights: Array
    """[W, H]"""
    shares: Array
    """[H] the L1 penalty that the folds chose, as a share of the smallest one that leaves no term."""
    left_out: Array
    """[H] mean correlation with the labels of left-out folds; NaN where the span is too short for folds."""
    scale: Array
    """[W] standard deviation of each term within a date."""
    rows: int


@dataclass(frozen=True)
class HighwayStart:
    """What was fitted, in words and numbers."""

    names: list[str]
    """Of the terms, as the rows of `fit.weights`."""
    fit: Fit
    horizons: tuple[int, ...]

    def told(self) -> str:
        """One line for the run's log."""
        used = (self.fit.weights != 0).sum(axis=0)
        terms = ", ".join(
            f"{n} at {h}d ({v:+.3f})" for n, h, v in zip(used, self.horizons, self.fit.left_out, strict=True)
        )
        return f"{self.fit.rows} rows, {len(self.names)} terms; kept (correlation on left-out folds): {terms}"

    def describe(self) -> dict[str, Any]:
        """Every term with a weight by name, the strongest first: its share of a standardised label per horizon."""
        strength = self.fit.weights * self.fit.scale[:, None]
        order = np.argsort(-np.abs(strength).max(axis=1, initial=0.0), kind="stable")
        left_out = [None if math.isnan(v) else v for v in self.fit.left_out.tolist()]
        return {
            "rows": self.fit.rows,
            "pairs": [name for name in self.names if " x " in name],
            "l1_share": dict(zip(map(str, self.horizons), self.fit.shares.tolist(), strict=True)),
            "left_out_correlation": dict(zip(map(str, self.horizons), left_out, strict=True)),
            "terms": [[self.names[w], strength[w].tolist()] for w in order if strength[w].any()],
        }


@dataclass(frozen=True)
class HighwayFitter:
    """Fits the highway of `model` on the training `blocks`.

    `reach`: sessions from a date to the end of its longest label. `alive` is called between blocks.
    """

    model: ATFTGATFAN
    source: BlockSource
    targets: Targets
    blocks: Sequence[Days]
    horizons: Sequence[int]
    reach: int
    alive: Callable[[], None] = lambda: None

    def start(self) -> HighwayStart:
        """Everything but the neighbours, from nothing: pairs and weights are put into the model."""
        highway = self.model.highway
        with torch.no_grad():
            highway.weight.zero_()
        highway.pairs.zero_()
        weights = np.zeros((highway.width, len(self.horizons)))
        usable = np.arange(highway.peers.start - highway.n_pairs)
        found = fit([m.only(usable) for m in self.moments(with_graph=False)])
        weights[usable] = found.weights
        pairs = self.telling_pairs(weights)
        if pairs:
            highway.pairs[: len(pairs)] = torch.tensor(pairs)
            usable = np.arange(len(usable) + len(pairs))
            found = fit([m.only(usable) for m in self.moments(with_graph=False)])
            weights[usable] = found.weights
        self._put(weights)
        names = [*own_names(self.model.config, self.names), *(f"{self.names[i]} x {self.names[j]}" for i, j in pairs)]
        return HighwayStart(names, found, tuple(self.horizons))

    def start_peers(self) -> HighwayStart:
        """The neighbours' terms alone, on what the fitted weights leave of the labels. The graph must be on."""
        highway = self.model.highway
        peers = np.arange(highway.peers.start, highway.peers.stop)
        weights = highway.weight.detach().double().cpu().numpy().T / math.sqrt(highway.width)
        weights[peers] = 0.0
        found = fit([m.left_by(weights).only(peers) for m in self.moments(with_graph=True)])
        weights[peers] = found.weights
        self._put(weights)
        names = [f"neighbours' {self.names[c]}" for c in self.model.config.spectral]
        return HighwayStart(names, found, tuple(self.horizons))

    @property
    def names(self) -> Sequence[str]:
        return self.source.panel.feature_names

    def _put(self, weights: Array) -> None:
        scaled = (weights * math.sqrt(self.model.highway.width)).T.astype(np.float32)
        with torch.no_grad():
            self.model.highway.weight.copy_(torch.from_numpy(scaled))

    def moments(self, *, with_graph: bool) -> list[Moments]:
        """Of each fold what it may judge, then of each fold its edges, which only teach others."""
        blocks = thinned(self.blocks, self.source)
        sums = [Moments.nothing(self.model.highway.width, len(self.horizons)) for _ in range(2 * FOLDS)]
        for days, fold in zip(blocks, fold_numbers(blocks, self.reach), strict=True):
            for terms, labels in self.dates(days, with_graph=with_graph):
                sums[fold] += Moments(_float64(terms.T @ terms), _float64(terms.T @ labels), len(terms))
        return sums

    def telling_pairs(self, weights: Array) -> list[tuple[int, int]]:
        """The pairs of features whose product goes with what `weights` [W, H] leave of the labels, strongest first."""
        features, room = self.model.highway.n_features, self.model.highway.n_pairs
        total, squares, dates = np.zeros((features, features)), np.zeros((features, features)), 0
        towards = torch.from_numpy(horizon_weights(self.horizons).astype(np.float32))
        fitted = torch.from_numpy(weights.astype(np.float32))
        for days in thinned(self.blocks, self.source):
            for terms, labels in self.dates(days, with_graph=False):
                left = (labels - terms @ fitted.to(terms.device)) @ towards.to(terms.device)
                x = terms[:, :features]
                mean = _float64((x * left[:, None]).T @ x) / len(x)
                total += mean
                squares += mean**2
                dates += 1
        if dates < 3:
            return []
        spread = np.sqrt(np.maximum(squares / dates - (total / dates) ** 2, 1e-24) / dates)
        ratio = np.abs(np.triu(total / dates / spread))
        bar = math.sqrt(2 * math.log(features * (features + 1) / 2))
        order = np.argsort(-ratio, axis=None, kind="stable")[:room]
        chosen = [divmod(int(place), features) for place in order if ratio.flat[place] > bar]
        return [(i, j) for i, j in chosen]

    def dates(self, days: Days, *, with_graph: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(terms [n, W], labels [n, H]) of each date of a block: tradable stocks, centred; a missing label is 0."""
        self.alive()
        batch = self.source.batch(days, with_graph=with_graph, targets=self.targets)
        if batch is None or batch.targets is None:
            return
        terms = self.model.highway_terms(batch.block)
        day, stock = batch.block.pairs[:, 0], batch.block.pairs[:, 1]
        labels, known = batch.targets.standardised[day, stock], batch.targets.mask[day, stock].any(dim=1)
        for d in range(days.count):
            mine = (day == d) & known
            if int(mine.sum()) >= 2:
                x = terms[mine]
                yield x - x.mean(dim=0), labels[mine]


def thinned(blocks: Sequence[Days], source: BlockSource) -> list[Days]:
    """Every k-th block, k as small as MAX_ROWS allows, in order of time."""
    counted = source.counted()
    rows = sum(int(counted[b.first : b.first + b.count].sum()) for b in blocks)
    return sorted(blocks, key=lambda b: b.first)[:: max(1, math.ceil(rows / MAX_ROWS))]


def fold_numbers(blocks: Sequence[Days], reach: int) -> list[int]:
    """For each block 0 .. FOLDS - 1: the fold in which it may judge; plus FOLDS where it lies within `reach` of another
    fold, whose labels it would share: there it only teaches others."""
    edges = np.linspace(blocks[0].first, blocks[-1].first + blocks[-1].count, FOLDS + 1)
    numbers = []
    for block in blocks:
        fold = min(int(np.searchsorted(edges, block.first, side="right")) - 1, FOLDS - 1)
        after = fold == 0 or block.first >= edges[fold] + reach
        before = fold == FOLDS - 1 or block.first + block.count - 1 + reach < edges[fold + 1]
        numbers.append(fold if after and before else fold + FOLDS)
    return numbers


def fit(sums: Sequence[Moments]) -> Fit:
    """The elastic net of all rows at the penalty that the folds choose. `sums`: what folds judge, then their edges.

    Without two folds that can judge, the penalty is the universal threshold sqrt(2 ln W / rows) (Donoho and Johnstone
    1994), a little more than pure noise reaches.
    """
    total = sum(sums[1:], sums[0])
    scale = np.sqrt(np.maximum(np.diag(total.gram) / max(total.rows, 1), 0.0))
    alive = scale > 1e-6
    judges = [k for k in range(FOLDS) if sums[k].rows > 0]
    horizons = total.cross.shape[1]
    if len(judges) > 1:
        found = np.stack(
            [
                [_correlations(sums[k], weights) for weights in _path(total - sums[k] - sums[k + FOLDS], scale, alive)]
                for k in judges
            ]
        )  # [folds, penalties, horizons]
        mean, best = found.mean(axis=0), found.mean(axis=0).argmax(axis=0)
        column = np.arange(horizons)
        # One standard error (Breiman et al. 1984): the fewest terms that do as well as the best, as far as folds tell.
        error = found[:, best, column].std(axis=0, ddof=1) / math.sqrt(len(judges))
        chosen = (mean >= mean[best, column] - error).argmax(axis=0)
        shares, left_out = SHARES[chosen], mean[chosen, column]
    else:
        strongest = np.abs(total.cross[alive] / scale[alive, None] / max(total.rows, 1)).max(axis=0, initial=0.0)
        bar = math.sqrt(2 * math.log(max(len(scale), 2)) / max(total.rows, 1))
        shares, left_out = np.minimum(bar / np.maximum(strongest, 1e-12), 1.0), np.full(horizons, np.nan)
    weights = _path(total, scale, alive, shares[None])[0]
    weights[:, left_out < 0] = 0.0  # nothing that holds beyond its own fold
    return Fit(weights, shares, left_out, scale, total.rows)


def _path(sums: Moments, scale: Array, alive: NDArray[np.bool_], shares: Array | None = None) -> list[Array]:
    """Weights [W, H] for each row of `shares` [n, H] (default SHARES for all horizons), warm from one to the next."""
    rows = max(sums.rows, 1)
    gram = sums.gram[np.ix_(alive, alive)] / rows / np.outer(scale[alive], scale[alive])
    cross = sums.cross[alive] / rows / scale[alive, None]
    largest = np.abs(cross).max(axis=0, initial=0.0)
    if shares is None:
        shares = np.repeat(SHARES[:, None], cross.shape[1], axis=1)
    found, b = [], np.zeros_like(cross)
    size = float(np.linalg.eigvalsh(gram)[-1]) + L2 if len(gram) else 1.0
    for row in shares:
        b = elastic_net(gram, cross, row * largest, b, size)
        weights = np.zeros_like(sums.cross)
        weights[alive] = b / scale[alive, None]
        found.append(weights)
    return found


def elastic_net(gram: Array, cross: Array, penalty: Array, start: Array, size: float) -> Array:
    """argmin over b [W, H] of b'Gb/2 - b'c + L2 |b|^2/2 + penalty |b|_1, horizon by horizon, from `start` on.

    `size`: largest eigenvalue of `gram` plus L2. FISTA with restarts (O'Donoghue and Candes 2015).
    """
    b, ahead, momentum = start, start, 1.0
    for _ in range(STEPS):
        moved = ahead - (gram @ ahead + L2 * ahead - cross) / size
        new = np.sign(moved) * np.maximum(np.abs(moved) - penalty / size, 0.0)
        if float(np.abs(new - b).max(initial=0.0)) < CLOSE * float(np.abs(new).max(initial=1e-12)):
            return np.asarray(new)
        if float(((ahead - new) * (new - b)).sum()) > 0:
            momentum = 1.0
        faster = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / faster * (new - b)
        b, momentum = new, faster
    return b


def _correlations(sums: Moments, weights: Array) -> Array:
    """[H]: correlation of each horizon's fit with its labels over the rows of `sums`; 0 for an empty fit."""
    spread = np.sqrt(np.maximum(np.einsum("wh,wv,vh->h", weights, sums.gram, weights), 0.0) / max(sums.rows, 1))
    along = (weights * sums.cross).sum(axis=0) / max(sums.rows, 1)
    return np.asarray(np.where(spread > 0, along / np.where(spread > 0, spread, 1.0), 0.0))


def _float64(x: torch.Tensor) -> Array:
    return x.double().cpu().numpy()


def own_names(config: ModelConfig, features: Sequence[str]) -> list[str]:
    """Names of the highway's terms that are a feature or a wave of one, in their order."""
    waves = ["mean", *itertools.chain.from_iterable((f"cos{k}", f"sin{k}") for k in range(1, config.highway_waves + 1))]
    return [*features, *(f"{features[c]}~{wave}" for c in config.spectral for wave in waves)]
