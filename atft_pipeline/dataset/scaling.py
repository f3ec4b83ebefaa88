"""Normalisation statistics: fitted on every training date, never on a later one, and judged before anyone uses them.

Cross-sectional treatments need no fit; what is fitted is a centre and a scale per market-wide or per-stock time
feature. Coverage (how many rows, dates and codes stand behind the numbers) and saturation (how much is clipped) are
part of the statistics, because five rows also give a median.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.dataset.contract import Contract, DatasetColumn, digest, verify_dataset
from atft_pipeline.dataset.sampled_columns import sampled_columns, side_by_side
from atft_pipeline.dataset.splits import Split
from atft_pipeline.dataset.treatments import (
    AS_IS,
    CLIP,
    FLOOR,
    FLOOR_SHARE,
    LOG_ROBUST,
    RANK,
    ROBUST,
    SHARE,
    TREATMENT,
    as_share,
    log_robust,
    log_robust_unclipped,
    rank_normal,
    robust,
    spread,
)
from atft_pipeline.lake.store import read_json, write_json
from atft_pipeline.panel.axes import Axes
from atft_pipeline.settings import Thresholds
from atft_pipeline.verdict import ContractBroken, Verdict

MAX_ROWS = 400_000
"""Above this many training rows the fit uses a sample stratified by date."""
EDGES = np.linspace(-CLIP, CLIP, 41)
"""Bins of the histograms of fitted values."""

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class FeatureStatistics:
    """What scaling needs to know of one feature, and how much of it was missing or clipped in training."""

    name: str
    kind: str
    treatment: str
    centre: float
    scale: float
    saturation: float
    null_share: float
    constant: bool


@dataclass(frozen=True)
class Coverage:
    """What stands behind the statistics, and what training has: both, so that the share can be judged."""

    rows: int
    codes: int
    dates: int
    first: str
    last: str
    train_rows: int
    train_codes: int
    train_dates: int
    train_first: str
    train_last: str


@dataclass(frozen=True)
class Statistics:
    """The fitted statistics of a dataset and a split; `hash` covers all of it."""

    features: tuple[FeatureStatistics, ...]
    coverage: Coverage
    dataset_hash: str
    split: Mapping[str, Any]

    @property
    def hash(self) -> str:
        return digest([self._body()])

    def _body(self) -> dict[str, Any]:
        return {
            "version": 1,
            "dataset_hash": self.dataset_hash,
            "split": dict(self.split),
            "coverage": asdict(self.coverage),
            "features": [asdict(f) for f in self.features],
        }

    def save(self, lake: Path) -> None:
        write_json(stats_path(lake), {**self._body(), "hash": self.hash})

    @classmethod
    def load(cls, lake: Path) -> Statistics:
        """Raises `ContractBroken` when the file was changed after it was written."""
        body = read_json(stats_path(lake))
        features = tuple(FeatureStatistics(**f) for f in body["features"])
        loaded = cls(features, Coverage(**body["coverage"]), body["dataset_hash"], body["split"])
        if loaded.hash != body["hash"]:
            raise ContractBroken(f"{stats_path(lake)} does not match its own hash; materialise normalization_stats")
        return loaded


def stats_path(lake: Path) -> Path:
    return lake / "normalization_stats" / "stats.json"


def histograms_path(lake: Path) -> Path:
    return lake / "normalization_stats" / "histograms.json"


def fit_statistics(
    lake: Path,
    contract: Contract,
    axes: Axes,
    universe: Mask,
    split: Split,
    *,
    sample: Mask | None = None,
    home: Path | None = None,
) -> Statistics:
    """Fit on the stored dataset's training rows in the `universe` [T, N]; save and return the statistics.

    `sample` [T, N] names the rows to fit on instead of `training_sample`'s; coverage counts what was really used.
    `home` is the folder that gets normalization_stats/, by default the lake: each fold of a walk-forward has its own.
    """
    metadata = verify_dataset(lake, contract)
    chosen = training_sample(universe & axes.listed, split) if sample is None else sample
    first, end = split.part("train")
    rows = side_by_side((chosen & axes.listed)[first:end])
    by_name = {column.name: column for column in contract.features}
    features, histograms = [], {}
    for name, x in sampled_columns(lake, list(by_name), axes, chosen, split):
        feature = _fit_feature(by_name[name], x, rows)
        features.append(feature)
        histograms[name] = histogram(feature, x, rows)
    coverage = _coverage(axes, universe, chosen, split)
    statistics = Statistics(tuple(features), coverage, str(metadata["hash"]), split.as_json())
    statistics.save(home or lake)
    write_json(
        histograms_path(home or lake), {"statistics": statistics.hash, "edges": EDGES.tolist(), "counts": histograms}
    )
    return statistics


def histogram(feature: FeatureStatistics, x: Array, chosen: Mask) -> list[int]:
    """Counts of the feature's fitted values over `EDGES`, the clipped ones in the outermost bins; empty for a rank."""
    if feature.treatment == ROBUST:
        z = (x[chosen] - feature.centre) / feature.scale
    elif feature.treatment == LOG_ROBUST:
        z = log_robust_unclipped(x, chosen)
    else:
        return []
    z = z[np.isfinite(z)]
    return [int(n) for n in np.histogram(np.clip(z, -CLIP, CLIP), EDGES)[0]]


