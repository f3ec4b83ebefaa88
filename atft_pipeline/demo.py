"""`make demo`: the whole job on the simulated market, through Dagster, and the results in the terminal.

Runs the job `full_rebuild` in a child process exactly as its command line would, shows a line per step, keeps the full
log, and ends with the numbers.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from atft_pipeline.evaluation.scorecard import latest_scorecard, summary_table
from atft_pipeline.settings import Settings

JOB = ("job", "execute", "-m", "atft_pipeline.definitions", "-j", "full_rebuild")
LOG = Path("data/dagster/demo.log")
TAIL_LINES = 60
SHOWN = re.compile(
    r" - (STEP_SUCCESS|STEP_FAILURE|RUN_SUCCESS|RUN_FAILURE|ASSET_CHECK_EVALUATION|INFO|ERROR) - |INFO - "
)
LEADING = re.compile(r"^.*?dagster - (?:DEBUG|INFO|ERROR|WARNING) - (?:\w+ - [0-9a-f-]{36} - (?:\d+ - )?)?")


def simulated_environment(environment: dict[str, str]) -> dict[str, str]:
    """The environment without anything that points to the real service."""
    kept = {name: value for name, value in environment.items() if not name.startswith("JQUANTS_")}
    return {**kept, "ATFT_MARKET": "simulated"}


def run_job(environment: dict[str, str], log: Path) -> int:
    """Run the job, print its progress, keep everything in `log`; returns the exit code."""
    began = time.monotonic()
    command = [str(Path(sys.executable).with_name("dagster")), *JOB]
    log.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=TAIL_LINES)
    with (
        log.open("w", encoding="utf-8") as kept,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as job,
    ):
        assert job.stdout is not None
        for line in job.stdout:
            kept.write(line)
            kept.flush()
            last.append(line)
            if SHOWN.search(line):
                print(f"[{time.monotonic() - began:5.0f} s] {LEADING.sub('', line).strip()[:180]}", flush=True)
    if job.returncode:
        print(f"\nthe job failed; the end of {log}:\n{''.join(last)}", file=sys.stderr)
    return job.returncode


def main() -> int:
    environment = simulated_environment(dict(os.environ))
    settings = Settings.from_env(environment)
    size = settings.size
    print(
        f"Simulated Tokyo market: {size.stocks} stocks, {size.start} to {size.end}, seed {size.seed}, "
        f"planted signal '{size.plant}'.\nThe official J-Quants client reads it from a loopback exchange; Dagster runs "
        f"the job 'full_rebuild'."
    )
    began = time.monotonic()
    code = run_job(environment, LOG)
    if code == 0 or (settings.lake / "evaluation").is_dir():
        print("\n" + summary_table(latest_scorecard(settings.lake)))
    print(f"\n{'done' if code == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s")
    if code == 0:
        print(
            f"predictions  {settings.lake / 'predictions'}\n"
            f"report       {settings.lake / 'evaluation'}/<run>/report.html\n"
            f"warehouse    {settings.lake / 'warehouse.duckdb'}\n"
            f"full log     {LOG}\n"
            f"UI           make ui, then http://127.0.0.1:3000"
        )
    return code


if __name__ == "__main__":
    sys.exit(main())
