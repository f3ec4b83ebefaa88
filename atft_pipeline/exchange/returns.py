"""Daily returns: market, styles, sectors, hidden groups, specific noise, and the planted parts acting through time.

Simple returns of each business day on which the exchange traded, before prices are rounded to ticks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.exchange.sectors import SECTORS
from atft_pipeline.exchange.signals import CLIP, GROUP_SHARE, LAGS, Effects, Groups, Hidden
from atft_pipeline.exchange.universe import (
    MARKET_VOLATILITY,
    SECTOR_VOLATILITY,
    STYLE_VOLATILITY,
    STYLES,
    Universe,
)

_MARKET_DRIFT = 0.0002
_JUMP_CHANCE = 0.0005
_JUMP_SIZE = 0.1
_WORST = -0.6
"""No simulated stock loses more than this in a day; the price limit is tighter for all but the cheapest."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Noise:
    """Everything in a return that no one can know the day before; arrays are [days, issues]."""

    common: Floats
    """Market, style and sector moves."""
    specific: Floats
    """Group and own moves."""
    volatility: Floats
    """Multiplier of each issue's volatility on the day, mean about 1."""
    market: Floats
    """Market factor [days]."""
    sectors: Floats
    """Sector factor [days, sectors]."""
    value: Floats
    """Second style factor [days]: value against growth."""


def student(rng: np.random.Generator, shape: tuple[int, ...], freedom: float) -> Floats:
    """Student-t draws with unit variance."""
    return rng.standard_t(freedom, shape) * np.sqrt((freedom - 2) / freedom)


def garch(shocks: Floats, alpha: float, beta: float) -> Floats:
    """Volatility multiplier of each row of unit-variance `shocks` [days, series], with long-run variance 1."""
    variance = np.ones_like(shocks)
    for t in range(1, len(shocks)):
        previous = variance[t - 1]
        move = np.minimum(shocks[t - 1] ** 2, 16.0)
        variance[t] = 1 - alpha - beta + (alpha * move + beta) * previous
    return np.sqrt(np.minimum(variance, 16.0))


def draw_noise(universe: Universe, groups: Groups, days: int, seed: int) -> Noise:
    """Draw the unpredictable part of every return."""
    rng = np.random.default_rng([seed, 4])
    issues = len(universe.codes)
    shocks = student(rng, (days, 1), 5)
    market = _MARKET_DRIFT + MARKET_VOLATILITY * (garch(shocks, 0.08, 0.90) * shocks)[:, 0]
    styles = STYLE_VOLATILITY * student(rng, (days, STYLES), 6)
    sectors = SECTOR_VOLATILITY * student(rng, (days, len(SECTORS)), 6)
    common = market[:, None] * universe.beta + styles @ universe.style.T
    inside = universe.sector < len(SECTORS)
    common[:, inside] += sectors[:, universe.sector[inside]]

    own = student(rng, (days, issues), 4)
    volatility = garch(own, 0.06, 0.92)
    group = student(rng, (days, groups.count), 6)
    grouped = groups.member >= 0
    specific = volatility * own
    specific[:, grouped] *= np.sqrt(1 - GROUP_SHARE)
    specific[:, grouped] += np.sqrt(GROUP_SHARE) * group[:, groups.member[grouped]]
    specific *= universe.specific
    jumps = rng.random((days, issues)) < _JUMP_CHANCE
    specific += np.where(jumps & universe.common, rng.normal(0, _JUMP_SIZE, (days, issues)), 0.0)
    for issue in np.flatnonzero(universe.parent >= 0):
        parent = universe.parent[issue]
        common[:, issue] = 0.8 * (common[:, parent] + specific[:, parent])
    return Noise(common, specific, volatility, market, sectors, styles[:, 1])


@dataclass(frozen=True)
class Returns:
    """Simulated returns with the effects that acted in them."""

    simple: Floats
    """[days, issues] simple returns."""
    effects: Effects


def simulate(
    noise: Noise,
    hidden: Hidden,
    groups: Groups,
    listed: NDArray[np.bool_],
    scale: Mapping[str, float],
    schedule: Mapping[str, Floats],
) -> Returns:
    """Let the parts act day by day.

    `scale[part]` is the part's size in return per unit of effect; `schedule[part]` [days or more] its multiplier on
    the day on which it acts. Only issues `listed` [days, issues] on a day lead others or revert.
    """
    days, issues = noise.specific.shape
    acting = np.zeros((days, issues))
    effects = Effects(hidden, np.zeros((days, issues)), np.zeros((days, issues)))
    for part in ("linear", "interaction", "cycle"):
        if scale.get(part):
            known = effects.expected(part, 0, slice(0, days - 1))
            acting[1:] += scale[part] * schedule[part][1:days, None] * known
    feedback = {part: scale.get(part, 0.0) * schedule[part] for part in ("reversal", "graph")}
    counted = listed & hidden.common
    for t in range(days):
        for lag, weight in enumerate(LAGS, start=1):
            if t >= lag:
                acting[t] += weight * feedback["reversal"][t] * effects.reversal[t - lag]
                acting[t] += weight * feedback["graph"][t] * effects.graph[t - lag]
        specific = noise.specific[t] + acting[t]
        spread = np.sqrt(np.mean(np.square(specific[counted[t]])))
        standard = np.clip(specific / spread, -CLIP, CLIP) * counted[t]
        effects.reversal[t] = -standard
        effects.graph[t] = groups.lead(standard) * counted[t]
    return Returns(np.maximum(noise.common + noise.specific + acting, _WORST), effects)
