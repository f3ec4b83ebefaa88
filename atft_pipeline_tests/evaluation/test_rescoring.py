"""A champion scores a newer dataset with what it carries, bit for bit as training did, or says why it cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from atft_pipeline.dataset.contract import Contract
from atft_pipeline.dataset.scoring_panel import write_scoring_panel
from atft_pipeline.dataset.training_panel import panel_dir, read_manifest
from atft_pipeline.evaluation import comparison, rescoring
from atft_pipeline.evaluation.champion import challenge, champion_run, promote
from atft_pipeline.evaluation.comparison import compare
from atft_pipeline.evaluation.inputs import load_run
from atft_pipeline.evaluation.judge import store_verdict
from atft_pipeline.evaluation.predictions import champions_predictions
from atft_pipeline.evaluation.rescoring import (
    GRAPH_WINDOW,
    judge_same_scores,
    rescore_newest,
    rescored_rank_ic,
    stored_scores,
)
from atft_pipeline.evaluation.scorecard import evaluate_run, scorecard_dir
from atft_pipeline.evaluation.scoring_kit import kit_path, pack_kit, read_kit
from atft_pipeline.lake.store import read_array, read_json, read_table, write_json
from atft_pipeline.lake.verify import verify_lake
from atft_pipeline.settings import HORIZONS, Thresholds
from atft_pipeline.training import checkpoint
from atft_pipeline.training import rescoring as scorer
from atft_pipeline.training.faults import TrainingFault
from atft_pipeline.training.graph import GraphRules
from atft_pipeline.training.supervisor import run_training
from atft_pipeline.verdict import ContractBroken, Verdict
from atft_pipeline_tests.small_lake import CONTRACT, Market, make_market, store_panel, with_values
from atft_pipeline_tests.training.conftest import Lines, tiny_config

LIMITS = Thresholds(max_drifted_share=0.5, max_psi=1.0, min_common_dates=20)
OLD, NEW = 240, 263
NEWCOMER = 5
"""A stock that lists after the champion's panel was built: it shifts every later column of the axis."""


@dataclass(frozen=True)
class Place:
    """A lake whose champion was trained on `old`, while dataset, statistics and panel are those of `new`."""

    lake: Path
    champion: str
    challenger: str
    new: Market


def until(market: Market, dates: int) -> Market:
    """The market as it was known on an earlier day: fewer dates, and only codes that were listed by then."""
    known = market.axes.listed[:dates].any(axis=0)

    def cut(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array[:dates][:, known])

    axes = replace(
        market.axes, dates=market.axes.dates[:dates], codes=market.axes.codes[known], listed=cut(market.axes.listed)
    )
    values = {name: cut(np.asarray(value)) for name, value in market.values.items()}
    return Market(axes, values, cut(market.returns), cut(market.signal))


def since(market: Market, first: int) -> Market:
    """The market without its first dates."""
    axes = replace(market.axes, dates=market.axes.dates[first:], listed=market.axes.listed[first:])
    values = {name: value[first:] for name, value in market.values.items()}
    return Market(axes, values, market.returns[first:], market.signal[first:])


def with_newcomer(market: Market) -> Market:
    listed = market.axes.listed.copy()
    listed[: OLD + 5, NEWCOMER] = False
    hidden = {n: v if n.endswith("_id") else np.where(listed, v, np.nan) for n, v in market.values.items()}
    return Market(replace(market.axes, listed=listed), hidden, np.where(listed, market.returns, np.nan), market.signal)


