"""Atomic files for the training process: a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write through a temporary file in the same folder, flushed to disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:
    """JSON with sorted keys; NaN and infinities become null, because JSON has no word for them."""
    write_bytes(path, (json.dumps(plain(value), indent=1, sort_keys=True) + "\n").encode())


def write_array(path: Path, array: NDArray[Any]) -> None:
    """One .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_bytes(path, buffer.getbuffer())


def write_npz(path: Path, **arrays: NDArray[Any]) -> None:
    """Several named arrays in one file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getbuffer())


def plain(value: Any) -> Any:
    """Only JSON's own types: numpy and tuples unwrapped, non-finite numbers to None, keys to text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
