"""What the model learns of each planted part, measured by its correlation with the oracle; ridge and trees beside it.

    python benchmarks/oracle.py [--stocks 400] [--days 1200] [--seeds 2,3,4] [--plants linear,...] [--preset demo]
        [--set name=value] [--jobs 2] [--folder DIR]

Every market is generated, turned into the dataset and its training panel by the pipeline's own steps (HTTP left out),
and trained on in a process of its own, one thread each. The figure is the mean over the test dates of the daily
correlation between the 1-day score and the expected 1-day return that generated the prices. Training, ridge and trees
see the same inputs and the same label (`delay`, 0 unless set: the form in which the parts are planted). Beside the
finished model, for `graph` and `all`, the best checkpoint before the graph came on; for `all` the graph phase again on
random edges.
In the market `graph` the `gr` columns, which tell what neighbours did, are left out of the inputs, so that only the
graph can show it. One JSON line per market and seed, then one per market. With --folder, markets are kept and found
again.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

MACHINE = f"{platform.machine()}, {os.cpu_count()} cores"
PLANTS = ("linear", "reversal", "interaction", "graph", "cycle", "all", "null")
GRAPH_OFF = ("graph", "all")
RANDOM_EDGES = ("all",)
WITHOUT_NEIGHBOUR_COLUMNS = ("graph",)
SETTINGS = {"delay": "0", "mc_samples": "0", "dates_per_step": "16", "dates_per_epoch": "160", "epochs": "[0,1,1,1,0]"}
"""Two short phases, all but the graph and then the graph: seven markets and three seeds in forty minutes on two cores,
of which the network's training is less than half."""
LAST_DAY = date(2024, 6, 28)
TARGETS = {"linear": 0.85, "reversal": 0.85, "interaction": 0.6, "graph": 0.5, "cycle": 0.7, "all": 0.75}


@dataclass(frozen=True)
class Job:
    """One market, one seed, one training."""

    plant: str
    seed: int
    stocks: int
    days: int
    preset: str
    settings: Mapping[str, str]
    folder: Path

    @property
    def lake(self) -> Path:
        return self.folder / f"{self.plant}-{self.seed}-{self.stocks}x{self.days}"


def first_day(days: int) -> date:
    """The date from which there are `days` business days up to LAST_DAY."""
    from atft_pipeline.exchange.tokyo_calendar import is_business_day

    day, found = LAST_DAY, 1
    while found < days:
        day -= timedelta(days=1)
        found += is_business_day(day)
    return day


def prepare(job: Job) -> float:
    """The market and its training panel, unless they are there. Returns the seconds that it took."""
    from atft_pipeline.features import catalog

    began, lake = time.monotonic(), job.lake
    if (lake / "ready").exists():
        return 0.0
    shutil.rmtree(lake, ignore_errors=True)
    market_to_dataset(lake, job.plant, job.seed, job.stocks, job.days)
    names = None
    if job.plant in WITHOUT_NEIGHBOUR_COLUMNS:
        names = [c.name for c in catalog.columns("standard") if c.role == "feature" and c.group != "gr"]
    dataset_to_panel(lake, names)
    for name in ("raw", "features", "dataset"):
        shutil.rmtree(lake / name, ignore_errors=True)
    (lake / "ready").touch()
    return time.monotonic() - began


def market_to_dataset(lake: Path, plant: str, seed: int, stocks: int, days: int) -> None:
    """Market, raw tables, features, dataset and statistics of a Standard plan, by the pipeline's own steps."""
    from features import store_raw

    from atft_pipeline import steps
    from atft_pipeline.exchange.market import generate
    from atft_pipeline.features import catalog
    from atft_pipeline.settings import MarketSize

    size = MarketSize(stocks=stocks, start=first_day(days), end=LAST_DAY, seed=seed, plant=plant)
    generate(size, lake / "market")
    store_raw(lake / "market", lake)
    shutil.rmtree(lake / "market" / "tables")
    steps.build_market_panel(lake)
    for group in catalog.groups("standard"):
        steps.build_features(lake, group.name)
    steps.build_dataset(lake, "standard", str(size))
    steps.build_statistics(lake, "standard")


def dataset_to_panel(lake: Path, inputs: Sequence[str] | None = None) -> None:
    """The training panel of all inputs, or of those named."""
    from atft_pipeline import steps
    from atft_pipeline.settings import Thresholds

    chosen = {}
    if inputs is not None:
        (lake / "selected.json").write_text(json.dumps({"selected_features": list(inputs)}))
        chosen = {steps.SELECTED_FEATURES: str(lake / "selected.json")}
    steps.build_training_panel(lake, "standard", Thresholds(), chosen)


