"""One run's evaluation: right numbers, one mask for all, errors beside every mean, and files that can be read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from atft_pipeline.dataset.splits import calendar_split
from atft_pipeline.evaluation import metrics
from atft_pipeline.evaluation.baselines import reversal, ridge, standardise
from atft_pipeline.evaluation.inputs import load_run
from atft_pipeline.evaluation.oracle import load_oracle
from atft_pipeline.evaluation.rivals import RIVALS
from atft_pipeline.evaluation.scorecard import evaluate_run, latest_scorecard, read_scorecard, summary_table
from atft_pipeline.lake.store import LakeError, read_table
from atft_pipeline.settings import DELAYS, HORIZONS
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.evaluation.fake_run import RUN, good_scores, store_oracle, store_run
from atft_pipeline_tests.small_lake import Market, make_market, store_panel

Card = dict  # a scorecard as JSON gives it


@pytest.fixture(scope="module")
def market() -> Market:
    return make_market(dates=360)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    root = tmp_path_factory.mktemp("lake")
    manifest = store_panel(root, market)
    store_run(root, str(manifest["hash"]), good_scores(market))
    store_oracle(root / "market", market)
    return root


@pytest.fixture(scope="module")
def card(lake: Path) -> Card:
    return evaluate_run(lake, RUN, market_dir=lake / "market", market="simulated 40 stocks")


def cell(card: Card, model: str, part: str, delay: int, horizon: int = 1) -> Card:
    return card["models"][model][part][f"delay_{delay}"][str(horizon)]


def test_the_models_rank_ic_is_the_metric_of_its_own_scores(card: Card, market: Market) -> None:
    first, end = calendar_split(market.axes.dates).part("valid")
    scores, y = good_scores(market)[first:end, :, 0].astype(np.float32), market.y[first:end, :, 1, 0]
    expected = metrics.summarise_series(metrics.rank_ic(scores, y.astype(np.float32)), 0)
    got = cell(card, "model", "valid", 1)["rank_ic"]
    assert got["mean"] == pytest.approx(expected["mean"], abs=1e-6)
    assert got["se"] == pytest.approx(expected["se"], abs=1e-6)
    assert got["n_dates"] == end - first


def test_a_planted_signal_shows_at_its_own_delay_only(card: Card) -> None:
    for part in ("valid", "test"):
        tradable, research = (cell(card, "model", part, d)["rank_ic"] for d in (1, 0))
        assert tradable["mean"] > 5 * tradable["se"]
        assert abs(research["mean"]) < 3 * research["se"]


def test_every_model_part_delay_and_horizon_has_a_number_and_an_error(card: Card) -> None:
    for model in ("model", *RIVALS, "oracle"):
        for part in ("valid", "test"):
            for delay in DELAYS:
                for horizon in HORIZONS:
                    found = cell(card, model, part, delay, horizon)
                    assert np.isfinite([found["rank_ic"]["mean"], found["rank_ic"]["se"], found["ic"]["mean"]]).all()
                    assert {"sharpe_net_ann", "sharpe_gross_ann", "turnover", "ci95"} <= set(found["book"])
                    assert len(found["deciles"]) == 10


def test_ridge_finds_a_linear_signal_and_the_oracle_is_ahead(card: Card) -> None:
    oracle, linear = (cell(card, name, "test", 1)["rank_ic"] for name in ("oracle", "ridge"))
    assert linear["mean"] > 5 * linear["se"]
    assert oracle["mean"] >= linear["mean"] - 2 * linear["se"]
    knowledge = {name: c["test"]["delay_1"]["1"]["mean"] for name, c in card["oracle_correlation"].items()}
    assert knowledge["ridge"] > 0.8
    assert knowledge["model"] == pytest.approx(1 / np.sqrt(2), abs=0.05)  # signal plus as much noise
    assert abs(knowledge["reversal"]) < 0.1


def test_differences_are_of_daily_series_under_one_mask(card: Card, lake: Path) -> None:
    stored = read_table(lake / "evaluation" / RUN / "daily.parquet")
    daily = stored.filter(measure="rank_ic", part="test", delay=1, horizon=1)
    own = {name: daily.filter(pl.col("model") == name).sort("date")["value"] for name in ("model", "ridge")}
    gap = card["differences"]["ridge"]["test"]["delay_1"]["1"]
    assert gap["mean"] == pytest.approx(float((own["model"] - own["ridge"]).mean() or 0))
    separate = np.hypot(*(cell(card, name, "test", 1)["rank_ic"]["se"] for name in ("model", "ridge")))
    assert gap["se"] < separate


def test_reversal_is_minus_the_return_over_the_market() -> None:
    returns = np.array([[0.02, -0.01, np.nan, 0.05]])
    score = reversal(returns, np.array([[True, True, True, False]]))
    assert np.allclose(score, [[-0.015, 0.015, np.nan, np.nan]], equal_nan=True)


def test_labels_are_standardised_within_a_date() -> None:
    y = np.array([[[1.0], [2.0], [np.nan], [6.0]], [[5.0], [5.0], [5.0], [5.0]]])
    z = standardise(y)
    assert np.nanmean(z[0]) == pytest.approx(0)
    assert np.nanstd(z[0]) == pytest.approx(1)
    assert np.isnan(z[0, 2]).all()
    assert np.isnan(z[1]).all()


def test_ridge_never_reads_validation_or_test_labels(lake: Path, market: Market) -> None:
    data = load_run(lake, RUN)
    end = data.part("train").stop
    poisoned = np.array(data.y)
    poisoned[end:] = -poisoned[end:]
    moved = ridge(type(data)(**{**vars(data), "y": poisoned, "scores": data.scores}))
    plain = ridge(data)
    assert moved.rows == plain.rows
    if moved.penalty == plain.penalty:  # validation may choose another penalty; the fit itself may not move
        assert np.array_equal(moved.scores, plain.scores, equal_nan=True)
    span = data.part("test")
    good = np.isfinite(plain.scores[span][..., 0])
    assert np.corrcoef(moved.scores[span][..., 0][good], plain.scores[span][..., 0][good])[0, 1] > 0.99


def test_the_oracle_is_aligned_by_code_and_date(lake: Path, market: Market) -> None:
    kept = np.arange(0, len(market.axes.codes), 3)
    oracle = load_oracle(lake / "market", market.axes.dates[50:90], market.axes.codes[kept], (1,), (1,))
    assert oracle is not None
    expected = np.where(market.axes.listed, 0.005 * market.signal, np.nan)[50:90, kept]
    assert np.allclose(oracle.expected[1, 1], expected, equal_nan=True)


def test_a_real_market_has_no_oracle_and_the_card_says_so(lake: Path) -> None:
    card = evaluate_run(lake, RUN, market="J-Quants")
    assert not card["simulated"]
    assert "oracle_correlation" not in card
    assert "simulated" not in summary_table(card)
    evaluate_run(lake, RUN, market_dir=lake / "market")


def test_the_summary_names_part_delay_and_error_of_every_model(card: Card) -> None:
    text = summary_table(card)
    assert "simulated market, not real returns" in text
    assert all(
        word in text for word in ("valid, delay 1", "test, delay 0", "standard error", "tradable", "all horizons")
    )
    starts = [line.split()[0] for line in text.splitlines() if "+-" in line]
    models = ["model", "ridge", "lightgbm", "reversal", "momentum"]
    assert starts == ["Daily", *models, "oracle", *models, "oracle", *models]  # two tables, then oracle correlations
    assert text.count("+-") == 1 + 4 * (6 + 6 + 5)
    assert all(len(line) <= 100 for line in text.splitlines())


def test_a_constant_model_is_undefined_not_zero(tmp_path: Path, market: Market) -> None:
    manifest = store_panel(tmp_path, market)
    store_run(tmp_path, str(manifest["hash"]), np.where(np.isnan(good_scores(market)), np.nan, 0.3))
    card = evaluate_run(tmp_path, RUN)
    found = cell(read_scorecard(tmp_path, RUN), "model", "valid", 1)["rank_ic"]
    assert found["mean"] is None
    assert found["n_dates"] == 0
    assert "undefined" in summary_table(card)
    assert latest_scorecard(tmp_path)["run_id"] == RUN


def test_a_run_on_another_panel_is_refused(tmp_path: Path, market: Market) -> None:
    store_panel(tmp_path, market)
    store_run(tmp_path, "0" * 64, good_scores(market))
    with pytest.raises(ContractBroken, match="another training panel"):
        evaluate_run(tmp_path, RUN)
    with pytest.raises(LakeError, match="no run was evaluated yet"):
        latest_scorecard(tmp_path)
