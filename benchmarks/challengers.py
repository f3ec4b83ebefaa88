"""Faulty challengers that are really trained, against a champion of an earlier panel: who is refused, and why.

    python benchmarks/challengers.py [--stocks 200] [--preset demo] [--set NAME=VALUE ...] [--folder DIR] [--out FILE]

`full_rebuild` on a simulated market that ends on 2024-06-03 gives the champion; a second one, four weeks later, trains
the same recipe on the grown panel: the sound challenger. Then the champion is put back by the roll-back command, and
each fault is planted, trained on and challenges it:

    half of the inputs zeroed    every second column of the training panel (never the return channel) is 0
    RankIC loss off              USE_RANKIC=0
    stale statistics             the new dataset scaled with the statistics of four weeks before; the writer's own
                                 refusal is taken away for it

One JSON line each: the decision and its reason as `promotion` shows it in Dagster, its checks, and the difference of
daily RankIC to the champion with its 95 % interval. The absolute gates are open (thresholds at their lowest): only what
is asked of a challenger may refuse. Exit status 1 when a faulty challenger is promoted, or none of its checks says why.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

START, EARLIER, END = date(2020, 7, 1), date(2024, 6, 3), date(2024, 6, 28)
OPEN_GATES = {
    "ATFT_CHECK_MIN_RANK_IC": "-1", "ATFT_CHECK_MIN_IC": "-1", "ATFT_CHECK_MIN_SHARPE": "-99",
    "ATFT_CHECK_MIN_STANDARD_ERRORS": "-99", "ATFT_CHECK_TOO_GOOD_MODEL_IC": "1",
}  # fmt: skip


class Place:
    """The pipeline in this process."""

    def __init__(self, folder: Path, stocks: int, preset: str, settings: list[str]) -> None:
        os.environ |= OPEN_GATES | {
            "ATFT_DATA_DIR": str(folder / "data"), "ATFT_MARKET": "simulated", "ATFT_SIM_STOCKS": str(stocks),
            "ATFT_SIM_START": START.isoformat(), "ATFT_SIM_END": END.isoformat(), "ATFT_TRAINING_PRESET": preset,
        }  # fmt: skip
        import dagster as dg

        from atft_pipeline.definitions import defs

        self.defs, self.preset, self.lake = defs, preset, folder / "data" / "simulated"
        self.settings: dict[str, Any] = dict(text.split("=", 1) for text in settings)  # type: ignore[misc]
        home = folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
        self.instance = dg.DagsterInstance.from_config(str(home))

    def rebuild(self, end: date) -> str:
        """`full_rebuild` up to `end`; the id of the run it trained."""
        from atft_pipeline.steps import last_run

        os.environ["ATFT_END"] = end.isoformat()
        config = {"ops": {"model": {"config": {"overrides": {k: str(v) for k, v in self.settings.items()}}}}}
        job = self.defs.resolve_job_def("full_rebuild")
        done = job.execute_in_process(instance=self.instance, run_config=config, raise_on_error=False)
        if not done.success:
            failed = [event for event in done.all_events if event.event_type_value == "STEP_FAILURE"]
            raise SystemExit(f"full_rebuild failed: {failed[0].message if failed else 'see its log'}")
        return last_run(self.lake)

    def train(self, **settings: object) -> None:
        from atft_pipeline.steps import training_command

        command = training_command(self.lake, sys.executable, self.preset, {**self.settings, **settings})
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def challenge(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Evaluate the newest run and let it challenge, in Dagster; metadata of `promotion`, and its checks."""
        import dagster as dg

        keys = [dg.AssetKey("evaluation"), dg.AssetKey("promotion")]
        job = self.defs.resolve_implicit_global_asset_job_def()
        done = job.execute_in_process(instance=self.instance, asset_selection=keys, raise_on_error=False)
        told = done.asset_materializations_for_node("promotion")[0].metadata
        checks = {
            found.check_name: {"passed": found.passed, "says": found.description}
            for found in done.get_asset_check_evaluations()
            if found.asset_key == keys[1]
        }
        return {name: value.value for name, value in told.items()}, checks


@contextmanager
def restored(lake: Path) -> Iterator[None]:
    """Training panel and statistics as they are now, put back afterwards."""
    kept = lake / ".kept.staging"
    rooms = ("training_panel", "normalization_stats")
    for room in rooms:
        shutil.copytree(lake / room, kept / room)
    try:
        yield
    finally:
        for room in rooms:
            shutil.rmtree(lake / room)
            (kept / room).rename(lake / room)
        shutil.rmtree(kept)


