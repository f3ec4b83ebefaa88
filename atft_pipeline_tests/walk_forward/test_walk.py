"""The walk-forward's table is what its scores give, and planted faults are caught."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from atft_pipeline.dataset.scaling import fit_statistics
from atft_pipeline.dataset.splits import Split
from atft_pipeline.dataset.training_panel import panel_dir
from atft_pipeline.evaluation.champion import challenge
from atft_pipeline.evaluation.out_of_sample import NO_SEED, SCORE_KEYS
from atft_pipeline.evaluation.rivals import CONSTANT, RIVALS
from atft_pipeline.evaluation.walk_record import find_walk_forward, told_of_walk_forward
from atft_pipeline.lake.store import LakeError, read_array, read_json, read_table, write_json, write_table
from atft_pipeline.lake.verify import verify_lake
from atft_pipeline.settings import HORIZONS, Thresholds
from atft_pipeline.verdict import ContractBroken
from atft_pipeline.walk_forward.checks import (
    judge_coverage,
    judge_purged,
    judge_statistics,
    judge_too_good,
    judge_walk,
)
from atft_pipeline.walk_forward.fold import lake_arrays, prepare_fold
from atft_pipeline.walk_forward.results import daily_series, remove_stale_folds, summary_table
from atft_pipeline.walk_forward.spec import WalkSpec
from atft_pipeline_tests.small_lake import CONTRACT
from atft_pipeline_tests.walk_forward.tiny_walk import LIMITS, SMALL, copied, tiny_config, tiny_spec


@pytest.fixture(scope="module")
def results(walked: WalkSpec) -> dict[str, Any]:
    found: dict[str, Any] = read_json(walked.path / "results.json")
    return found


@pytest.fixture
def mine(walked: WalkSpec, tmp_path: Path) -> WalkSpec:
    """A copy that a test may damage."""
    return copied(walked, tmp_path)


def all_scores(spec: WalkSpec) -> pl.DataFrame:
    return pl.concat([read_table(path) for path in sorted((spec.path / "scores").glob("*.parquet"))])


def slow_newey_west(x: np.ndarray, lag: int) -> float:
    n, e = len(x), x - x.mean()
    total = sum(e[t] * e[t] for t in range(n)) / n
    for k in range(1, lag + 1):
        total += 2 * (1 - k / (lag + 1)) * sum(e[t] * e[t - k] for t in range(k, n)) / n
    return math.sqrt(total / (n - 1))


def rank_ics(spec: WalkSpec, model: str, horizon: int, delay: int = 1) -> dict[Any, float]:
    """Date -> Spearman by scipy, from the stored scores and the lake's own labels."""
    place = panel_dir(Path(spec.lake))
    dates, codes, y = (read_array(place / f"{name}.npy") for name in ("dates", "codes", "y"))
    tradable = read_array(place / "tradable.npy")
    found = {}
    for (day,), rows in all_scores(spec).filter(model=model, horizon=horizon).group_by("date"):
        t, n = int(np.searchsorted(dates, np.datetime64(day))), np.searchsorted(codes, rows["code"].to_numpy())
        label, score = y[t, n, delay, HORIZONS.index(horizon)], rows["score"].to_numpy()
        assert tradable[t, n].all()
        known = np.isfinite(label)
        if known.sum() >= 20:
            found[day] = float(stats.spearmanr(score[known], label[known])[0])
    return dict(sorted(found.items()))


@pytest.mark.parametrize("model", ["model", "ridge", "momentum"])
@pytest.mark.parametrize("horizon", [1, 5])
def test_the_table_equals_direct_computation(
    walked: WalkSpec, results: dict[str, Any], model: str, horizon: int
) -> None:
    direct = rank_ics(walked, model, horizon)
    values = np.array(list(direct.values()))
    cell = results["models"][model]["delay_1"][str(horizon)]["rank_ic"]
    assert cell["all"]["mean"] == pytest.approx(values.mean(), abs=1e-6)
    assert cell["all"]["se"] == pytest.approx(slow_newey_west(values, horizon - 1), abs=1e-6)
    assert cell["all"]["n_dates"] == len(values) == 90 - horizon - 1  # the newest labels are not known yet
    first = [direct[day] for day in direct if str(day) in walked.folds[0]["test_dates"]]
    assert cell["folds"][0]["mean"] == pytest.approx(np.mean(first), abs=1e-6) and len(first) == 30


@pytest.mark.parametrize("rival", ["ridge", "lightgbm"])
def test_differences_are_taken_per_day(walked: WalkSpec, results: dict[str, Any], rival: str) -> None:
    ours, theirs = rank_ics(walked, "model", 1), rank_ics(walked, rival, 1)
    gap = np.array([ours[day] - theirs[day] for day in ours])
    cell = results["differences"][rival]["delay_1"]["1"]["all"]
    assert cell["mean"] == pytest.approx(gap.mean(), abs=1e-6)
    assert cell["se"] == pytest.approx(slow_newey_west(gap, 0), abs=1e-6)
    low, high = cell["ci95"]
    assert low < cell["mean"] < high


