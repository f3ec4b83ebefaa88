"""The elastic net: its minimum, and a penalty that only what holds in every fold survives."""

from __future__ import annotations

import numpy as np
import pytest

from atft_pipeline.training.elastic_net import FOLDS, L2, Moments, elastic_net, fit


def test_the_weights_satisfy_the_conditions_of_the_elastic_nets_minimum() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 30)) @ (np.eye(30) + 0.3 * rng.normal(size=(30, 30)))
    x /= x.std(axis=0)
    y = rng.normal(size=(400, 2)) + x[:, :2]
    gram, cross = x.T @ x / 400, x.T @ y / 400
    penalty = np.array([0.1, 0.3]) * np.abs(cross).max(axis=0)
    size = float(np.linalg.eigvalsh(gram)[-1]) + L2
    b = elastic_net(gram, cross, penalty, np.zeros_like(cross), size)
    slope = cross - gram @ b - L2 * b
    for h in range(2):
        zero = b[:, h] == 0
        assert zero.any()
        assert not zero.all()
        assert (np.abs(slope[zero, h]) <= penalty[h] * 1.001).all()
        np.testing.assert_allclose(slope[~zero, h], penalty[h] * np.sign(b[~zero, h]), atol=1e-3 * penalty[h])


def folds(slopes: list[float], seed: int = 0) -> list[Moments]:
    """Moments of ten terms in each fold; the label follows term 3 with the fold's slope, beside noise of variance 1."""
    rng = np.random.default_rng(seed)
    made = []
    for slope in slopes:
        x = rng.normal(size=(4000, 10))
        y = slope * x[:, [3]] + rng.normal(size=(4000, 1))
        made.append(Moments(x.T @ x, x.T @ y, len(x)))
    return [*made, *(Moments.nothing(10, 1) for _ in range(FOLDS))]


def test_what_holds_in_every_fold_is_found() -> None:
    found = fit(folds([0.1] * FOLDS))
    assert int(np.abs(found.weights[:, 0]).argmax()) == 3
    assert 0.02 < found.weights[3, 0] < 0.12  # shrunken, as a penalty leaves it
    assert found.left_out[0] == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("slopes", [[0.0] * FOLDS, [0.3, -0.3, 0.3, -0.3, 0.02], [0.4, 0.0, 0.0, -0.1, 0.0]])
def test_what_holds_in_some_folds_only_leaves_nothing(slopes: list[float]) -> None:
    found = fit(folds(slopes))
    assert not found.weights.any()
    assert found.left_out[0] == 0.0
