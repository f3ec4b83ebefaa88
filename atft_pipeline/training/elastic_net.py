"""The elastic net from sums of products, its penalty chosen on left-out folds.

Zou and Hastie 2005, by accelerated proximal gradient (FISTA, Beck and Teboulle 2009).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

FOLDS = 5
SHARES = np.geomspace(1.0, 0.03, 15)
"""L1 penalties, as shares of the smallest one that leaves no term."""
L2 = 0.02
"""Ridge part, in units of a term's variance: it lets near-copies share a weight."""
LEAST_SPREAD = 1e-6
"""Within a date; a term below it is the same for all stocks."""
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


def fit(sums: Sequence[Moments]) -> Fit:
    """The elastic net of all rows at the penalty that the folds choose. `sums`: what folds judge, then their edges.

    Without two folds that can judge, the penalty is the universal threshold sqrt(2 ln W / rows) (Donoho and Johnstone
    1994), a little more than pure noise reaches.
    """
    total = sum(sums[1:], sums[0])
    scale = np.sqrt(np.maximum(np.diag(total.gram) / max(total.rows, 1), 0.0))
    alive = scale > LEAST_SPREAD
    judges = [k for k in range(FOLDS) if sums[k].rows > 0]
    horizons = total.cross.shape[1]
    if len(judges) > 1:
        found = np.stack(
            [
                [_correlations(sums[k], weights) for weights in _path(total - sums[k] - sums[k + FOLDS], scale, alive)]
                for k in judges
            ]
        )  # [folds, penalties, horizons]
        mean = found.mean(axis=0)
        # As sure as folds can tell: what does well in some of them only, or is not above noise, loses to fewer terms,
        # and in the end to none, whose correlation and error are zero.
        error = found.std(axis=0, ddof=1) / math.sqrt(len(judges))
        chosen, column = (mean - 2 * error).argmax(axis=0), np.arange(horizons)
        shares, left_out = SHARES[chosen], mean[chosen, column]
    else:
        strongest = np.abs(total.cross[alive] / scale[alive, None] / max(total.rows, 1)).max(axis=0, initial=0.0)
        bar = math.sqrt(2 * math.log(max(len(scale), 2)) / max(total.rows, 1))
        shares, left_out = np.minimum(bar / np.maximum(strongest, 1e-12), 1.0), np.full(horizons, np.nan)
    weights = _path(total, scale, alive, shares[None])[0]
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


def float64(x: torch.Tensor) -> Array:
    return x.double().cpu().numpy()
