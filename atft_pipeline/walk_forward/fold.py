"""One fold: its own statistics and training panel before training, the scores of everybody on its test dates after.

Training itself is the command that trains any model (`python -m atft_pipeline.training`), on the fold's panel.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from atft_pipeline.dataset.contract import dataset_dir
from atft_pipeline.dataset.scaling import fit_statistics
from atft_pipeline.dataset.splits import check_label_overlap
from atft_pipeline.dataset.training_panel import PanelArrays, panel_dir, read_manifest, write_training_panel
from atft_pipeline.evaluation.inputs import EvaluationData, load_run
from atft_pipeline.evaluation.out_of_sample import DAILY_KEYS, NO_SEED, SCORE_KEYS, daily_measures, score_rows
from atft_pipeline.evaluation.rivals import rival_scores
from atft_pipeline.lake.store import read_array, read_json, read_table, write_json, write_table
from atft_pipeline.panel.axes import Axes
from atft_pipeline.verdict import ContractBroken
from atft_pipeline.walk_forward.spec import LABELS_AND_MASKS, FoldFolder, WalkSpec


def prepare_fold(spec: WalkSpec, k: int) -> dict[str, Any]:
    """Fit the fold's statistics on its training dates, write its training panel; returns the panel's manifest.

    Raises `ContractBroken` when a training label reaches the test, when the statistics do not hold, or when the lake's
    dataset or labels are others than when the walk-forward began.
    """
    lake, folder, split = Path(spec.lake), spec.fold(k), spec.split(k)
    check_label_overlap(split).require()
    arrays, contract = lake_arrays(spec), spec.contract_columns()
    statistics = fit_statistics(lake, contract, arrays.axes, arrays.row_ok, split, home=folder.path)
    print(f"statistics over {statistics.coverage.rows:,} rows to {statistics.coverage.last}", flush=True)
    manifest = write_training_panel(
        lake, contract, arrays, split, statistics,
        thresholds=spec.limits(), selected=spec.selected, smaller_contract=contract.name, home=folder.path,
    )  # fmt: skip
    if manifest["dataset_hash"] != spec.dataset_hash:
        raise ContractBroken("the dataset is another than when the walk-forward began; start it again")
    for seed in spec.seeds:
        write_json(folder.config(seed), json.loads(spec.run_config(seed).to_json()))
    write_json(folder.manifest, manifest)
    return manifest


def lake_arrays(spec: WalkSpec) -> PanelArrays:
    """Labels, masks and ids of the lake's training panel, and the axes with the dataset's rows."""
    lake = Path(spec.lake)
    files = read_manifest(lake)["files"]
    if {name: files[f"{name}.npy"] for name in LABELS_AND_MASKS} != spec.shared:
        raise ContractBroken("the training panel is another than when the walk-forward began; start it again")
    found = {name: read_array(panel_dir(lake) / f"{name}.npy") for name in LABELS_AND_MASKS}
    dates, codes = (np.array(found.pop(name)) for name in ("dates", "codes"))
    axes = Axes(dates, codes, np.zeros((len(dates), len(codes)), dtype=bool))
    for path in sorted(dataset_dir(lake).glob("*.parquet")):
        keys = read_table(path, ["date", "code"])
        axes.listed[axes.date_index(keys["date"].to_numpy()), axes.code_index(keys["code"])] = True
    return PanelArrays(axes=axes, **found)


def score_fold(spec: WalkSpec, k: int) -> dict[str, Any]:
    """Score model, rivals and constant on the fold's test dates, judge them day by day, and write the fold's record.

    The panel is removed afterwards: dataset and statistics give it again.
    """
    folder = spec.fold(k)
    runs = {seed: load_run(folder.path, spec.run(k, seed).run_id) for seed in spec.seeds}
    data = next(iter(runs.values()))
    if any(not np.array_equal(own.scored, data.scored) for own in runs.values()):
        raise ContractBroken(f"fold {k}: two seeds scored different stocks, so that nothing can be compared")
    print(f"fitting ridge and trees on {data.part('train').stop - data.part('train').start} dates", flush=True)
    rivals = rival_scores(data, spec.base.delay)
    scores = {("model", seed): np.where(data.scored[..., None], own.scores, np.nan) for seed, own in runs.items()}
    scores |= {(name, NO_SEED): found for name, found in rivals.scores.items()}
    daily = daily_measures(data, scores, Path(spec.market_dir) if spec.market_dir else None)
    source = {"fold": folder.path.name, "dataset": spec.dataset_hash}
    rows = pl.concat([score_rows(data, *who, found) for who, found in scores.items()])
    write_table(folder.scores, rows.sort(SCORE_KEYS), keys=SCORE_KEYS, source=source)
    write_table(folder.daily, daily.sort(DAILY_KEYS), keys=DAILY_KEYS, source=source)
    record = _record(spec, k, data, runs, rivals.about())
    write_json(folder.record, record)
    discard_panel(folder)
    return record


def discard_panel(folder: FoldFolder) -> None:
    """Remove what a finished fold does not need: its panel (gigabytes on a full market) and its graphs."""
    shutil.rmtree(panel_dir(folder.path), ignore_errors=True)
    shutil.rmtree(folder.runs / "graphs", ignore_errors=True)


def _record(
    spec: WalkSpec, k: int, data: EvaluationData, runs: Mapping[int, EvaluationData], rivals: dict[str, Any]
) -> dict[str, Any]:
    span = data.part("test")
    tradable, scored = data.tradable[span].sum(axis=1), data.scored[span].sum(axis=1)
    statistics = read_json(spec.fold(k).path / "normalization_stats" / "stats.json")
    return {
        "fold": spec.fold(k).path.name,
        "split": spec.folds[k]["split"],
        "panel_hash": data.manifest["hash"],
        "stats_hash": statistics["hash"],
        "stats_rows": statistics["coverage"]["rows"],
        "seeds": {
            str(seed): {name: own.summary.get(name) for name in ("run_id", "phase", "epoch", "RankIC", "seconds")}
            for seed, own in runs.items()
        },
        "rivals": rivals,
        "tradable": tradable.tolist(),
        "scored": scored.tolist(),
    }