def zero_half(lake: Path) -> None:
    """Every second input of the stored training panel is 0, and the panel's manifest says that it is whole."""
    from atft_pipeline.dataset.training_panel import file_hash, manifest_hash, panel_dir, read_manifest
    from atft_pipeline.lake.store import write_json

    manifest, path = read_manifest(lake), panel_dir(lake) / "x.npy"
    x = np.lib.format.open_memmap(path, mode="r+")
    for place in range(0, x.shape[2], 2):
        if place != manifest["return_channel"]:
            x[:, :, place] = 0
    x.flush()
    manifest["files"]["x.npy"] = file_hash(path)
    write_json(panel_dir(lake) / "manifest.json", {**manifest, "hash": manifest_hash(manifest)})


def scale_with(lake: Path, statistics: Path) -> None:
    """The training panel of the stored dataset, scaled with older statistics, which are put in the place of its own."""
    from atft_pipeline import steps
    from atft_pipeline.dataset import training_panel
    from atft_pipeline.dataset.scaling import stats_path
    from atft_pipeline.settings import Settings

    shutil.copy(statistics, stats_path(lake))
    guard = training_panel.require_statistics
    training_panel.require_statistics = lambda *_: None  # type: ignore[assignment]
    try:
        settings = Settings.from_env()
        steps.build_training_panel(lake, settings.plan, settings.thresholds)
    finally:
        training_panel.require_statistics = guard


def row(name: str, told: dict[str, Any], checks: dict[str, Any], seconds: float) -> dict[str, Any]:
    shown = {key: told.get(key) for key in ("difference", "low", "high")}
    return {
        "challenger": name, "promoted": told["promoted"], "reason": told["reason"],
        **{key: None if value is None else round(float(value), 5) for key, value in shown.items()},
        "checks": checks, "seconds": round(seconds),
    }  # fmt: skip


def experiment(place: Place, folder: Path, log: Any) -> Iterator[dict[str, Any]]:
    from atft_pipeline.dataset.scaling import stats_path
    from atft_pipeline.evaluation.champion import champion_run, read_decision
    from atft_pipeline.evaluation.champion import promote as put_back

    lake = place.lake
    with redirect_stderr(log):
        champion = place.rebuild(EARLIER)
        old = folder / "statistics_of_the_champion.json"
        shutil.copy(stats_path(lake), old)
        began = time.monotonic()
        sound = place.rebuild(END)
    found = read_decision(lake, sound)
    assert found.comparison is not None and found.comparison.rescored, "the champion was not scored on the newer panel"
    told = {"promoted": found.promoted, "reason": found.reason, "difference": found.comparison.mean}
    told |= {"low": found.comparison.low, "high": found.comparison.high}
    checks = {name: {"passed": rule.passed, "says": rule.message} for name, rule in found.rules.items()}
    yield row("sound: the champion's recipe on the newer panel", told, checks, time.monotonic() - began)
    faults: list[tuple[str, Callable[[], None], dict[str, object]]] = [
        ("half of the inputs zeroed", lambda: zero_half(lake), {}),
        ("RankIC loss off", lambda: None, {"use_rankic": "false"}),
        ("stale statistics", lambda: scale_with(lake, old), {}),
    ]
    for name, plant, settings in faults:
        began = time.monotonic()
        if champion_run(lake) != champion:
            put_back(lake, champion, "put back for the next challenger")
        with restored(lake), redirect_stderr(log):
            plant()
            place.train(**settings)
            yield row(name, *place.challenge(), time.monotonic() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stocks", type=int, default=200)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change one training setting")
    parser.add_argument("--folder", type=Path, help="keep everything here (default: a temporary folder)")
    parser.add_argument("--out", type=Path, help="the lines as a file too")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    lines, wrong = [], 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        place = Place(folder, options.stocks, options.preset, options.set)
        with (folder / "dagster.log").open("w") as log:
            for found in experiment(place, folder, log):
                lines.append(json.dumps(found))
                print(lines[-1], flush=True)
                says_why = any(not check["passed"] for check in found["checks"].values())
                wrong += not found["challenger"].startswith("sound") and (found["promoted"] or not says_why)
    if options.out:
        options.out.write_text("".join(line + "\n" for line in lines))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
