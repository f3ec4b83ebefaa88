"""Scores on test dates as rows, and what they are worth day by day: model, rivals and oracle by one code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.evaluation import metrics
from atft_pipeline.evaluation.inputs import EvaluationData
from atft_pipeline.evaluation.oracle import Oracle, load_oracle

Array = NDArray[np.floating]

NO_SEED = -1
"""In the column `seed`: of a score that has none."""
SCORE_KEYS = ("model", "seed", "horizon", "date", "code")
DAILY_KEYS = ("model", "seed", "measure", "delay", "horizon", "date")


def daily_measures(
    data: EvaluationData, scores: Mapping[tuple[str, int], Array], market_dir: Path | None
) -> pl.DataFrame:
    """`rank_ic`, `ic` and, where `market_dir` has an oracle, `oracle_correlation` of scores [T, N, H] by model and seed
    on each test date; the oracle itself is scored as a model. Undefined is null."""
    oracle = load_oracle(market_dir, data.dates, data.codes, data.delays, data.horizons)
    found = [_measure(data, *who, own, oracle) for who, own in scores.items()]
    return pl.concat([*found, _measure_oracle(data, oracle)] if oracle is not None else found)


def score_rows(data: EvaluationData, model: str, seed: int, scores: Array) -> pl.DataFrame:
    """Scores [T, N, H] on the test dates as rows."""
    span = data.part("test")
    day, stock, horizon = np.nonzero(np.isfinite(scores[span]))
    return pl.DataFrame(
        {
            "model": pl.repeat(model, len(day), dtype=pl.String, eager=True),
            "seed": pl.repeat(seed, len(day), dtype=pl.Int32, eager=True),
            "horizon": np.asarray(data.horizons, np.int8)[horizon],
            "date": pl.Series(data.dates[span][day].astype("datetime64[D]")).cast(pl.Date),
            "code": pl.Series(data.codes[stock].astype(str), dtype=pl.String),
            "score": scores[span][day, stock, horizon].astype(np.float32),
        }
    )


def _measure(data: EvaluationData, model: str, seed: int, scores: Array, oracle: Oracle | None) -> pl.DataFrame:
    """RankIC and IC of scores [T, N, H] on each test date, and where there is an oracle the correlation with it."""
    span, found = data.part("test"), []
    for delay in data.delays:
        y = data.labels("test", delay)
        for i, horizon in enumerate(data.horizons):
            own = scores[span][..., i]
            values = {"rank_ic": metrics.rank_ic(own, y[..., i]), "ic": metrics.ic(own, y[..., i])}
            if oracle is not None:
                values["oracle_correlation"] = metrics.ic(own, oracle.expected[delay, horizon][span])
            found += [_days(data, model, seed, name, delay, horizon, value) for name, value in values.items()]
    return pl.concat(found)


def _measure_oracle(data: EvaluationData, oracle: Oracle) -> pl.DataFrame:
    """The oracle as a model: at each delay it is scored with its own expectation of that very label."""
    return pl.concat(list(_oracle_days(data, oracle)))


def _oracle_days(data: EvaluationData, oracle: Oracle) -> Iterator[pl.DataFrame]:
    for delay in data.delays:
        own = np.where(data.scored[..., None], oracle.stacked(delay, data.horizons), np.nan)[data.part("test")]
        y = data.labels("test", delay)
        for i, horizon in enumerate(data.horizons):
            for name, function in (("rank_ic", metrics.rank_ic), ("ic", metrics.ic)):
                yield _days(data, "oracle", NO_SEED, name, delay, horizon, function(own[..., i], y[..., i]))


def _days(
    data: EvaluationData, model: str, seed: int, name: str, delay: int, horizon: int, values: Array
) -> pl.DataFrame:
    dates = pl.Series("date", data.dates[data.part("test")].astype("datetime64[D]")).cast(pl.Date)
    said = {"model": (model, pl.String), "seed": (seed, pl.Int32), "measure": (name, pl.String),
            "delay": (delay, pl.Int32), "horizon": (horizon, pl.Int32)}  # fmt: skip
    return pl.DataFrame([dates, pl.Series("value", values, dtype=pl.Float64, nan_to_null=True)]).select(
        *(pl.lit(value, dtype=dtype).alias(column) for column, (value, dtype) in said.items()), "date", "value"
    )
