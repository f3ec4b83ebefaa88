"""Products of two weighted sums of features that go with what a linear fit leaves of the labels.

An interaction shows in no single column, and several noisy columns see each of its two sides. So:

1. Screen: per date the mean of residual x product for every pair of features, and the t-ratio of its mean over dates
   (Fama and MacBeth 1973). If the largest is above sqrt(2 ln 10 n), which the largest of n null ratios reaches about
   once in fifty times, that pair is the first form of a product.
2. Alternate: while one side is held, the product is linear in the other, whose terms a forward selection chooses
   (alternating least squares for a factorised interaction, as in Rendle 2010).
3. Subtract it from the residual, and begin again.

The residual is that of the shortest horizon: its labels do not overlap, so that dates are independent and a t-ratio is
one. A label of many days is the sum of such ones and tells no more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from atft_pipeline.model.highway import LARGEST_PRODUCT
from atft_pipeline.training.elastic_net import LEAST_SPREAD, Array, float64

ROUNDS = 4
"""Fits of a side: each side is fitted twice."""
MOST_TERMS = 12
"""Of a side."""
LEAST_NEW = 0.05
"""Share of a term's variance that those chosen must leave unsaid: below it, it is a copy of theirs."""
FEWEST_DATES = 20
"""For a t-ratio."""


@dataclass(frozen=True)
class DateLeft:
    """What is left of the labels of one date."""

    rows: Callable[[], torch.Tensor]
    """Gives the stocks' newest rows [n, F]; they are read again for every pass."""
    residual: torch.Tensor
    """[n], centred."""


@dataclass(frozen=True)
class Product:
    """(left . x) (right . x), clipped; the sides [F] have unit variance."""

    left: torch.Tensor
    right: torch.Tensor

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """[n, F] -> [n], centred."""
        product = ((x @ self.left) * (x @ self.right)).clamp(-LARGEST_PRODUCT, LARGEST_PRODUCT)
        return product - product.mean()


def find_products(dates: Sequence[DateLeft], room: int) -> list[Product]:
    """The strongest first, `room` at most; none where no pair stands above the bar."""
    found: list[Product] = []
    while len(found) < room:
        pair = telling_pair(dates)
        product = None if pair is None else _alternate(dates, *pair)
        if product is None:
            break
        found.append(product)
        dates = _without(dates, product)
    return found


def telling_pair(dates: Sequence[DateLeft]) -> tuple[int, int] | None:
    """The pair of features whose product goes most surely with the residuals, if it does so more than chance."""
    if len(dates) < FEWEST_DATES:
        return None
    features = dates[0].rows().shape[1]
    total, squares = np.zeros((features, features)), np.zeros((features, features))
    for date in dates:
        x = date.rows()
        x = x - x.mean(dim=0)
        mean = float64((x * date.residual[:, None]).T @ x) / len(x)
        total, squares = total + mean, squares + mean**2
    mean, square = total / len(dates), squares / len(dates)
    ratio = np.abs(np.triu(mean / np.sqrt(np.maximum(square - mean**2, 1e-24) / len(dates))))
    place = int(ratio.argmax())
    if ratio.flat[place] <= math.sqrt(2 * math.log(10 * features * (features + 1) / 2)):
        return None
    return divmod(place, features)


def _alternate(dates: Sequence[DateLeft], i: int, j: int) -> Product | None:
    """From the product of features i and j; None where nothing of a side stands above chance."""
    like = dates[0].residual
    features = dates[0].rows().shape[1]
    sides = [_unit(dates, torch.nn.functional.one_hot(torch.tensor(k), features).to(like)) for k in (i, j)]
    for turn in range(ROUNDS):
        held = sides[(turn + 1) % 2]
        weights = torch.from_numpy(_other_side(dates, held)).to(like)
        if not weights.any():
            return None
        sides[turn % 2] = _unit(dates, weights)
    return Product(*sides)


