"""The gradient of one step: forward, loss and backward over a block's dates, whole or in pieces, with one result.

The loss ranks and correlates whole dates and its Sharpe term spans them, so the losses of pieces cannot be added up.
In pieces the model runs twice: once without gradients for the scores of all pieces, from which the loss and its
derivative by each score follow; then piece by piece with gradients, each fed its part of that derivative. The random
state is put back in between, so dropout repeats itself (gradient caching, Gao et al. 2021, arXiv:2101.06983).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN, Block, Forecast
from atft_pipeline.training.batches import Batch
from atft_pipeline.training.losses import Loss, LossFunction
from atft_pipeline.training.phases import Stage


@dataclass
class Judged:
    """The loss of a batch and the edges (without self-loops) that reached the graph."""

    loss: Loss
    edges: int


class StepGradient:
    """Computes losses and leaves gradients in the model's parameters."""

    def __init__(self, model: ATFTGATFAN, autocast: Any, device: torch.device) -> None:
        self.model, self.autocast, self.device = model, autocast, device

    def judge(self, stage: Stage, batch: Batch, loss: LossFunction) -> Judged:
        """Forward and loss of the whole batch, with the graph for a backward pass."""
        leaves, edges = self._forward(stage, batch.block)
        return Judged(self._loss(stage, batch, leaves, loss), edges)

    def judge_in_pieces(self, stage: Stage, batch: Batch, loss: LossFunction, pieces: int) -> tuple[Judged, Backward]:
        """The same loss with one piece in memory at a time, and what completes the gradients."""
        edges_at = [batch.days.count * n // pieces for n in range(pieces + 1)]
        window = self.model.config.sequence_length
        cuts = (batch.block.days(a, b - a, window) for a, b in itertools.pairwise(edges_at) if b > a)
        blocks = [block for block in cuts if len(block.pairs)]
        states, parts, edges = [], [], 0
        for block in blocks:
            states.append(random_state())
            with torch.no_grad():
                leaves, found = self._forward(stage, block)
            parts.append(leaves)
            edges += found
        joined = [torch.cat(piece).requires_grad_() for piece in zip(*parts, strict=True)]
        sizes = [len(leaves[0]) for leaves in parts]
        judged = Judged(self._loss(stage, batch, joined, loss), edges)
        return judged, Backward(self, stage, blocks, states, joined, sizes)

    def _forward(self, stage: Stage, block: Block) -> tuple[list[Tensor], int]:
        """What the loss reads: the forecasts alone for the forecasters' stage, else scores and quantiles too."""
        with self.autocast:
            if stage.weights.only_aux:
                return _forecasts(self.model.forecast(block)), 0
            output = self.model(block)
        edges = int(output.diagnostics["edges"]) - len(block.pairs) if self.model.uses_graph else 0
        student = [] if output.student is None else [output.student]
        return [output.score, output.quantiles, *student, *_forecasts(output.forecast)], max(edges, 0)

    def _loss(self, stage: Stage, batch: Batch, leaves: Sequence[Tensor], loss: LossFunction) -> Loss:
        assert batch.targets is not None
        pairs = batch.block.pairs
        place = pairs[:, 0], pairs[:, 1]
        forecast = Forecast(*leaves[-3:])
        if stage.weights.only_aux or stage.weights.aux > 0:
            labels, mask = batch.targets.standardised[place], batch.targets.mask[place]
            with self.autocast:
                aux = self.model.auxiliary_loss(forecast, labels, mask)
        else:
            aux = torch.zeros((), device=self.device)
        if stage.weights.only_aux:
            return loss.combine({"aux": aux})
        student = leaves[2] if self.model.student is not None else None
        return loss(leaves[0], leaves[1], pairs, batch.targets, aux, student)


@dataclass
class Backward:
    """The second run of a step in pieces."""

    step: StepGradient
    stage: Stage
    blocks: list[Block]
    states: list[dict[str, Tensor]]
    joined: list[Tensor]
    sizes: list[int]

    def run(self, total: Tensor) -> None:
        """Leave the gradient of `total` in the parameters."""
        total.backward()
        after = random_state()
        gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in self.joined]
        split = zip(*(gradient.split(self.sizes) for gradient in gradients), strict=True)
        for block, state, wanted in zip(self.blocks, self.states, split, strict=True):
            restore(state)
            leaves, _ = self.step._forward(self.stage, block)
            useful = [(leaf, g) for leaf, g in zip(leaves, wanted, strict=True) if leaf.requires_grad]
            torch.autograd.backward([leaf for leaf, _ in useful], [g for _, g in useful])
        restore(after)


def _forecasts(given: Forecast) -> list[Tensor]:
    return [given.main, given.mean, given.scale]


def random_state() -> dict[str, Tensor]:
    """The state of the generators that a step draws from: torch's own, on the CPU and the GPU."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore(state: dict[str, Tensor]) -> None:
    """Put the generators back."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
