"""Predictions are refused for each fault of the newest inputs, and the text names it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from atft_pipeline.dataset.contract import dataset_dir
from atft_pipeline.evaluation.drift import Drift, measure_drift, psi
from atft_pipeline.evaluation.inputs import EvaluationData, load_run
from atft_pipeline.evaluation.judge import store_verdict
from atft_pipeline.evaluation.predictions import write_predictions
from atft_pipeline.evaluation.readiness import (
    judge_complete,
    judge_current,
    judge_fresh,
    judge_range,
    judge_readiness,
)
from atft_pipeline.lake.store import read_json, read_table, write_json
from atft_pipeline.settings import HORIZONS, Thresholds
from atft_pipeline.verdict import ContractBroken, Verdict
from atft_pipeline_tests.evaluation.fake_run import RUN, good_scores, store_run
from atft_pipeline_tests.small_lake import Market, make_market, store_panel

LIMITS = Thresholds()
TOKYO = ZoneInfo("Asia/Tokyo")


@pytest.fixture(scope="module")
def market() -> Market:
    return make_market(dates=300, stocks=120)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    root = tmp_path_factory.mktemp("lake")
    panel_hash = str(store_panel(root, market)["hash"])
    store_run(root, panel_hash, good_scores(market))
    store_verdict(root, RUN, {"rank_ic": Verdict(True, 0.03, 0.02, "")}, panel_hash)
    return root


@pytest.fixture
def data(lake: Path) -> EvaluationData:
    return load_run(lake, RUN)


def with_newest(data: EvaluationData, **columns: float | None) -> EvaluationData:
    """The data with inputs of the last date replaced."""
    x = np.array(data.x)
    for name, value in columns.items():
        x[-1, :, data.features.index(name)] = value
    return replace(data, x=x)


def range_verdict(data: EvaluationData) -> Verdict:
    return judge_range(measure_drift(data.x, data.row_ok, data.ranges), LIMITS, "2025-04-24")


def test_sound_inputs_pass_every_rule(lake: Path, data: EvaluationData) -> None:
    verdicts = judge_readiness(lake, data, LIMITS)
    assert {name: verdict.message for name, verdict in verdicts.items() if not verdict.passed} == {}
    assert list(verdicts) == ["current", "complete", "in_range"]


def test_psi_of_equal_shares_is_zero_and_of_shifted_ones_as_by_hand() -> None:
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    assert psi(q, q) == 0
    assert psi(p, q) == pytest.approx(2 * 0.3 * np.log(2.5))
    assert np.isfinite(psi(np.array([1.0, 0, 0]), q))


def test_an_input_without_spread_is_named(data: EvaluationData) -> None:
    verdict = range_verdict(with_newest(data, ret_5d=0.0))
    assert not verdict.passed
    assert "no spread between stocks in ret_5d" in verdict.message


def test_inputs_outside_the_training_range_are_named(data: EvaluationData) -> None:
    rng = np.random.default_rng(1)
    moved = np.array(data.x)
    for name in ("ret_1d", "ret_5d", "ta_signal", "px_volume"):
        moved[-1, :, data.features.index(name)] = 4 + 0.1 * rng.normal(size=moved.shape[1])
    verdict = range_verdict(replace(data, x=moved))
    assert not verdict.passed
    assert "of 9 inputs are outside the training range" in verdict.message
    assert all(name in verdict.message for name in ("ret_1d", "ret_5d", "ta_signal", "px_volume"))


def test_a_slow_shift_shows_over_twenty_dates_before_it_shows_on_one(data: EvaluationData) -> None:
    def drift(x: np.ndarray) -> Drift:
        return {d.name: d for d in measure_drift(x, data.row_ok, data.ranges)}["fs_staleness_td"]

    moved = np.array(data.x)
    moved[-20:, :, data.features.index("fs_staleness_td")] += np.float16(0.12)
    plain, shifted = drift(data.x), drift(moved)
    assert plain.recent < 1.5 * plain.usual_recent
    assert shifted.recent > 2 * shifted.usual_recent
    assert shifted.newest < 2 * shifted.usual_newest


def test_a_market_wide_input_is_judged_by_what_single_dates_are_like(data: EvaluationData) -> None:
    """One value a date is far from the distribution over all dates, every day."""
    by_name = {d.name: d for d in measure_drift(data.x, data.row_ok, data.ranges)}
    wide = by_name["mkt_ret_1d"]
    assert wide.newest > 10 * LIMITS.max_psi
    assert wide.newest < LIMITS.psi_over_usual * wide.usual_newest
    assert not wide.dead


def test_lost_rows_and_lost_scores_are_incomplete(data: EvaluationData) -> None:
    assert judge_complete(data, LIMITS).passed
    lost = np.array(data.row_ok)
    lost[-1, :30] = False
    verdict = judge_complete(replace(data, row_ok=lost), LIMITS)
    assert not verdict.passed
    assert "usable rows, usually 119" in verdict.message
    silent = np.array(data.scores)
    silent[-1, :30] = np.nan
    verdict = judge_complete(replace(data, scores=silent), LIMITS)
    assert not verdict.passed
    assert "tradable stocks scored" in verdict.message


@pytest.fixture
def restored(lake: Path) -> Iterator[Path]:
    path = dataset_dir(lake) / "metadata.json"
    before = read_json(path)
    yield path
    write_json(path, before)


def test_a_dataset_built_after_the_panel_makes_it_stale(lake: Path, data: EvaluationData, restored: Path) -> None:
    assert judge_current(lake, data.manifest).passed
    write_json(restored, {**read_json(restored), "hash": "f" * 64})
    verdict = judge_current(lake, data.manifest)
    assert not verdict.passed
    assert "training_panel was made of another dataset" in verdict.message
    with pytest.raises(ContractBroken, match="inputs are not in order. current: stale inputs"):
        write_predictions(lake, RUN, LIMITS)
    assert not (lake / "predictions").exists()


def test_prices_that_are_out_must_be_there() -> None:
    sessions = np.array(["2024-06-26", "2024-06-27", "2024-06-28", "2024-07-01"], "datetime64[D]")
    night = datetime(2024, 6, 28, 19, 30, tzinfo=TOKYO)
    assert judge_fresh(np.datetime64("2024-06-28"), sessions, night, LIMITS).passed
    late = judge_fresh(np.datetime64("2024-06-27"), sessions, night, LIMITS)
    assert not late.passed and "1 trading days late" in late.message
    assert judge_fresh(np.datetime64("2024-06-27"), sessions, night.replace(hour=12), LIMITS).passed
    sunday = datetime(2024, 6, 30, 12, 0, tzinfo=TOKYO)
    assert judge_fresh(np.datetime64("2024-06-28"), sessions, sunday, LIMITS).passed


def test_predictions_name_their_model_and_data_and_carry_the_spread(lake: Path, market: Market) -> None:
    written = write_predictions(lake, RUN, LIMITS)
    frame = read_table(written.path)
    manifest = load_run(lake, RUN).manifest
    assert frame["run_id"].unique().to_list() == [RUN]
    for name, key in (("panel_hash", "hash"), ("dataset_hash", "dataset_hash"), ("stats_hash", "stats_hash")):
        assert frame[name].unique().to_list() == [manifest[key]]
    np.testing.assert_allclose(frame["mc_mean"], frame["score"])
    assert frame["mc_sd"].unique().to_list() == [0.25]
    one = frame.filter(frame["horizon"] == HORIZONS[0])
    sector = dict(zip(market.axes.codes, market.values["meta_sector33_id"][-1], strict=True))
    own = np.array([sector[code] for code in one["code"]])
    score = one["score"].to_numpy().astype(np.float64)
    neutral = score - np.array([score[own == s].mean() for s in own])
    assert np.array_equal(one["sector_neutral_rank"].to_numpy(), 1 + np.argsort(np.argsort(-neutral)))
    body = read_json(written.path.with_suffix(".json"))
    assert body["run_id"] == RUN and body["readiness"]["in_range"]["passed"]