def _other_side(dates: Sequence[DateLeft], held: torch.Tensor) -> Array:
    """[F]: the weights of the features in a sum whose product with `held` . x is nearest to the residuals."""
    features = len(held)
    gram, cross, squares, rows = np.zeros((features, features)), np.zeros(features), np.zeros(features), 0
    for date in dates:
        x = date.rows()
        terms = (x * (x @ held)[:, None]).clamp(-LARGEST_PRODUCT, LARGEST_PRODUCT)
        terms = terms - terms.mean(dim=0)
        gram += float64(terms.T @ terms)
        along = float64(terms.T @ date.residual)
        cross, squares, rows = cross + along, squares + along**2, rows + len(terms)
    return forward_selection(gram, cross, squares - cross**2 / len(dates))


def forward_selection(gram: Array, cross: Array, variance: Array) -> Array:
    """[F]: least squares on the terms that forward selection takes, by twos or one at a time.

    A term is taken while its t-ratio beside the others is above sqrt(2 ln F), what the largest of F null terms reaches;
    `variance` is that of each sum in `cross`, from its spread over dates. By twos, because what a side is worth often
    lies in a difference: a range, less what is usual for the stock. Its second part tells nothing by itself.
    """
    features, own = len(cross), np.diag(gram)
    bar = math.sqrt(2 * math.log(features))
    bar_of_two = math.sqrt(2 * math.log(features * (features - 1) / 2))
    alive = (own > LEAST_SPREAD**2 * max(float(own.max()), 1e-300)) & (variance > 0)
    noise = np.where(alive, variance, 1.0) / np.where(alive, own, 1.0)  # of the residual, as each term meets it
    chosen: list[int] = []
    while True:
        explained = np.linalg.solve(gram[np.ix_(chosen, chosen)], gram[chosen])  # [k, F]
        left = gram - gram[:, chosen] @ explained  # what the chosen ones do not say of each term
        along = cross - explained.T @ cross[chosen]
        new = alive & (np.diag(left) > LEAST_NEW * own)
        found = _best_two(left, along, noise, new, bar_of_two) or _best_one(left, along, noise, new, bar)
        if not found or len(chosen) + len(found) > MOST_TERMS:
            break
        chosen += found
    weights = np.zeros(features)
    weights[chosen] = np.linalg.solve(gram[np.ix_(chosen, chosen)], cross[chosen])
    return weights


def _best_one(left: Array, along: Array, noise: Array, new: NDArray[np.bool_], bar: float) -> list[int]:
    """The term with the largest t-ratio, if it is above the bar."""
    ratio = np.where(new, np.abs(along) / np.sqrt(noise * np.where(new, np.diag(left), 1.0)), 0.0)
    best = int(ratio.argmax())
    return [best] if ratio[best] > bar else []


def _best_two(left: Array, along: Array, noise: Array, new: NDArray[np.bool_], bar: float) -> list[int]:
    """The two terms that explain most together, of those whose t-ratios beside each other are both above the bar."""
    own = np.where(new, np.diag(left), 1.0)
    beside = own[:, None] - left**2 / own  # [i, k]: of i, what k does not say
    distinct = new[:, None] & new & (beside > LEAST_NEW * own[:, None])
    beside = np.where(distinct, beside, 1.0)
    alone = along[:, None] - left / own * along
    sure = distinct & (np.abs(alone) / np.sqrt(noise[:, None] * beside) > bar)
    gain = np.where(sure & sure.T, alone**2 / beside + along**2 / own, 0.0)
    place = int(gain.argmax())
    return list(divmod(place, len(own))) if gain.flat[place] > 0 else []


def _unit(dates: Sequence[DateLeft], side: torch.Tensor) -> torch.Tensor:
    """`side`, so scaled that side . x has unit variance."""
    square = sum(float((date.rows() @ side).square().sum()) for date in dates)
    return side / math.sqrt(max(square / sum(len(date.residual) for date in dates), 1e-12))


def _without(dates: Sequence[DateLeft], product: Product) -> list[DateLeft]:
    """The residuals less their projection on the product."""
    values = [product.of(date.rows()) for date in dates]
    along = sum(float(v @ date.residual) for v, date in zip(values, dates, strict=True))
    slope = along / max(sum(float(v @ v) for v in values), 1e-12)
    return [replace(date, residual=date.residual - slope * v) for v, date in zip(values, dates, strict=True)]