def trained(lake: Path, seed: int) -> str:
    """A run of all phases on the lake's panel that counts as passed."""
    config = tiny_config(dates_per_epoch=48, mc_samples=20, seed=seed)
    run_id = run_training(panel_dir(lake), lake / "runs", config, Lines()).run_id
    pack_kit(lake, run_id)
    panel_hash = str(read_manifest(lake)["hash"])
    write_json(scorecard_dir(lake, run_id) / "scorecard.json", {"run_id": run_id, "panel_hash": panel_hash})
    store_verdict(lake, run_id, {"rank_ic": Verdict(True, 0.03, 0.02, "")}, panel_hash)
    return run_id


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The challenger was trained on the newer panel, and is planted to be worse: its scores are turned round."""
    lake = tmp_path_factory.mktemp("rescoring") / "lake"
    new = with_newcomer(make_market(dates=NEW))
    store_panel(lake, until(new, OLD))
    champion = trained(lake, seed=7)
    promote(lake, champion, "first")
    store_panel(lake, new)
    challenger = trained(lake, seed=8)
    path = lake / "runs" / challenger / "scores.npy"
    np.save(path, -np.load(path))
    evaluate_run(lake, challenger)
    return Place(lake, champion, challenger, new)


@pytest.fixture
def place(built: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A copy to break. The scoring process is its `main` in this process; one test starts the real one."""
    shutil.copytree(built.lake, tmp_path / "lake", symlinks=True)

    def here(command: list[str], **_: object) -> SimpleNamespace:
        return SimpleNamespace(returncode=scorer.main(command[3:]), stderr="refused")

    monkeypatch.setattr(rescoring, "subprocess", SimpleNamespace(run=here))
    return replace(built, lake=tmp_path / "lake")


def own_scores(place: Place) -> np.ndarray:
    """The champion's stored scores on the present codes, for the dates of its own panel."""
    return stored_scores(place.lake, read_kit(place.lake, place.champion), OLD)[1]


def test_scores_are_bit_equal_through_the_old_panel_and_through_the_newer_dataset(built: Place, tmp_path: Path) -> None:
    """All dates of the champion's panel, from the first full window on: other statistics are stored now, the axis has
    another code in its middle, and the dates from which the rows are read begin elsewhere."""
    kit, want = read_kit(built.lake, built.champion), own_scores(built)
    features = [{k: v for k, v in f.items() if k != "dtype"} for f in kit.features]
    assert read_manifest(built.lake)["stats_hash"] != kit.stats_hash
    for first in (0, 83):
        folder = tmp_path / str(first)
        write_scoring_panel(built.lake, folder, features, kit.by_name, range(first, NEW), first)
        scored = range(19, OLD) if first == 0 else range(first + GRAPH_WINDOW + 3, OLD)
        spans = [range(scored.start - first, scored.stop - first)]
        found = scorer.rescore(folder, built.lake / "runs" / built.champion, spans, say=lambda _: None)
        got = found.scores[spans[0].start : spans[0].stop]
        assert np.isfinite(got).sum() > 5000
        np.testing.assert_array_equal(got, want[scored.start : scored.stop].astype(np.float32))


def test_the_window_of_the_graph_is_the_graphs_own() -> None:
    assert GraphRules().window == GRAPH_WINDOW


def test_the_night_is_predicted_by_a_champion_of_an_earlier_panel(built: Place, tmp_path: Path) -> None:
    """With the real scoring process."""
    lake = tmp_path / "lake"
    shutil.copytree(built.lake, lake, symlinks=True)
    written = champions_predictions(lake, LIMITS)
    assert (written.run_id, written.date, written.rescored) == (built.champion, str(built.new.axes.dates[-1]), True)
    assert written.readiness["same_scores"].details["equal"] == 1.0
    frame, kit = read_table(written.path), read_kit(lake, built.champion)
    assert frame["run_id"].unique().to_list() == [built.champion]
    assert frame["panel_hash"].unique().to_list() == [kit.panel_hash]
    assert frame["stats_hash"].unique().to_list() == [kit.stats_hash]
    assert frame["dataset_hash"].unique().to_list() == [read_manifest(lake)["dataset_hash"]]
    assert frame.height == written.stocks * len(HORIZONS) and frame.null_count().sum_horizontal().item() == 0
    assert str(built.new.axes.codes[NEWCOMER]) in frame["code"].to_list()
    assert verify_lake(lake).faults == []
    (lake / "runs" / built.champion / "ckpt" / "final.pt").write_bytes(b"other weights")
    kit_path(lake, built.champion).with_name("codes.npy").unlink()
    assert [(fault.kind, fault.path.name) for fault in verify_lake(lake).faults] == [
        ("damaged", "final.pt"),
        ("missing", "codes.npy"),
    ]
    assert not list(lake.glob(".rescoring*"))


