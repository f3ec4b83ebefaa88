"""Gradient-boosted trees (LightGBM, native interface): the reference that finds what a linear rule cannot.

One ensemble per horizon, on the rows and labels that ridge is fitted on; validation chooses one number of trees for
all horizons, as it chooses ridge's penalty. The same data give the same trees on any number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.evaluation.baselines import standardise, training_rows, validation_rank_ic
from atft_pipeline.evaluation.inputs import EvaluationData

Array = NDArray[np.floating]

TREES = (25, 50, 100, 150)
"""Numbers of trees among which validation chooses."""
MAX_ROWS = 400_000
"""Above this many training rows every k-th date is fitted on: 400,000 rows of 293 inputs take half a gigabyte."""
MIN_LEAF = 500
"""Fewest rows in a leaf; a hundredth of the rows where that is less."""
INPUTS_PER_TREE = 30
THREADS = 1
"""Two gain little on a quiet machine and spin beside a busy one."""
PARAMETERS: dict[str, Any] = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 7,
    "lambda_l2": 10.0,
    "bagging_fraction": 0.5,
    "bagging_freq": 1,
    "max_bin": 63,
    "seed": 7,
    "deterministic": True,
    "force_col_wise": True,  # the choice between both would be made by a stopwatch
    "verbosity": -1,
}
"""Small trees of few inputs each: daily returns are nearly all noise. The best of ten combinations by validation on the
demo market that fit its 92,605 rows in twelve seconds; larger trees (15, 31 leaves) were worse there."""


@dataclass(frozen=True)
class Trees:
    """Scores [T, N, H] on validation and test dates, and what they came from."""

    scores: Array
    trees: int
    rows: int
    models: Mapping[int, str]
    """Horizon -> the ensemble as LightGBM writes it."""


def boosted_trees(
    data: EvaluationData,
    delay: int = 1,
    *,
    counts: tuple[int, ...] = TREES,
    threads: int = THREADS,
    max_rows: int = MAX_ROWS,
) -> Trees:
    """Fit to the date-standardised `delay` label on the scaled inputs of the same date, train part only."""
    import lightgbm  # imports pandas and scipy: the definitions load without

    x, y = _training_sample(data, delay, max_rows)
    settings = {
        **PARAMETERS,
        "num_threads": threads,
        "min_data_in_leaf": min(MIN_LEAF, len(x) // 100),
        "feature_fraction": min(1.0, INPUTS_PER_TREE / x.shape[1]),
    }
    fitted_on = lightgbm.Dataset(x, label=np.zeros(len(x)), params=settings).construct()
    boosters = {}
    for i, horizon in enumerate(data.horizons):
        known = np.isfinite(y[:, i])
        fitted_on.set_label(np.where(known, y[:, i], 0.0))
        fitted_on.set_weight(known.astype(np.float64))  # a missing label teaches nothing; the bins stay shared
        boosters[horizon] = lightgbm.train(settings, fitted_on, num_boost_round=counts[-1])
    del x, fitted_on
    staged = _staged_scores(data, boosters, data.part("valid"), threads, counts)
    found = {count: validation_rank_ic(data, scores, delay) for count, scores in staged.items()}
    best = max(counts, key=lambda count: (found[count], -count))
    scores = np.full(data.scores.shape, np.nan)
    scores[data.part("valid")] = staged[best]
    scores[data.part("test")] = _staged_scores(data, boosters, data.part("test"), threads, (best,))[best]
    rows = int(np.isfinite(y).any(axis=1).sum())
    models = {horizon: booster.model_to_string(num_iteration=best) for horizon, booster in boosters.items()}
    return Trees(scores, best, rows, models)


def _training_sample(data: EvaluationData, delay: int, max_rows: int) -> tuple[NDArray[np.float32], Array]:
    """Inputs [R, F] and standardised labels [R, H] of every k-th training date, k as small as `max_rows` allows."""
    used = list(training_rows(data))
    step = -(-sum(len(stocks) for _, stocks in used) // max_rows) if used else 1
    column = data.delays.index(delay)
    x, y = [], []
    for t, stocks in used[::step]:
        x.append(np.asarray(data.x[t, stocks], dtype=np.float32))
        y.append(standardise(np.asarray(data.y[t : t + 1, stocks, column], dtype=np.float64))[0])
    return np.concatenate(x), np.concatenate(y)


def _staged_scores(
    data: EvaluationData,
    boosters: Mapping[int, Any],
    span: slice,
    threads: int,
    counts: tuple[int, ...],
) -> dict[int, Array]:
    """Number of trees -> scores [D, N, H], NaN where the row is not usable."""
    place = np.nonzero(data.row_ok[span])
    x = np.asarray(data.x[span], dtype=np.float32)[place]
    shape = (span.stop - span.start, data.x.shape[1], len(data.horizons))
    staged = {count: np.full(shape, np.nan) for count in counts}
    for i, booster in enumerate(boosters.values()):
        total, first = np.zeros(len(x)), 0
        for count in counts:
            total += booster.predict(
                x, start_iteration=first, num_iteration=count - first, raw_score=True, num_threads=threads
            )
            first = count
            staged[count][place[0], place[1], i] = total
    return staged
