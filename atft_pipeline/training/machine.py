"""What the process and its device are doing: memory, processor, disk, and how busy the GPU is."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

IDLE_PERCENT, IDLE_SECONDS = 30.0, 300.0
"""A GPU whose median over IDLE_SECONDS is below IDLE_PERCENT is waiting for something."""


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def resident_mb() -> float:
    """Present resident size in MB (where the system tells only the peak, the peak)."""
    if sys.platform != "linux":
        return peak_memory_mb()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


class Sampler:
    """One sample per heartbeat; remembers the GPU's for the summary."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clock, self._cpu = time.monotonic(), time.process_time()
        self.gpu: list[tuple[float, float]] = []
        """(monotonic time, busy percent)."""

    def sample(self) -> dict[str, Any]:
        """rss_mb, cpu_percent (100 is one core), disk_free_gb and, with a GPU, gpu_memory_mb and gpu_percent."""
        clock, cpu = time.monotonic(), time.process_time()
        span = max(clock - self._clock, 1e-9)
        found: dict[str, Any] = {
            "rss_mb": resident_mb(),
            "cpu_percent": round(100 * (cpu - self._cpu) / span),
            "disk_free_gb": round(shutil.disk_usage(self._folder).free / 1e9, 2),
        }
        self._clock, self._cpu = clock, cpu
        if torch.cuda.is_available():
            found["gpu_memory_mb"] = round(torch.cuda.memory_allocated() / 1e6)
            busy = gpu_percent(torch.cuda.current_device())
            if busy is not None:
                found["gpu_percent"] = busy
                self.gpu.append((clock, busy))
        return found

    def gpu_since(self, moment: float) -> float | None:
        """The GPU's mean busy percent since `moment` (monotonic); None without a sample."""
        busy = [value for at, value in self.gpu if at >= moment]
        return round(statistics.fmean(busy), 1) if busy else None

    def gpu_summary(self) -> dict[str, float] | None:
        """Mean, median and 10 % quantile of the GPU's busy percent; None without samples."""
        values = sorted(busy for _, busy in self.gpu)
        if not values:
            return None
        return {
            "mean": statistics.fmean(values),
            "median": statistics.median(values),
            "p10": values[int(0.1 * (len(values) - 1))],
        }

    def is_idle(self) -> bool:
        """Whether the GPU was mostly idle over the last IDLE_SECONDS (False until there are that many)."""
        if not self.gpu or self.gpu[-1][0] - self.gpu[0][0] < IDLE_SECONDS:
            return False
        recent = [busy for moment, busy in self.gpu if moment > self.gpu[-1][0] - IDLE_SECONDS]
        return statistics.median(recent) < IDLE_PERCENT


def gpu_percent(device: int) -> float | None:
    """How busy the GPU was lately, from the driver's own tool; None where it cannot tell."""
    command = ["nvidia-smi", f"--id={device}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
        return float(done.stdout.strip())
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