def test_a_refused_challenger_leaves_the_champions_predictions(place: Place) -> None:
    lake = place.lake
    decision = challenge(lake, place.challenger, LIMITS)
    assert champion_run(lake) == place.champion and decision.reason.startswith("a regression: worse than the champion")
    found = decision.comparison
    assert found is not None and found.rescored and "on the present dataset" in decision.reason
    first, end = read_manifest(lake)["split_index"]["valid"]
    assert found.n_dates <= end - first and found.first >= str(read_kit(lake, place.champion).valid_from)
    written = champions_predictions(lake, LIMITS)
    assert written.run_id == place.champion and written.date == str(place.new.axes.dates[-1])


def test_both_are_judged_on_the_same_dates_by_the_same_labels(place: Place) -> None:
    """The champion's series is that of an evaluation of the very scores on the present panel."""
    kit = read_kit(place.lake, place.champion)
    span = range(OLD - 30, OLD)
    series = rescored_rank_ic(place.lake, kit, span, 1)
    y = read_array(panel_dir(place.lake) / "y.npy")[span.start : span.stop, :, 1]
    y = np.where(read_array(panel_dir(place.lake) / "tradable.npy")[span.start : span.stop][..., None], y, np.nan)
    want = own_scores(place)[span.start : span.stop]
    for i, h in enumerate(HORIZONS):
        np.testing.assert_allclose(series[h], rescoring.rank_ic(want[..., i], y[..., i]), atol=1e-12)
    assert compare(place.lake, place.champion, place.challenger).n_dates >= 20
    kept = place.lake / "evaluation" / place.champion / "rescored.parquet"
    before = kept.stat().st_mtime_ns
    compare(place.lake, place.champion, place.challenger)
    assert kept.stat().st_mtime_ns == before  # one scoring a panel


def test_dates_of_the_champions_own_training_are_no_evidence(place: Place) -> None:
    """A panel that begins earlier moves its validation part back, into what the champion has learnt from."""
    dates = read_array(panel_dir(place.lake) / "dates.npy", mmap=False)
    first, end = read_manifest(place.lake)["split_index"]["valid"]
    kit = read_kit(place.lake, place.champion)
    later = replace(kit, split={**kit.split, "valid": [str(dates[first + 7]), str(dates[end - 1])]})
    rows = comparison._rescored_rows(place.lake, later)
    assert rows["date"].min() == dates[first + 7].item() and rows["date"].max() == dates[end - 1].item()


