"""What a walk-forward depends on, the folders that its hashes name, and where things lie in them.

A fold is named by its inputs: data, labels, split, inputs chosen, settings and code. So a fold that was finished for
another walk (one fold more, a seed more, another count of processes) is found again, and anything else is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import atft_pipeline
from atft_pipeline.dataset.contract import Contract, DatasetColumn
from atft_pipeline.dataset.splits import Split, walk_forward_splits
from atft_pipeline.dataset.training_panel import panel_dir, read_manifest, require_trainable
from atft_pipeline.evaluation.walk_record import recipe_of, walks_dir
from atft_pipeline.lake.store import read_array, read_json, write_json
from atft_pipeline.settings import Settings, Thresholds
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.faults import ConfigError
from atft_pipeline.training.runs import ID_LENGTH, RunFolder, source_hash
from atft_pipeline.verdict import ContractBroken

LABELS_AND_MASKS = ("y", "row_ok", "tradable", "returns", "sector", "market", "dates", "codes")
"""Arrays of the lake's training panel that every fold shares; the inputs are scaled anew for each."""
CODE = (
    "dataset/sampled_columns.py", "dataset/scaling.py", "dataset/training_panel.py", "dataset/treatments.py",
    "evaluation/baselines.py", "evaluation/inputs.py", "evaluation/oracle.py", "evaluation/out_of_sample.py",
    "evaluation/rivals.py", "evaluation/trees.py", "walk_forward/fold.py",
)  # fmt: skip
"""Modules that decide a fold's scores besides those of training."""


@dataclass(frozen=True)
class FoldFolder:
    """The paths of one fold: a small lake of its own, with statistics, training panel and runs."""

    path: Path

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def manifest(self) -> Path:
        """Of the fold's training panel; it stays when the panel itself is removed."""
        return self.path / "manifest.json"

    @property
    def scores(self) -> Path:
        return self.path / "scores.parquet"

    @property
    def daily(self) -> Path:
        return self.path / "daily.parquet"

    @property
    def record(self) -> Path:
        """Written last: a fold that has it is finished for the seeds that it names."""
        return self.path / "fold.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def config(self, seed: int) -> Path:
        return self.path / f"seed{seed}.json"

    def finished(self, seeds: tuple[int, ...]) -> bool:
        """Whether the fold is finished for all `seeds`."""
        if not (self.record.exists() and self.scores.exists() and self.daily.exists()):
            return False
        return {str(seed) for seed in seeds} <= set(read_json(self.record)["seeds"])


