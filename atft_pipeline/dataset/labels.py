"""Labels: what happens after T. The only module that reads later rows; features never import it.

Labels are made after the features are frozen, from the split-adjusted close, and live in columns named `target_`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.panel.operators import divide, where_known
from atft_pipeline.panel.panel import Panel
from atft_pipeline.settings import DELAYS, HORIZONS

UP_HORIZONS = (1, 5, 10, 20)


def forward_returns(
    panel: Panel, horizons: Sequence[int] = HORIZONS, delays: Sequence[int] = DELAYS
) -> NDArray[np.float32]:
    """c[T + delay + h] / c[T + delay] - 1 over the code's listed trading rows, [T, N, delays, horizons].

    NaN where either close is null, where the code is not listed on T, or where the rows do not exist yet: a delisting
    has no label, it is not a loss of 100 %.
    """
    y = np.full((*panel.axes.shape, len(delays), len(horizons)), np.nan, np.float32)
    for d, delay in enumerate(delays):
        entry = _ahead(panel.c, delay)
        for k, h in enumerate(horizons):
            change = divide(_ahead(panel.c, delay + h), entry) - 1
            y[:, :, d, k] = np.where(panel.axes.listed, change, np.nan)
    return y


def label_columns(panel: Panel) -> dict[str, NDArray[np.float32]]:
    """The dataset's ten labels by name, each [T, N], at delay 0: returns, then whether they are positive."""
    y = forward_returns(panel, HORIZONS, (0,))
    labels = {f"target_ret_{h}d": y[:, :, 0, k] for k, h in enumerate(HORIZONS)}
    for h in UP_HORIZONS:
        ahead = labels[f"target_ret_{h}d"]
        labels[f"target_up_{h}d"] = where_known(ahead > 0, ahead).astype(np.float32)
    return labels


def _ahead(x: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """x `rows` rows later, null where there is no such row."""
    later = np.full(x.shape, np.nan)
    later[: max(len(x) - rows, 0)] = x[rows:]
    return later
