"""A challenger succeeds only by right; a planted regression is refused, and the reason says which."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from atft_pipeline.dataset.scaling import stats_path
from atft_pipeline.dataset.training_panel import read_manifest
from atft_pipeline.evaluation.__main__ import main
from atft_pipeline.evaluation.champion import (
    RULES,
    Decision,
    challenge,
    champion_history,
    champion_path,
    champion_run,
    decide,
    judged_rule,
    promote,
    read_decision,
    require_champion,
    store_decision,
)
from atft_pipeline.evaluation.judge import judge_run, store_verdict
from atft_pipeline.evaluation.scorecard import DAILY_KEYS, evaluate_run, scorecard_dir
from atft_pipeline.lake.store import read_json, read_table, write_json, write_table
from atft_pipeline.settings import HORIZONS, Thresholds
from atft_pipeline.verdict import ContractBroken, Verdict
from atft_pipeline_tests.evaluation.fake_run import good_scores, store_run
from atft_pipeline_tests.small_lake import Market, make_market, store_panel

LIMITS = Thresholds(too_good_model_ic=0.9, min_common_dates=20, max_drifted_share=0.5, min_sharpe=-99)
FIRST, SECOND, THIRD = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
DAYS = np.arange("2023-01-02", "2023-07-01", dtype="datetime64[D]")


@pytest.fixture(scope="module")
def market() -> Market:
    return make_market(dates=300)


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory, market: Market) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("panel")
    return root, str(store_panel(root, market)["hash"])


@pytest.fixture
def lake(tmp_path: Path, panel: tuple[Path, str]) -> Path:
    """The panel's folders as links: the runs and evaluations of a test are its own."""
    for room in panel[0].iterdir():
        if room.name == "normalization_stats":
            write_json(stats_path(tmp_path), read_json(stats_path(panel[0])))
        else:
            (tmp_path / room.name).symlink_to(room)
    return tmp_path


def judged(lake: Path, run_id: str, panel_hash: str, rank_ic: np.ndarray, *, recipe: str, passed: bool = True) -> None:
    """An evaluated run with this daily RankIC [D] at every horizon; its scores are not looked at."""
    shape = [read_manifest(lake)[name] for name in ("n_dates", "n_stocks")]
    store_run(lake, panel_hash, np.zeros((*shape, len(HORIZONS))), run_id=run_id, recipe=recipe)
    rows = pl.concat(
        [
            pl.DataFrame({"date": DAYS, "value": rank_ic}).with_columns(
                pl.lit("model").alias("model"), pl.lit("rank_ic").alias("measure"), pl.lit("valid").alias("part"),
                pl.lit(1, pl.Int32).alias("delay"), pl.lit(h, pl.Int32).alias("horizon"), pl.col("date").cast(pl.Date),
            )
            for h in HORIZONS
        ]
    )  # fmt: skip
    write_table(scorecard_dir(lake, run_id) / "daily.parquet", rows, keys=DAILY_KEYS)
    write_json(scorecard_dir(lake, run_id) / "scorecard.json", {"run_id": run_id, "panel_hash": panel_hash})
    store_verdict(lake, run_id, {"rank_ic": Verdict(passed, 0.03, 0.02, "RankIC +0.0300")}, panel_hash)


def regression(decision: Decision) -> Verdict:
    return judged_rule(decision, "regression_against_champion")


def series(mean: float, seed: int = 1, common: float = 0.1) -> np.ndarray:
    """Daily RankIC: days that are good or bad for every model, and a little noise of the model's own."""
    shared = np.random.default_rng(0).normal(0, common, len(DAYS))
    own = np.random.default_rng(seed).normal(0, 0.01, len(DAYS))
    return mean + shared + own - own.mean()


