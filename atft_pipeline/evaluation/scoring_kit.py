"""What a run carries to score a dataset that was built after it: one file beside its weights.

<lake>/runs/<run>/kit.json                inputs (name, type, kind, in order), statistics, split, ranges in training
<lake>/runs/<run>/dates.npy, codes.npy    the axes of scores.npy, by which old and new scores are held together

It is written while the run's own panel is there, and never changed: the lake's statistics are fitted anew every night.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.dataset.contract import dataset_dir, digest
from atft_pipeline.dataset.scaling import FeatureStatistics, Statistics
from atft_pipeline.dataset.training_panel import file_hash, read_manifest
from atft_pipeline.evaluation.drift import InputRange
from atft_pipeline.evaluation.inputs import load_run, run_dir
from atft_pipeline.lake.store import LakeError, read_array, read_json, write_array, write_json
from atft_pipeline.verdict import ContractBroken, Verdict

DEFINITION = ("dtype", "group", "kind", "spectral")
"""What of a column must be as it was in training. Its formula is held by comparing scores (`judge_same_scores`)."""
NAMED = 8


@dataclass(frozen=True)
class ScoringKit:
    """Everything besides the weights; `hash` covers all of it, and `checkpoint_hash` the weights."""

    run_id: str
    panel_hash: str
    dataset_hash: str
    stats_hash: str
    checkpoint_hash: str
    features: tuple[Mapping[str, Any], ...]
    """The inputs in the model's order: name, group, kind, spectral, dtype."""
    statistics: tuple[FeatureStatistics, ...]
    ranges: tuple[InputRange, ...]
    split: Mapping[str, Any]
    """First and last date of each part: labels up to the end of `train` were learnt from."""
    horizons: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(feature["name"]) for feature in self.features)

    @cached_property
    def by_name(self) -> dict[str, FeatureStatistics]:
        return {feature.name: feature for feature in self.statistics}

    @property
    def valid_from(self) -> np.datetime64:
        """The first validation date. What lies before it was trained on, or its labels reach into training."""
        return np.datetime64(self.split["valid"][0], "D")


def kit_path(lake: Path, run_id: str) -> Path:
    return run_dir(lake, run_id) / "kit.json"


def pack_kit(lake: Path, run_id: str) -> ScoringKit:
    """Write the kit of a run from its own panel, dataset and statistics, which must be the stored ones.

    Raises `ContractBroken` when they are not, `LakeError` when one of them is missing.
    """
    data = load_run(lake, run_id)
    metadata, fitted = read_json(dataset_dir(lake) / "metadata.json"), Statistics.load(lake)
    if (metadata["hash"], fitted.hash) != (data.manifest["dataset_hash"], data.manifest["stats_hash"]):
        raise ContractBroken(
            f"run {run_id}: dataset or statistics were built anew since its panel; materialise training_panel and model"
        )
    dtypes, known = metadata["columns"], {feature.name: feature for feature in fitted.features}
    kit = ScoringKit(
        run_id=data.run_id,
        panel_hash=str(data.manifest["hash"]),
        dataset_hash=str(data.manifest["dataset_hash"]),
        stats_hash=fitted.hash,
        checkpoint_hash=_checkpoint_hash(lake, run_id),
        features=tuple({**feature, "dtype": dtypes[feature["name"]]} for feature in data.manifest["features"]),
        statistics=tuple(known[name] for name in data.features),
        ranges=tuple(data.ranges),
        split=data.manifest["split"],
        horizons=data.horizons,
    )
    write_array(run_dir(lake, run_id) / "dates.npy", np.asarray(data.dates))
    write_array(run_dir(lake, run_id) / "codes.npy", np.asarray(data.codes))
    body = _body(kit)
    write_json(kit_path(lake, run_id), {**body, "hash": digest([body])})
    return kit