def work(job: Job) -> dict[str, Any]:
    """Prepare, train, fit the rivals, and hold all of them against the oracle."""
    import torch

    torch.set_num_threads(1)
    prepared = prepare(job)
    from atft_pipeline.evaluation.oracle import load_oracle
    from atft_pipeline.training.config import TrainingConfig
    from atft_pipeline.training.panel_data import load_panel
    from atft_pipeline.training.runs import open_run

    config = TrainingConfig.resolve(job.preset, env={}).with_settings({**SETTINGS, **job.settings})
    shutil.rmtree(job.lake / "runs", ignore_errors=True)  # a run of other code may be kept there under the same name
    folder = open_run(job.lake / "runs", load_panel(job.lake / "training_panel", verify=False).hash, config)
    trainer, began = trainer_of(job.lake, config, folder), time.monotonic()
    result = trainer.train()
    trained = time.monotonic() - began
    data = evaluation_data(job.lake)
    oracle = load_oracle(job.lake / "market", data.dates, data.codes, data.delays, data.horizons)
    assert oracle is not None
    scores = {"model": scores_on(trainer, ("test",)), **rival_test_scores(job, data, config.delay)}
    if job.plant in GRAPH_OFF:
        before = [phase.number for phase in trainer.phases if not phase.graph][-1]
        scores["without_graph"] = scores_with(trainer, folder.checkpoint(before, "best"))
    if job.plant in RANDOM_EDGES:
        scores["random_edges"] = random_edge_scores(job, config, folder)
    return {
        "plant": job.plant,
        "seed": job.seed,
        "prepare_s": round(prepared, 1),
        "train_s": round(trained, 1),
        "cpu_s": round(time.process_time(), 1),
        "best_phase": result["phase"],
        "validation_rank_ic": round(float(result["rank_ic"]), 4),
        "train_dates": data.part("train").stop - data.part("train").start,
        "test_dates": data.part("test").stop - data.part("test").start,
        "correlation": {name: against(data, score, oracle, config.delay) for name, score in scores.items()},
        "ic": {name: realised(data, score, config.delay) for name, score in scores.items()},
    }


def evaluation_data(lake: Path) -> Any:
    """The panel as the rivals and the metrics read it: every usable row counts as scored."""
    from atft_pipeline.dataset.training_panel import panel_dir, read_manifest
    from atft_pipeline.evaluation.inputs import EvaluationData
    from atft_pipeline.lake.store import read_array

    names = ("x", "y", "row_ok", "tradable", "returns", "sector", "dates", "codes")
    arrays = {name: read_array(panel_dir(lake) / f"{name}.npy") for name in names}
    manifest = read_manifest(lake)
    scored = np.where(arrays["row_ok"], 0.0, np.nan)[:, :, None] * np.ones(len(manifest["horizons"]))
    nothing = np.empty((*scored.shape, 0))
    return EvaluationData(run_id="", summary={}, manifest=manifest, scores=scored, quantiles=nothing, **arrays)


class Lines:
    """A training's lines, into a file."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def line(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def result(self, metadata: Mapping[str, Any], version: str) -> None:
        self.line(json.dumps(dict(metadata), default=str))


def rival_test_scores(job: Job, data: Any, delay: int) -> dict[str, np.ndarray]:
    """Ridge's and the trees' scores, kept beside the market: they do not depend on the training."""
    from atft_pipeline.evaluation.baselines import ridge
    from atft_pipeline.evaluation.trees import boosted_trees

    kept = job.lake / f"rivals-d{delay}.npz"
    if not kept.exists():
        np.savez(kept, ridge=ridge(data, delay).scores, lightgbm=boosted_trees(data, delay).scores)
    with np.load(kept) as stored:
        return dict(stored)


def trainer_of(lake: Path, config: Any, folder: Any) -> Any:
    """A trainer on a lake's panel, without the supervisor around it."""
    from atft_pipeline.training.engine import Trainer
    from atft_pipeline.training.monitor import Heartbeat
    from atft_pipeline.training.panel_data import load_panel

    panel = load_panel(lake / "training_panel", verify=False)
    quiet = Lines((lake / "training.log").open("a"))
    return Trainer(config, panel, folder, quiet, Heartbeat(folder.path / "heartbeat.json", 60), threading.Event())


def scores_with(trainer: Any, path: Path) -> np.ndarray:
    from atft_pipeline.training import checkpoint

    trainer.load_result(checkpoint.load(path, trainer.device))
    return scores_on(trainer, ("test",))


def scores_on(trainer: Any, parts: Sequence[str]) -> np.ndarray:
    """[T, N, H] on the dates of the parts, NaN elsewhere."""
    filled = np.full((*trainer.panel.returns.shape, len(trainer.panel.horizons)), np.nan)
    for part in parts:
        dates = trainer.panel.part(part)
        filled[dates.start : dates.stop] = trainer._score(dates)[0]
    return filled


