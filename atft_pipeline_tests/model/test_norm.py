"""FAN and SAN against independent formulas, and the failure that they once caused: a zeroed newest step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from atft_pipeline.model import norm
from atft_pipeline.model.norm import AdaptiveNorm, main_component, slice_normalise, slice_statistics, spread_over_steps

LENGTHS = (20, 21, 60, 61, 63)


def opened(period: int = 5) -> AdaptiveNorm:
    block = AdaptiveNorm(4, fan_k=4, includes_dc=False, period=period)
    with torch.no_grad():
        block.fan_gate.fill_(1.0)
        block.san_gate.fill_(1.0)
    return block


def no_step_is_dead(out: Tensor) -> bool:
    return bool((out.abs().amax((0, 1)) > 1e-6).all())


@pytest.mark.parametrize("length", LENGTHS)
def test_t01_no_step_of_the_output_is_identically_zero(length: int) -> None:
    assert no_step_is_dead(opened()(torch.randn(8, 4, length)))


def test_t01_fires_on_a_zeroed_newest_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def truncated(x: Tensor, period: int) -> Tensor:
        out = slice_normalise(x, period).clone()
        out[..., -1] = 0.0
        return out

    monkeypatch.setattr(norm, "slice_normalise", truncated)
    assert not no_step_is_dead(opened()(torch.randn(8, 4, 60)))


@pytest.mark.parametrize("length", LENGTHS)
def test_shut_gates_are_the_identity_bit_for_bit(length: int) -> None:
    x = torch.randn(8, 4, length)
    block = AdaptiveNorm(4, fan_k=4, includes_dc=False, period=5)
    assert block.closed()
    assert torch.equal(block(x), x)
    assert not opened().closed()


def test_gates_get_a_gradient_while_shut() -> None:
    block = AdaptiveNorm(4, fan_k=4, includes_dc=False, period=5)
    (block(torch.randn(8, 4, 60)) * torch.randn(8, 4, 60)).sum().backward()
    for gate in (block.fan_gate, block.san_gate):
        assert gate.grad is not None and float(gate.grad.abs().min()) > 1e-6


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("includes_dc", [True, False])
def test_t13_main_component_equals_numpy(length: int, includes_dc: bool) -> None:
    x = torch.randn(5, 3, length)
    spectrum = np.fft.rfft(x.numpy().astype(float))
    strength = np.abs(spectrum)
    if not includes_dc:
        strength[..., 0] = -1
    weakest_kept = np.sort(strength, -1)[..., -4:-3]
    want = np.fft.irfft(np.where(strength >= weakest_kept, spectrum, 0), n=length)
    np.testing.assert_allclose(main_component(x, 4, includes_dc).numpy(), want, atol=1e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_t13_all_bins_reconstruct_the_window(length: int) -> None:
    x = torch.randn(5, 3, length)
    torch.testing.assert_close(main_component(x, 1000, True), x, atol=1e-5, rtol=0)
    level = x.mean(-1, keepdim=True)
    torch.testing.assert_close(main_component(x, 1000, False) + level, x, atol=1e-5, rtol=0)


def test_t13_one_bin_isolates_a_pure_sine() -> None:
    sine = torch.sin(2 * math.pi * torch.arange(60) / 15)
    x = sine + 0.1 * torch.randn(60, generator=torch.Generator().manual_seed(0))
    residual = x - main_component(x[None], 1, False)[0]
    power_left = (residual @ sine / (sine @ sine)) ** 2
    assert power_left < 0.1
    torch.testing.assert_close(main_component(sine[None], 1, False)[0], sine, atol=1e-5, rtol=0)


def test_t13_slice_statistics_are_exact_and_the_oldest_slice_takes_the_remainder() -> None:
    x = torch.randn(2, 13)
    mean, sigma = slice_statistics(x, 5)
    parts = [x[:, :8], x[:, 8:]]
    torch.testing.assert_close(mean, torch.stack([p.mean(-1) for p in parts], -1))
    torch.testing.assert_close(sigma, torch.stack([p.std(-1, correction=0) for p in parts], -1))


@pytest.mark.parametrize("length", LENGTHS)
def test_t13_denormalising_gives_the_window_back(length: int) -> None:
    x = torch.randn(5, 3, length)
    mean, sigma = slice_statistics(x, 5)
    back = slice_normalise(x, 5) * spread_over_steps(sigma, length, 5) + spread_over_steps(mean, length, 5)
    torch.testing.assert_close(back, x, atol=1e-5, rtol=0)


def test_a_constant_window_stays_finite_and_so_does_its_gradient() -> None:
    x = torch.full((2, 4, 60), 3.0, requires_grad=True)
    block = opened()
    out = block(x)
    out.sum().backward()
    assert torch.isfinite(out).all() and x.grad is not None and torch.isfinite(x.grad).all()
    assert block.fan_gate.grad is not None and torch.isfinite(block.fan_gate.grad).all()