def test_the_first_run_that_passes_becomes_the_champion(lake: Path, panel: tuple[Path, str]) -> None:
    with pytest.raises(ContractBroken, match="there is no champion"):
        require_champion(lake)
    judged(lake, FIRST, panel[1], series(0.03), recipe="r1", passed=False)
    refused = challenge(lake, FIRST, LIMITS)
    assert not refused.promoted and champion_run(lake) is None
    assert "rank_ic: RankIC +0.0300" in refused.reason
    judged(lake, FIRST, panel[1], series(0.03), recipe="r1")
    assert challenge(lake, FIRST, LIMITS).promoted
    assert champion_run(lake) == FIRST
    assert decide(lake, FIRST, LIMITS).reason == "already the champion"


@pytest.mark.parametrize(
    ("gain", "promoted", "word"),
    [(0.01, True, "better"), (0.0, False, "not better"), (0.0008, False, "not better"), (-0.02, False, "a regression")],
)
def test_another_recipe_must_be_better_by_the_margin_and_beyond_the_noise(
    lake: Path, panel: tuple[Path, str], gain: float, promoted: bool, word: str
) -> None:
    judged(lake, FIRST, panel[1], series(0.03), recipe="r1")
    challenge(lake, FIRST, LIMITS)
    judged(lake, SECOND, panel[1], series(0.03 + gain, seed=2), recipe="r2")
    decision = challenge(lake, SECOND, LIMITS)
    assert decision.promoted is promoted
    assert decision.reason.startswith(word)
    assert decision.comparison is not None and decision.comparison.n_dates == len(DAYS)
    # The days' own ups and downs cancel: two separate means with an error of 0.01 could not tell these apart.
    assert decision.comparison.high - decision.comparison.low < 0.01
    assert champion_run(lake) == (SECOND if promoted else FIRST)
    assert regression(decision).passed is (gain > -0.02)


def test_a_large_gain_within_the_noise_is_no_right(lake: Path, panel: tuple[Path, str]) -> None:
    judged(lake, FIRST, panel[1], series(0.03), recipe="r1")
    challenge(lake, FIRST, LIMITS)
    loud = series(0.03) + 0.01 + np.random.default_rng(5).normal(0, 0.3, len(DAYS))
    loud += 0.01 - (loud - series(0.03)).mean()
    judged(lake, SECOND, panel[1], loud, recipe="r2")
    decision = challenge(lake, SECOND, LIMITS)
    assert decision.comparison is not None and decision.comparison.mean > LIMITS.promotion_margin
    assert not decision.promoted and "beyond the noise" in decision.reason


@pytest.mark.parametrize(("gain", "promoted"), [(0.0, True), (-0.003, False), (-0.02, False)])
def test_the_champions_recipe_on_a_newer_panel_succeeds_it_unless_it_is_worse(
    lake: Path, panel: tuple[Path, str], gain: float, promoted: bool
) -> None:
    judged(lake, FIRST, panel[1], series(0.03), recipe="r1")
    challenge(lake, FIRST, LIMITS)
    judged(lake, SECOND, panel[1], series(0.03 + gain, seed=1 if gain else 3), recipe="r1")
    decision = challenge(lake, SECOND, LIMITS)
    assert decision.promoted is promoted
    assert decision.regression is not promoted
    store_decision(lake, decision)
    kept = read_decision(lake, SECOND)
    assert kept.comparison == decision.comparison and kept.reason == decision.reason
    assert {name: rule.message for name, rule in kept.rules.items()} == {
        name: rule.message for name, rule in decision.rules.items()
    }
    assert list(kept.rules) == list(RULES)


def test_too_few_common_dates_decide_nothing(lake: Path, panel: tuple[Path, str]) -> None:
    judged(lake, FIRST, panel[1], series(0.03), recipe="r1")
    challenge(lake, FIRST, LIMITS)
    judged(lake, SECOND, panel[1], np.where(np.arange(len(DAYS)) < 10, 0.5, np.nan), recipe="r1")
    daily = scorecard_dir(lake, SECOND) / "daily.parquet"
    write_table(daily, read_table(daily).with_columns(pl.col("value").fill_nan(None)), keys=DAILY_KEYS)
    decision = challenge(lake, SECOND, LIMITS)
    assert not decision.promoted and "too few common validation dates" in decision.reason


