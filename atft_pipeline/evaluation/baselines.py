"""What the model must beat, on the same inputs, splits, masks and labels: reversal, momentum and ridge.

The boosted trees have a module of their own, `trees.py`; `rivals.py` scores them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.evaluation import metrics
from atft_pipeline.evaluation.inputs import EvaluationData

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]

LAMBDAS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge penalties, as multiples of the mean diagonal of X'X."""


@dataclass(frozen=True)
class Ridge:
    """Scores [T, N, H] on validation and test dates, and the penalty that validation chose."""

    scores: Array
    penalty: float
    rows: int
    beta: Array
    """[F, H] coefficients of the scaled inputs."""


def reversal(returns: NDArray[np.floating], where: Mask) -> Array:
    """[T, N]: minus the 1-day return over the cross-section's mean. NaN where the return is not known."""
    known = where & np.isfinite(returns)
    value = np.where(known, returns, 0.0).astype(np.float64)
    mean = value.sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    return np.where(known, mean - value, np.nan)


def momentum(returns: NDArray[np.floating], where: Mask, days: int = 20) -> Array:
    """[T, N]: sum of the last `days` log returns. NaN where the last one or more than a quarter of them is missing."""
    known = where & np.isfinite(returns) & (returns > -1)
    value = np.log1p(np.where(known, returns, 0.0).astype(np.float64))
    total, count = np.cumsum(value, axis=0), np.cumsum(known, axis=0)
    total[days:], count[days:] = total[days:] - total[:-days].copy(), count[days:] - count[:-days].copy()
    return np.where(known & (4 * count >= 3 * days), total, np.nan)


def standardise(y: Array) -> Array:
    """Per date and horizon: zero mean and unit variance over the known stocks [D, N, H]; NaN stays."""
    known = np.isfinite(y)
    n = np.maximum(known.sum(axis=1, keepdims=True), 1)
    centred = np.where(known, y, 0.0) - np.where(known, y, 0.0).sum(axis=1, keepdims=True) / n
    centred = np.where(known, centred, 0.0)
    sd = np.sqrt((centred**2).sum(axis=1, keepdims=True) / n)
    return np.where(known & (sd > 0), centred / np.where(sd > 0, sd, 1.0), np.nan)


def ridge(data: EvaluationData, delay: int = 1) -> Ridge:
    """Ridge regression of the date-standardised `delay` label on the scaled inputs of the same date.

    Inputs and labels are centred per date, because only differences between stocks are scored. Fitted on the train
    part; the penalty is the one with the best horizon-weighted RankIC on validation.
    """
    gram, moment, rows = _normal_equations(data, delay)
    size = float(np.trace(gram)) / len(gram)
    candidates = []
    for penalty in LAMBDAS:
        beta = np.linalg.solve(gram + penalty * max(size, 1e-12) * np.eye(len(gram)), moment)
        chosen_by = validation_rank_ic(data, _predict(data, data.part("valid"), beta), delay)
        candidates.append((chosen_by, penalty, beta))
    _, penalty, beta = max(candidates, key=lambda c: c[0])
    scores = np.full(data.scores.shape, np.nan)
    for part in ("valid", "test"):
        scores[data.part(part)] = _predict(data, data.part(part), beta)
    return Ridge(scores, penalty, rows, beta)


def training_rows(data: EvaluationData) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """(date, stocks) of the train part: usable, tradable rows of dates with a cross-section worth ranking."""
    train = data.part("train")
    for t in range(train.start, train.stop):
        use = np.flatnonzero(data.row_ok[t] & data.tradable[t])
        if len(use) >= metrics.MIN_CROSS_SECTION:
            yield t, use


def _normal_equations(data: EvaluationData, delay: int) -> tuple[Array, Array, int]:
    """X'X [F, F], X'y [F, H] and the number of rows, one date at a time. A missing label counts as the date's mean."""
    width, horizons = data.x.shape[2], len(data.horizons)
    gram, moment, rows = np.zeros((width, width)), np.zeros((width, horizons)), 0
    column = data.delays.index(delay)
    for t, use in training_rows(data):
        x = data.x[t, use].astype(np.float64)
        x -= x.mean(axis=0)
        y = standardise(np.asarray(data.y[t : t + 1, use, column], dtype=np.float64))[0]
        gram += x.T @ x
        moment += x.T @ np.nan_to_num(y)
        rows += len(use)
    return gram, moment, rows


def _predict(data: EvaluationData, span: slice, beta: Array) -> Array:
    """[D, N, H] where the row is usable, NaN elsewhere."""
    found = np.full((span.stop - span.start, data.x.shape[1], beta.shape[1]), np.nan)
    for i, t in enumerate(range(span.start, span.stop)):
        use = data.row_ok[t]
        found[i, use] = data.x[t, use].astype(np.float64) @ beta
    return found


def validation_rank_ic(data: EvaluationData, scores: Array, delay: int) -> float:
    """Horizon-weighted mean RankIC of scores [D, N, H] on the validation dates; what a fit's one free number is chosen
    by. -inf where it is undefined."""
    y = data.labels("valid", delay)
    series = metrics.weighted_mean({h: metrics.rank_ic(scores[..., i], y[..., i]) for i, h in enumerate(data.horizons)})
    known = series[np.isfinite(series)]
    return float(known.mean()) if known.size else float("-inf")