def test_graphs_stay_in_step_when_the_panel_begins_on_another_day(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph is drawn every fifth date, counted on the axis of the champion's own panel."""
    rebuilt(place, since(place.new, 33))
    kit = read_kit(place.lake, place.champion)
    assert rescore_newest(place.lake, kit, LIMITS)[1].details["equal"] == 1.0
    monkeypatch.setattr(rescoring, "_own_position", lambda lake, run_id, position: position)
    assert float(str(rescore_newest(place.lake, kit, LIMITS)[1].details["equal"])) < 1.0


def test_the_scoring_process_refuses_a_panel_of_other_inputs(
    built: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = read_kit(built.lake, built.champion)
    features = [{k: v for k, v in f.items() if k != "dtype"} for f in (*kit.features[1:], kit.features[0])]
    write_scoring_panel(built.lake, tmp_path / "panel", features, kit.by_name, range(100, NEW), 100)
    command = ["--panel", str(tmp_path / "panel"), "--run", str(built.lake / "runs" / built.champion)]
    command += ["--out", str(tmp_path / "out"), "--span", "60:70"]
    assert scorer.main(command) == 2 and not (tmp_path / "out").exists()
    assert "trained on other features, or in another order" in capsys.readouterr().err


def rebuilt(place: Place, market: Market, contract: Contract = CONTRACT) -> None:
    store_panel(place.lake, market, contract)


def negated(place: Place) -> None:
    rebuilt(place, with_values(place.new, ta_signal=-place.new.signal))


def without_a_group(place: Place) -> None:
    rebuilt(place, place.new, Contract("test", tuple(c for c in CONTRACT.columns if c.group != "ta")))


def another_type(place: Place) -> None:
    columns = (replace(c, dtype="i32") if c.name == "fs_staleness_td" else c for c in CONTRACT.columns)
    rebuilt(place, place.new, Contract("test", tuple(columns)))


def another_kind(place: Place) -> None:
    columns = (replace(c, kind="cross_section") if c.name == "fs_staleness_td" else c for c in CONTRACT.columns)
    rebuilt(place, place.new, Contract("test", tuple(columns)))


def other_statistics(place: Place) -> None:
    """The night's statistics put in the place of the champion's own."""
    body = read_json(kit_path(place.lake, place.champion))
    for feature in body["statistics"]:
        feature["scale"] *= 3.0
    write_json(kit_path(place.lake, place.champion), body)


def other_weights(place: Place) -> None:
    path = place.lake / "runs" / place.champion / "ckpt" / "final.pt"
    path.write_bytes(path.read_bytes() + b" ")


def no_kit(place: Place) -> None:
    kit_path(place.lake, place.champion).unlink()


def stale_dataset(place: Place) -> None:
    path = place.lake / "dataset" / "metadata.json"
    write_json(path, {**read_json(path), "hash": "f" * 64})


def drifted(place: Place) -> None:
    values = {n: v.copy() for n, v in place.new.values.items()}
    values["fs_staleness_td"][-20:] += 300.0
    values["mkt_ret_1d"][-20:] += 0.5
    rebuilt(place, replace(place.new, values=values))


def flat(place: Place) -> None:
    values = {n: v.copy() for n, v in place.new.values.items()}
    values["ta_signal"][-1] = 0.0
    rebuilt(place, replace(place.new, values=values))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (negated, r"same_scores: .*no longer mean what the model learnt"),
        (without_a_group, r"cannot read the present dataset: the dataset lacks ta_signal"),
        (another_type, r"defined otherwise than in training: fs_staleness_td \(dtype i16, now i32\)"),
        (another_kind, r"defined otherwise than in training: fs_staleness_td \(kind time, now cross_section\)"),
        (other_statistics, r"kit\.json does not match its own hash"),
        (other_weights, r"the weights of run \w+ are not those"),
        (no_kit, "does not carry what it needs"),
        (stale_dataset, "stale inputs: training_panel was made of another dataset"),
        (drifted, r"in_range: .*outside the training range"),
        (flat, r"in_range: .*no spread between stocks in ta_signal"),
    ],
)
def test_a_champion_that_cannot_read_the_night_says_why(
    place: Place, fault: Callable[[Place], None], words: str
) -> None:
    fault(place)
    with pytest.raises(ContractBroken, match=words):
        champions_predictions(place.lake, replace(LIMITS, max_drifted_share=0.2))
    assert not (place.lake / "predictions").exists()


def test_a_corrected_price_is_no_other_meaning() -> None:
    rng = np.random.default_rng(0)
    stored = rng.normal(size=(5, 200, 2))
    now = stored.copy()
    now[:, :4] += 1.0
    verdict = judge_same_scores(now, stored)
    assert verdict.passed and verdict.details["equal"] == pytest.approx(0.98)
    assert not judge_same_scores(rng.permutation(now, axis=1), stored).passed
    assert not judge_same_scores(np.full_like(now, np.nan), stored).passed


def test_the_own_panel_needs_no_second_scoring(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained on the present panel, the champion's stored scores are its predictions."""
    run_id = place.challenger
    promote(place.lake, run_id, "by hand")
    monkeypatch.setattr(rescoring, "subprocess", None)
    written = champions_predictions(place.lake, LIMITS)
    assert not written.rescored and written.history.exists()
    day = read_table(written.path).filter(pl.col("horizon") == 1).sort("code")
    data = load_run(place.lake, run_id)
    mine = data.scores[-1, np.isin(data.codes, day["code"].to_numpy()), 0]
    np.testing.assert_array_equal(day["score"].to_numpy(), mine)


@pytest.mark.parametrize("kind", ["setting", "weight"])
def test_a_champion_of_another_version_of_the_model_is_refused_with_the_remedy(place: Place, kind: str) -> None:
    run = place.lake / "runs" / place.champion
    stored = checkpoint.load(run / "ckpt" / "final.pt")
    if kind == "setting":
        stored["model_config"]["pairs_of_old"] = 32
    else:
        stored["model"]["highway.weight"] = stored["model"]["highway.weight"][:, :-1]
    checkpoint.save(run / "ckpt" / "final.pt", stored)
    with pytest.raises(TrainingFault, match=f"{place.champion} are of another version of the model; train again"):
        scorer._model(checkpoint.load(run / "ckpt" / "final.pt"), run)
