"""Adaptive normalisation of the raw input: FAN (Ye et al. 2024) and SAN (Liu et al. 2023) behind gates that start shut.

Both act on one window of one channel and see nothing else. Their output-side halves are in `forecasters.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIGMA_FLOOR = 1e-3
"""Smallest spread of a slice, in standardised units: filled features and limit-locked stocks give constant windows."""


def main_component(x: Tensor, k: int, includes_dc: bool) -> Tensor:
    """The part of x [..., T] that its k strongest frequencies carry, chosen per instance and channel (FAN, step 1)."""
    spectrum = torch.fft.rfft(x.float(), dim=-1)
    strength = spectrum.detach().abs()
    if not includes_dc:
        strength[..., 0] = -1.0
    k = min(k, strength.shape[-1] - (0 if includes_dc else 1))
    kept = torch.zeros_like(strength).scatter_(-1, strength.topk(k, dim=-1).indices, 1.0)
    return torch.fft.irfft(spectrum * kept, n=x.shape[-1], dim=-1)


def slice_lengths(length: int, period: int) -> tuple[int, int]:
    """(length of the oldest slice, number of slices).

    The oldest takes the remainder, because a slice of a single step would be normalised to 0.
    """
    count = length // period
    return length - period * (count - 1), count


def slice_statistics(x: Tensor, period: int) -> tuple[Tensor, Tensor]:
    """Mean and floored spread of each slice of x [..., T], oldest first: two tensors [..., T // period]."""
    oldest, count = slice_lengths(x.shape[-1], period)
    rest = x[..., oldest:].unflatten(-1, (count - 1, period))
    means, variances = [], []
    for part in (x[..., None, :oldest], rest):
        mean = part.mean(-1)
        means.append(mean)
        variances.append((part - mean[..., None]).square().mean(-1))
    # The clamp comes before the root: the derivative of the root at 0 is infinite.
    sigma = torch.cat(variances, -1).clamp(min=SIGMA_FLOOR**2).sqrt()
    return torch.cat(means, -1), sigma


def spread_over_steps(statistic: Tensor, length: int, period: int) -> Tensor:
    """One value per slice [..., slices] -> one per step [..., T]."""
    oldest, _ = slice_lengths(length, period)
    first = statistic[..., :1].expand(*statistic.shape[:-1], oldest)
    return torch.cat([first, statistic[..., 1:].repeat_interleave(period, dim=-1)], -1)


def slice_normalise(x: Tensor, period: int) -> Tensor:
    """SAN, step 1: every slice of x [..., T] with its own mean removed and its own spread set to one."""
    mean, sigma = slice_statistics(x, period)
    return (x - spread_over_steps(mean, x.shape[-1], period)) / spread_over_steps(sigma, x.shape[-1], period)


class AdaptiveNorm(nn.Module):
    """x <- x - g_F main(x), then x <- x + g_S (SAN(x) - x). With g_F = g_S = 0 the output is the input, bit for bit."""

    def __init__(
        self, channels: int, fan_k: int, includes_dc: bool, period: int, fan: bool = True, san: bool = True
    ) -> None:
        super().__init__()
        self.fan_k, self.includes_dc, self.period = fan_k, includes_dc, period
        self.fan_gate = nn.Parameter(torch.zeros(channels)) if fan else None
        self.san_gate = nn.Parameter(torch.zeros(channels)) if san else None

    def closed(self) -> bool:
        """True while every gate is exactly zero, that is while this block is the identity."""
        gates = [gate.any() for gate in self.parameters()]
        return not gates or not bool(torch.stack(gates).any().item())

    def forward(self, x: Tensor) -> Tensor:
        """[m, channels, T] -> [m, channels, T], in float32 (there is no half-precision FFT)."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            if self.fan_gate is not None:
                x = x - self.fan_gate[:, None] * main_component(x, self.fan_k, self.includes_dc)
            if self.san_gate is not None:
                x = x + self.san_gate[:, None] * (slice_normalise(x, self.period) - x)
            return x
