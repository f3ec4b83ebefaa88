"""Rows of a raw table as records of codes or sectors: whose they are, how many came before, in which split units.

A window over a table of its own frequency counts the entity's records, not the panel's rows. `Records` lays them out
as an array [records, entities], oldest first, on which the time-series operators run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.companies import split_index
from atft_pipeline.panel.axes import Axes
from atft_pipeline.panel.operators import Array, pick_cells, running_count, scatter
from atft_pipeline.panel.panel import Panel
from atft_pipeline.verdict import ContractBroken

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Records:
    """E records of some entities."""

    entity: Ints
    """[E], none negative."""
    place: Ints
    """[E]: how many older records the entity has."""
    entities: int

    @cached_property
    def cell(self) -> Ints:
        """[E]: flat position in [R, entities]."""
        return self.place * self.entities + self.entity

    def dense(self, values: NDArray[np.generic]) -> Array:
        """[E] values by place and entity, [R, entities], R at least 1; null where an entity has fewer records."""
        grid = np.full((int(self.place.max(initial=0)) + 1, self.entities), np.nan)
        scatter(np.asarray(values, np.float64), self.cell, grid)
        return grid

    def of(self, dense: Array) -> Array:
        """Back from [R, entities] to the records, [E]."""
        return pick_cells(dense, self.cell)


def in_order(entity: Ints, day: NDArray[np.datetime64], entities: int) -> Records:
    """Records of the entities by `day`; those of one day keep the order given."""
    place = running_count(entity, np.argsort(day, kind="stable"), entities)
    return Records(entity, place, entities)


def listed_records(name: str, table: pl.DataFrame, axes: Axes) -> tuple[pl.DataFrame, Ints]:
    """Rows of the table whose `Code` is on the panel, and their columns there.

    Raises ContractBroken when there are rows but none of them belongs to a code of the panel.
    """
    codes = pl.Series(axes.codes.tolist(), dtype=pl.String)
    column = table["Code"].replace_strict(codes, pl.Series(np.arange(len(codes))), default=-1, return_dtype=pl.Int64)
    known = column >= 0
    if table.height and not known.any():
        raise ContractBroken(
            f"{name}: none of {table.height} rows belongs to a code of the panel; check how it writes codes"
        )
    if known.all():  # nothing to copy
        return table, column.to_numpy()
    return table.filter(known), column.filter(known).to_numpy()


def in_first_row_units(shares: pl.Series, panel: Panel, column: Ints, counted_on: pl.Series) -> Array:
    """Share counts [E] of a day in the units of the panel's first row: x G(day). The API never restates them."""
    row = np.searchsorted(panel.axes.dates, days_of(counted_on), side="right") - 1
    return numbers_of(shares) * split_index(panel, row, column)


def numbers_of(values: pl.Series) -> Array:
    """A column as float64, NaN for null."""
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def days_of(dates: pl.Series) -> NDArray[np.datetime64]:
    return dates.to_numpy().astype("datetime64[D]")