def test_every_model_is_there_and_a_constant_is_undefined_not_zero(walked: WalkSpec, results: dict[str, Any]) -> None:
    assert set(results["models"]) == {"model", *RIVALS, CONSTANT, "oracle"}
    constant = results["models"][CONSTANT]["delay_1"]
    for horizon in (*map(str, HORIZONS), "mean"):
        found = constant[horizon]["rank_ic"]["all"]
        assert found["mean"] is None and (found["n_dates"], found["n_dates_nan"]) == (0, 90)
    rows = all_scores(walked)
    assert set(rows.columns) == {"fold", "model", "seed", "horizon", "date", "code", "score"}
    per_model = rows.group_by("model").len()
    assert per_model["len"].n_unique() == 1  # momentum, with a 20-day window, too: all on the same stocks and dates
    assert rows.filter(model=CONSTANT)["score"].unique().to_list() == [0.0]
    assert "undefined" in summary_table(results)


def test_nobody_is_clearly_above_the_oracle_and_a_score_of_its_signal_correlates_with_it(
    results: dict[str, Any],
) -> None:
    cards = {name: card["delay_1"]["1"] for name, card in results["models"].items()}
    best = max(card["rank_ic"]["all"]["mean"] or -1.0 for card in cards.values())
    oracle = cards["oracle"]["rank_ic"]["all"]
    # A model that found the whole signal is as good as the oracle, on a few dates by chance a little better.
    assert oracle["mean"] > 10 * oracle["se"] and best < oracle["mean"] + oracle["se"]
    assert "oracle_correlation" not in cards["oracle"]
    assert cards["ridge"]["oracle_correlation"]["all"]["mean"] > 0.9
    assert abs(cards["reversal"]["oracle_correlation"]["all"]["mean"]) < 0.1


def test_folds_keep_models_and_statistics_but_not_their_panels(walked: WalkSpec, results: dict[str, Any]) -> None:
    for k, fold in enumerate(results["folds"]):
        folder = walked.fold(k)
        assert folder.finished(walked.seeds) and not panel_dir(folder.path).exists()
        assert (folder.runs / fold["seeds"]["7"]["run_id"] / "ckpt" / "final.pt").exists()
        assert read_json(folder.path / "normalization_stats" / "stats.json")["hash"] == fold["stats_hash"]
    assert len({fold["stats_hash"] for fold in results["folds"]}) == 3
    assert not [f for f in verify_lake(Path(walked.lake)).faults if "walk_forward" in f.path.parts]
    page = (walked.path / "page.html").read_text()
    assert "data:image/png" in page and "model − lightgbm" in page and "http" not in page.split("<main>")[1]


def test_a_sound_walk_passes_its_checks(walked: WalkSpec, results: dict[str, Any]) -> None:
    verdicts = judge_walk(walked, results)
    assert all(verdict.passed for verdict in verdicts.values()), verdicts
    assert verdicts["every_test_date_scored"].got == 1.0 and verdicts["purged"].got == 1


def test_a_missing_date_is_seen(mine: WalkSpec) -> None:
    folder = mine.fold(1)
    day = mine.folds[1]["test_dates"][4]
    rows = read_table(folder.scores)
    lost = rows.filter((pl.col("model") != "lightgbm") | (pl.col("date").cast(pl.String) != day))
    write_table(folder.scores, lost, keys=SCORE_KEYS)
    verdict = judge_coverage(mine, LIMITS)
    assert not verdict.passed and f"fold 2 lightgbm {day}" in verdict.message


def test_stocks_without_scores_are_seen(mine: WalkSpec) -> None:
    record = read_json(mine.fold(2).record)
    record["scored"][3] = record["tradable"][3] // 2
    write_json(mine.fold(2).record, record)
    verdict = judge_coverage(mine, LIMITS)
    assert not verdict.passed and mine.folds[2]["test_dates"][3] in verdict.message


def test_a_training_label_that_reaches_the_validation_is_refused_and_seen(mine: WalkSpec) -> None:
    index = mine.folds[1]["index"]
    longer = {**index, "train": [index["train"][0], index["train"][1] + 1]}
    split = replace(mine.split(1), train=tuple(longer["train"]))
    planted = replace(mine, folds=(mine.folds[0], {**mine.folds[1], "index": longer, "split": split.as_json()}))
    with pytest.raises(ContractBroken, match="train to valid"):
        prepare_fold(planted, 1)
    # A panel that was cut otherwise than the walk-forward says.
    manifest = read_json(mine.fold(1).manifest)
    write_json(mine.fold(1).manifest, {**manifest, "split_index": longer})
    verdict = judge_purged(mine)
    assert not verdict.passed and verdict.got == 0
    assert "cut at" in verdict.message and "train to valid" in verdict.message


