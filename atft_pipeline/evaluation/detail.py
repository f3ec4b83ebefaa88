"""Where the model's signal lives: by delay, year, sector, size, liquidity and volatility; what plain factors leave of
it; and what its books earn. One horizon and delay, the book's; validation and test side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.evaluation import metrics, risk, slices
from atft_pipeline.evaluation.books import equal_weight_market, long_only_book
from atft_pipeline.evaluation.inputs import PARTS, EvaluationData

Array = NDArray[np.floating]

DELAYS = (0, 1, 2, 5)
COSTS = (0.0, 0.0005, 0.001, 0.002)
LEVELS = {1: "low", 2: "middle", 3: "high"}
CHARACTERISTICS = {
    "size": ("fs_log_mcap",),
    "liquidity": ("liq_log_adv_20", "px_turnover", "px_volume"),
    "volatility": ("vol_cc_60", "vol_cc_20"),
}
"""What stocks are sorted by: the first of these inputs that the model has. Scaling keeps their order on a date."""


def evaluate_detail(
    data: EvaluationData, scores: Array, horizon: int, delay: int, cost: float
) -> tuple[dict[str, Any], pl.DataFrame]:
    """The detail of a scorecard, of scores [T, N, H], and the daily series of the books by part and date."""
    factors = known_factors(data)
    detail: dict[str, Any] = {"horizon": horizon, "delay": delay, "factors": sorted(factors)}
    frames = []
    for part in PARTS:
        own = scores[data.part(part)]
        detail[part] = {
            "delays": by_delay(data, own, part),
            **_by_slice(data, own[..., data.horizons.index(horizon)], part, horizon, delay, factors),
        }
        detail[part]["books"], frame = _books(data, own, part, horizon, delay, cost)
        frames.append(frame)
    return detail, pl.concat(frames)


def known_factors(data: EvaluationData) -> dict[str, Array]:
    """Factor -> [T, N]. Beta comes from the panel's returns; a characteristic without an input is left out, by name."""
    at = {name: place for place, name in enumerate(data.features)}
    found: dict[str, Array] = {"beta": slices.rolling_beta(data.returns, data.row_ok)}
    for factor, names in CHARACTERISTICS.items():
        name = next((name for name in names if name in at), None)
        if name is not None:
            found[factor] = np.where(data.row_ok, np.asarray(data.x[:, :, at[name]], np.float64), np.nan)
    return found


def delayed_labels(data: EvaluationData, part: str, delay: int) -> Array:
    """[D, N, H] at any delay: the label of delay d at T is that of delay 1 at T + d - 1. The part's last dates have
    none, so that no label of another part is read."""
    if delay in data.delays:
        return data.labels(part, delay)
    later = delay - 1
    y = data.y[data.part(part), :, data.delays.index(1)].astype(np.float64)
    moved = np.concatenate([y[later:], np.full((later, *y.shape[1:]), np.nan)])
    return np.where(data.scored[data.part(part)][:, :, None], moved, np.nan)


def by_delay(data: EvaluationData, scores: Array, part: str) -> dict[str, Any]:
    """Delay -> horizon -> RankIC with its error and interval: how fast the signal fades."""
    found: dict[str, Any] = {}
    for delay in DELAYS:
        y = delayed_labels(data, part, delay)
        found[str(delay)] = {
            str(h): _cell(metrics.rank_ic(scores[..., i], y[..., i]), h) for i, h in enumerate(data.horizons)
        }
    return found


def _by_slice(
    data: EvaluationData, scores: Array, part: str, horizon: int, delay: int, factors: Mapping[str, Array]
) -> dict[str, Any]:
    """RankIC by slice, after neutralisation, and the score's correlation with each factor."""
    span = data.part(part)
    y = data.labels(part, delay)[..., data.horizons.index(horizon)]
    sector = np.asarray(data.sector[span], np.int64)
    own = {name: values[span] for name, values in factors.items()}
    whole = metrics.rank_ic(scores, y)
    by: dict[str, dict[str, Any]] = {
        "year": {year: _cell(series, horizon) for year, series in slices.yearly(whole, data.dates[span]).items()}
    }
    for name in CHARACTERISTICS.keys() & own.keys():
        groups = slices.buckets(own[name], np.isfinite(scores))
        inside = slices.group_rank_ic(scores, y, groups, fewest=metrics.MIN_CROSS_SECTION)
        by[name] = {LEVELS[group]: _cell(series, horizon) for group, series in inside.items()}
    by["sector"] = {
        str(group): _cell(series, horizon) for group, series in slices.group_rank_ic(scores, y, sector).items()
    }
    style = [own[name] for name in ("beta", "size") if name in own]
    neutral = {
        "as it is": whole,
        "sector-neutral": metrics.rank_ic(slices.group_neutral(scores, sector), y),
        f"{' and '.join(name for name in ('beta', 'size') if name in own)}-neutral": slices.factor_neutral_rank_ic(
            scores, y, style
        ),
        "neutral to all": slices.factor_neutral_rank_ic(scores, y, list(own.values())),
    }
    return {
        "slices": by,
        "neutral": {name: _cell(series, horizon) for name, series in neutral.items()},
        "exposures": {name: _cell(metrics.rank_ic(scores, values), 20) for name, values in own.items()},
    }


def _books(
    data: EvaluationData, scores: Array, part: str, horizon: int, delay: int, cost: float
) -> tuple[dict[str, Any], pl.DataFrame]:
    """The dollar-neutral book at several costs, the long-only one and the market, on the days whose return is known."""
    one_day = data.labels(part, delay)[..., data.horizons.index(1)]
    known = np.isfinite(one_day).any(axis=1)
    own, dates = scores[known][..., data.horizons.index(horizon)], data.dates[data.part(part)][known]
    neutral = metrics.decile_book(own, one_day[known], horizon=horizon, cost=cost)
    long = long_only_book(own, one_day[known], horizon=horizon, cost=cost)
    market = equal_weight_market(one_day[known])
    under = risk.time_under_water(neutral.net)
    card = {
        "costs": list(COSTS),
        "sharpe_at_cost": risk.cost_curve(neutral, COSTS),
        "gross_ci95": list(metrics.sharpe_ci(neutral.gross)),
        "days_under_water": under.longest,
        "share_under_water": under.share,
        "worst_days": risk.worst_days(neutral.net, dates),
        "returns": {
            name: {
                "annual_return": risk.annual_return(series),
                "annual_volatility": risk.annual_volatility(series),
                "sharpe": metrics.sharpe(series),
                "max_drawdown": metrics.max_drawdown(series),
            }
            for name, series in {
                "dollar-neutral, gross": neutral.gross,
                "dollar-neutral, net": neutral.net,
                "long only, net": long.net,
                "equal-weight market": market,
                "long only minus market": long.net - market,
            }.items()
        },
    }
    series = {"gross": neutral.gross, "net": neutral.net, "turnover": neutral.turnover, "long_net": long.net,
              "market": market}  # fmt: skip
    frame = pl.DataFrame({"date": dates.astype("datetime64[D]"), **series})
    return card, frame.select(pl.lit(part).alias("part"), pl.col("date").cast(pl.Date), *series)


def _cell(series: Array, horizon: int) -> dict[str, Any]:
    """Mean, error (Newey-West, lag horizon-1), interval and dates of a daily series."""
    said = metrics.summarise_series(series, max(horizon - 1, 0))
    return {
        **{k: said[k] for k in ("mean", "se", "t", "n_dates")},
        "ci95": list(metrics.block_bootstrap(series, draws=500)),
    }
