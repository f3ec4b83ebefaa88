"""What every model is compared with, by one code: constant, reversal, momentum, ridge, boosted trees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.evaluation.baselines import Ridge, momentum, reversal, ridge
from atft_pipeline.evaluation.inputs import EvaluationData
from atft_pipeline.evaluation.trees import Trees, boosted_trees

Array = NDArray[np.floating]

RIVALS = ("ridge", "lightgbm", "reversal", "momentum")
"""What the model is compared with, day by day."""
CONSTANT = "constant"
"""A score that ranks nothing: its correlations are undefined, its book is empty. It shows that the metrics say so."""


@dataclass(frozen=True)
class RivalScores:
    """Scores [T, N, H] by name on the stocks that the model scored, and the two fitted models."""

    scores: Mapping[str, Array]
    ridge: Ridge
    trees: Trees

    def about(self) -> dict[str, dict[str, Any]]:
        """What the fitted ones settled on."""
        return {
            "ridge": {"penalty": self.ridge.penalty, "train_rows": self.ridge.rows},
            "lightgbm": {"trees": self.trees.trees, "train_rows": self.trees.rows},
        }


def rival_scores(data: EvaluationData, delay: int) -> RivalScores:
    """Fit and score all rivals on the run's own inputs, split, mask and `delay` label."""
    linear, trees = ridge(data, delay), boosted_trees(data, delay)
    flat = {
        "reversal": reversal(data.returns, data.row_ok),
        "momentum": momentum(data.returns, data.row_ok),
        CONSTANT: np.zeros(data.row_ok.shape),
    }
    found = {
        "ridge": linear.scores,
        "lightgbm": trees.scores,
        **{name: np.repeat(score[:, :, None], len(data.horizons), axis=2) for name, score in flat.items()},
    }
    mask = data.scored[:, :, None]
    return RivalScores({name: np.where(mask, score, np.nan) for name, score in found.items()}, linear, trees)
