"""Walk-forward on simulated markets with and without a signal: is the model above ridge and LightGBM, and is noise
called noise?

    python benchmarks/walk_forward.py [planted null curved ...] [--stocks 200] [--start 2021-07-01] [--test-days 63]
        [--seed 7] [--seeds 7] [--set NAME=VALUE ...] [--folder DIR]

Each market lives three years unless told otherwise: `planted` has all five parts, `null` none, `curved` only those that
a linear rule cannot see (interaction, graph, cycle); `name=PLANT` is any other. The whole job runs first, as a command
line would (a market without signal ends it at the evaluation's checks), then the walk-forward of five folds, then the
promotion is asked what it makes of the run. `--set` changes single training settings of both; a market that lies in the
folder already is trained on, not built again. One JSON line a market: RankIC at delay 1 with standard errors by model,
daily differences, folds, correlation with the oracle, checks, and the promotion's reason. About a quarter of an hour
each on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atft_pipeline.evaluation.champion import decide
from atft_pipeline.lake.store import read_json
from atft_pipeline.revision import git_revision
from atft_pipeline.settings import Settings
from atft_pipeline.steps import last_run
from atft_pipeline.walk_forward.results import summary_table

PLANTS = {"planted": "demo", "null": "null", "curved": "interaction=.06,graph=.06,cycle=.06"}
END = "2024-06-28"
CUT = {"FOLDS": "5", "MIN_TRAIN_DAYS": "240", "WORKERS": "1"}
"""Three years are 735 sessions: at most 256 training dates before the first of five tests of 63."""


def environment(folder: Path, plant: str, arguments: argparse.Namespace) -> dict[str, str]:
    """The job's settings: a market of its own in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JQUANTS_", "ATFT_"))}
    (folder / "dagster").mkdir(parents=True, exist_ok=True)
    return kept | {
        "ATFT_DATA_DIR": str(folder), "ATFT_MARKET": "simulated", "ATFT_SIM_PLANT": plant,
        "ATFT_SIM_STOCKS": str(arguments.stocks), "ATFT_SIM_SEED": str(arguments.seed),
        "ATFT_SIM_START": arguments.start, "ATFT_SIM_END": END, "ATFT_WALK_SEEDS": arguments.seeds,
        "ATFT_WALK_TEST_DAYS": str(arguments.test_days), "ATFT_WALK_VALID_DAYS": str(arguments.test_days),
        **{f"ATFT_WALK_{name}": value for name, value in CUT.items()},
        "DAGSTER_HOME": str(folder / "dagster"), "DAGSTER_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def measure(name: str, plant: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Build the market, train once, walk, ask the promotion."""
    env = environment(folder, plant, arguments)
    settings, seconds, codes = Settings.from_env(env), {}, {}
    job = "retrain" if (settings.lake / "training_panel").exists() else "full_rebuild"
    given = dict(text.split("=", 1) for text in arguments.set)
    run_config = folder / "config.json"
    run_config.write_text(json.dumps({"ops": {"model": {"config": {"overrides": given}}}}))
    dagster = [str(Path(sys.executable).with_name("dagster")), "job", "execute", "-m", "atft_pipeline.definitions"]
    commands = {
        job: [*dagster, "-j", job, "-c", str(run_config)],
        "walk_forward": [sys.executable, "-m", "atft_pipeline.walk_forward", "run"]
        + [word for text in arguments.set for word in ("--set", text)],
    }
    for step, command in commands.items():
        began = time.monotonic()
        with (folder / f"{step}.log").open("w") as log:
            codes[step] = subprocess.run(command, env=env, stdout=log, stderr=subprocess.STDOUT).returncode
        seconds[step] = round(time.monotonic() - began)
    walk = settings.lake / "walk_forward" / "last"
    if codes["walk_forward"]:
        raise SystemExit(f"{name}: the walk-forward failed, see {folder / 'walk_forward.log'}")
    results = read_json(walk / "results.json")
    print(f"{name}\n{summary_table(results)}", file=sys.stderr, flush=True)
    decision = decide(settings.lake, last_run(settings.lake), settings.thresholds)
    return {
        "benchmark": "walk_forward", "market": name, "plant": plant, "simulated": settings.size.name,
        "revision": git_revision(), "seconds": seconds, "exit_codes": codes, "preset": results["preset"], "set": given,
        "training_seeds": list(results["seeds"]), "folds": len(results["folds"]), "test_days": arguments.test_days,
        "rank_ic": {model: _cells(card, "rank_ic") for model, card in results["models"].items()},
        "oracle_correlation": {
            model: _cells(card, "oracle_correlation")
            for model, card in results["models"].items()
            if "oracle_correlation" in card["delay_1"]["1"]
        },
        "model_minus": {
            rival: {h: _short(card["delay_1"][h]["all"]) for h in ("1", "mean")}
            for rival, card in results["differences"].items()
        },
        "model_minus_by_fold": {
            rival: [_short(cell) for cell in results["differences"][rival]["delay_1"]["1"]["folds"]]
            for rival in ("ridge", "lightgbm")
        },
        "checks": {rule: verdict["passed"] for rule, verdict in results["verdicts"].items()},
        "promotion": {
            "promoted": decision.promoted or decision.champion == decision.challenger, "reason": decision.reason
        },
    }  # fmt: skip


def _cells(card: Mapping[str, Any], measure: str) -> dict[str, Any]:
    return {h: _short(card["delay_1"][h][measure]["all"]) for h in ("1", "mean")}


def _short(cell: Mapping[str, Any]) -> list[float | None]:
    """[mean, standard error, t]."""
    return [None if cell[name] is None else round(cell[name], 5) for name in ("mean", "se", "t")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("markets", nargs="*", default=list(PLANTS))
    parser.add_argument("--stocks", type=int, default=200)
    parser.add_argument("--start", default="2021-07-01", help="first date of the market")
    parser.add_argument("--test-days", type=int, default=63, help="of each fold; its validation is as long")
    parser.add_argument("--seed", type=int, default=7, help="of the market")
    parser.add_argument("--seeds", default="7", help="of the training, as 7,8,9")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change one training setting")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for text in arguments.markets:
            name, _, plant = text.partition("=")
            line = measure(name, plant or PLANTS[name], (arguments.folder or Path(temporary)) / name, arguments)
            print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
