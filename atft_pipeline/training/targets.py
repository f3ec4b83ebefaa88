"""What the loss compares the scores with: labels standardised and ranked within each date, computed once per run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atft_pipeline.evaluation.metrics import average_ranks
from atft_pipeline.training.faults import TrainingFault

WINSOR = 0.01


@dataclass
class BlockTargets:
    """The dense targets of one block: D dates, n stocks, H horizons."""

    mask: Tensor
    """[D, n, H] bool: the (date, horizon) cell exists and the stock counts in it."""
    standardised: Tensor
    """[D, n, H] winsorised, mean 0, std 1 over the counted stocks; 0 elsewhere."""
    ranks: Tensor
    """[D, n, H] average ranks, mean 0, std 1; 0 elsewhere."""
    day_return: Tensor
    """[D, n] raw 1-day label, 0 where missing."""
    day_mask: Tensor
    """[D, n] bool."""

    def to(self, device: torch.device) -> BlockTargets:
        """The same targets on another device."""
        return BlockTargets(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))


class Targets:
    """Targets of a span of dates. `counted` [T, N] says which stocks may count: scored and tradable."""

    def __init__(
        self, labels: NDArray[np.float32], counted: NDArray[np.bool_], horizons: tuple[int, ...], dates: range,
        min_cross_section: int = 20,
    ) -> None:  # fmt: skip
        if 1 not in horizons:
            raise TrainingFault(f"the Sharpe term needs the 1-day label; the horizons are {horizons}")
        self.dates = dates
        span = slice(dates.start, dates.stop)
        y = np.asarray(labels[span], np.float32)
        mask = np.isfinite(y) & counted[span][:, :, None]
        self.standardised = np.zeros_like(y)
        self.ranks = np.zeros_like(y)
        self.skipped_cells = 0
        for h in range(len(horizons)):
            values = np.where(mask[:, :, h], y[:, :, h], np.nan)
            standard, exists = standardise(values, min_cross_section)
            mask[:, :, h] &= exists[:, None]
            self.skipped_cells += int((~exists).sum())
            self.standardised[:, :, h] = np.nan_to_num(standard)
            self.ranks[:, :, h] = np.nan_to_num(_unit(average_ranks(values)))
        self.standardised[~mask] = 0
        self.ranks[~mask] = 0
        self.mask = mask
        day = horizons.index(1)
        self.day_mask = mask[:, :, day]
        self.day_return = np.where(self.day_mask, np.nan_to_num(y[:, :, day]), 0).astype(np.float32)

    def block(self, first: int, count: int, stocks: NDArray[np.int64]) -> BlockTargets:
        """Targets of `count` dates from position `first`, for the given stock columns."""
        rows = slice(first - self.dates.start, first - self.dates.start + count)

        def take(array: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array[rows][:, stocks]))

        return BlockTargets(
            take(self.mask), take(self.standardised), take(self.ranks), take(self.day_return), take(self.day_mask)
        )


def standardise(values: NDArray[np.float32], min_cross_section: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Winsorise each row of [T, N] at its 1/99 % quantiles, subtract the mean, divide by the std.

    Returns the values and [T] whether the row counts: at least `min_cross_section` values that are not all equal.
    """
    y = np.asarray(values, np.float64)
    count = np.isfinite(y).sum(axis=1)
    ordered = np.sort(y, axis=1)
    low = _row_quantile(ordered, count, WINSOR)
    high = _row_quantile(ordered, count, 1 - WINSOR)
    clipped = np.clip(y, low[:, None], high[:, None])
    exists = (count >= min_cross_section) & (high > low)
    return np.where(exists[:, None], _unit(clipped), np.nan), exists


def _row_quantile(ordered: NDArray[np.float64], count: NDArray[np.int64], q: float) -> NDArray[np.float64]:
    """Linear-interpolated quantile of each sorted row with NaN last."""
    place = np.maximum(count - 1, 0) * q
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    rows = np.arange(len(ordered))
    weight = place - below
    return ordered[rows, below] * (1 - weight) + ordered[rows, above] * weight


def _unit(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Each row of [T, N] with mean 0 and std 1 over its finite values; a constant or empty row becomes NaN."""
    finite = np.isfinite(x)
    n = np.maximum(finite.sum(axis=1, keepdims=True), 1)
    centred = np.where(finite, x - np.where(finite, x, 0).sum(axis=1, keepdims=True) / n, 0)
    std = np.sqrt((centred**2).sum(axis=1, keepdims=True) / n)
    return np.where(finite & (std > 0), centred / np.where(std > 0, std, 1), np.nan)
