"""The boosted trees: the same on any number of threads, blind to later labels, and able to see what ridge cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atft_pipeline.evaluation import metrics
from atft_pipeline.evaluation.baselines import ridge
from atft_pipeline.evaluation.inputs import EvaluationData, load_run
from atft_pipeline.evaluation.rivals import CONSTANT, RIVALS, rival_scores
from atft_pipeline.evaluation.trees import TREES, boosted_trees
from atft_pipeline_tests.evaluation.fake_run import RUN, good_scores, store_run
from atft_pipeline_tests.small_lake import make_market, store_panel


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> EvaluationData:
    """A market whose signal is linear in one input."""
    lake, market = tmp_path_factory.mktemp("lake"), make_market(dates=300)
    store_run(lake, str(store_panel(lake, market)["hash"]), good_scores(market))
    return load_run(lake, RUN)


def rank_ic(data: EvaluationData, scores: np.ndarray, part: str = "test") -> float:
    y = data.labels(part, 1)[..., 0]
    return float(np.nanmean(metrics.rank_ic(np.where(np.isfinite(y), scores[data.part(part)][..., 0], np.nan), y)))


def test_the_same_data_give_the_same_trees_again_and_on_two_threads(data: EvaluationData) -> None:
    first, again, wide = (boosted_trees(data, counts=(5, 10), threads=threads) for threads in (1, 1, 2))
    for other in (again, wide):
        assert np.array_equal(first.scores, other.scores, equal_nan=True)
        assert (first.trees, first.rows) == (other.trees, other.rows)
    assert first.models == again.models
    assert np.isfinite(first.scores[data.part("test")]).sum() > 1000


def test_labels_after_the_training_part_move_no_tree(data: EvaluationData) -> None:
    """Validation labels choose the number of trees, no more; test labels choose nothing."""
    plain = boosted_trees(data)
    for part in ("valid", "test"):
        y = np.array(data.y)
        y[data.part(part).start :] = np.random.default_rng(0).normal(size=y[data.part(part).start :].shape)
        moved = boosted_trees(replace(data, y=y))
        assert moved.trees == plain.trees or part == "valid"
        shorter = min(moved.trees, plain.trees)
        for horizon in data.horizons:
            old, new = (_tree_texts(trees.models[horizon], shorter) for trees in (plain, moved))
            assert old == new
        if part == "test":
            assert np.array_equal(plain.scores, moved.scores, equal_nan=True)


def test_a_training_label_that_moves_is_seen(data: EvaluationData) -> None:
    """The fault that the test above must be able to see: a fit that takes in one date more."""
    y = np.array(data.y)
    last = data.part("train").stop - 1
    y[last] = np.random.default_rng(0).normal(size=y[last].shape)
    assert boosted_trees(replace(data, y=y)).models != boosted_trees(data).models


def test_trees_see_a_curve_that_ridge_cannot(tmp_path: Path) -> None:
    market = make_market(dates=300, strength=0.0)
    market.returns[2:] += 0.02 * (np.abs(market.signal) - 0.8)[:-2]
    store_run(tmp_path, str(store_panel(tmp_path, market)["hash"]), good_scores(market))
    data = load_run(tmp_path, RUN)
    trees = boosted_trees(data)
    assert trees.trees in TREES
    assert rank_ic(data, trees.scores) > 0.4
    assert abs(rank_ic(data, ridge(data).scores)) < 0.1


def test_a_larger_market_is_fitted_on_every_other_date(data: EvaluationData) -> None:
    whole = boosted_trees(data)
    half = boosted_trees(data, max_rows=whole.rows // 2 + 50)
    assert 0.45 < half.rows / whole.rows < 0.55
    assert rank_ic(data, half.scores) > 0.2


def test_every_rival_is_scored_where_the_model_is_and_a_constant_ranks_nothing(data: EvaluationData) -> None:
    found = rival_scores(data, 1).scores
    assert set(found) == {*RIVALS, CONSTANT}
    for scores in found.values():
        assert not np.isfinite(scores[~data.scored]).any()
    y = data.labels("test", 1)[..., 0]
    assert np.isnan(metrics.rank_ic(found[CONSTANT][data.part("test")][..., 0], y)).all()


def _tree_texts(model: str, count: int) -> list[str]:
    """The first `count` trees as text, without the ensemble's header and parameters."""
    return [text.split("\n\n\n")[0] for text in model.split("\nTree=")[1:][:count]]