@dataclass(frozen=True)
class WalkSpec:
    """One walk-forward over a stored dataset. Everything that its processes need to know, as one JSON file."""

    lake: str
    market: str
    """A sentence that says which market it is."""
    market_dir: str
    """The simulated market's folder, whose oracle is read when scores are judged; empty for a real market."""
    contract: str
    columns: tuple[dict[str, Any], ...]
    selected: tuple[str, ...]
    """The model's inputs: those of the lake's training panel."""
    dataset_hash: str
    shared: dict[str, str]
    """File hashes of `LABELS_AND_MASKS`."""
    code: str
    walk: dict[str, Any]
    """The settings (`WalkForward`)."""
    seeds: tuple[int, ...]
    config: str
    """`TrainingConfig` as JSON; each run has its own seed."""
    thresholds: dict[str, Any]
    folds: tuple[dict[str, Any], ...]
    """`split` (dates), `index` (positions) and `test_dates` of each fold, oldest first."""

    @property
    def id(self) -> str:
        return _short([self.fold_id(k) for k in range(len(self.folds))], self.seeds)

    @property
    def path(self) -> Path:
        return walks_dir(Path(self.lake)) / self.id

    @property
    def base(self) -> TrainingConfig:
        return TrainingConfig.from_json(self.config)

    @property
    def recipe(self) -> str:
        """Hash of the training settings whatever the seed."""
        return recipe_of(self.base)

    def fold_id(self, k: int) -> str:
        """Twelve hex digits over everything that decides the fold, seeds apart."""
        fold = self.folds[k]
        data = [self.dataset_hash, self.shared, self.columns, self.selected, fold["split"], fold["index"]]
        return _short(data, [self.recipe, self.code, source_hash(), bool(self.market_dir)])

    def fold(self, k: int) -> FoldFolder:
        return FoldFolder(walks_dir(Path(self.lake)) / "folds" / self.fold_id(k))

    def split(self, k: int) -> Split:
        """The fold's split on the lake's dates. Raises `ContractBroken` when the lake has other dates now."""
        dates = read_array(panel_dir(Path(self.lake)) / "dates.npy", mmap=False)
        index = self.folds[k]["index"]
        parts = {name: (int(first), int(end)) for name, (first, end) in index.items()}
        split = Split(dates[: parts["test"][1]], **parts, embargo_days=int(self.folds[k]["split"]["embargo_days"]))
        if split.as_json() != self.folds[k]["split"]:
            raise ContractBroken("the training panel has other dates than when the walk-forward began; start it again")
        return split

    def contract_columns(self) -> Contract:
        return Contract(self.contract, tuple(DatasetColumn(**column) for column in self.columns))

    def limits(self) -> Thresholds:
        return Thresholds(**self.thresholds)

    def run_config(self, seed: int) -> TrainingConfig:
        return replace(self.base, seed=seed)

    def run(self, k: int, seed: int) -> RunFolder:
        """Where the fold's run of a seed lies: named by panel, settings and code, as every run is."""
        hashes = {
            "panel_hash": str(read_json(self.fold(k).manifest)["hash"]),
            "config_hash": self.run_config(seed).identity,
            "source_hash": source_hash(),
        }
        run_id = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()[:ID_LENGTH]
        return RunFolder(self.fold(k).runs / run_id, run_id, hashes)

    def save(self) -> Path:
        path = self.path / "spec.json"
        write_json(path, asdict(self))
        return path

    @classmethod
    def load(cls, path: Path) -> WalkSpec:
        body = read_json(path)
        lists = ("columns", "selected", "seeds", "folds")
        return cls(**{**body, **{name: tuple(body[name]) for name in lists}})


def specify(
    lake: Path, settings: Settings, config: TrainingConfig, *, contract: Contract, market: str = ""
) -> WalkSpec:
    """The walk-forward that the settings mean on the lake's dataset and training panel.

    Raises `ContractBroken` when they do not belong together or the history is too short for the folds.
    """
    require_trainable(lake, contract, settings.contract)
    if config.mode == "workers":
        raise ConfigError("mode=workers inside a walk-forward would start processes of processes; use auto")
    manifest, plan = read_manifest(lake), settings.walk_forward
    if plan.workers > 1:
        config = replace(config, threads=config.threads or 1)
    dates = read_array(panel_dir(lake) / "dates.npy", mmap=False)
    return WalkSpec(
        lake=str(lake.resolve()),
        market=market,
        market_dir=str(settings.market_dir.resolve()) if settings.market == "simulated" else "",
        contract=contract.plan,
        columns=tuple(asdict(column) for column in contract.columns),
        selected=tuple(feature["name"] for feature in manifest["features"]),
        dataset_hash=str(manifest["dataset_hash"]),
        shared={name: manifest["files"][f"{name}.npy"] for name in LABELS_AND_MASKS},
        code=_code_hash(),
        walk=json.loads(json.dumps(asdict(plan))),
        seeds=plan.seeds,
        config=config.to_json(),
        thresholds=asdict(settings.thresholds),
        folds=tuple(_fold(dates, split) for split in walk_forward_splits(dates, plan)),
    )


def _fold(dates: np.ndarray, split: Split) -> dict[str, Any]:
    first, end = split.test
    return {"split": split.as_json(), "index": split.positions(), "test_dates": [str(day) for day in dates[first:end]]}


def _code_hash() -> str:
    root = Path(atft_pipeline.__file__).parent
    return hashlib.sha256(b"\0".join((root / name).read_bytes() for name in CODE)).hexdigest()


def _short(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_plain).encode()).hexdigest()[:ID_LENGTH]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in a hash")
