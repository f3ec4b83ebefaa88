"""`python -m atft_pipeline.walk_forward run [--preset NAME] [--overrides FILE] [--set name=value ...] [--lake DIR]`.

How the calendar is cut, seeds and processes are settings (ATFT_WALK_*, docs/settings.md). Exit codes: 0 done, 130
stopped on request (the same command goes on), 2 a setting or the data is wrong, 1 any other failure.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from atft_pipeline.parent import die_with_parent
from atft_pipeline.settings import SettingError, Settings
from atft_pipeline.training.config import PRESETS, TrainingConfig
from atft_pipeline.training.faults import Busy, ConfigError, PanelError, Stopped, TrainingFault
from atft_pipeline.training.report import open_reporter
from atft_pipeline.verdict import ContractBroken


def main(argv: list[str] | None = None) -> int:
    """Parse, walk, and turn the outcome into an exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.command != "run":
        return _step(arguments)
    stop = threading.Event()

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, request_stop)
    signal.signal(signal.SIGTERM, request_stop)
    from atft_pipeline.walk_forward.conduct import walk_forward  # the slow imports, when signals are handled already

    try:
        settings = Settings.from_env()
        with open_reporter() as reporter:
            walk_forward(arguments.lake or settings.lake, settings, resolve(arguments, settings), reporter, stop)
    except Stopped as reason:
        print(f"{reason}", file=sys.stderr, flush=True)
        return 130
    except (PanelError, ConfigError, SettingError, ContractBroken, Busy) as error:
        print(f"walk-forward not done: {error}", file=sys.stderr, flush=True)
        return 2
    except TrainingFault as error:
        print(f"walk-forward failed: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _step(arguments: argparse.Namespace) -> int:
    """One step of a fold, started by `run`."""
    from atft_pipeline.walk_forward.fold import prepare_fold, score_fold
    from atft_pipeline.walk_forward.spec import WalkSpec

    step = {"prepare": prepare_fold, "score": score_fold}[arguments.command]
    try:
        step(WalkSpec.load(arguments.spec), arguments.fold)
    except ContractBroken as error:
        print(f"{arguments.command} refused: {error}", flush=True)
        return 2
    return 0


def resolve(arguments: argparse.Namespace, settings: Settings) -> TrainingConfig:
    """The training settings: preset, then a file's, then single ones."""
    config = TrainingConfig.resolve(arguments.preset or settings.training_preset)
    if arguments.overrides is not None:
        config = config.with_overrides(arguments.overrides)
    pairs = [text.partition("=") for text in arguments.set]
    malformed = [name for name, equals, _ in pairs if not equals]
    if malformed:
        raise ConfigError(f"--set takes name=value, got {', '.join(malformed)}")
    return config.with_settings({name: value for name, _, value in pairs})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m atft_pipeline.walk_forward", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="evaluate by walk-forward, or go on with it")
    run.add_argument("--lake", type=Path, help="folder with dataset and training_panel (default: that of the settings)")
    run.add_argument("--preset", choices=sorted(PRESETS), help="default: that of the settings")
    run.add_argument("--overrides", type=Path, help="JSON file with `overrides`, such as a search's best.json")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change one training setting")
    for name in ("prepare", "score"):
        step = commands.add_parser(name, help="one step of a fold (started by run)")
        step.add_argument("spec", type=Path)
        step.add_argument("fold", type=int)
    return parser


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main())