def test_statistics_that_saw_test_rows_are_seen(mine: WalkSpec) -> None:
    arrays, own = lake_arrays(mine), mine.split(2)
    leaking = Split(own.dates, (own.train[0], own.test[1]), own.valid, own.test, own.embargo_days)
    fit_statistics(Path(mine.lake), CONTRACT, arrays.axes, arrays.row_ok, leaking, home=mine.fold(2).path)
    verdict = judge_statistics(mine)
    assert not verdict.passed and verdict.got < 3
    assert f"statistics reach {own.span('test')[1]}, training ends {own.span('train')[1]}" in verdict.message


def test_a_result_too_good_to_be_true_is_seen(results: dict[str, Any]) -> None:
    verdict = judge_too_good(results, Thresholds())
    assert not verdict.passed and verdict.got > 0.4 and "look for a leak" in verdict.message


def test_a_dataset_that_changed_meanwhile_is_refused(mine: WalkSpec) -> None:
    with pytest.raises(ContractBroken, match="the dataset is another"):
        prepare_fold(replace(mine, dataset_hash="0" * 64), 0)
    with pytest.raises(ContractBroken, match="training panel is another"):
        prepare_fold(replace(mine, shared={**mine.shared, "y": "0"}), 0)


def test_finished_folds_are_found_again_by_their_inputs(walked: WalkSpec, data_dir: Path) -> None:
    fewer = tiny_spec(data_dir, plan=replace(SMALL, folds=2, workers=2))
    assert [fewer.fold_id(k) for k in range(2)] == [walked.fold_id(k) for k in (1, 2)]
    assert all(fewer.fold(k).finished(fewer.seeds) for k in range(2)) and fewer.id != walked.id
    more_seeds = tiny_spec(data_dir, plan=replace(SMALL, seeds=(7, 8)))
    assert more_seeds.fold_id(0) == walked.fold_id(0) and not more_seeds.fold(0).finished(more_seeds.seeds)
    for other in (tiny_spec(data_dir, tiny_config(dropout=0.2)), replace(walked, dataset_hash="0"),
                  replace(walked, code="0"), replace(walked, selected=walked.selected[1:])):  # fmt: skip
        assert not other.fold(0).finished(other.seeds)
    assert WalkSpec.load(walked.path / "spec.json") == walked


def test_who_decides_on_a_run_is_told_of_the_walk_forward_of_this_dataset_only(mine: WalkSpec) -> None:
    lake = Path(mine.lake)
    found = find_walk_forward(lake)
    assert found is not None and found.walk == mine.id and found.n_dates == 88
    run = lake / "runs" / "abc"
    write_json(run / "config.json", {"config": tiny_config(seed=99).to_json(), "source_hash": found.source_hash})
    assert "Settings and code are the same as" in told_of_walk_forward(lake, "abc")
    write_json(run / "config.json", {"config": tiny_config(dropout=0.5).to_json(), "source_hash": found.source_hash})
    assert "not this run's" in told_of_walk_forward(lake, "abc")
    decision = challenge(lake, "abc", LIMITS)
    assert not decision.promoted and decision.walk_forward == told_of_walk_forward(lake, "abc")
    path = mine.path / "results.json"
    body = json.loads(path.read_text())
    write_json(path, {**body, "dataset_hash": "another"})
    assert told_of_walk_forward(lake, "abc") == ""
    write_json(path, {"dataset_hash": body["dataset_hash"]})
    with pytest.raises(LakeError, match="start it again"):
        find_walk_forward(lake)
    assert told_of_walk_forward(lake, "abc").startswith("cannot be read")  # and the promotion goes on


def test_folds_of_datasets_that_are_gone_are_removed(mine: WalkSpec) -> None:
    assert remove_stale_folds(mine) == []
    manifest = read_json(mine.fold(0).manifest)
    write_json(mine.fold(0).manifest, {**manifest, "dataset_hash": "gone"})
    assert remove_stale_folds(mine) == [mine.fold(0).path] and not mine.fold(0).path.exists()


def test_a_score_without_a_seed_says_so(walked: WalkSpec) -> None:
    rows = all_scores(walked).select("model", "seed").unique()
    assert set(rows.rows()) == {("model", 7), *((name, NO_SEED) for name in (*RIVALS, CONSTANT))}


def test_several_seeds_count_as_the_mean_of_single_runs_and_an_undefined_day_is_left_out() -> None:
    days = np.array(["2024-01-04", "2024-01-05", "2024-01-09"], dtype="datetime64[D]")
    seeds = {7: [0.1, None, None], 8: [0.3, 0.2, None]}
    rows = [
        {"model": "model", "seed": seed, "measure": "rank_ic", "delay": 1, "horizon": 1, "date": day, "value": value}
        for seed, values in seeds.items()
        for day, value in zip(days.tolist(), values, strict=True)
    ]
    daily = pl.DataFrame(rows, schema_overrides={"value": pl.Float64, "date": pl.Date})
    found = daily_series(daily, days)["model", "rank_ic", 1, 1]
    assert found[:2] == pytest.approx([0.2, 0.2]) and np.isnan(found[2])
