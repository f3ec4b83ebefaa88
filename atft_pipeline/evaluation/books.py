"""Books besides the dollar-neutral one that is judged: arrays [D, N] in, daily series [D] out."""

from __future__ import annotations

import numpy as np

from atft_pipeline.evaluation.metrics import Array, Book, decile_weights


def long_only_book(scores: Array, day_returns: Array, *, horizon: int = 1, cost: float = 0.001) -> Book:
    """Long the top decile, in `horizon` overlapping sleeves; gross exposure 1. As `metrics.decile_book` otherwise."""
    weights = np.maximum(decile_weights(scores), 0.0)
    if horizon > 1:
        total = np.cumsum(weights, axis=0)
        total[horizon:] = total[horizon:] - total[:-horizon].copy()
        weights = total / np.minimum(np.arange(1, len(weights) + 1), horizon)[:, None]
    gross = (weights * np.nan_to_num(np.asarray(day_returns, np.float64))).sum(axis=1)
    turnover = np.abs(np.diff(weights, axis=0, prepend=0.0)).sum(axis=1)
    return Book(gross=gross, net=gross - cost * turnover, turnover=turnover)


def equal_weight_market(day_returns: Array) -> Array:
    """Mean return of all stocks with one: [D], NaN on dates without any."""
    known = np.isfinite(day_returns)
    total = np.where(known, day_returns, 0.0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)
