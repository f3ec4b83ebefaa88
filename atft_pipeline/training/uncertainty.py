"""Monte-Carlo dropout: how much the scores of the newest dates move when units are dropped (Gal and Ghahramani 2016).

A pass of its own after training. It draws from its own seed, restores the random state and the mode of the model, and
nothing of it reaches a metric.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN
from atft_pipeline.training.batches import BlockSource
from atft_pipeline.training.scoring import score_dates
from atft_pipeline.training.step import random_state, restore

FEWEST_SAMPLES = 20


def mc_dropout(
    model: ATFTGATFAN, source: BlockSource, dates: range, *, samples: int, seed: int,
    progress: Callable[[], None] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # fmt: skip
    """Mean and standard deviation [len(dates), N, H] over `samples` stochastic forward passes; NaN where not scored."""
    if samples < FEWEST_SAMPLES:
        raise ValueError(f"{samples} samples say little about a spread; take at least {FEWEST_SAMPLES}")
    state = random_state()
    try:
        torch.manual_seed(seed)
        drawn = np.stack(
            [score_dates(model, source, dates, dates_per_block=1, progress=progress, dropout=True)[0]
             for _ in range(samples)]
        )  # fmt: skip
    finally:
        restore(state)
    return drawn.mean(axis=0), drawn.std(axis=0, ddof=1)