def read_kit(lake: Path, run_id: str) -> ScoringKit:
    """The kit of a run. Raises `ContractBroken` when it has none, or kit or weights were changed since."""
    path = kit_path(lake, run_id)
    try:
        body = read_json(path)
    except LakeError as error:
        raise ContractBroken(
            f"run {run_id} does not carry what it needs to score a newer dataset ({error}); runs carry it once they "
            "were evaluated on their own panel: promote another run, or train again"
        ) from error
    said = body.pop("hash", None)
    if said != digest([body]):
        raise ContractBroken(f"{path} does not match its own hash; promote another run, or train again")
    if body["checkpoint_hash"] != _checkpoint_hash(lake, run_id):
        raise ContractBroken(f"the weights of run {run_id} are not those that {path} was written for; train again")
    return ScoringKit(
        **{
            **body,
            "features": tuple(body["features"]),
            "statistics": tuple(FeatureStatistics(**feature) for feature in body["statistics"]),
            "ranges": tuple(_range_from(entry) for entry in body["ranges"]),
            "horizons": tuple(body["horizons"]),
        }
    )


def kit_of(lake: Path, run_id: str) -> ScoringKit:
    """The run's kit, written now if it has none and its own panel is the stored one. Raises as `read_kit` does."""
    if not kit_path(lake, run_id).exists() and present_panel_is_of(lake, run_id):
        return pack_kit(lake, run_id)
    return read_kit(lake, run_id)


def judge_columns(lake: Path, kit: ScoringKit) -> Verdict:
    """Every input of the run is a column of the present dataset, and means what it meant: type, group, kind."""
    path = dataset_dir(lake) / "feature_index.json"
    have = {entry["name"]: entry for entry in read_json(path)["inputs"]}
    missing = [name for name in kit.names if name not in have]
    changed = [
        f"{name} ({aspect} {feature[aspect]}, now {have[name][aspect]})"
        for name, feature in zip(kit.names, kit.features, strict=True)
        if name in have
        for aspect in DEFINITION
        if have[name][aspect] != feature[aspect]
    ]
    wrong = [f"the dataset lacks {_named(missing)}"] if missing else []
    wrong += [f"defined otherwise than in training: {_named(changed)}"] if changed else []
    message = f"all {len(kit.names)} inputs of run {kit.run_id} are there, defined as in training"
    if wrong:
        message = f"run {kit.run_id} cannot read the present dataset: {'; '.join(wrong)}. Promote a run trained on it"
    return Verdict(not wrong, float(len(kit.names) - len(missing) - len(changed)), float(len(kit.names)), message)


def own_axes(lake: Path, run_id: str) -> tuple[NDArray[np.datetime64], NDArray[np.str_]]:
    """Dates and codes of the run's scores.npy."""
    folder = run_dir(lake, run_id)
    return read_array(folder / "dates.npy", mmap=False), read_array(folder / "codes.npy", mmap=False)


def own_panel_hash(lake: Path, run_id: str) -> str:
    """Hash of the panel that the run was trained on."""
    return str(read_json(run_dir(lake, run_id) / "metrics_summary.json").get("panel_hash"))


def present_panel_is_of(lake: Path, run_id: str) -> bool:
    """Whether the stored training panel is the one that the run was trained on."""
    return own_panel_hash(lake, run_id) == str(read_manifest(lake)["hash"])


def _body(kit: ScoringKit) -> dict[str, Any]:
    """As JSON gives it back: tuples are lists."""
    return {
        **{name: getattr(kit, name) for name in ("run_id", "panel_hash", "dataset_hash", "stats_hash")},
        "checkpoint_hash": kit.checkpoint_hash,
        "features": [dict(feature) for feature in kit.features],
        "statistics": [asdict(feature) for feature in kit.statistics],
        "ranges": [{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(r).items()} for r in kit.ranges],
        "split": dict(kit.split),
        "horizons": list(kit.horizons),
    }


def _range_from(body: Mapping[str, Any]) -> InputRange:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in body.items()}
    return InputRange(**values)


def _checkpoint_hash(lake: Path, run_id: str) -> str:
    path = run_dir(lake, run_id) / "ckpt" / "final.pt"
    if not path.exists():
        raise ContractBroken(f"{path} is missing: run {run_id} has no weights any more; train again")
    return file_hash(path)


def _named(names: list[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest
