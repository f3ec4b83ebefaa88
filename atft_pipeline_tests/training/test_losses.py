"""The loss terms against independent formulas, and the properties that earlier systems lacked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import Tensor

from atft_pipeline.settings import HORIZONS
from atft_pipeline.training import losses
from atft_pipeline.training.faults import ConfigError
from atft_pipeline.training.losses import LossFunction
from atft_pipeline.training.phases import LossWeights
from atft_pipeline.training.targets import BlockTargets, Targets, standardise

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
ALL_ON = LossWeights(huber=1, rank=0.5, csic=0.3, sharpe=0.1, pinball=0.3, aux=0.05, student=0.2)
DAYS, STOCKS = 9, 30


def labels(days: int = DAYS, stocks: int = STOCKS, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(days, stocks, len(HORIZONS))).astype(np.float32) * 0.02


def targets_of(y: np.ndarray, counted: np.ndarray | None = None) -> BlockTargets:
    counted = np.ones(y.shape[:2], bool) if counted is None else counted
    return Targets(y, counted, HORIZONS, range(len(y))).block(0, len(y), np.arange(y.shape[1]))


def all_pairs(days: int = DAYS, stocks: int = STOCKS) -> Tensor:
    return torch.cartesian_prod(torch.arange(days), torch.arange(stocks))


def quantiles_of(score: Tensor) -> Tensor:
    return score[..., None] + torch.tensor([-1.0, -0.5, 0, 0.5, 1.0])


def loss_of(
    score: Tensor, targets: BlockTargets, weights: LossWeights = ALL_ON, pairs: Tensor | None = None
) -> losses.Loss:
    """score [D, n, H]"""
    pairs = all_pairs(*score.shape[:2]) if pairs is None else pairs
    at = score[pairs[:, 0], pairs[:, 1]]
    student = torch.stack([at, torch.full_like(at, 0.8), torch.full_like(at, 4.0)], -1)
    return LossFunction(weights, HORIZONS, QUANTILES)(at, quantiles_of(at), pairs, targets, torch.tensor(2.0), student)


def only(term: str) -> LossWeights:
    return LossWeights(**{name: float(name == term) for name in losses.TERMS})


def soft_ranks(s: Tensor, temperature: float) -> Tensor:
    """The pairwise form: a larger score gets a larger rank (plus sign)."""
    z = (s - s.mean()) / s.std()
    return 1 + torch.sigmoid((z[:, None] - z[None, :]) / temperature).sum(dim=1) - 0.5


def test_t15_rank_loss_agrees_with_the_pairwise_soft_rank_oracle_in_value_and_direction() -> None:
    y = labels(1, 200)
    score = torch.from_numpy(y[0, :, 0] * 50 + np.random.default_rng(1).normal(size=200)).float().requires_grad_()
    assert (torch.diff(soft_ranks(torch.linspace(-2, 2, 50), 0.1)) > 0).all()
    ranks = torch.from_numpy(rankdata(y[0, :, 0])).float()
    oracle = 1 - torch.corrcoef(torch.stack([soft_ranks(score, 0.02), ranks]))[0, 1]
    (wanted,) = torch.autograd.grad(oracle, score)
    targets = targets_of(y)
    ours = 1 - losses.correlation(score[None, :, None], targets.ranks[..., :1], targets.mask[..., :1])[0, 0]
    (got,) = torch.autograd.grad(ours, score)
    assert float(ours.detach()) == pytest.approx(float(oracle.detach()), abs=0.05)
    assert float(torch.cosine_similarity(got, wanted, dim=0)) > 0.5


def rank_loss_points_the_right_way() -> bool:
    """The liveness test of the rank term, kept apart so that a planted fault can be shown to fail it."""
    y = labels()
    targets, target = targets_of(y), torch.from_numpy(y) * 50

    def rank_loss(score: Tensor) -> Tensor:
        return loss_of(score, targets, only("rank")).total

    start = torch.randn(target.shape, generator=torch.Generator().manual_seed(2)).requires_grad_()
    (gradient,) = torch.autograd.grad(rank_loss(start), start)
    towards = float((-gradient * target).sum())
    alive = bool(torch.isfinite(gradient).all()) and float(gradient.norm()) > 0
    return alive and towards > 0 and float(rank_loss(target)) < 0.3 and float(rank_loss(-target)) > 1.7


def test_t15_rank_loss_falls_towards_the_target_and_its_gradient_is_alive() -> None:
    assert rank_loss_points_the_right_way()


def test_t15_a_sign_flipped_rank_loss_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = losses.correlation
    monkeypatch.setattr(losses, "correlation", lambda score, target, mask: -right(score, target, mask))
    assert not rank_loss_points_the_right_way()


@pytest.mark.parametrize("term", losses.TERMS)
def test_t16_doubling_a_weight_adds_exactly_that_contribution(term: str) -> None:
    score, targets = torch.from_numpy(labels(seed=3)) * 40, targets_of(labels())
    once = loss_of(score, targets)
    weights = ALL_ON.as_dict()
    twice = loss_of(score, targets, LossWeights.from_mapping({**weights, term: 2 * weights[term]}))
    assert abs(float(once.contributions[term])) > 0
    assert float(twice.total - once.total) == pytest.approx(float(once.contributions[term]), abs=1e-5)


def test_t17_sharpe_is_scale_free_alive_and_safe_on_flat_inputs() -> None:
    targets = targets_of(labels())
    day = targets.day_return, targets.day_mask
    score = torch.randn(DAYS, STOCKS).requires_grad_()
    value = losses.sharpe_loss(score, *day)
    (gradient,) = torch.autograd.grad(value, score)
    assert torch.isfinite(gradient).all() and gradient.norm() > 0
    assert losses.sharpe_loss(score * 1000, *day).item() == pytest.approx(value.item(), rel=1e-3)
    for flat in (torch.zeros(DAYS, STOCKS), torch.full((DAYS, STOCKS), 3.0)):
        flat.requires_grad_()
        safe = losses.sharpe_loss(flat, *day)
        (gradient,) = torch.autograd.grad(safe, flat)
        assert torch.isfinite(safe) and torch.isfinite(gradient).all()
    equal_returns = losses.sharpe_loss(score, torch.full((DAYS, STOCKS), 0.01), targets.day_mask)
    assert equal_returns.item() == pytest.approx(0, abs=1e-3)


def test_t17_a_better_book_has_a_lower_sharpe_loss_and_few_dates_give_zero() -> None:
    targets = targets_of(labels())
    assert losses.sharpe_loss(targets.day_return, targets.day_return, targets.day_mask) < -1
    assert losses.sharpe_loss(-targets.day_return, targets.day_return, targets.day_mask) > 1
    short = losses.sharpe_loss(targets.day_return[:7], targets.day_return[:7], targets.day_mask[:7])
    assert float(short) == 0


def test_t18_dates_are_never_mixed() -> None:
    y, score = labels(), torch.from_numpy(labels(seed=4)) * 40
    reference = loss_of(score, targets_of(y))
    shuffled = all_pairs()[torch.randperm(DAYS * STOCKS, generator=torch.Generator().manual_seed(0))]
    assert float(loss_of(score, targets_of(y), pairs=shuffled).total) == pytest.approx(float(reference.total), abs=1e-5)
    moved = y.copy()
    moved[3] += 0.5  # a constant on all targets of one date
    for term in ("rank", "csic", "huber"):
        assert float(loss_of(score, targets_of(moved)).terms[term]) == pytest.approx(
            float(reference.terms[term]), abs=1e-4
        )
    alone = torch.stack([loss_of(score[d : d + 1], targets_of(y[d : d + 1])).terms["rank"] for d in range(DAYS)])
    assert float(alone.mean()) == pytest.approx(float(reference.terms["rank"]), abs=1e-5)


def test_t19_a_missing_label_counts_as_a_removed_row() -> None:
    y, score = labels(), torch.from_numpy(labels(seed=5)) * 40
    holed = y.copy()
    holed[:, -3:] = np.nan
    with_holes = loss_of(score, targets_of(holed))
    removed = loss_of(score[:, :-3], targets_of(y[:, :-3]))
    assert float(with_holes.total) == pytest.approx(float(removed.total), abs=1e-5)


def test_t19_a_horizon_without_labels_drops_out_and_the_weights_renormalise() -> None:
    y, score = labels(), torch.from_numpy(labels(seed=5)) * 40
    holed = y.copy()
    holed[..., 2] = np.nan
    got = loss_of(score, targets_of(holed)).terms["rank"]
    kept = [i for i in range(len(HORIZONS)) if i != 2]
    targets = targets_of(y)
    cells = (1 - losses.correlation(score, targets.ranks, targets.mask)).mean(dim=0)
    w = torch.tensor([HORIZONS[i] ** -0.5 for i in kept])
    assert float(got) == pytest.approx(float((cells[kept] * w).sum() / w.sum()), abs=1e-5)


def test_t19_a_missing_weight_is_an_error() -> None:
    with pytest.raises(ConfigError, match="horizon weights"):
        LossFunction(ALL_ON, HORIZONS, QUANTILES, per_horizon={1: 1.0})
    with pytest.raises(ConfigError, match="exactly"):
        LossWeights.from_mapping({"huber": 1.0})


def test_t20_thin_and_constant_cross_sections_are_skipped_and_counted() -> None:
    y = labels()
    y[0, 10:, 0] = np.nan  # 10 stocks
    y[1, :, 1] = 0.01  # all equal
    found = Targets(y, np.ones(y.shape[:2], bool), HORIZONS, range(DAYS))
    assert found.skipped_cells == 2
    assert not found.mask[0, :, 0].any() and not found.mask[1, :, 1].any() and found.mask[2].all()
    assert np.isfinite(float(loss_of(torch.from_numpy(y).nan_to_num(), targets_of(y)).total))


def test_t21_terms_stay_float32_and_finite_under_half_precision() -> None:
    targets = targets_of(labels())
    score = (torch.from_numpy(labels(seed=6)) * 40).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss_of(score, targets)
    assert found.total.dtype == torch.float32 and all(v.dtype == torch.float32 for v in found.terms.values())
    assert all(torch.isfinite(v) for v in found.terms.values())
    found.total.backward()
    assert torch.isfinite(score.grad).all()  # type: ignore[arg-type]
    assert losses.EPS >= 1e-6 and float(torch.tensor(losses.EPS, dtype=torch.bfloat16)) > 0
    assert float(torch.tensor(losses.SHARPE_EPS, dtype=torch.float32)) > 0


def test_t22_pinball_is_least_at_the_quantile() -> None:
    y = np.random.default_rng(7).normal(size=(1, 4000, len(HORIZONS))).astype(np.float32)
    targets = targets_of(y)
    levels = torch.tensor([0.1, 0.9])
    grid = torch.linspace(-2.5, 2.5, 251)
    shape = (1, 4000, len(HORIZONS), 1)
    for level in levels:
        costs = [float(losses.pinball(g.expand(shape), targets, level[None])[0, 0]) for g in grid]
        wanted = float(np.quantile(targets.standardised[0, :, 0].numpy(), float(level)))
        assert float(grid[int(np.argmin(costs))]) == pytest.approx(wanted, abs=0.05)


def test_targets_are_winsorised_standardised_and_ranked_within_their_date() -> None:
    y = labels(3, 200)
    y[0, 0, 0] = 50.0  # an outlier of one date touches no other
    targets = targets_of(y)
    np.testing.assert_allclose(targets.standardised.mean(dim=1).numpy(), 0, atol=1e-5)
    np.testing.assert_allclose(targets.standardised.std(dim=1, unbiased=False).numpy(), 1, atol=1e-4)
    assert float(targets.standardised[0, 0, 0]) < 5
    np.testing.assert_allclose(targets.ranks.std(dim=1, unbiased=False).numpy(), 1, atol=1e-4)
    low, high = np.quantile(y[1, :, 0].astype(float), [0.01, 0.99])
    clipped = np.clip(y[1, :, 0], low, high)
    np.testing.assert_allclose(standardise(y[:, :, 0], 20)[0][1], (clipped - clipped.mean()) / clipped.std(), atol=1e-4)


def test_an_untradable_stock_counts_in_no_term() -> None:
    y, score = labels(), torch.from_numpy(labels(seed=8)) * 40
    counted = np.ones((DAYS, STOCKS), bool)
    counted[:, 0] = False
    wild = score.clone()
    wild[:, 0] = 1e3
    got, reference = loss_of(wild, targets_of(y, counted)), loss_of(score, targets_of(y, counted))
    assert float(got.total) == pytest.approx(float(reference.total), abs=1e-5)
