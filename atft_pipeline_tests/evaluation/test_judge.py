"""A run gives predictions only if it was judged and passed; each rule fires on its own fault."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atft_pipeline.evaluation.judge import RULES, judge_run, read_verdicts, require_promotable, store_verdict
from atft_pipeline.evaluation.predictions import write_predictions
from atft_pipeline.evaluation.scorecard import evaluate_run, read_scorecard
from atft_pipeline.lake.store import read_record, read_table
from atft_pipeline.settings import HORIZONS, Thresholds
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.evaluation.fake_run import ALIVE, RUN, good_scores, store_run
from atft_pipeline_tests.small_lake import Market, make_market, store_panel

LIMITS = Thresholds(too_good_model_ic=0.9)  # the planted signal of these tests is far stronger than an honest one


@pytest.fixture(scope="module")
def market() -> Market:
    return make_market(dates=300)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    root = tmp_path_factory.mktemp("lake")
    manifest = store_panel(root, market)
    store_run(root, str(manifest["hash"]), good_scores(market))
    evaluate_run(root, RUN)
    return root


@pytest.fixture
def card(lake: Path) -> dict[str, Any]:
    return copy.deepcopy(read_scorecard(lake, RUN))


def failing(card: dict[str, Any], limits: Thresholds = LIMITS) -> list[str]:
    return [name for name, verdict in judge_run(card, limits).items() if not verdict.passed]


def judged_cell(card: dict[str, Any]) -> dict[str, Any]:
    return card["models"]["model"]["valid"]["delay_1"]["mean"]


def test_a_sound_run_passes_every_rule(card: dict[str, Any]) -> None:
    assert failing(card) == []
    assert list(judge_run(card, LIMITS)) == list(RULES)


def test_a_result_too_good_to_be_true_fails(card: dict[str, Any]) -> None:
    assert failing(card, Thresholds()) == ["too_good"]
    card["models"]["model"]["test"]["delay_0"]["1"]["rank_ic"]["mean"] = -0.95
    verdict = judge_run(card, LIMITS)["too_good"]
    assert not verdict.passed
    assert "test delay_0" in verdict.message


@pytest.mark.parametrize("metric", ["rank_ic", "ic"])
def test_a_mean_within_two_standard_errors_is_luck(card: dict[str, Any], metric: str) -> None:
    judged_cell(card)[metric] |= {"mean": 0.03, "se": 0.02}
    assert failing(card) == [metric]


@pytest.mark.parametrize("metric", ["rank_ic", "ic"])
def test_overlapping_returns_alone_prove_nothing(card: dict[str, Any], metric: str) -> None:
    """What a market without signal gave: a mean of 3.4 of its own errors, and 1.95 at one day."""
    judged_cell(card)[metric] |= {"mean": 0.0272, "se": 0.0081}
    card["models"]["model"]["valid"]["delay_1"]["1"][metric] |= {"mean": 0.0160, "se": 0.0082}
    assert failing(card) == [metric]
    assert "at 1 day +0.0160" in judge_run(card, LIMITS)[metric].message


@pytest.mark.parametrize("metric", ["rank_ic", "ic"])
def test_a_mean_below_its_threshold_fails_however_certain(card: dict[str, Any], metric: str) -> None:
    judged_cell(card)[metric] |= {"mean": 0.01, "se": 0.0001}
    assert failing(card) == [metric]


def test_a_book_that_loses_after_costs_fails(card: dict[str, Any]) -> None:
    card["models"]["model"]["valid"]["delay_1"]["5"]["book"]["sharpe_net_ann"] = -0.2
    assert failing(card) == ["sharpe"]


def test_numbers_that_were_not_measured_do_not_pass(card: dict[str, Any]) -> None:
    judged_cell(card)["rank_ic"] |= {"mean": None, "se": None}
    card["liveness"] = {}
    assert failing(card) == ["rank_ic", "liveness"]


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ({"graph_grad_norm": 0.0}, "graph"),
        ({"graph_grad_norm": None}, "graph"),
        ({"gates_grad_norm": 1e-9}, "gates"),
        ({"edges_per_date": 0.0}, "edges"),
    ],
)
def test_a_dead_block_fails_liveness(card: dict[str, Any], fault: dict[str, Any], word: str) -> None:
    card["liveness"] = {**ALIVE, **fault}
    verdict = judge_run(card, LIMITS)["liveness"]
    assert not verdict.passed
    assert f"not alive: {word}" in verdict.message


@pytest.mark.parametrize("collapse", ["one horizon", "all", "few values"])
def test_a_collapsed_score_blocks_the_predictions(tmp_path: Path, market: Market, collapse: str) -> None:
    manifest = store_panel(tmp_path, market)
    scores = good_scores(market)
    if collapse == "one horizon":
        scores[..., 3] = np.where(np.isnan(scores[..., 3]), np.nan, 0.1)
    elif collapse == "all":
        scores = np.where(np.isnan(scores), np.nan, 0.1)
    else:
        scores = np.sign(scores)
    store_run(tmp_path, str(manifest["hash"]), scores)
    verdicts = judge_run(evaluate_run(tmp_path, RUN), LIMITS)
    assert not verdicts["degeneracy"].passed
    assert not store_verdict(tmp_path, RUN, verdicts, str(manifest["hash"]))
    with pytest.raises(ContractBroken, match="degeneracy: the scores have collapsed"):
        write_predictions(tmp_path, RUN, LIMITS)
    assert not (tmp_path / "predictions").exists()


def test_a_run_that_was_not_judged_gives_no_predictions(tmp_path: Path, market: Market) -> None:
    manifest = store_panel(tmp_path, market)
    store_run(tmp_path, str(manifest["hash"]), good_scores(market))
    with pytest.raises(ContractBroken, match="was not judged"):
        write_predictions(tmp_path, RUN, LIMITS)


def test_a_verdict_of_another_panel_does_not_count(lake: Path, card: dict[str, Any]) -> None:
    store_verdict(lake, RUN, judge_run(card, LIMITS), "0" * 64)
    with pytest.raises(ContractBroken, match="another run or panel"):
        write_predictions(lake, RUN, LIMITS)


def test_predictions_of_the_newest_date_and_the_history(lake: Path, card: dict[str, Any], market: Market) -> None:
    verdicts = judge_run(card, LIMITS)
    assert store_verdict(lake, RUN, verdicts, card["panel_hash"])
    assert read_verdicts(lake, RUN)["rank_ic"].got == pytest.approx(verdicts["rank_ic"].got)
    require_promotable(lake, RUN, card["panel_hash"])
    written = write_predictions(lake, RUN, LIMITS)
    newest = market.axes.dates[-1]
    assert written.path.name == f"{newest}.parquet"
    frame = read_table(written.path)
    assert written.stocks == market.axes.listed[-1].sum()
    assert frame.height == written.stocks * len(HORIZONS)
    assert frame["run_id"].unique().to_list() == [RUN]
    assert read_record(written.path).source["panel_hash"] == card["panel_hash"]
    one = frame.filter(frame["horizon"] == 1).sort("rank")
    assert one["rank"].to_list() == list(range(1, written.stocks + 1))
    assert one["score"].is_sorted(descending=True)
    assert (one["q10"] < one["q50"]).all()
    history = read_table(written.history)
    assert set(history["part"].unique()) == {"valid", "test"}
    day, code = history["date"][0], history["code"][0]
    t = int(np.searchsorted(market.axes.dates, np.datetime64(day)))
    n = int(np.searchsorted(market.axes.codes, code))
    assert history["y"][0] == pytest.approx(market.y[t, n, 1, 0], abs=1e-6)
