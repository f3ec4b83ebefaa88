"""An exponential moving average of the weights, evaluated beside the raw ones.

Returns are noise with a little signal, so the raw weights of one step carry the noise of the last few blocks; their
average does not (Polyak and Juditsky 1992). Off by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Shadow weights of one phase, updated after every optimiser step."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.shadow = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """shadow <- d shadow + (1 - d) weights, with d short at first so that the start is forgotten."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, p in model.named_parameters():
            self.shadow[name].lerp_(p.detach(), 1 - decay)

    @contextmanager
    def in_place_of_the_weights(self, model: nn.Module) -> Iterator[None]:
        """The model carries the average inside, and its own weights again afterwards."""
        raw = {name: p.detach().clone() for name, p in model.named_parameters()}
        self._put(model, self.shadow)
        try:
            yield
        finally:
            self._put(model, raw)

    @staticmethod
    @torch.no_grad()
    def _put(model: nn.Module, weights: dict[str, Tensor]) -> None:
        for name, p in model.named_parameters():
            p.copy_(weights[name])

    def state_dict(self) -> dict[str, object]:
        return {"steps": self.steps, "shadow": {name: value.cpu() for name, value in self.shadow.items()}}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.steps = int(state["steps"])  # type: ignore[call-overload]
        for name, value in state["shadow"].items():  # type: ignore[attr-defined]
            self.shadow[name].copy_(value)
