"""The whole evaluation of one run, in one file: every number named by model, part, delay and horizon, with its error.

The model, its rivals and (in a simulated market) the oracle go through the same code under the same mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.evaluation import metrics
from atft_pipeline.evaluation.detail import evaluate_detail
from atft_pipeline.evaluation.inputs import PARTS, EvaluationData, load_run
from atft_pipeline.evaluation.oracle import Oracle, load_oracle
from atft_pipeline.evaluation.rivals import RIVALS, rival_scores
from atft_pipeline.lake.store import LakeError, read_json, write_json, write_table

Array = NDArray[np.floating]

HEADLINE_DELAY = 1
HEADLINE_HORIZON = 1
"""RankIC and IC shown first: one day ahead, entered a day late (tradable)."""
BOOK_HORIZON = 5
"""The headline Sharpe is of this horizon's book: it trades a fifth of itself a day, and so survives its costs."""
COST_ONE_WAY = 0.001
DECILES = 10

DAILY_KEYS = ("model", "measure", "part", "delay", "horizon", "date")


def scorecard_dir(lake: Path, run_id: str) -> Path:
    return lake / "evaluation" / run_id


def evaluate_run(lake: Path, run_id: str, *, market_dir: Path | None = None, market: str = "") -> dict[str, Any]:
    """Evaluate run `run_id` on validation and test; store and return its scorecard.

    `market_dir` is the simulated market's folder (its oracle is read here and nowhere else), None for a real market.
    `market` is a sentence that says which market it is. Writes scorecard.json and daily.parquet.
    """
    data = load_run(lake, run_id)
    oracle = load_oracle(market_dir, data.dates, data.codes, data.delays, data.horizons)
    scores, fitted = _all_scores(data)
    daily: list[dict[str, Any]] = []
    models = {name: _model_card(data, name, score, daily) for name, score in scores.items()}
    card: dict[str, Any] = {
        "run_id": data.run_id,
        "market": market or ("simulated market" if oracle else "market"),
        "simulated": oracle is not None,
        "panel_hash": data.manifest["hash"],
        "n_features": data.manifest["n_features"],
        "split": data.manifest["split"],
        "headline": {"part": "valid", "delay": HEADLINE_DELAY, "horizon": HEADLINE_HORIZON, "book": BOOK_HORIZON},
        "cost_one_way": COST_ONE_WAY,
        "models": models,
        "differences": _differences(data, daily),
        **fitted,
        "scores": {part: _score_state(data, part) for part in PARTS},
        "liveness": data.summary.get("liveness", {}),
        "provenance": {
            **{name: data.manifest.get(name) for name in ("contract", "dataset_hash", "stats_hash")},
            **{name: data.summary.get(name) for name in ("config_hash", "source_hash", "git_rev", "device")},
        },
        "training": {key: data.summary.get(key) for key in ("phase", "epoch", "phases", "n_params", "seed", "preset")},
        "coverage": _coverage(data),
    }
    if oracle is not None:
        card["models"]["oracle"] = _oracle_card(data, oracle, daily)
        card["oracle_correlation"] = {
            name: _oracle_correlation(data, score, oracle, name, daily) for name, score in scores.items()
        }
        card["oracle_account"] = dict(oracle.account)
    card["detail"], books = evaluate_detail(data, scores["model"], BOOK_HORIZON, HEADLINE_DELAY, COST_ONE_WAY)
    folder = scorecard_dir(lake, data.run_id)
    write_table(folder / "books.parquet", books, keys=("part", "date"))
    write_table(folder / "daily.parquet", _daily_frame(daily), keys=DAILY_KEYS)
    write_json(folder / "scorecard.json", card)
    return card


def read_scorecard(lake: Path, run_id: str) -> dict[str, Any]:
    """A stored scorecard. Raises `LakeError` where the run has none."""
    card: dict[str, Any] = read_json(scorecard_dir(lake, run_id) / "scorecard.json")
    return card


