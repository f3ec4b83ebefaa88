"""What a feature group is: a declaration of columns and a pure function that computes them.

A column is declared once, here the type and in its group module the values; the dataset contract, the documentation
and the scaling derive from the declaration. `compute_group` is the only caller of a group's function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.panel.operators import on_listed
from atft_pipeline.panel.panel import Panel
from atft_pipeline.verdict import ContractBroken

DTYPES = ("f32", "i8", "i16", "i32", "str", "date", "datetime")
KINDS = ("cross_section", "market", "time", "flag", "category", "log", "none")


@dataclass(frozen=True)
class Column:
    """One dataset column."""

    name: str
    dtype: str
    """One of `DTYPES`."""
    formula: str
    window: str
    """Rows and minimum observations as `60/45`, `5 lag`, `20/15 prior` (without T), `14` (recursive); else empty."""
    nulls: str
    """When the value is null, beyond null inputs and too few observations, or the default that replaces it."""
    kind: str
    """How scaling treats it. `cross_section`: ranked per date. `market`: one value per date, scaled over time. `time`:
    a stock's value, scaled over time. `flag`: small whole numbers, untouched. `category`: ids. `log`: a heavy-tailed
    level, logarithm first. `none`: never a model input."""
    spectral: bool = False
    """The stock's own non-stationary series, which the adaptive normalisation may work on."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES or self.kind not in KINDS:
            raise ValueError(f"column {self.name}: dtype {self.dtype!r}, kind {self.kind!r}; see features/group.py")


@dataclass(frozen=True)
class Inputs:
    """What a group computes from: the market panel, and the raw tables by name that have a frequency of their own."""

    panel: Panel
    tables: Mapping[str, pl.DataFrame]


Compute = Callable[[Inputs], Iterator[tuple[str, NDArray[np.generic]]]]


@dataclass(frozen=True)
class Group:
    """Columns that share tables and an availability rule."""

    name: str
    tier: str
    """First stage that has the group: base, standard or premium."""
    tables: tuple[str, ...]
    """Raw tables that the group needs; a plan has the group exactly when it delivers them all."""
    availability: str
    """When a row may know the group's sources."""
    columns: tuple[Column, ...]
    compute: Compute
    """Yields (name, values) in declared order; values are [T, N] or [T] (the same for every stock), NaN for null."""
    plan: str = "free"
    """The cheapest plan whose tables have the columns that the group reads, where the tables alone do not say it."""
    bar_columns: tuple[str, ...] = ()
    """Columns of bars_daily that the group reads itself, beside those that reach it through the panel."""
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns of its other tables that the group reads, where a table is large and the group needs few of them."""


def compute_columns(group: Group, inputs: Inputs) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Each declared column as float32 [T, N], null (NaN) wherever the code is not listed, one at a time.

    Every integer of the catalogue is exact in float32. Raises ContractBroken when the function yields other columns
    than declared or in another order, a wrong shape, or an infinity.
    """
    declared = [column.name for column in group.columns]
    axes = inputs.panel.axes
    given = 0
    for name, values in group.compute(inputs):
        if given >= len(declared) or name != declared[given]:
            wanted = declared[given] if given < len(declared) else "no further column"
            raise ContractBroken(f"group {group.name}: column {given + 1} is {name}, declared is {wanted}")
        yield name, _on_listed_rows(group, name, values, axes.listed)
        given += 1
    if given < len(declared):
        raise ContractBroken(f"group {group.name}: declared but not computed: {', '.join(declared[given:])}")


def compute_group(group: Group, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
    """All columns of `compute_columns` at once."""
    return dict(compute_columns(group, inputs))


def _on_listed_rows(
    group: Group, name: str, values: NDArray[np.generic], listed: NDArray[np.bool_]
) -> NDArray[np.float32]:
    dense = np.asarray(values)
    dense = dense[:, None] if dense.ndim == 1 else dense
    if dense.shape not in (listed.shape, (len(listed), 1)):
        raise ContractBroken(f"group {group.name}: {name} has shape {np.shape(values)}, the panel {listed.shape}")
    stored, finite = on_listed(dense, listed)
    if not finite:
        row, column = np.argwhere(np.isinf(stored))[0]
        raise ContractBroken(f"group {group.name}: {name} is infinite at row {row}, stock {column}; guard the division")
    return stored