def test_stale_statistics_are_refused(lake: Path, panel: tuple[Path, str]) -> None:
    judged(lake, FIRST, panel[1], series(0.05), recipe="r1")
    statistics = read_json(stats_path(lake))
    write_json(stats_path(lake), {**statistics, "hash": "0" * 64})
    decision = challenge(lake, FIRST, LIMITS)
    assert not decision.promoted and champion_run(lake) is None
    assert "training_panel was made of another normalization_stats" in decision.reason


def test_a_run_on_half_of_the_signal_is_refused_on_its_real_scores(
    lake: Path, panel: tuple[Path, str], market: Market
) -> None:
    """From scores to the decision with the real evaluation: the challenger knows half of the days' signal."""
    for run_id, noise, recipe in ((FIRST, 1.0, "whole"), (SECOND, 4.0, "half of the inputs are zero")):
        store_run(lake, panel[1], good_scores(market, noise), run_id=run_id, recipe=recipe)
        card = evaluate_run(lake, run_id)
        store_verdict(lake, run_id, judge_run(card, LIMITS), panel[1])
        store_decision(lake, challenge(lake, run_id, LIMITS))
    assert champion_run(lake) == FIRST
    verdict = regression(read_decision(lake, SECOND))
    assert not verdict.passed
    assert verdict.message.startswith("a regression: worse than the champion")
    assert verdict.got < -0.1


def test_roll_back_is_one_command_and_keeps_the_history(
    lake: Path, panel: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for run_id, mean, recipe in ((FIRST, 0.03, "r1"), (SECOND, 0.05, "r2")):
        judged(lake, run_id, panel[1], series(mean), recipe=recipe)
        challenge(lake, run_id, LIMITS)
    assert champion_run(lake) == SECOND
    assert main(["promote", "--to", FIRST, "--lake", str(lake)]) == 0
    assert champion_run(lake) == FIRST
    assert [entry["run_id"] for entry in champion_history(lake)] == [FIRST, SECOND, FIRST]
    assert champion_history(lake)[-1]["before"] == SECOND
    assert f"champion: {FIRST}" in capsys.readouterr().out
    before = champion_path(lake).read_bytes()
    judged(lake, THIRD, panel[1], series(0.05), recipe="r3", passed=False)
    assert main(["promote", "--to", THIRD, "--lake", str(lake)]) == 1
    assert "may not give predictions" in capsys.readouterr().err
    assert champion_path(lake).read_bytes() == before
    assert main(["compare", SECOND, "--lake", str(lake)]) == 0
    assert f"{SECOND} minus {FIRST}: daily RankIC +0.02" in capsys.readouterr().out


def test_a_loss_term_switched_off_is_refused_whatever_the_score(lake: Path, panel: tuple[Path, str]) -> None:
    judged(lake, FIRST, panel[1], series(0.03), recipe="r1")
    challenge(lake, FIRST, LIMITS)
    judged(lake, SECOND, panel[1], series(0.06, seed=2), recipe="rank loss off")
    lines = lake / "runs" / SECOND / "metrics.jsonl"
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    for record in records:
        record["train"]["weights"]["rank"] = 0.0
    lines.write_text("".join(json.dumps(record) + "\n" for record in records))
    decision = challenge(lake, SECOND, LIMITS)
    assert not decision.promoted and champion_run(lake) == FIRST
    assert decision.reason.startswith("loss terms switched off: rank (champion 0.5)")
    assert not decision.rules["objective_kept"].passed and decision.rules["regression_against_champion"].passed


def test_a_champion_needs_what_it_takes_to_score_newer_data(lake: Path, panel: tuple[Path, str]) -> None:
    judged(lake, FIRST, panel[1], series(0.03), recipe="r1")
    (lake / "runs" / FIRST / "ckpt" / "final.pt").unlink()
    with pytest.raises(ContractBroken, match=r"final\.pt is missing"):
        promote(lake, FIRST, "by hand")
    judged(lake, SECOND, "0" * 64, series(0.03), recipe="r1")
    with pytest.raises(ContractBroken, match="does not carry what it needs"):
        promote(lake, SECOND, "trained on a panel that is gone, and never evaluated on it")
    assert champion_run(lake) is None