def worst_features(statistics: Statistics, shown: int = 12) -> list[FeatureStatistics]:
    """The features with a fitted scale that are clipped most."""
    fitted = [f for f in statistics.features if f.treatment in (ROBUST, LOG_ROBUST)]
    return sorted(fitted, key=lambda f: (-f.saturation, f.name))[:shown]


def training_sample(eligible: Mask, split: Split, *, max_rows: int = MAX_ROWS, seed: int = 0) -> Mask:
    """[T, N]: the training rows behind the fit. All of them, or where there are more than `max_rows` the same share of
    random stocks from every date. A date's choice depends on that date alone."""
    first, end = split.part("train")
    chosen = np.zeros_like(eligible)
    total = int(eligible[first:end].sum())
    share = min(1.0, max_rows / max(total, 1))
    for t in range(first, end):
        stocks = np.flatnonzero(eligible[t])
        if share < 1.0 and len(stocks):
            day = int(split.dates[t].astype("datetime64[D]").astype(np.int64))
            stocks = np.random.default_rng([seed, day]).permutation(stocks)[: int(np.ceil(share * len(stocks)))]
        chosen[t, stocks] = True
    return chosen


def check_coverage(statistics: Statistics, thresholds: Thresholds) -> Verdict:
    """Enough rows and codes, and at least 90 % of the training dates, spread over the whole training span."""
    c = statistics.coverage
    span = _days(c.first, c.last) / max(_days(c.train_first, c.train_last), 1)
    wanted_rows = min(thresholds.min_stat_rows, c.train_rows)
    wanted_codes = min(thresholds.min_stat_codes, c.train_codes)
    share_dates = c.dates / max(c.train_dates, 1)
    failures = []
    if c.rows < wanted_rows or c.rows == 0:
        failures.append(f"{c.rows:,} rows, want {wanted_rows:,}")
    if c.codes < wanted_codes:
        failures.append(f"{c.codes:,} codes, want {wanted_codes:,}")
    if share_dates < thresholds.min_stat_date_coverage:
        failures.append(f"{c.dates:,} of {c.train_dates:,} training dates")
    if span < thresholds.min_stat_date_coverage:
        failures.append(f"{c.first} to {c.last} spans {span:.0%} of the training dates' range")
    message = f"{c.rows:,} rows of {c.codes:,} codes on {c.dates:,} dates, {c.first} to {c.last}"
    if failures:
        message = f"statistics rest on too little: {'; '.join(failures)}. Fit them again on the whole training part"
    return Verdict(not failures, c.rows, wanted_rows, message, {**asdict(c), "date_share": share_dates, "span": span})


def check_saturation(statistics: Statistics, thresholds: Thresholds) -> Verdict:
    """No feature has more than 5 % of its known training values clipped at +-5."""
    worst = sorted(statistics.features, key=lambda f: -f.saturation)[:8]
    over = [f for f in worst if f.saturation > thresholds.max_saturation]
    named = ", ".join(f"{f.name} {f.saturation:.1%}" for f in (over or worst[:1]))
    constant = [f.name for f in statistics.features if f.constant]
    message = f"largest clipped share: {named}"
    if over:
        message = f"clipped beyond {thresholds.max_saturation:.0%}: {named}; declare another kind for these features"
    details = {"worst": {f.name: f.saturation for f in worst}, "constant": ", ".join(constant)}
    return Verdict(not over, worst[0].saturation if worst else 0.0, thresholds.max_saturation, message, details)


def require_statistics(statistics: Statistics, dataset_hash: str, split: Split, thresholds: Thresholds) -> None:
    """Raise `ContractBroken` unless the statistics belong to this dataset and split and pass both checks."""
    if statistics.dataset_hash != dataset_hash:
        raise ContractBroken("the statistics were fitted on another dataset; materialise normalization_stats again")
    if dict(statistics.split) != split.as_json():
        raise ContractBroken(f"the statistics were fitted for {dict(statistics.split)}, the split is {split.as_json()}")
    check_coverage(statistics, thresholds).require()
    check_saturation(statistics, thresholds).require()


