"""A hyperparameter search under kills: what survives, and that a killed study ends like an undisturbed one.

    python benchmarks/search.py [--trials 24] [--kills 3] [--workers 2] [--folder DIR]

On a tiny panel, as real processes: one study undisturbed; the same with the search killed by SIGKILL `--kills` times
and begun again; one with `--workers` processes of which one is killed. One JSON line: trials by outcome, attempts,
seconds, and whether every trial of the killed study has the values of the undisturbed one. Exit status 1 if not, or if
a trial is lost, counted twice, or left running.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from atft_pipeline.search.study import StudyFolder, counted, first_number, outcome
from atft_pipeline_tests.search.tiny_study import TINY, tiny_lake


def begin(lake: Path, trials: int, workers: int) -> subprocess.Popen[bytes]:
    """The command as a user types it."""
    command = [sys.executable, "-m", "atft_pipeline.search", "run", "--lake", str(lake), "--trials", str(trials)]
    command += ["--workers", str(workers)]
    for name, value in TINY.items():
        command += ["--set", f"{name}={value}"]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not condition():
        if process.poll() is not None:
            raise SystemExit(f"the search ended with {process.returncode} before it could be killed")
        time.sleep(0.05)


def in_a_trial_after(folder: StudyFolder, folds: int) -> bool:
    """So many folds are done, and the newest trial is between its first and its last."""
    done = sorted(folder.path.glob("trials/*/fold*.json"))
    return len(done) >= folds and done[-1].name == "fold0.json"


def study(lake: Path, trials: int, *, kills: int = 0, workers: int = 1, kill_worker: bool = False) -> dict[str, Any]:
    """Run a study to its end, through its kills; what it came to."""
    folder, started = StudyFolder(tiny_lake(lake) / "hpo" / "last"), time.monotonic()
    process = begin(lake, trials, workers)
    for kill in range(kills):
        folds = (kill + 1) * trials // (kills + 1)
        wait_for(lambda at=folds: in_a_trial_after(folder, at), process)  # type: ignore[misc]
        process.kill()
        process.wait()
        process = begin(lake, trials, workers)
    if kill_worker:
        wait_for(lambda: in_a_trial_after(folder, trials // 2), process)
        open_trials = [t for t in folder.open().get_trials() if t.state == TrialState.RUNNING]
        os.kill(open_trials[0].user_attrs["worker"], signal.SIGKILL)
    code = process.wait()
    found = folder.open().get_trials()
    return {
        "exit_code": code,
        "seconds": round(time.monotonic() - started, 1),
        "attempts": len(found),
        "trials": dict(Counter(outcome(t) for t in counted(found))),
        "begun_again": sorted(first_number(t) for t in found if "retry_of" in t.user_attrs),
        "workers_seen": len({t.user_attrs.get("worker") for t in found} - {None}),
        "values": {first_number(t, found): [t.value, t.params, t.intermediate_values] for t in counted(found)},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        found = {
            "undisturbed": study(root / "undisturbed", arguments.trials),
            "killed": study(root / "killed", arguments.trials, kills=arguments.kills),
            "worker_killed": study(root / "parallel", arguments.trials, workers=arguments.workers, kill_worker=True),
        }
    values = {name: result.pop("values") for name, result in found.items()}
    places = list(range(arguments.trials))
    sound = all(
        result["exit_code"] == 0
        and sorted(values[name]) == places
        and not {"running", "waiting"} & set(result["trials"])
        for name, result in found.items()
    )
    same = values["killed"] == values["undisturbed"]
    line = {"trials": arguments.trials, "kills": arguments.kills, "workers": arguments.workers, **found}
    print(json.dumps({**line, "killed_equals_undisturbed": same, "sound": sound}))
    return 0 if sound and same else 1


if __name__ == "__main__":
    sys.exit(main())
