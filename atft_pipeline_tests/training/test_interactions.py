"""Products of two sums of features: found where they are, in the form in which they are, and not in noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atft_pipeline.training.interactions import DateLeft, find_products, forward_selection

DATES, STOCKS, FEATURES = 300, 80, 20


def dates(seed: int, strength: float) -> list[DateLeft]:
    """Dates whose residual holds strength x (feature 3 - feature 4) x feature 7, beside noise of variance 1.

    Features 3 and 4 share most of their variance, so that neither alone says much of their difference.
    """
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(DATES):
        x = rng.normal(size=(STOCKS, FEATURES)).astype(np.float32)
        common = rng.normal(size=STOCKS)
        own = (rng.normal(size=STOCKS), rng.normal(size=STOCKS))
        x[:, 3], x[:, 4] = 0.8 * common + 0.6 * own[0], 0.8 * common + 0.6 * own[1]
        residual = strength * (x[:, 3] - x[:, 4]) / 0.85 * x[:, 7] + rng.normal(size=STOCKS)
        kept = torch.from_numpy(x)
        left = torch.from_numpy((residual - residual.mean()).astype(np.float32))
        made.append(DateLeft(lambda kept=kept: kept, left))  # type: ignore[misc]
    return made


def test_both_sides_of_a_planted_product_are_found() -> None:
    found = find_products(dates(0, 0.1), room=4)
    assert len(found) == 1
    sides = [side / side.norm() for side in (found[0].left, found[0].right)]
    difference, single = sorted(sides, key=lambda side: float(side[7].abs()))
    want = torch.zeros(FEATURES)
    want[3], want[4] = 0.5**0.5, -(0.5**0.5)
    assert float((difference @ want).abs()) > 0.97
    assert float(single[7].abs()) > 0.99


def test_both_sides_have_unit_variance() -> None:
    planted = dates(0, 0.1)
    (product,) = find_products(planted, room=4)
    for side in (product.left, product.right):
        values = torch.cat([date.rows() @ side for date in planted])
        assert float(values.square().mean()) == pytest.approx(1.0, abs=1e-4)


def test_noise_has_no_products() -> None:
    assert [find_products(dates(seed, 0.0), room=4) for seed in range(4)] == [[]] * 4


def test_there_are_no_more_products_than_there_is_room_for() -> None:
    assert find_products(dates(0, 0.1), room=0) == []


def test_a_few_dates_give_no_t_ratio() -> None:
    assert find_products(dates(0, 0.5)[:10], room=4) == []


def test_a_term_that_tells_something_only_beside_another_is_taken_and_a_copy_is_not() -> None:
    rng = np.random.default_rng(1)
    n = 20_000
    x = rng.normal(size=(n, 12))
    x[:, 1] = x[:, 0] + 0.5 * rng.normal(size=n)
    x[:, 2] = x[:, 1] - x[:, 0]  # what the label follows is there only as this difference
    y = x[:, 2] * 0.1 + rng.normal(size=n)
    x[:, 2] = x[:, 1] + 1e-3 * rng.normal(size=n)  # a copy in its place
    gram, cross = x.T @ x, x.T @ y
    weights = forward_selection(gram, cross, np.diag(gram).copy())
    chosen = np.flatnonzero(weights).tolist()
    assert chosen in ([0, 1], [0, 2])
    np.testing.assert_allclose(np.abs(weights[chosen]), 0.1, atol=0.04)
    assert np.count_nonzero(forward_selection(gram, x.T @ rng.normal(size=n), np.diag(gram).copy())) <= 1


def test_a_term_without_variance_is_never_taken() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(1000, 5))
    x[:, 2] = 0.0
    y = x[:, 0] + rng.normal(size=1000)
    weights = forward_selection(x.T @ x, x.T @ y, np.full(5, 1000.0))
    assert weights[0] == pytest.approx(1.0, abs=0.15)
    assert weights[2] == 0.0
