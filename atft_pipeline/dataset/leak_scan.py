"""The too-good scan: a feature that predicts a label this well has seen it.

Per feature, date and target: the rank correlation. A mean beyond .15 in size (and beyond luck), or a single date
beyond .9, fails. Honest daily features have a mean near .02.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.dataset.contract import Contract, dataset_dir, verify_dataset
from atft_pipeline.dataset.spine import years
from atft_pipeline.lake.store import read_table
from atft_pipeline.panel.axes import Axes
from atft_pipeline.panel.operators import cs_rank
from atft_pipeline.settings import Thresholds
from atft_pipeline.verdict import Verdict

MAX_DATES = 250
MIN_DATES = 10
LUCK = 5.0
"""Standard errors that the mean must exceed besides the threshold: a tiny market is noisy."""
SHOWN = 8

Array = NDArray[np.float64]


def rank_correlations(feature: Array, targets: Array, min_cross_section: int) -> Array:
    """[D, K] correlation of a feature's ranks [D, N] with each target's ranks [D, N, K]; NaN where undefined."""
    x = cs_rank(feature, None, min_cross_section)
    known = np.isfinite(x)[:, :, None] & np.isfinite(targets)
    count = known.sum(axis=1)
    a = np.where(known, x[:, :, None], 0.0)
    b = np.where(known, targets, 0.0)
    n = np.maximum(count, 1)
    a_mean, b_mean = a.sum(axis=1) / n, b.sum(axis=1) / n
    product = (a * b).sum(axis=1) / n - a_mean * b_mean
    variances = ((a * a).sum(axis=1) / n - a_mean**2) * ((b * b).sum(axis=1) / n - b_mean**2)
    spread = np.sqrt(np.maximum(variances, 0))  # a constant's variance may round to just below zero
    defined = (count >= min_cross_section) & (spread > 1e-9)
    return np.where(defined, product / np.where(defined, spread, 1.0), np.nan)


def find_too_good(
    features: Iterable[tuple[str, Array]], targets: Array, horizons: tuple[int, ...], thresholds: Thresholds
) -> tuple[dict[str, float], float]:
    """Features over a limit with their largest |mean IC| (or |day IC|), and the largest |mean IC| of the others.

    `targets` [D, N, K]; the standard error of a mean allows for overlapping labels (sd * sqrt(h / dates)).
    """
    ranked = np.stack([cs_rank(targets[:, :, k], None, 2) for k in range(targets.shape[2])], axis=2)
    found: dict[str, float] = {}
    largest = 0.0
    for name, values in features:
        ic = rank_correlations(values, ranked, thresholds.min_cross_section)
        dates = np.isfinite(ic).sum(axis=0)
        used = dates >= MIN_DATES
        if not used.any():
            continue
        filled = np.where(np.isfinite(ic), ic, 0.0)
        mean = filled.sum(axis=0) / np.maximum(dates, 1)
        variance = (np.where(np.isfinite(ic), ic - mean, 0.0) ** 2).sum(axis=0) / np.maximum(dates - 1, 1)
        error = np.sqrt(variance * np.array(horizons) / np.maximum(dates, 1))
        over = used & (np.abs(mean) > thresholds.too_good_feature_ic) & (np.abs(mean) > LUCK * error)
        day = float(np.abs(filled).max())
        if over.any() or day > thresholds.too_good_day_ic:
            found[name] = float(np.abs(mean[over]).max()) if over.any() else day
        else:
            largest = max(largest, float(np.abs(mean[used]).max()))
    return found, largest


def check_too_good(lake: Path, contract: Contract, axes: Axes, thresholds: Thresholds) -> Verdict:
    """No input's daily rank correlation with a label is too good to be true (up to 250 dates, evenly spread)."""
    verify_dataset(lake, contract)
    labels = tuple(name for name in contract.labels if name.startswith("target_ret_"))
    horizons = tuple(int(name.removeprefix("target_ret_").removesuffix("d")) for name in labels)
    days = np.unique(np.linspace(0, len(axes.dates) - 1, MAX_DATES).astype(int))
    targets = np.stack([values for _, values in _sampled(lake, axes, days, labels)], axis=2)
    inputs = tuple(c.name for c in contract.features)
    found, largest = find_too_good(_sampled(lake, axes, days, inputs), targets, horizons, thresholds)
    worst = sorted(found.items(), key=lambda item: -item[1])[:SHOWN]
    message = f"largest mean daily rank IC of {len(inputs)} inputs is {largest:.3f} over {len(days)} dates"
    if found:
        named = ", ".join(f"{name} {value:.2f}" for name, value in worst)
        message = f"too good to be true, look for a leak: {named}"
    got = max(found.values()) if found else largest
    return Verdict(not found, got, thresholds.too_good_feature_ic, message, {"inputs": len(inputs), "dates": len(days)})


def _sampled(lake: Path, axes: Axes, days: NDArray[np.intp], names: tuple[str, ...]) -> Iterator[tuple[str, Array]]:
    """(name, [days, N]) of each column, a group of columns read at a time."""
    for start in range(0, len(names), 32):
        part = names[start : start + 32]
        grids: dict[str, list[Array]] = {name: [] for name in part}
        for year in years(axes):
            inside = days[(days >= year.first) & (days < year.end)] - year.first
            frame: pl.DataFrame = read_table(dataset_dir(lake) / f"{year.year}.parquet", part)
            for name in part:
                grids[name].append(year.dense(frame[name])[inside])
        for name in part:
            yield name, np.concatenate(grids[name])