def scaled(feature: FeatureStatistics, x: Array, where: Mask) -> Array:
    """[T, N] raw values to model input; 0 where missing or outside `where`."""
    if feature.constant:
        return np.zeros_like(x)
    if feature.treatment == RANK:
        value = rank_normal(x, where)
    elif feature.treatment == LOG_ROBUST:
        value = log_robust(x, where)
    elif feature.treatment == ROBUST:
        value = robust(x, feature.centre, feature.scale)
    elif feature.treatment == SHARE:
        value = as_share(feature.name, x)
    else:
        value = np.nan_to_num(x)
    return np.where(where, value, 0.0)


def fit_feature(name: str, kind: str, x: Array, chosen: Mask, *, market_wide: bool = False) -> FeatureStatistics:
    """Fit one feature from raw [T, N] values at the `chosen` rows.

    A feature with one value per date is never ranked across stocks, whatever its declared kind: it keeps a time scale.
    """
    if kind not in TREATMENT:
        raise ContractBroken(f"feature {name} has kind {kind!r}; use one of {', '.join(TREATMENT)}")
    treatment = TREATMENT[kind]
    one_per_date = market_wide or _one_value_per_date(x, chosen)
    if one_per_date and treatment in (RANK, LOG_ROBUST):
        treatment = ROBUST
    values = _first_per_date(x, chosen) if one_per_date else x[chosen]
    known = values[np.isfinite(values)]
    constant = known.size == 0 or bool(known.min() == known.max())
    centre, scale = (0.0, 1.0)
    if treatment == ROBUST and not constant:
        centre, scale = centre_and_scale(known)
    saturation = _saturation(treatment, x, chosen, known, centre, scale)
    null_share = 1.0 - known.size / max(values.size, 1)
    # A constant flag or category is a state that training has not seen change; a constant number is dead.
    dead = constant and treatment not in (AS_IS, SHARE)
    return FeatureStatistics(name, kind, treatment, centre, scale, saturation, null_share, dead)


def centre_and_scale(known: Array) -> tuple[float, float]:
    """Median and IQR/1.349. Where more than half of the values are equal the IQR says nothing: then the sd."""
    low, centre, high = np.quantile(known, [0.25, 0.5, 0.75])
    scale = float(spread(float(centre), float(high - low)))
    if (high - low) / 1.349 < max(FLOOR_SHARE * abs(float(centre)), FLOOR):
        scale = max(scale, float(known.std(ddof=1)))
    return float(centre), scale


def _fit_feature(column: DatasetColumn, x: Array, chosen: Mask) -> FeatureStatistics:
    return fit_feature(column.name, column.kind, x, chosen, market_wide=column.market_wide)


def _saturation(treatment: str, x: Array, chosen: Mask, known: Array, centre: float, scale: float) -> float:
    if treatment == ROBUST and known.size:
        return float((np.abs((known - centre) / scale) > CLIP).mean())
    if treatment == LOG_ROBUST:
        z = log_robust_unclipped(x, chosen)
        z = z[np.isfinite(z)]
        return float((np.abs(z) > CLIP).mean()) if z.size else 0.0
    return 0.0


def _one_value_per_date(x: Array, chosen: Mask) -> bool:
    """Whether no date has two different known values, on at least one date with two known values."""
    known = chosen & np.isfinite(x)
    several = known.sum(axis=1) >= 2
    if not several.any():
        return False
    high = np.where(known, x, -np.inf).max(axis=1)
    low = np.where(known, x, np.inf).min(axis=1)
    return bool((high[several] == low[several]).all())


def _first_per_date(x: Array, chosen: Mask) -> Array:
    """The date's value, or NaN where no chosen stock has it; only dates with a chosen stock."""
    known = chosen & np.isfinite(x)
    value = np.where(known.any(axis=1), x[np.arange(len(x)), known.argmax(axis=1)], np.nan)
    return np.asarray(value[chosen.any(axis=1)])


def _coverage(axes: Axes, universe: Mask, chosen: Mask, split: Split) -> Coverage:
    first, end = split.part("train")
    eligible = (universe & axes.listed)[first:end]
    used = chosen[first:end]
    days = np.flatnonzero(used.any(axis=1))
    dates = split.dates[first:end]
    train_first, train_last = split.span("train")
    return Coverage(
        rows=int(used.sum()),
        codes=int(used.any(axis=0).sum()),
        dates=len(days),
        first=str(dates[days[0]]) if len(days) else train_first,
        last=str(dates[days[-1]]) if len(days) else train_first,
        train_rows=int(eligible.sum()),
        train_codes=int(eligible.any(axis=0).sum()),
        train_dates=end - first,
        train_first=train_first,
        train_last=train_last,
    )


def _days(first: str, last: str) -> int:
    return (date.fromisoformat(last) - date.fromisoformat(first)).days
