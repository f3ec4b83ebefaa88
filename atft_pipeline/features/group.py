"""What a feature group is: a declaration of columns and a pure function that computes them.

A column is declared once, here the type and in its group module the values; the dataset contract, the documentation
and the scaling derive from the declaration. `compute_group` is the only caller of a group's function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.panel.axes import Axes
from atft_pipeline.panel.operators import SMALL, in_threads, on_listed
from atft_pipeline.panel.panel import Panel
from atft_pipeline.verdict import ContractBroken

DTYPES = ("f32", "i8", "i16", "i32", "str", "date", "datetime")
STOCKS = 128
"""Stocks that a group by stock computes at a time: an array of ten years takes 2.5 MB."""
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
    by_stock: bool = False
    """Whether a stock's columns depend on its own series and on series of the market alone. Then a few stocks are
    computed at a time, whose arrays stay in a processor's cache."""


def compute_columns(group: Group, inputs: Inputs) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Each declared column as float32 [T, N], null (NaN) wherever the code is not listed, one at a time; of a group by
    stock all are in memory before the first is given.

    Every integer of the catalogue is exact in float32. Raises ContractBroken when the function yields other columns
    than declared or in another order, a wrong shape, or an infinity.
    """
    if group.by_stock and inputs.panel.axes.listed.size >= SMALL:
        yield from _by_stock(group, inputs)
        return
    for name, values in _declared(group, inputs):
        yield name, _on_listed_rows(group, name, values, inputs.panel.axes)


def _by_stock(group: Group, inputs: Inputs) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The columns, put together from those of `STOCKS` stocks at a time."""
    panel = inputs.panel
    columns = [np.empty(panel.axes.shape, np.float32) for _ in group.columns]
    starts = range(0, panel.axes.shape[1], STOCKS)
    parts = [replace(inputs, panel=panel.stocks(start, start + STOCKS)) for start in starts]

    def some_parts(first: int, end: int) -> None:
        for start, part in zip(starts[first:end], parts[first:end], strict=True):
            for column, (name, values) in zip(columns, _declared(group, part), strict=True):
                column[:, start : start + STOCKS] = _on_listed_rows(group, name, values, part.panel.axes)

    in_threads(some_parts, len(parts), 1, panel.axes.listed.size)
    for column, values in zip(group.columns, columns, strict=True):
        yield column.name, values


def _declared(group: Group, inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """What the group's function yields, as long as it is what the group declares."""
    declared = [column.name for column in group.columns]
    given = 0
    for name, values in group.compute(inputs):
        if given >= len(declared) or name != declared[given]:
            wanted = declared[given] if given < len(declared) else "no further column"
            raise ContractBroken(f"group {group.name}: column {given + 1} is {name}, declared is {wanted}")
        yield name, values
        given += 1
    if given < len(declared):
        raise ContractBroken(f"group {group.name}: declared but not computed: {', '.join(declared[given:])}")


def compute_group(group: Group, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
    """All columns of `compute_columns` at once."""
    return dict(compute_columns(group, inputs))


def _on_listed_rows(group: Group, name: str, values: NDArray[np.generic], axes: Axes) -> NDArray[np.float32]:
    dense, listed = np.asarray(values), axes.listed
    dense = dense[:, None] if dense.ndim == 1 else dense
    if dense.shape not in (listed.shape, (len(listed), 1)):
        raise ContractBroken(f"group {group.name}: {name} has shape {np.shape(values)}, the panel {listed.shape}")
    stored, finite = on_listed(dense, listed)
    if not finite:
        row, column = np.argwhere(np.isinf(stored))[0]
        at = f"{axes.dates[row]}, code {axes.codes[column]}"
        raise ContractBroken(f"group {group.name}: {name} is infinite on {at}; guard the division")
    return stored
