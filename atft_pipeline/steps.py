"""The steps between raw tables and predictions as plain functions over a lake: read, call one room, write.

The Dagster assets are these calls plus metadata; without Dagster the same functions run in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.dataset.assemble import assemble_dataset
from atft_pipeline.dataset.contract import contract_of
from atft_pipeline.dataset.feature_files import Stored, write_features
from atft_pipeline.dataset.labels import forward_returns, label_columns
from atft_pipeline.dataset.scaling import Statistics, fit_statistics
from atft_pipeline.dataset.splits import Split, calendar_split
from atft_pipeline.dataset.training_panel import PanelArrays, write_training_panel
from atft_pipeline.features import catalog
from atft_pipeline.features.group import Group, Inputs, compute_columns
from atft_pipeline.lake.store import LakeError, read_json, read_record, read_table
from atft_pipeline.panel.asof import collecting_audits, total_audit
from atft_pipeline.panel.build import SOURCES
from atft_pipeline.panel.memory import give_memory_back, reuse_memory
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline.settings import Thresholds

PANEL_TABLES = ("calendar", "master", "bars_daily")
"""Raw tables that reach a group through the panel."""

SELECTED_FEATURES = "SELECTED_FEATURES_JSON"
"""Environment name of a file that restricts the model inputs: {"selected_features": [...]}."""


@dataclass(frozen=True)
class PanelSummary:
    """What a market panel holds."""

    dates: int
    codes: int
    rows: int
    first: str
    last: str
    hash: str


def panel_dir(lake: Path) -> Path:
    return lake / "market_panel"


def read_raw(lake: Path, table: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """All stored months of a raw table, or some of its columns. What only some months have is null in the others."""
    paths = sorted((lake / "raw" / table).glob("*.parquet"))
    if not paths:
        raise LakeError(f"{lake / 'raw' / table}: nothing stored; materialise raw/{table} first")

    def part(path: Path) -> pl.DataFrame:
        have = read_record(path).columns
        return read_table(path, [name for name in columns if name in have] if columns else None)

    return pl.concat([part(path) for path in paths], how="diagonal")


def build_market_panel(lake: Path) -> PanelSummary:
    """Raw calendar, master and bars to dense arrays under <lake>/market_panel/."""
    panel = build_panel(*(read_raw(lake, table, columns) for table, columns in SOURCES.items()))
    return PanelSummary(
        dates=panel.axes.shape[0],
        codes=panel.axes.shape[1],
        rows=int(panel.axes.listed.sum()),
        first=str(panel.axes.dates[0]),
        last=str(panel.axes.dates[-1]),
        hash=panel.save(panel_dir(lake)),
    )


def load_panel(lake: Path) -> Panel:
    return Panel.load(panel_dir(lake))


@lru_cache(maxsize=1)
def _building(lake: Path, _hash: str) -> Panel:
    """The panel that the feature groups of one build share, with the series that they have in common."""
    return load_panel(lake)


def panel_hash(lake: Path) -> str:
    """Content hash of the stored panel."""
    return str(read_json(panel_dir(lake) / "panel.json")["hash"])


def read_tables(lake: Path, group: Group) -> dict[str, pl.DataFrame]:
    """The raw tables that the group reads beside the panel."""
    tables = {
        table: read_raw(lake, table, group.reads.get(table)) for table in group.tables if table not in PANEL_TABLES
    }
    if group.bar_columns:
        tables["bars_daily"] = read_raw(lake, "bars_daily", ("Date", "Code", *group.bar_columns))
    return tables


def build_features(lake: Path, name: str) -> Stored:
    """Compute one feature group and store it by year, with the account of its as-of joins."""
    group = next(group for group in catalog.GROUPS if group.name == name)
    tables = read_tables(lake, group)
    known_as = panel_hash(lake)
    panel = _building(lake, known_as)
    dtypes = {column.name: column.dtype for column in group.columns}
    reuse_memory()  # the next group's arrays are as large; the dataset gives it back
    with collecting_audits() as audits:
        return write_features(
            name,
            dtypes,
            compute_columns(group, Inputs(panel, tables)),
            panel.axes,
            lake,
            source={"panel": known_as},
            audit=lambda: total_audit(audits),
        )


def build_dataset(lake: Path, plan: str, market: str) -> dict[str, Any]:
    """Join all groups of the plan, add labels; returns the stored metadata. Raises `ContractBroken` and stores nothing
    when a group is missing, stale or out of order."""
    _building.cache_clear()
    give_memory_back()
    panel = load_panel(lake)
    half_days = panel.calendar.half_days.astype("datetime64[D]").tolist()
    return assemble_dataset(
        lake,
        contract_of(plan),
        panel.axes,
        label_columns(panel),
        half_days=half_days,
        source={"market": market, "panel": panel_hash(lake), "plan": plan},
    )


def split_of(panel: Panel) -> Split:
    """Train, validation and test by calendar, with embargoes as long as the labels reach."""
    return calendar_split(panel.axes.dates)


def build_statistics(lake: Path, plan: str) -> Statistics:
    """Fit the normalisation statistics on every training date and store them."""
    panel = load_panel(lake)
    return fit_statistics(lake, contract_of(plan), panel.axes, panel.universe, split_of(panel))


def build_training_panel(
    lake: Path,
    plan: str,
    thresholds: Thresholds,
    environment: Mapping[str, str] | None = None,
    *,
    smaller_contract: str = "",
) -> dict[str, Any]:
    """Scale the verified dataset into the arrays that training reads; returns the manifest.

    `smaller_contract` names a contract of fewer than 306 columns that is wanted on purpose (ATFT_CONTRACT).
    """
    panel = load_panel(lake)
    selection = (os.environ if environment is None else environment).get(SELECTED_FEATURES)
    selected: Sequence[str] | None = catalog.select_features(Path(selection), plan) if selection else None
    return write_training_panel(
        lake,
        contract_of(plan),
        panel_arrays(panel),
        split_of(panel),
        Statistics.load(lake),
        thresholds=thresholds,
        selected=selected,
        smaller_contract=smaller_contract,
    )


def panel_arrays(panel: Panel) -> PanelArrays:
    """Labels, masks and ids of the training panel. Tradable: in the universe and not locked at a limit at the close."""
    locked = (np.nan_to_num(panel.upper) > 0) | (np.nan_to_num(panel.lower) > 0)
    return PanelArrays(
        axes=panel.axes,
        row_ok=panel.universe,
        tradable=panel.universe & ~locked,
        y=forward_returns(panel),
        returns=panel.ret_1d,
        sector=_known(panel.sector33),
        market=_known(panel.market),
    )


def _known(ids: NDArray[np.integer]) -> NDArray[np.int8]:
    """Ids with 0 for unknown, as embeddings want them."""
    return np.maximum(ids, 0).astype(np.int8)


def training_command(
    lake: Path, python: str, preset: str, settings: Mapping[str, object], overrides: str = ""
) -> list[str]:
    """The command of the training process; `settings` change single values of the preset, after those that the file
    `overrides` holds (a path, relative to the lake unless absolute)."""
    command = [python, "-m", "atft_pipeline.training", "--panel", str(lake / "training_panel")]
    command += ["--runs", str(lake / "runs"), "--preset", preset]
    if overrides:
        command += ["--overrides", str(lake / overrides)]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    return command


def search_command(
    lake: Path, python: str, preset: str, counts: Mapping[str, int], settings: Mapping[str, object], prune: bool = True
) -> list[str]:
    """The command of the hyperparameter search; `counts` are trials, workers, folds and seed, `settings` change single
    values of the preset that it starts from."""
    command = [python, "-m", "atft_pipeline.search", "run", "--lake", str(lake), "--preset", preset]
    for name, value in counts.items():
        command += [f"--{name}", str(value)]
    for setting, given in settings.items():
        command += ["--set", f"{setting}={given}"]
    return command if prune else [*command, "--no-prune"]


def walk_forward_command(
    lake: Path, python: str, preset: str, settings: Mapping[str, object], overrides: str = ""
) -> list[str]:
    """The command of the walk-forward evaluation; `settings` and `overrides` as `training_command` takes them."""
    command = [python, "-m", "atft_pipeline.walk_forward", "run", "--lake", str(lake), "--preset", preset]
    if overrides:
        command += ["--overrides", str(lake / overrides)]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    return command


def last_run(lake: Path) -> str:
    """Id of the newest training run. Raises `LakeError` when nothing was trained yet."""
    link = lake / "runs" / "last"
    if not link.exists():
        raise LakeError(f"{link}: no run yet; materialise model first")
    return link.resolve().name
