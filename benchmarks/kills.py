"""Training under SIGKILL at random moments: does every resumed run end exactly like the undisturbed one?

    python benchmarks/kills.py [--kills 20] [--seed 5] [--folder DIR]

A small four-phase run on the CPU in float32, once undisturbed; then `--kills` times from the beginning, each killed at
a moment drawn evenly over the undisturbed run's life (start-up apart) and resumed to its end. Compared bit for bit:
every checkpoint, scores, quantiles, Monte-Carlo dropout, every epoch's metrics, the summary; only clocks may differ.
One JSON line with the place of each kill. Exit status 1 if a run differs or did not finish.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import sys
import tempfile
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

from atft_pipeline_tests.training.kills import SETTINGS, Life, differences, finished, live
from atft_pipeline_tests.training.tiny_panel import write_tiny_panel


def killed_once(panel: Path, runs: Path, draw: random.Random, seconds: float) -> Life:
    """A run that was killed. On a busy machine one may end before its moment: then another moment is drawn."""
    while True:
        life = live(panel, runs, [draw.uniform(0, seconds)])
        if life.killed_at:
            return life
        shutil.rmtree(runs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        panel = write_tiny_panel(root / "panel", dates=130, stocks=30, linear=0.5)
        undisturbed = live(panel, root / "undisturbed")
        runs: list[dict[str, Any]] = []
        for number in range(arguments.kills):
            life = killed_once(panel, root / f"killed{number}", draw, undisturbed.seconds)
            different = differences(undisturbed.folder, life.folder)
            runs.append({**life.killed_at[0], "differs_in": different, "finished": finished(life.folder)})
            print(f"kill {number + 1}: {runs[-1]}", file=sys.stderr, flush=True)
    equal = sum(run["finished"] and not run["differs_in"] for run in runs)
    stages = Counter(f"{run['stage']}, phase {run['phase']}" for run in runs)
    line = {
        "benchmark": "training_kills", "date": date.today().isoformat(), "machine": platform.machine(),
        "kills": arguments.kills, "seed": arguments.seed, "bit_equal": equal,
        "undisturbed_seconds": round(undisturbed.seconds, 1), "settings": SETTINGS, "kills_by_stage": dict(stages),
        "runs": runs,
    }  # fmt: skip
    print(json.dumps(line))
    return 0 if equal == arguments.kills else 1


if __name__ == "__main__":
    sys.exit(main())
