"""A fresh AdamW with warm-up and cosine decay for each stage, and the proof that the declared rate was applied."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.faults import TrainingFault
from atft_pipeline.training.phases import Stage

BETAS = (0.9, 0.95)


def decays(name: str, group: str, parameter: nn.Parameter) -> bool:
    """Weight decay is for matrices: not for biases, normalisation weights, gates or scalars."""
    return parameter.ndim >= 2 and group != "gates" and "bias" not in name and "norm" not in name


class StageOptimiser:
    """AdamW over the stage's groups (two parameter groups each: with and without decay) and its schedule."""

    def __init__(
        self, model: nn.Module, groups: dict[str, list[nn.Parameter]], stage: Stage, steps_per_epoch: int,
        config: TrainingConfig,
    ) -> None:  # fmt: skip
        names = {id(p): n for n, p in model.named_parameters()}
        self.peaks: list[float] = []
        self.labels: list[str] = []
        parts: list[dict[str, object]] = []
        for group, parameters in groups.items():
            peak = stage.peak_rate * stage.trainable[group]
            for decay in (True, False):
                chosen = [p for p in parameters if decays(names[id(p)], group, p) == decay]
                if chosen:
                    rate = config.weight_decay if decay else 0.0
                    parts.append({"params": chosen, "lr": peak, "weight_decay": rate})
                    self.peaks.append(peak)
                    self.labels.append(group)
        self.optimiser = AdamW(parts, betas=BETAS)
        total = max(stage.epochs * steps_per_epoch, 1)
        self.warmup = warmup_steps(total, config)
        self.scheduler = LambdaLR(self.optimiser, lambda step: rate_share(step, total, self.warmup, config))
        self.steps_done = 0

    def step(self) -> None:
        """One optimiser step at the scheduled rate, then the next rate; asserts the peak when it is due."""
        if self.steps_done == self.warmup:
            self.assert_peak_applied()
        self.optimiser.step()
        self.scheduler.step()
        self.steps_done += 1

    def assert_peak_applied(self) -> None:
        """At the warm-up's end each group must run at its declared peak. Raises `TrainingFault`."""
        for label, peak, scheduled, part in zip(
            self.labels, self.peaks, self.scheduler.get_last_lr(), self.optimiser.param_groups, strict=True
        ):
            if not (math.isclose(scheduled, peak, rel_tol=1e-9) and math.isclose(part["lr"], peak, rel_tol=1e-9)):
                raise TrainingFault(
                    f"group {label} runs at {part['lr']:.3g} (scheduler says {scheduled:.3g}) where the phase table "
                    f"declares a peak of {peak:.3g}; the optimiser or scheduler was not made afresh for this stage"
                )

    def rates(self) -> dict[str, float]:
        """Group -> current rate."""
        return {label: float(part["lr"]) for label, part in zip(self.labels, self.optimiser.param_groups, strict=True)}

    def state_dict(self) -> dict[str, object]:
        """Optimiser, scheduler position and step count."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "steps_done": self.steps_done,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore `state_dict`."""
        self.optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        self.scheduler.load_state_dict(state["scheduler"])  # type: ignore[arg-type]
        self.steps_done = int(state["steps_done"])  # type: ignore[call-overload]


def warmup_steps(total: int, config: TrainingConfig) -> int:
    """5 % of the stage's steps, at least `warmup_min_steps`, at most `warmup_max_share` of the stage."""
    wanted = max(round(config.warmup_share * total), config.warmup_min_steps)
    return max(1, min(wanted, int(config.warmup_max_share * total)))


def rate_share(step: int, total: int, warmup: int, config: TrainingConfig) -> float:
    """Share of the peak rate at `step`: linear up to 1 at `warmup`, cosine down to `final_rate_share`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return config.final_rate_share + (1 - config.final_rate_share) * 0.5 * (1 + math.cos(math.pi * progress))


def clip_gradients(groups: dict[str, list[nn.Parameter]], limit: float) -> torch.Tensor:
    """Clip the global norm and return each group's norm before clipping, in the order of `groups`: [groups]."""
    norms = []
    for parameters in groups.values():
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients:
            norms.append(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
        else:
            norms.append(torch.zeros((), device=parameters[0].device if parameters else None))
    stacked = torch.stack(norms)
    total = torch.linalg.vector_norm(stacked)
    scale = torch.clamp(limit / (total + 1e-6), max=1.0)
    every = [p.grad for parameters in groups.values() for p in parameters if p.grad is not None]
    if every:
        torch._foreach_mul_(every, scale)
    return stacked
