"""The planted parts: hidden characteristics, the graph of neighbours, and what each part says about days to come.

A part's effect `e[t]` is known at the close of day t. The slow parts act on the next day only, but their characteristic
lives on (AR(1), or a cycle known in phase). The one-day parts, reversal and graph, act with LAGS on days t+1 to t+3.
`expected(part, ahead)` is E[part of the return of day t+1+ahead | known at t], in units of the part's scale; the part
that a planted effect has in the specific returns of days not yet seen is of second order and left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.exchange.sectors import SECTORS
from atft_pipeline.exchange.universe import Universe

LAGS = (0.5, 0.3, 0.2)
"""Weights of a one-day part on the next three days."""

LINEAR_HALF_LIFE = 20.0
INTERACTION_HALF_LIFE = 5.0
"""Of each of the two characteristics; their product halves twice as fast."""

CYCLE_DAYS = 20
NEIGHBOURS = 10
GROUP_POOL = 40
"""Fewest stocks from which hidden groups are drawn: sectors smaller than this are pooled with the next ones."""

GROUP_SHARE = 0.4
"""Share of the specific variance that a hidden group has in common: the residual correlation between neighbours."""

CLIP = 2.5
"""Yesterday's specific return counts up to this many cross-sectional standard deviations."""

Floats = NDArray[np.float64]


def persistence(half_life: float) -> float:
    """AR(1) coefficient of a half-life in days."""
    return float(0.5 ** (1.0 / half_life))


@dataclass(frozen=True)
class Hidden:
    """Unit-variance characteristics [days, issues] behind the slow parts; zero for what is no common stock."""

    linear: Floats
    left: Floats
    right: Floats
    phase: Floats
    """Phase of the cycle per issue, radians."""
    common: NDArray[np.bool_]

    def cycle(self, day: NDArray[np.int64] | int) -> Floats:
        """Value of the cycle on `day` (an index or an array of them) with unit variance over a period."""
        angle = 2 * np.pi * np.asarray(day)[..., None] / CYCLE_DAYS + self.phase
        return np.sqrt(2.0) * np.sin(angle) * self.common


def draw_hidden(universe: Universe, days: int, seed: int) -> Hidden:
    """Draw every hidden characteristic from its stationary distribution."""
    rng = np.random.default_rng([seed, 2])
    issues = len(universe.codes)

    def autoregressive(half_life: float) -> Floats:
        phi = persistence(half_life)
        series = rng.standard_normal((days, issues))
        series[1:] *= np.sqrt(1 - phi**2)
        for t in range(1, days):
            series[t] += phi * series[t - 1]
        return series * universe.common

    return Hidden(
        linear=autoregressive(LINEAR_HALF_LIFE),
        left=autoregressive(INTERACTION_HALF_LIFE),
        right=autoregressive(INTERACTION_HALF_LIFE),
        phase=rng.uniform(0, 2 * np.pi, issues),
        common=universe.common,
    )


@dataclass(frozen=True)
class Groups:
    """Hidden groups of stocks that move together and lead each other."""

    member: NDArray[np.int64]
    """Group of each issue; -1 for what is no common stock."""
    neighbours: NDArray[np.int64]
    """[issues, NEIGHBOURS] indices."""
    weight: Floats
    """[issues, NEIGHBOURS]: 1/k for each of an issue's k neighbours, 0 where it has fewer."""
    own: Floats
    """Coefficient of the mean of the neighbours' specific returns on the issue's own."""

    @property
    def count(self) -> int:
        return int(self.member.max()) + 1

    def lead(self, specific: Floats) -> Floats:
        """Mean specific return of the neighbours, less what the issue's own return already says about it."""
        return (specific[self.neighbours] * self.weight).sum(axis=1) - self.own * specific

    def edges(self) -> Iterator[tuple[int, int]]:
        """(issue, neighbour) pairs."""
        for issue, slot in zip(*np.nonzero(self.weight), strict=True):
            yield int(issue), int(self.neighbours[issue, slot])


def draw_groups(universe: Universe, seed: int) -> Groups:
    """Draw groups of NEIGHBOURS + 1 stocks inside each sector, small sectors pooled with the next in code order."""
    rng = np.random.default_rng([seed, 3])
    issues = len(universe.codes)
    member = np.full(issues, -1)
    neighbours = np.tile(np.arange(issues)[:, None], (1, NEIGHBOURS))
    weight = np.zeros((issues, NEIGHBOURS))
    own = np.zeros(issues)
    count = 0
    for pool in _pools(universe):
        shuffled = rng.permutation(pool)
        for group in np.array_split(shuffled, max(1, len(pool) // (NEIGHBOURS + 1))):
            member[group] = count
            count += 1
            size = min(NEIGHBOURS, len(group) - 1)
            for place, issue in enumerate(group):
                others = np.roll(group, -place)[1 : 1 + size]
                neighbours[issue, :size] = others
                weight[issue, :size] = 1.0 / max(size, 1)
                own[issue] = GROUP_SHARE * universe.specific[others].sum() / max(size, 1) / universe.specific[issue]
    return Groups(member, neighbours, weight, own)


def _pools(universe: Universe) -> list[NDArray[np.int64]]:
    pools: list[NDArray[np.int64]] = []
    waiting: list[NDArray[np.int64]] = []
    for sector in range(len(SECTORS)):
        waiting.append(np.flatnonzero(universe.common & (universe.sector == sector)))
        if sum(map(len, waiting)) >= GROUP_POOL:
            pools.append(np.concatenate(waiting))
            waiting = []
    rest = np.concatenate(waiting) if waiting else np.empty(0, dtype=np.int64)
    if len(rest) >= GROUP_POOL or not pools:
        pools.append(rest)
    else:
        pools[-1] = np.concatenate([pools[-1], rest])
    return [pool for pool in pools if len(pool)]


@dataclass(frozen=True)
class Effects:
    """What the parts know at each close, in units of their scales: the basis of returns and of the oracle."""

    hidden: Hidden
    reversal: Floats
    """[days, issues]: minus the day's own specific return, standardised in the cross-section and clipped."""
    graph: Floats
    """[days, issues]: the neighbours' lead on the day."""

    def expected(self, part: str, ahead: int, rows: slice = slice(None)) -> Floats:
        """E[effect of `part` on the return of day t+1+ahead | known at t] for each t in `rows`, scale 1."""
        hidden = self.hidden
        if part == "linear":
            return persistence(LINEAR_HALF_LIFE) ** ahead * hidden.linear[rows]
        if part == "interaction":
            return persistence(INTERACTION_HALF_LIFE) ** (2 * ahead) * hidden.left[rows] * hidden.right[rows]
        if part == "cycle":
            return hidden.cycle(np.arange(len(hidden.linear))[rows] + ahead)
        return lagged(self.reversal if part == "reversal" else self.graph, ahead, rows)


def lagged(effect: Floats, ahead: int, rows: slice) -> Floats:
    """Sum of LAGS[m] x effect[t + ahead - m] over what is already known at t (m >= ahead)."""
    start, stop, _ = rows.indices(len(effect))
    total = np.zeros((stop - start, effect.shape[1]))
    for lag in range(ahead, len(LAGS)):
        shift = lag - ahead
        skip = max(0, shift - start)
        total[skip:] += LAGS[lag] * effect[start + skip - shift : stop - shift]
    return total
