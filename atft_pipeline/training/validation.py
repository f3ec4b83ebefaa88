"""How an epoch is judged: RankIC over all validation dates, the loss there, and the guard against collapsed scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atft_pipeline.evaluation.metrics import summarise_series
from atft_pipeline.training.batches import cut
from atft_pipeline.training.checkpoint import Progress
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.faults import TrainingFault
from atft_pipeline.training.losses import LossFunction
from atft_pipeline.training.panel_data import PanelData
from atft_pipeline.training.scoring import evaluate, monitored_series, score_spread
from atft_pipeline.training.targets import Targets

FLAT_VALIDATIONS = 2
"""Validations in a row with a collapsed score after which the run fails."""


class Validator:
    """Measures scores of the validation dates; knows nothing of the model."""

    def __init__(self, config: TrainingConfig, panel: PanelData, targets: Targets) -> None:
        self.config, self.panel, self.targets = config, panel, targets
        self.dates = panel.part("valid")

    def rank_ic(self, scores: NDArray[np.float32]) -> float:
        """The figure that early stopping and checkpoints go by: horizon-weighted, all dates."""
        return float(self._monitored(scores)["mean"])

    def measure(
        self, scores: NDArray[np.float32], quantiles: NDArray[np.float32], loss: LossFunction
    ) -> dict[str, Any]:
        """`rank_ic` (horizon-weighted, all dates), its `rank_ic_se`, and every metric under `val`."""
        monitored = self._monitored(scores)
        val = evaluate(scores, self.panel, self.dates, self.config.delay, self.config)
        val["loss"] = self._loss(scores, quantiles, loss)
        return {"rank_ic": monitored["mean"], "rank_ic_se": monitored["se"], "val": val}

    def _monitored(self, scores: NDArray[np.float32]) -> dict[str, Any]:
        config = self.config
        series = monitored_series(scores, self.panel, self.dates, config.delay, config.min_cross_section)
        return summarise_series(series, max(self.panel.horizons) - 1)

    def guard(self, scores: NDArray[np.float32], rank_ic: float, progress: Progress) -> None:
        """Count collapsed validations. Raises `TrainingFault` on the second in a row, or on an undefined RankIC."""
        spread = score_spread(scores)
        flat = not spread >= self.config.min_score_std
        progress.flat_validations = progress.flat_validations + 1 if flat else 0
        if progress.flat_validations >= FLAT_VALIDATIONS or not np.isfinite(rank_ic):
            raise TrainingFault(
                f"the scores have collapsed: median per-date standard deviation {spread:.2g} (want at least "
                f"{self.config.min_score_std:.0e}), validation RankIC {rank_ic}; look at the gradient norms per block "
                "in metrics.jsonl"
            )

    @torch.no_grad()
    def _loss(self, scores: NDArray[np.float32], quantiles: NDArray[np.float32], loss: LossFunction) -> float:
        """The stage's loss over blocks as long as in training, without the forecasters' part."""
        total, dates = 0.0, 0
        for days in cut(self.dates, self.config.dates_per_step):
            first = days.first - self.dates.start
            finite = np.isfinite(scores[first : first + days.count, :, 0])
            columns = np.flatnonzero(finite.any(axis=0))
            if not len(columns):
                continue
            pairs = np.argwhere(finite[:, columns])
            place = pairs[:, 0] + first, columns[pairs[:, 1]]
            found = loss(
                torch.from_numpy(scores[place]), torch.from_numpy(quantiles[place]), torch.from_numpy(pairs),
                self.targets.block(days.first, days.count, columns), torch.zeros(()),
            )  # fmt: skip
            total, dates = total + float(found.total) * days.count, dates + days.count
        return total / max(dates, 1)
