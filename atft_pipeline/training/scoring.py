"""Scores of whole spans of dates, and their metrics: the same code for validation, test and prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atft_pipeline.evaluation import metrics
from atft_pipeline.model.atft_gat_fan import ATFTGATFAN
from atft_pipeline.training.batches import BlockSource, cut
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.panel_data import PanelData


@torch.no_grad()
def score_dates(
    model: ATFTGATFAN, source: BlockSource, dates: range, *, dates_per_block: int,
    progress: Callable[[], None] | None = None, dropout: bool = False, prefetch: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # fmt: skip
    """Scores [len(dates), N, H] and quantiles [len(dates), N, H, Q]; NaN where a stock has no valid window.

    `model.eval()` throughout (unless `dropout` asks for the stochastic pass of `uncertainty.py`), all dates in order;
    the training mode is restored afterwards. A score is bit-equal whatever comes after its date, whatever the blocks.
    """
    stocks, horizons, levels = len(source.panel.codes), len(model.config.horizons), len(model.config.quantiles)
    scores = np.full((len(dates), stocks, horizons), np.nan, np.float32)
    quantiles = np.full((len(dates), stocks, horizons, levels), np.nan, np.float32)
    was_training = model.training
    model.train(dropout)
    try:
        blocks = cut(dates, dates_per_block)
        for batch in source.batches(blocks, with_graph=model.uses_graph, all_observed=True, prefetch=prefetch):
            if progress is not None:
                progress()
            output = model.score_each_date(batch.block)
            pairs = batch.block.pairs.cpu().numpy()
            place = pairs[:, 0] + batch.days.first - dates.start, batch.columns[pairs[:, 1]]
            scores[place] = output.score.float().cpu().numpy()
            quantiles[place] = output.quantiles.float().cpu().numpy()
    finally:
        model.train(was_training)
    return scores, quantiles


def monitored_series(
    scores: NDArray[np.float32], panel: PanelData, dates: range, delay: int, min_cross_section: int
) -> metrics.Array:
    """[D] the horizon-weighted RankIC per date: the series that early stopping and checkpoints go by."""
    y = _labels(panel, dates, delay)
    return metrics.weighted_mean(
        {h: metrics.rank_ic(scores[..., i], y[..., i], min_cross_section) for i, h in enumerate(panel.horizons)}
    )


def evaluate(
    scores: NDArray[np.float32], panel: PanelData, dates: range, delay: int, config: TrainingConfig,
    *, intervals: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """All metrics of scores [D, N, H] on `dates` at one delay; `intervals` adds bootstrap confidence intervals."""
    y = _labels(panel, dates, delay)
    least = config.min_cross_section
    per_horizon: dict[str, Any] = {}
    books: dict[str, Any] = {}
    rank: dict[int, metrics.Array] = {}
    pearson: dict[int, metrics.Array] = {}
    hits: dict[int, metrics.Array] = {}
    day = y[..., panel.horizons.index(1)]
    known = np.isfinite(day).any(axis=1)  # the newest dates have no return yet
    tradable = panel.tradable[dates.start : dates.stop]
    held = np.where(tradable[:, :, None], scores, np.nan)[known]
    for i, h in enumerate(panel.horizons):
        s, t = scores[..., i], y[..., i]
        rank[h], pearson[h] = metrics.rank_ic(s, t, least), metrics.ic(s, t, least)
        hits[h] = metrics.hit_rate(s, t, min_cross_section=least)
        per_horizon[str(h)] = _horizon(rank[h], pearson[h], hits[h], h, intervals)
        book = metrics.decile_book(held[..., i], day[known], horizon=h, cost=config.cost_one_way)
        books[str(h)] = metrics.book_summary(book, cost=config.cost_one_way)
    lag = max(panel.horizons) - 1
    return {
        "dates": [str(panel.dates[dates.start]), str(panel.dates[dates.stop - 1])],
        "delay": delay,
        "per_horizon": per_horizon,
        "mean": {
            "rankic": metrics.summarise_series(metrics.weighted_mean(rank), lag),
            "ic": metrics.summarise_series(metrics.weighted_mean(pearson), lag),
            "hit_rate": metrics.summarise_series(metrics.weighted_mean(hits), lag),
        },
        "portfolio": books[str(config.book_horizon)],
        "portfolio_by_horizon": books,
        "degeneracy": metrics.degeneracy(scores[..., panel.horizons.index(1)]),
    }


def score_spread(scores: NDArray[np.float32]) -> float:
    """Smallest over the horizons of the median per-date standard deviation of the score."""
    return min(metrics.degeneracy(scores[..., h])["score_std_median"] for h in range(scores.shape[-1]))


def _horizon(
    rank: metrics.Array, pearson: metrics.Array, hits: metrics.Array, h: int, intervals: bool
) -> dict[str, Any]:
    r, p = metrics.summarise_series(rank, h - 1), metrics.summarise_series(pearson, h - 1)
    found: dict[str, Any] = {
        "rankic": r["mean"], "rankic_se": r["se"], "rankic_t": r["t"], "rankicir": r["icir"],
        "rankic_share_positive": r["share_positive"],
        "ic": p["mean"], "ic_se": p["se"], "ic_t": p["t"], "icir": p["icir"],
        "hit_rate": metrics.summarise_series(hits, h - 1)["mean"],
        "n_dates": r["n_dates"], "n_dates_nan": r["n_dates_nan"],
    }  # fmt: skip
    if intervals:
        found["rankic_ci95"] = list(metrics.block_bootstrap(rank))
    return found


def _labels(panel: PanelData, dates: range, delay: int) -> NDArray[np.float32]:
    """[D, N, H] labels of stocks that may be traded on the score's date, NaN elsewhere."""
    span = slice(dates.start, dates.stop)
    return np.where(panel.tradable[span][:, :, None], panel.labels(delay)[span], np.nan)
