"""The highway's start: an elastic net on the training dates, with the products of features that tell something.

Daily returns are nearly all noise. A few hundred weights moved by every step of a stochastic optimiser carry more of it
than signal, while their best sparse values follow from sums of products that one pass collects. So the weights are
fitted once, before the first phase, and held until the last one:

1. Moments of the highway's terms and the standardised labels, centred per date, by fold of the training span.
2. The elastic net (`elastic_net.py`), its penalty chosen on left-out folds, a label's reach away from the rest.
3. Products of two sums of features that go with what those weights leave of the labels (`interactions.py`).
4. The elastic net once more with the products.
5. When the graph comes on: the neighbours' terms, on what those weights leave of the labels.

Only training dates are read; validation plays no part.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN, ModelConfig
from atft_pipeline.model.highway import RETURN_DAYS
from atft_pipeline.training.batches import BlockSource, Days
from atft_pipeline.training.elastic_net import FOLDS, LEAST_SPREAD, Array, Fit, Moments, fit, float64
from atft_pipeline.training.interactions import DateLeft, Product, find_products
from atft_pipeline.training.targets import Targets

MAX_ROWS = 1_000_000
"""Above it every k-th block of dates is used."""


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
            "products": [name for name in self.names if " x " in name],
            "l1_share": dict(zip(map(str, self.horizons), self.fit.shares.tolist(), strict=True)),
            "left_out_correlation": dict(zip(map(str, self.horizons), left_out, strict=True)),
            "terms": [[self.names[w], strength[w].tolist()] for w in order if strength[w].any()],
        }


class Date(NamedTuple):
    """One date's stocks that may be traded and have a label."""

    day: int
    columns: NDArray[np.int64]
    """[n] of the panel"""
    terms: torch.Tensor
    """[n, W], centred"""
    labels: torch.Tensor
    """[n, H]; a missing one is 0."""


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
        """Everything but the neighbours, from nothing: products and weights are put into the model."""
        highway = self.model.highway
        with torch.no_grad():
            highway.weight.zero_()
            highway.factors.zero_()
        weights = np.zeros((highway.width, len(self.horizons)))
        usable = np.arange(highway.peers.start - highway.n_products)
        found = fit([m.only(usable) for m in self.moments(with_graph=False)])
        weights[usable] = found.weights
        products = self.products(weights, found.scale)
        if products:
            for place, product in enumerate(products):
                highway.factors[:, place] = torch.stack([product.left, product.right])
            usable = np.arange(len(usable) + len(products))
            found = fit([m.only(usable) for m in self.moments(with_graph=False)])
            weights[usable] = found.weights
        self._put(weights)
        names = [*own_names(self.model.config, self.names), *(self._say(product) for product in products)]
        return HighwayStart(names, found, tuple(self.horizons))

    def _say(self, product: Product) -> str:
        """A product in words: the weights of its sides, the strongest features first."""
        sides = []
        for side in (product.left, product.right):
            weights = side.tolist()
            order = sorted((k for k, w in enumerate(weights) if w), key=lambda k: -abs(weights[k]))
            sides.append(" ".join(f"{weights[k]:+.2f} {self.names[k]}" for k in order))
        return f"({sides[0]}) x ({sides[1]})"

    def start_peers(self) -> HighwayStart:
        """The neighbours' terms alone, on what the fitted weights leave of the labels. The graph must be on."""
        highway = self.model.highway
        peers = np.arange(highway.peers.start, highway.peers.stop)
        weights = highway.weight.detach().double().cpu().numpy().T / math.sqrt(highway.width)
        weights[peers] = 0.0
        found = fit([m.left_by(weights).only(peers) for m in self.moments(with_graph=True)])
        weights[peers] = found.weights
        self._put(weights)
        config, days = self.model.config, range(1, RETURN_DAYS)
        returned = self.names[config.return_channel]
        names = [
            *(f"neighbours' {self.names[c]}" for c in config.spectral),
            *(f"neighbours' {returned} {ago} before" for ago in days),
            *(f"own {returned} {ago} before" for ago in range(RETURN_DAYS)),
        ]
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
            for date in self.dates(days, with_graph=with_graph):
                x = date.terms
                sums[fold] += Moments(float64(x.T @ x), float64(x.T @ date.labels), len(x))
        return sums

    def products(self, weights: Array, scale: Array) -> list[Product]:
        """Products of features that go with what `weights` [W, H] leave of the shortest horizon's labels. `scale` [W]:
        the terms' spread within a date."""
        fitted = torch.from_numpy(weights[:, 0].astype(np.float32))
        # What is the same for all stocks of a date tells a regime, of which a few years hold only a few.
        varies = torch.from_numpy(scale[: self.model.highway.n_features] > LEAST_SPREAD)
        left = []
        for days in thinned(self.blocks, self.source):
            for date in self.dates(days, with_graph=False):
                residual = date.labels[:, 0] - date.terms @ fitted.to(date.terms.device)
                rows = functools.partial(self._newest, date.day, date.columns, varies)
                left.append(DateLeft(rows, residual - residual.mean()))
        return find_products(left, self.model.highway.n_products)

    def _newest(self, day: int, columns: NDArray[np.int64], varies: torch.Tensor) -> torch.Tensor:
        self.alive()
        rows = self.source.rows(day, columns)
        return rows * varies.to(rows)

    def dates(self, days: Days, *, with_graph: bool) -> Iterator[Date]:
        """Each date of a block: its stocks with a label."""
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
                columns = batch.columns[stock[mine].cpu().numpy()]
                yield Date(days.first + d, columns, x - x.mean(dim=0), labels[mine])


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


def own_names(config: ModelConfig, features: Sequence[str]) -> list[str]:
    """Names of the highway's terms that are a feature or a wave of one, in their order."""
    waves = ["mean", *itertools.chain.from_iterable((f"cos{k}", f"sin{k}") for k in range(1, config.highway_waves + 1))]
    return [*features, *(f"{features[c]}~{wave}" for c in config.spectral for wave in waves)]