def random_edge_scores(job: Job, config: Any, folder: Any) -> np.ndarray:
    """The graph phases again from the best before them, on graphs of as many edges between random stocks."""
    from atft_pipeline.training.runs import RunFolder

    copy = RunFolder(folder.path.parent / f"{folder.run_id}-random", folder.run_id, folder.hashes)
    shutil.rmtree(copy.path, ignore_errors=True)
    phases = trainer_of(job.lake, config, folder).phases
    for number in (phase.number for phase in phases if not phase.graph):
        shutil.copytree(folder.path / "ckpt" / f"phase{number}", copy.path / "ckpt" / f"phase{number}")
    trainer = trainer_of(job.lake, config, copy)
    store = trainer.graphs
    drawn = store.graph

    def shuffled(day: int) -> Any:
        graph = drawn(day)
        nodes = np.unique(graph.source)
        moved = np.zeros(len(trainer.panel.codes), graph.source.dtype)
        moved[nodes] = np.random.default_rng([job.seed, store.as_of(day)]).permutation(nodes)
        return replace(graph, target=moved[graph.target])

    store.graph = shuffled
    result = trainer.train()
    trainer.load_result(result)
    return scores_on(trainer, ("test",))


def against(data: Any, scores: np.ndarray, oracle: Any, delay: int) -> dict[str, float | None]:
    """Mean daily correlation of the 1-day score with the 1-day oracle on the test dates, and its error; null on a
    market without expected returns."""
    from atft_pipeline.evaluation import metrics

    span = data.part("test")
    own = np.where(data.scored[span], scores[span][..., 0], np.nan)
    found = metrics.summarise_series(metrics.ic(own, oracle.expected[delay, 1][span]), 19)
    return figures(found)


def figures(found: Mapping[str, Any]) -> dict[str, float | None]:
    """Mean and error, null where undefined."""
    return {name: None if math.isnan(found[name]) else round(float(found[name]), 4) for name in ("mean", "se")}


def realised(data: Any, scores: np.ndarray, delay: int) -> dict[str, float | None]:
    """Mean daily IC of the 1-day score with the realised return on the test dates, and its error."""
    from atft_pipeline.evaluation import metrics

    span = data.part("test")
    own = np.where(data.scored[span], scores[span][..., 0], np.nan)
    found = metrics.summarise_series(metrics.ic(own, data.labels("test", delay)[..., 0]), 0)
    return figures(found)


def table(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per market: the mean over seeds and the spread between them, divided by the root of their number."""
    rows = []
    for plant in dict.fromkeys(line["plant"] for line in lines):
        mine = [line for line in lines if line["plant"] == plant]
        row: dict[str, Any] = {"plant": plant, "seeds": len(mine)}
        for kind in ("correlation", "ic"):
            row[kind] = {}
            for name in mine[0][kind]:
                values = [line[kind][name]["mean"] for line in mine if line[kind][name]["mean"] is not None]
                if values:
                    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
                    row[kind][name] = {
                        "mean": round(float(np.mean(values)), 4),
                        "se_between_seeds": None if spread is None else round(spread, 4),
                    }
        if plant in TARGETS:
            row["target"] = TARGETS[plant]
            row["met"] = row["correlation"]["model"]["mean"] >= TARGETS[plant]
        rows.append(row)
    return rows


def options(description: str | None, seeds: str) -> argparse.ArgumentParser:
    """What a benchmark that trains on markets of its own is asked for."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stocks", type=int, default=400)
    parser.add_argument("--days", type=int, default=1200)
    parser.add_argument("--seeds", default=seeds)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    return parser


def main() -> int:
    parser = options(__doc__, seeds="2,3,4")
    parser.add_argument("--plants", default=",".join(PLANTS))
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    settings = dict(text.split("=", 1) for text in chosen.set)
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        jobs = [
            Job(plant, int(seed), chosen.stocks, chosen.days, chosen.preset, settings, folder)
            for seed in chosen.seeds.split(",")
            for plant in chosen.plants.split(",")
        ]
        began, lines = time.monotonic(), []
        with multiprocessing.get_context("spawn").Pool(chosen.jobs, maxtasksperchild=1) as pool:
            for line in pool.imap_unordered(work, jobs):
                print(json.dumps(line), flush=True)
                lines.append(line)
        for row in table(lines):
            print(json.dumps(row), flush=True)
        spent = round(time.monotonic() - began, 1)
        print(json.dumps({"benchmark": "oracle", "stocks": chosen.stocks, "days": chosen.days, "preset": chosen.preset,
                          "settings": settings, "seconds": spent, "machine": MACHINE}))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
