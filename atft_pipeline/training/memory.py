"""What training does when memory runs out: smaller pieces of the same optimisation problem, remembered for next time.

The ladder has two kinds of rungs. First the encoder works on smaller chunks of rows and windows, which changes no
number; then a step's dates go through the model in two, four, eight pieces. The pieces are not averaged: the loss is
computed once over the scores of all of them (see `step.py`), so the effective dates of a step never change.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.disk import is_full
from atft_pipeline.training.faults import TrainingFault
from atft_pipeline.training.files import write_json

CHUNK_RUNGS = 2
"""Halvings of the chunks before the dates are cut."""

FIRST_PAIR_CHUNK = 8192
SMALLEST_ROW_CHUNK, SMALLEST_PAIR_CHUNK = 16, 256
CACHED_VALUES, GPU_VALUES = 1 << 20, 1 << 27
"""Values (rows x features x width) of one intermediate of variable selection: 4 MiB on a processor, where eight such
share its cache (300 features of width 34: 64 rows, measured 1.8 times as fast as 1,024); 512 MiB on a GPU."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is a failed allocation, on the GPU or the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def rows_at_once(config: TrainingConfig, n_features: int, device: torch.device) -> int:
    """`config.row_chunk`, or for 0 the power of two that suits the device."""
    if config.row_chunk:
        return config.row_chunk
    values = GPU_VALUES if device.type == "cuda" else CACHED_VALUES
    rows = max(1, values // (n_features * config.value_width))
    return max(SMALLEST_ROW_CHUNK, 1 << (rows.bit_length() - 1))


@dataclass(frozen=True)
class Footing:
    """How much is in memory at once."""

    row_chunk: int
    pair_chunk: int
    """0: all windows of a piece at once."""
    pieces: int
    """Pieces into which a step's dates are cut."""
    eval_dates: int

    def lower(self, rung: int) -> Footing:
        """The next rung down; `rung` counts from 0."""
        if rung < CHUNK_RUNGS:
            chunk = self.pair_chunk or FIRST_PAIR_CHUNK
            return replace(
                self,
                row_chunk=max(SMALLEST_ROW_CHUNK, self.row_chunk // 2),
                pair_chunk=max(SMALLEST_PAIR_CHUNK, chunk // 2),
            )
        return replace(self, pieces=2 * self.pieces, eval_dates=max(1, self.eval_dates // 2))


class MemoryLadder:
    """The present footing of a run, applied to the model, and its record on disk.

    A later run of the same sizes on the same device starts where an earlier one settled.
    """

    def __init__(self, model: ATFTGATFAN, config: TrainingConfig, stocks: int, device: torch.device, record: Path):
        self.model, self.record = model, record
        self.rung, self.events = 0, []  # type: int, list[dict[str, Any]]
        self._largest = config.dates_per_step
        self.footing = Footing(model.config.row_chunk, config.pair_chunk, 1, config.dates_per_eval_step)
        sizes = (config.hidden, config.value_width, config.sequence_length, config.dates_per_step, config.precision)
        named = (_device_name(device), model.config.n_features, stocks, *sizes, asdict(self.footing))
        self.key = hashlib.sha256(repr(named).encode()).hexdigest()[:16]
        known = json.loads(record.read_text()) if record.exists() else {}
        if self.key in known:
            self.rung = int(known[self.key]["rung"])
            self.footing = Footing(**known[self.key]["footing"])
        self._apply()

    def climb_down(self, error: BaseException, where: dict[str, Any]) -> str:
        """Go one rung down and remember it. Returns a line about it; raises `TrainingFault` from `error` at the end."""
        if self.footing.pieces >= self._largest:
            raise TrainingFault(
                f"out of memory with one date at a time and chunks of {self.footing.row_chunk} rows and "
                f"{self.footing.pair_chunk} windows, at {where}: take a smaller preset or a device with more memory"
            ) from error
        self.footing = self.footing.lower(self.rung)
        self.rung += 1
        self._apply()
        event = {"event": "out_of_memory", **where, "footing": asdict(self.footing), "error": str(error)[:300]}
        self.events.append(event)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        known = json.loads(self.record.read_text()) if self.record.exists() else {}
        known[self.key] = {"rung": self.rung, "footing": asdict(self.footing)}
        try:
            write_json(self.record, known)
        except OSError as full:
            if not is_full(full):
                raise
            self.events.append({"event": "disk_full", "file": self.record.name, "error": str(full)})
        f = self.footing
        return (
            f"out of memory: going on with {f.row_chunk} rows and {f.pair_chunk} windows at once, a step's dates in "
            f"{f.pieces} piece{'s' if f.pieces > 1 else ''}"
        )

    def _apply(self) -> None:
        self.model.selection.row_chunk = self.footing.row_chunk
        self.model.pair_chunk = self.footing.pair_chunk


def _device_name(device: torch.device) -> str:
    if device.type != "cuda":
        return "cpu"
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory}"
