"""Full disks: found before training where possible, survived where not.

`statvfs` does not see quotas, so the check before training also writes a probe. Once training runs, a file that only
informs may fail; the checkpoint of the best epoch may not: for it, room is made.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atft_pipeline.training.faults import TrainingFault

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
PROBE_BYTES = 4 << 20
CHECKPOINTS = 12
"""Model-sized files that a run may keep or hold for a moment: best and last (with the optimiser's two moments)."""


def is_full(error: BaseException) -> bool:
    """Whether `error` says that the disk or the quota is full."""
    return isinstance(error, OSError) and error.errno in FULL


def require_space(folder: Path, model_bytes: int, other_bytes: int) -> None:
    """Raise `TrainingFault` unless `folder` has room for a run and takes a probe of PROBE_BYTES."""
    needed = CHECKPOINTS * model_bytes + other_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TrainingFault(
            f"{folder}: {free / 1e6:,.0f} MB free, a run needs {needed / 1e6:,.0f} MB (checkpoints, scores, graphs); "
            "free some space, or put the data elsewhere with ATFT_DATA_DIR"
        )
    probe = folder / f".probe.{os.getpid()}"
    try:
        with probe.open("wb") as stream:
            stream.write(bytes(PROBE_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        if not is_full(error):
            raise
        raise TrainingFault(
            f"{folder}: a probe of {PROBE_BYTES >> 20} MB cannot be written ({error.strerror}); the disk or its quota "
            "is full: free some space, or put the data elsewhere with ATFT_DATA_DIR"
        ) from error
    finally:
        probe.unlink(missing_ok=True)


class DiskKeeper:
    """Writes that must not stop a training. `events` lists what could not be written, once per file."""

    def __init__(self, run: Path, graphs: Path, say: Callable[[str], None]) -> None:
        self._run, self._graphs, self._say = run, graphs, say
        self.events: list[dict[str, Any]] = []

    def optional(self, what: str, write: Callable[[], None]) -> None:
        """Try to write what only informs or speeds up; a full disk is told once and recorded."""
        try:
            write()
        except OSError as error:
            if not is_full(error):
                raise
            if all(event["file"] != what for event in self.events):
                self.events.append({"event": "disk_full", "file": what, "error": str(error)})
                self._say(f"the disk is full: {what} is not written; training goes on")

    def essential(self, what: str, write: Callable[[], None]) -> None:
        """Write the best weights; on a full disk make room first. Raises the error if even that is not enough."""
        try:
            write()
        except OSError as error:
            if not is_full(error):
                raise
            freed = self._make_room()
            self.events.append({"event": "disk_full", "file": what, "error": str(error), "removed": freed})
            self._say(f"the disk is full: removed {', '.join(freed) or 'nothing'} to make room for {what}")
            write()

    def _make_room(self) -> list[str]:
        """Remove what a run can do without: resumable states, cached graphs, half-written files."""
        removed = []
        resumable = self._run.glob("ckpt/phase*/last.pt")
        for path in [*resumable, *self._run.rglob(".*.part"), *self._graphs.glob("*.npz")]:
            path.unlink(missing_ok=True)
            removed.append(path.name)
        return removed


def survive(write: Callable[[], object], what: str) -> None:
    """Write the report of a failure; if the disk is full, say so on stderr instead of hiding the failure itself."""
    try:
        write()
    except OSError as error:
        print(f"{what} not written: {error}", file=sys.stderr, flush=True)
