"""`python -m atft_pipeline.search run [--trials N] [--workers N] [--folds N] [--preset NAME] [--set name=value ...]`.

The panel and the studies lie in the lake of the settings unless named. Exit codes: 0 done, 130 stopped on request (the
same command resumes), 2 a setting or the panel is wrong, 1 any other failure.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import optuna

from atft_pipeline.parent import die_with_parent
from atft_pipeline.search.conduct import SearchSettings, search
from atft_pipeline.search.worker import STOPPED, work
from atft_pipeline.settings import Settings
from atft_pipeline.training.config import PRESETS
from atft_pipeline.training.faults import Busy, ConfigError, PanelError, Stopped, TrainingFault
from atft_pipeline.training.report import open_reporter
from atft_pipeline.verdict import ContractBroken


def main(argv: list[str] | None = None) -> int:
    """Parse, search, and turn the outcome into an exit code."""
    arguments = _parser().parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if arguments.command == "worker":
        return work(arguments.study, arguments.index)
    stop = threading.Event()

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, request_stop)
    signal.signal(signal.SIGTERM, request_stop)
    try:
        lake = arguments.lake or Settings.from_env().lake
        settings = SearchSettings(
            trials=arguments.trials, workers=arguments.workers, folds=arguments.folds, seed=arguments.seed,
            prune=not arguments.no_prune, preset=arguments.preset, overrides=_pairs(arguments.set),
        )  # fmt: skip
        with open_reporter() as reporter:
            search(lake / "training_panel", lake / "hpo", lake / "runs", settings, reporter, stop)
    except Stopped as reason:
        print(f"{reason}", file=sys.stderr, flush=True)
        return STOPPED
    except (PanelError, ConfigError, ContractBroken, Busy) as error:
        print(f"search not done: {error}", file=sys.stderr, flush=True)
        return 2
    except TrainingFault as error:
        print(f"search failed: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _pairs(texts: list[str]) -> dict[str, str]:
    malformed = [text for text in texts if "=" not in text]
    if malformed:
        raise ConfigError(f"--set takes name=value, got {', '.join(malformed)}")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m atft_pipeline.search", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run or resume a study")
    run.add_argument("--lake", type=Path, help="folder with training_panel (default: that of the settings)")
    run.add_argument("--trials", type=int, default=SearchSettings.trials)
    run.add_argument("--workers", type=int, default=SearchSettings.workers)
    run.add_argument("--folds", type=int, default=SearchSettings.folds)
    run.add_argument("--seed", type=int, default=SearchSettings.seed)
    run.add_argument("--no-prune", action="store_true", help="train every trial to its end")
    run.add_argument("--preset", choices=sorted(PRESETS), default=SearchSettings.preset)
    run.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change one setting of the preset"
    )
    worker = commands.add_parser("worker", help="one process of a study (started by run)")
    worker.add_argument("study", type=Path)
    worker.add_argument("index", type=int)
    return parser


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main())
