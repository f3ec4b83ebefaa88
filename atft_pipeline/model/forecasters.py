"""The output side of FAN and SAN: what the stock's own return window says of its next returns.

The published methods forecast a continuation of every input channel. Here one channel has a future to compare with, the
return, and that future is known at the label horizons only; so the targets are built from the standardised labels
(`targets_from_labels`). Units everywhere: the per-date standardised h-day return.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atft_pipeline.model.block import Forecast
from atft_pipeline.model.config import ModelConfig
from atft_pipeline.model.norm import main_component, slice_statistics

GAUSSIAN_ABS_TO_STD = math.sqrt(math.pi / 2)
"""A Gaussian's standard deviation over its mean absolute deviation."""


class FrequencyForecaster(nn.Module):
    """FAN, step 3: the window's main part and the window itself -> the main part of each horizon's return."""

    def __init__(self, length: int, width: int, horizons: int, k: int, includes_dc: bool) -> None:
        super().__init__()
        self.k, self.includes_dc = k, includes_dc
        self.from_main = nn.Linear(length, width)
        self.join = nn.Linear(width + length, 2 * width)
        self.out = nn.Linear(2 * width, horizons)

    def forward(self, r: Tensor) -> Tensor:
        """[m, T] -> [m, H]."""
        a = F.relu(self.from_main(main_component(r, self.k, self.includes_dc)))
        return self.out(F.relu(self.join(torch.cat([a, r], -1))))


class LevelForecaster(nn.Module):
    """SAN's mean predictor: slice means about the window's mean, which is added back with a learned weight."""

    def __init__(self, length: int, slices: int, width: int, horizons: int) -> None:
        super().__init__()
        self.from_slices = nn.Linear(slices, width)
        self.from_window = nn.Linear(length, width)
        self.out = nn.Linear(2 * width, horizons)
        self.mixing = nn.Parameter(torch.ones(horizons))

    def forward(self, r: Tensor, slice_means: Tensor) -> Tensor:
        """[m, T], [m, slices] -> [m, H]."""
        level = r.mean(-1, keepdim=True)
        parts = torch.cat([self.from_slices(slice_means - level), self.from_window(r - level)], -1)
        return self.out(torch.tanh(parts)) + self.mixing * level


class SpreadForecaster(nn.Module):
    """SAN's spread predictor, positive by construction."""

    def __init__(self, length: int, slices: int, width: int, horizons: int) -> None:
        super().__init__()
        self.from_slices = nn.Linear(slices, width)
        self.from_window = nn.Linear(length, width)
        self.out = nn.Linear(2 * width, horizons)

    def forward(self, r: Tensor, slice_sigmas: Tensor) -> Tensor:
        """[m, T], [m, slices] -> [m, H]."""
        parts = torch.cat([self.from_slices(slice_sigmas), self.from_window(r)], -1)
        return F.softplus(self.out(F.relu(parts)))


class ReturnForecasters(nn.Module):
    """The three forecasters and their loss; trained alone first, then frozen (SAN's two stages)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        length, width, horizons = config.sequence_length, config.forecaster_width, len(config.horizons)
        slices = length // config.san_period
        self.config = config
        self.main = FrequencyForecaster(length, width, horizons, config.fan_k, config.fan_includes_dc)
        self.level = LevelForecaster(length, slices, 2 * width, horizons)
        self.spread = SpreadForecaster(length, slices, 2 * width, horizons)

    def forward(self, r: Tensor) -> Forecast:
        """r [m, T]: the return channel of each pair's window, oldest first."""
        with torch.autocast(r.device.type, enabled=False):
            r = r.float()
            means, sigmas = slice_statistics(r, self.config.san_period)
            return Forecast(main=self.main(r), mean=self.level(r, means), scale=self.spread(r, sigmas))

    def loss(self, forecast: Forecast, y_std: Tensor, mask: Tensor) -> Tensor:
        """L_FAN + L_SAN = MSE(main) + MSE(mean) + MSE(scale) over the pairs whose label is there at every horizon.

        y_std and mask [m, H]. Zero, with a graph, when no pair is complete.
        """
        complete = mask.bool().all(-1)
        if not bool(complete.any()):
            return (forecast.main.sum() + forecast.mean.sum() + forecast.scale.sum()) * 0.0
        main, rest = targets_from_labels(y_std[complete].float(), self.config)
        mean, scale = forecast.mean[complete], forecast.scale[complete]
        # E|rest - mean| estimates the spread of the rest given the window; the mean is held, so that it is fitted
        # to the rest and not to a smaller spread.
        spread = (rest - mean.detach()).abs() * GAUSSIAN_ABS_TO_STD
        return F.mse_loss(forecast.main[complete], main) + F.mse_loss(mean, rest) + F.mse_loss(scale, spread)


@torch.no_grad()
def targets_from_labels(y_std: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Split standardised returns [m, H] into their oscillating part and the rest; the two add up to y_std.

    A path of daily returns up to the longest horizon is laid through the labels (ỹ_h √h is the path's sum up to h in
    daily units; between two horizons it is even). FAN's operator takes its main part, with as large a share of the
    bins as in a window, and the main part's own sums, over √h again, are the target.
    """
    days = torch.tensor(config.horizons, device=y_std.device)
    root = days.to(y_std.dtype).sqrt()
    steps = torch.diff(days, prepend=days.new_zeros(1))
    rise = torch.diff(y_std * root, dim=-1, prepend=y_std.new_zeros(y_std.shape[0], 1))
    path = (rise / steps).repeat_interleave(steps, dim=-1)
    k = max(1, round(config.fan_k * config.horizons[-1] / config.sequence_length))
    main = main_component(path, k, config.fan_includes_dc).cumsum(-1)[:, days - 1] / root
    return main, y_std - main
