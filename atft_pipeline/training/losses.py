"""The loss: every term in float32, mean over the stocks of a date, then over dates, then over horizons.

No date's stocks are ever compared with another date's. The rank term is Pearson between the score and the target's
precomputed average ranks: its gradient is nearly that of the exact rank correlation at a fraction of the cost of
pairwise soft ranks (which its test uses as the oracle). The exact RankIC is what is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from atft_pipeline.evaluation.metrics import horizon_weights
from atft_pipeline.model.student import student_nll
from atft_pipeline.training.faults import ConfigError
from atft_pipeline.training.phases import LossWeights
from atft_pipeline.training.targets import BlockTargets

EPS = 1e-6
"""Added to variances of scores; representable in half precision."""
SHARPE_EPS = 1e-4**2
"""Added to the variance of daily book returns, in return^2: a book never looks steadier than one basis point a day."""
MIN_SHARPE_DATES = 8
GROSS = 2.0

TERMS = ("huber", "rank", "csic", "sharpe", "pinball", "aux", "student")


@dataclass
class Loss:
    """The total and what it is made of; `terms` are unweighted, `contributions` weighted, both detached."""

    total: Tensor
    terms: dict[str, Tensor]
    contributions: dict[str, Tensor]


class LossFunction:
    """The weighted sum of the terms for one stage."""

    def __init__(
        self, weights: LossWeights, horizons: Sequence[int], quantiles: Sequence[float],
        per_horizon: Mapping[int, float] | None = None,
    ) -> None:  # fmt: skip
        if per_horizon is None:
            per_horizon = dict(zip(horizons, horizon_weights(horizons).tolist(), strict=True))
        if set(per_horizon) != set(horizons):
            raise ConfigError(f"horizon weights name {sorted(per_horizon)}, the labels have {list(horizons)}")
        self.weights = weights
        self.day = list(horizons).index(1)
        self.horizon_weights = torch.tensor([per_horizon[h] for h in horizons], dtype=torch.float32)
        self.quantiles = torch.tensor(list(quantiles), dtype=torch.float32)

    def __call__(
        self, score: Tensor, quantiles: Tensor, pairs: Tensor, targets: BlockTargets, aux: Tensor,
        student: Tensor | None = None,
    ) -> Loss:  # fmt: skip
        """score [M, H], quantiles [M, H, Q], pairs [M, 2] -> the total loss.

        `aux` is the forecasters' own loss; `student` [M, H, 3] adds the likelihood of the labels under such heads.
        """
        with torch.autocast(score.device.type, enabled=False):
            s = dense(score.float(), pairs, targets.mask.shape[:2])
            q = dense(quantiles.float(), pairs, targets.mask.shape[:2])
            mean = self._mean(targets.mask)
            terms = {
                "huber": mean(huber(s, targets)),
                "rank": mean(1 - correlation(s, targets.ranks, targets.mask)),
                "csic": mean(1 - correlation(s, targets.standardised, targets.mask)),
                "sharpe": sharpe_loss(s[..., self.day], targets.day_return, targets.day_mask),
                "pinball": mean(pinball(q, targets, self.quantiles.to(q.device))),
                "aux": aux.float(),
            }
            if student is not None:
                # Pair by pair before the grid: an empty cell has no scale, and its gradient would not be a number.
                nll = student_nll(student, targets.standardised[pairs[:, 0], pairs[:, 1]])
                terms["student"] = mean(masked_mean(dense(nll, pairs, targets.mask.shape[:2]), targets.mask))
            return self.combine(terms)

    def combine(self, terms: dict[str, Tensor]) -> Loss:
        """Weighted sum; a term of weight 0 contributes exactly 0 and no gradient."""
        weights = self.weights.as_dict()
        contributions = {name: weights[name] * terms[name] for name in TERMS if name in terms and weights[name] != 0}
        total = torch.stack(list(contributions.values())).sum()
        return Loss(
            total,
            {k: v.detach() for k, v in terms.items()},
            {k: v.detach() for k, v in contributions.items()},
        )

    def _mean(self, mask: Tensor) -> _HorizonMean:
        return _HorizonMean(mask.any(dim=1), self.horizon_weights.to(mask.device))


@dataclass
class _HorizonMean:
    """[D, H] values -> scalar: mean over existing dates, then horizon weights renormalised over existing horizons."""

    exists: Tensor
    weights: Tensor

    def __call__(self, cells: Tensor) -> Tensor:
        exists = self.exists
        dates = exists.sum(dim=0)
        per_horizon = torch.where(exists, cells, torch.zeros_like(cells)).sum(dim=0) / dates.clamp(min=1)
        w = torch.where(dates > 0, self.weights, torch.zeros_like(self.weights))
        return (per_horizon * w).sum() / w.sum().clamp(min=EPS)


def dense(values: Tensor, pairs: Tensor, shape: Sequence[int]) -> Tensor:
    """[M, ...] by pair -> [D, n, ...], 0 where no pair is."""
    days, stocks = int(shape[0]), int(shape[1])
    grid = values.new_zeros(days * stocks, *values.shape[1:])
    return grid.index_copy(0, pairs[:, 0] * stocks + pairs[:, 1], values).unflatten(0, (days, stocks))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the stocks (dim 1) of [D, n, ...]; 0 where none counts."""
    return torch.where(mask, x, torch.zeros_like(x)).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def huber(score: Tensor, targets: BlockTargets) -> Tensor:
    """[D, H]: smooth L1 of score against the standardised label."""
    return masked_mean(F.smooth_l1_loss(score, targets.standardised, reduction="none"), targets.mask)


def correlation(score: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """[D, H]: Pearson over the counted stocks of [D, n, H]; denominators are sqrt(variance + 1e-6)."""
    s = torch.where(mask, score - masked_mean(score, mask)[:, None], torch.zeros_like(score))
    t = torch.where(mask, target - masked_mean(target, mask)[:, None], torch.zeros_like(target))
    spread = torch.sqrt(masked_mean(s * s, mask) + EPS) * torch.sqrt(masked_mean(t * t, mask) + EPS)
    return masked_mean(s * t, mask) / spread


def sharpe_loss(score: Tensor, day_return: Tensor, mask: Tensor) -> Tensor:
    """Minus the (daily, not annualised) Sharpe ratio of the dollar-neutral score-weighted book of gross 2.

    score, day_return, mask [D, n]. Exactly 0 below 8 dates: a deviation over fewer is noise.
    """
    dates = mask.any(dim=1)
    if int(dates.sum()) < MIN_SHARPE_DATES:
        return score.sum() * 0.0
    centred = torch.where(mask, score - masked_mean(score, mask)[:, None], torch.zeros_like(score))
    weights = GROSS * centred / (centred.abs().sum(dim=1, keepdim=True) + EPS)
    returns = (weights * day_return).sum(dim=1)[dates]
    return -returns.mean() / torch.sqrt(returns.var(unbiased=False) + SHARPE_EPS)


def pinball(quantiles: Tensor, targets: BlockTargets, levels: Tensor) -> Tensor:
    """[D, H]: pinball loss of [D, n, H, Q] on the standardised label, averaged over the levels."""
    error = targets.standardised[..., None] - quantiles
    return masked_mean(torch.maximum(levels * error, (levels - 1) * error).mean(dim=-1), targets.mask)
