"""How a feature group is declared and computed. A group is a pure function from the panel and tables to columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.panel.panel import Panel
from atft_pipeline.verdict import ContractBroken

Kind = Literal["cross_section", "market", "time", "flag", "category", "log"]
"""How scaling treats a column: ranks across the stocks of a date; one value per date or a per-stock series scaled over
time by median and quartiles; 0/1 flags and ids left alone; heavy-tailed levels through a signed logarithm."""


@dataclass(frozen=True)
class Column:
    """One feature, declared once: the contract, the checks and the docs derive from it."""

    name: str
    dtype: Literal["f32", "i8", "i16", "i32"]
    formula: str
    window: str = ""
    """`n/m`: window rows and fewest observations; `k lag`: reaches k rows back."""
    nulls: str = ""
    """When the value is null beyond missing inputs, or its default."""
    kind: Kind = "cross_section"
    spectral: bool = False
    """The stock's own non-stationary series, which frequency and slice normalisation may change."""


@dataclass(frozen=True)
class Inputs:
    """What a group computes from: the panel, and the raw tables at their own frequency."""

    panel: Panel
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)


Compute = Callable[[Inputs], Iterator[tuple[str, NDArray[np.generic]]]]


@dataclass(frozen=True)
class Group:
    """A named set of columns with one function that computes them, and the raw tables that it needs."""

    name: str
    tier: str
    tables: tuple[str, ...]
    availability: str
    columns: tuple[Column, ...]
    compute: Compute


def compute_group(group: Group, inputs: Inputs) -> dict[str, NDArray[np.float64]]:
    """Every column of the group, [T, N] or [T], in declared order.

    Raises `ContractBroken` when a needed table is missing, or the computed columns are not exactly the declared ones.
    """
    events = [table for table in group.tables if table not in PANEL_TABLES]
    missing = [table for table in events if table not in inputs.tables]
    if missing:
        raise ContractBroken(f"group {group.name} needs the tables {missing}; materialise raw/{missing[0]} first")
    columns: dict[str, NDArray[np.float64]] = {}
    for name, values in group.compute(inputs):
        if name in columns:
            raise ContractBroken(f"group {group.name} computes {name} twice")
        dense = np.asarray(values, np.float64)
        if dense.shape not in (inputs.panel.axes.shape, inputs.panel.axes.shape[:1]):
            raise ContractBroken(f"column {name} has shape {dense.shape}, the panel has {inputs.panel.axes.shape}")
        columns[name] = dense
    declared = [column.name for column in group.columns]
    if list(columns) != declared:
        lost, extra = sorted(set(declared) - set(columns)), sorted(set(columns) - set(declared))
        raise ContractBroken(
            f"group {group.name} computed {len(columns)} columns, declares {len(declared)}; missing {lost}, "
            f"extra {extra}{'' if lost or extra else ', the order differs'}"
        )
    return columns


PANEL_TABLES = frozenset({"calendar", "master", "bars_daily"})
"""Tables that reach a group through the panel."""