def latest_scorecard(lake: Path) -> dict[str, Any]:
    """The most recently written scorecard. Raises `LakeError` when no run was evaluated yet."""
    found = sorted((lake / "evaluation").glob("*/scorecard.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise LakeError(f"{lake / 'evaluation'}: no run was evaluated yet; materialise evaluation first")
    card: dict[str, Any] = read_json(found[-1])
    return card


def _all_scores(data: EvaluationData) -> tuple[dict[str, Array], dict[str, Any]]:
    """[T, N, H] per model under the common mask, and what ridge and the trees settled on."""
    found = rival_scores(data, HEADLINE_DELAY)
    own = np.where(data.scored[:, :, None], np.asarray(data.scores, np.float64), np.nan)
    return {"model": own, **{name: found.scores[name] for name in RIVALS}}, found.about()


def _model_card(data: EvaluationData, name: str, scores: Array, daily: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        part: {
            f"delay_{delay}": _part_card(data, name, part, delay, scores[data.part(part)], daily)
            for delay in data.delays
        }
        for part in PARTS
    }


def _oracle_card(data: EvaluationData, oracle: Oracle, daily: list[dict[str, Any]]) -> dict[str, Any]:
    """The oracle as a model: at each delay it is scored with its own expectation of that very label."""
    mask = data.scored[:, :, None]
    card: dict[str, Any] = {part: {} for part in PARTS}
    for delay in data.delays:
        scores = np.where(mask, oracle.stacked(delay, data.horizons), np.nan)
        for part in PARTS:
            card[part][f"delay_{delay}"] = _part_card(data, "oracle", part, delay, scores[data.part(part)], daily)
    return card


def _part_card(
    data: EvaluationData, name: str, part: str, delay: int, scores: Array, daily: list[dict[str, Any]]
) -> dict[str, Any]:
    """All metrics of scores [D, N, H] at one delay, per horizon and as the 1/sqrt(h)-weighted mean."""
    y = data.labels(part, delay)
    one_day = y[..., data.horizons.index(1)]
    known = np.isfinite(one_day).any(axis=1)
    series: dict[str, dict[int, Array]] = {"rank_ic": {}, "ic": {}}
    card: dict[str, Any] = {}
    for i, h in enumerate(data.horizons):
        series["rank_ic"][h] = metrics.rank_ic(scores[..., i], y[..., i])
        series["ic"][h] = metrics.ic(scores[..., i], y[..., i])
        book = metrics.decile_book(scores[known][..., i], one_day[known], horizon=h, cost=COST_ONE_WAY)
        deciles = _mean_of_dates(metrics.decile_means(scores[..., i], y[..., i], DECILES))
        card[str(h)] = {
            **metrics.summarise(scores[..., i], y[..., i], h),
            "rank_ic_ci95": list(metrics.block_bootstrap(series["rank_ic"][h])),
            "deciles": deciles.tolist(),
            "monotonicity": _monotonicity(deciles),
            "book": metrics.book_summary(book, cost=COST_ONE_WAY),
        }
        for measure in series:
            daily += _daily_rows(data, name, measure, part, delay, h, series[measure][h])
    lag = max(data.horizons) - 1
    card["mean"] = {
        measure: metrics.summarise_series(metrics.weighted_mean(by_horizon), lag)
        for measure, by_horizon in series.items()
    }
    return card


def _differences(data: EvaluationData, daily: list[dict[str, Any]]) -> dict[str, Any]:
    """Model minus rival, day by day: mean, error and bootstrap interval; never two separate means."""
    found: dict[str, Any] = {}
    series: dict[tuple[str, str, int, int], list[float]] = {}
    for row in daily:
        if row["measure"] == "rank_ic":
            series.setdefault((row["model"], row["part"], row["delay"], row["horizon"]), []).append(row["value"])
    for rival in RIVALS:
        found[rival] = {part: {} for part in PARTS}
        for part in PARTS:
            for delay in data.delays:
                cell: dict[str, Any] = {}
                for h in data.horizons:
                    gap = np.subtract(series["model", part, delay, h], series[rival, part, delay, h])
                    cell[str(h)] = {**metrics.summarise_series(gap, h - 1), "ci95": list(metrics.block_bootstrap(gap))}
                found[rival][part][f"delay_{delay}"] = cell
    return found


def _oracle_correlation(
    data: EvaluationData, scores: Array, oracle: Oracle, name: str, daily: list[dict[str, Any]]
) -> dict[str, Any]:
    """Per-date Pearson correlation of a score with the oracle of the same label; it carries no return noise."""
    found: dict[str, Any] = {part: {} for part in PARTS}
    for part in PARTS:
        span = data.part(part)
        for delay in data.delays:
            cell: dict[str, Any] = {}
            for i, h in enumerate(data.horizons):
                values = metrics.ic(scores[span][..., i], oracle.expected[delay, h][span])
                # Oracle and score both move slowly, so their correlation is as persistent as a 20-day label.
                cell[str(h)] = metrics.summarise_series(values, max(data.horizons) - 1)
                daily += _daily_rows(data, name, "oracle_correlation", part, delay, h, values)
            found[part][f"delay_{delay}"] = cell
    return found


def _score_state(data: EvaluationData, part: str) -> dict[str, Any]:
    """Signs of a collapsed or restless score, of the headline horizon and the worst over horizons."""
    span = data.part(part)
    own = np.where(data.scored[span][:, :, None], data.scores[span], np.nan)
    by_horizon = {str(h): metrics.degeneracy(own[..., i]) for i, h in enumerate(data.horizons)}
    headline = own[..., data.horizons.index(HEADLINE_HORIZON)]
    steps = {lag: _mean(metrics.rank_autocorrelation(headline, lag)) for lag in (1, 5, 20)}
    return {
        **by_horizon[str(HEADLINE_HORIZON)],
        "smallest_score_std": min(state["score_std_median"] for state in by_horizon.values()),
        "smallest_unique_ratio": min(state["unique_ratio"] for state in by_horizon.values()),
        "rank_autocorrelation": {str(lag): value for lag, value in steps.items()},
    }


def _coverage(data: EvaluationData) -> dict[str, Any]:
    """Share of the tradable stocks that the model scored, per part."""
    return {
        part: float(data.scored[data.part(part)].sum() / max(int(data.tradable[data.part(part)].sum()), 1))
        for part in PARTS
    }


def _daily_rows(
    data: EvaluationData, model: str, measure: str, part: str, delay: int, horizon: int, values: Array
) -> Iterator[dict[str, Any]]:
    for day, value in zip(data.dates[data.part(part)], values, strict=True):
        yield {
            "model": model, "measure": measure, "part": part, "delay": delay, "horizon": horizon, "date": day,
            "value": float(value),
        }  # fmt: skip


def _daily_frame(daily: list[dict[str, Any]]) -> pl.DataFrame:
    days = np.array([row["date"] for row in daily], dtype="datetime64[D]")
    return pl.DataFrame(
        [
            *(pl.Series(name, [row[name] for row in daily], dtype=pl.String) for name in ("model", "measure", "part")),
            *(pl.Series(name, [row[name] for row in daily], dtype=pl.Int32) for name in ("delay", "horizon")),
            pl.Series("date", days).cast(pl.Date),
            pl.Series("value", [row["value"] for row in daily], dtype=pl.Float64).fill_nan(None),
        ]
    )


def _mean_of_dates(values: Array) -> Array:
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _monotonicity(deciles: Array) -> float:
    """Rank correlation of decile number and mean return: 1 when every step up earns more."""
    steps = np.arange(len(deciles), dtype=np.float64)
    return float(metrics.rank_ic(steps[None], deciles[None], 2)[0])


def _mean(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def summary_table(card: Mapping[str, Any]) -> str:
    """The results as plain text: RankIC with its error per model, part and delay, and correlation with the oracle."""
    head = "simulated market, not real returns" if card["simulated"] else card["market"]
    names = [name for name in ("model", *RIVALS, "oracle") if name in card["models"]]
    found = {name: card["models"][name] for name in names}

    def block(title: str, models: Mapping[str, Any], cell: Callable[[Any], Mapping[str, Any]]) -> list[str]:
        top = f"{'':<10}" + "".join(f"{f'{part}, delay {delay}':>20}" for part, delay in _PRINTED)
        rows = [[cell(models[name][part][f"delay_{delay}"]) for part, delay in _PRINTED] for name in models]
        lines = [
            f"{name:<10}" + "".join(f"{_pm(one):>20}" for one in row) for name, row in zip(models, rows, strict=True)
        ]
        dates = f"{'dates':<10}" + "".join(f"{one['n_dates']:>20}" for one in rows[0])
        return [title, top, *lines, dates, ""]

    day = str(HEADLINE_HORIZON)
    lines = block(
        f"Daily RankIC of horizon {day} day, mean +- standard error ({head})", found, lambda c: c[day]["rank_ic"]
    )
    lines += block("The same over all horizons, weighted by 1/sqrt(h)", found, lambda c: c["mean"]["rank_ic"])
    if "oracle_correlation" in card:
        knowing = {name: card["oracle_correlation"][name] for name in names if name in card["oracle_correlation"]}
        lines += block(f"Correlation with the oracle's expected return, horizon {day} day", knowing, lambda c: c[day])
    lines.append("Delay 1: bought a day after the score was known (tradable). Delay 0: at the same close.")
    return "\n".join(lines)


_PRINTED = tuple((part, delay) for part in PARTS for delay in (1, 0))


def _pm(cell: Mapping[str, Any]) -> str:
    mean, se = cell["mean"], cell["se"]
    if mean is None or not np.isfinite(mean):
        return "undefined"
    return f"{mean:+.4f} +- {se:.4f}" if se is not None and np.isfinite(se) else f"{mean:+.4f}"
