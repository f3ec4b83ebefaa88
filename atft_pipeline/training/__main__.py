"""`python -m atft_pipeline.training --panel DIR --runs DIR [--config FILE | --preset NAME] [--overrides FILE]
[--set name=value ...]`.

Exit codes: 0 finished (or recognised as finished), 130 stopped on request, 2 a setting or the panel is wrong, 1 any
other failure. The process dies with its parent, so that a killed Dagster step leaves no training behind.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from atft_pipeline.parent import die_with_parent
from atft_pipeline.training.config import PRESETS, TrainingConfig, refuse_forbidden
from atft_pipeline.training.faults import Busy, ConfigError, PanelError, Stopped
from atft_pipeline.training.report import Reporter, open_reporter


def main(argv: list[str] | None = None) -> int:
    """Parse, train, and turn the outcome into an exit code."""
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    stop = threading.Event()

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, request_stop)
    signal.signal(signal.SIGTERM, request_stop)
    try:
        config = resolve(arguments)
    except (ConfigError, OSError) as error:
        print(f"training not started: {error}", file=sys.stderr, flush=True)
        return 2
    with open_reporter() as reporter:
        return _run(arguments, config, reporter, stop)


def _run(arguments: argparse.Namespace, config: TrainingConfig, reporter: Reporter, stop: threading.Event) -> int:
    from atft_pipeline.training.supervisor import run_training  # torch only now: signals are handled already

    try:
        run_training(arguments.panel, arguments.runs, config, reporter, stop)
    except Stopped as reason:
        reporter.line(f"{reason}; the same command resumes")
        return 130
    except (PanelError, ConfigError, Busy) as error:
        reporter.line(f"training not done: {error}")
        return 2
    return 0


def resolve(arguments: argparse.Namespace) -> TrainingConfig:
    """A config file is taken as resolved; without one, the preset and the environment decide. Then come the
    `--overrides` of a file, as a search leaves them in best.json, and last `--set`."""
    if arguments.config is not None:
        refuse_forbidden(os.environ)
        config = TrainingConfig.from_json(arguments.config.read_text())
    else:
        config = TrainingConfig.resolve(arguments.preset)
    if arguments.overrides is not None:
        config = config.with_overrides(arguments.overrides)
    pairs = [text.partition("=") for text in arguments.set]
    malformed = [name for name, equals, _ in pairs if not equals]
    if malformed:
        raise ConfigError(f"--set takes name=value, got {', '.join(malformed)}")
    return config.with_settings({name: value for name, _, value in pairs})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m atft_pipeline.training", description=__doc__)
    parser.add_argument("--panel", type=Path, required=True, help="training panel folder")
    parser.add_argument("--runs", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--config", type=Path, help="resolved configuration as JSON (TrainingConfig.to_json)")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="demo")
    parser.add_argument("--overrides", type=Path, help="JSON file with `overrides`, such as a search's best.json")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change one setting")
    return parser


if __name__ == "__main__":
    die_with_parent()  # torch, the slow import, comes later
    sys.exit(main())
