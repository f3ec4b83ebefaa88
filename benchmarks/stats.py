"""Normalisation statistics over the whole training span of a stored dataset: seconds and peak memory.

    python benchmarks/stats.py [--lake LAKE] [--plan premium]

LAKE is a lake with a dataset, for instance the folder of `benchmarks/features.py --only build --lake LAKE`; without it
a small one is built first, by another process, so that the peak is the fit's own. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from atft_pipeline import steps
from atft_pipeline.dataset.scaling import check_coverage, check_saturation
from atft_pipeline.settings import Thresholds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", type=Path)
    parser.add_argument("--plan", default="premium")
    chosen = parser.parse_args()
    if chosen.lake is None:
        with tempfile.TemporaryDirectory(prefix="stats_benchmark.") as lake:
            build = [sys.executable, str(Path(__file__).with_name("features.py")), "--only", "build", "--lake", lake]
            subprocess.run([*build, "--plan", chosen.plan], check=True, stdout=subprocess.DEVNULL)
            fit(Path(lake), chosen.plan)
    else:
        fit(chosen.lake, chosen.plan)


def fit(lake: Path, plan: str) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    statistics = steps.build_statistics(lake, plan)
    coverage, saturation = check_coverage(statistics, Thresholds()), check_saturation(statistics, Thresholds())
    figures = {
        "benchmark": "normalization_statistics",
        "features": len(statistics.features),
        "train_rows": statistics.coverage.train_rows,
        "sampled_rows": statistics.coverage.rows,
        "codes": statistics.coverage.codes,
        "dates": statistics.coverage.dates,
        "wall_s": round(time.perf_counter() - wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "covered": coverage.passed,
        "largest_saturation": round(saturation.got, 4),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
