"""Checkpoints: what a run needs to go on exactly where it was, and what a reader needs to use the weights.

`phase{k}/last.pt` is the resumable state (also in the middle of an epoch), `phase{k}/best.pt` the phase's result,
`final.pt` the run's. Every save is atomic. Files hold tensors and plain values only, so they load without running code.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atft_pipeline.training.faults import TrainingFault
from atft_pipeline.training.files import write_bytes


@dataclass
class Progress:
    """Where a phase stands. `step` counts finished optimiser steps of the current epoch."""

    phase: int
    stage: int = 0
    epoch: int = 0
    step: int = 0
    best: float = float("-inf")
    """Best validation RankIC so far; it starts at the value of the checkpoint that the phase started from."""
    best_epoch: int | None = None
    """Number (from 1, over the phase's monitored epochs) of the best epoch; 0 for the start with its neighbours' terms;
    None while the checkpoint that the phase started from is the best."""
    epochs_without_gain: int = 0
    start_hash: str = ""
    start_value: float | None = None
    finished: bool = False
    flat_validations: int = 0
    sums: dict[str, Any] = field(default_factory=dict)
    """Running sums of the current epoch."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """The phase's epoch records."""


def empty_sums() -> dict[str, Any]:
    """An epoch's running sums before its first step."""
    counts = dict.fromkeys(("steps", "dates", "windows", "edges"), 0)
    return {"terms": {}, "contributions": {}, "norms": [], "total": 0.0, **counts}


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_bytes(path, buffer.getbuffer())


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise TrainingFault(f"{path} is missing: train first") from None
    except Exception as error:
        raise TrainingFault(f"{path} cannot be read ({error}): remove the run's folder and train again") from error


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and values; equal weights give an equal hash."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def random_state() -> dict[str, Any]:
    """The state of every random generator that training may draw from."""
    version, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": {
            "key": [int(k) for k in numpy_state["state"]["key"]],  # type: ignore[call-overload,index]
            "pos": int(numpy_state["state"]["pos"]),  # type: ignore[call-overload,index]
            "has_gauss": int(numpy_state["has_gauss"]),  # type: ignore[call-overload]
            "gauss": float(numpy_state["gauss"]),  # type: ignore[call-overload]
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Put every generator back to `random_state`'s answer."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    given = state["numpy"]
    inner = {"key": np.array(given["key"], dtype=np.uint32), "pos": given["pos"]}
    np.random.set_state(
        {"bit_generator": "MT19937", "state": inner, "has_gauss": given["has_gauss"], "gauss": given["gauss"]}
    )
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
