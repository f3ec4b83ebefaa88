"""The spine: one row per (date, listed code), sorted by both. Every feature file and the dataset follow it.

Here a dense [T, N] array becomes rows of the spine and back. A group file whose keys differ from the spine by one row
is refused: columns are joined by position, so a shuffled row would silently give a stock another stock's features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.panel.axes import Axes
from atft_pipeline.verdict import ContractBroken

INTEGER_TYPES: dict[str, type[np.signedinteger]] = {"i8": np.int8, "i16": np.int16, "i32": np.int32}


@dataclass(frozen=True)
class YearSlice:
    """The rows of one calendar year: date positions `first` to `end` (half-open) of the axes."""

    year: str
    first: int
    end: int
    axes: Axes

    @property
    def listed(self) -> NDArray[np.bool_]:
        """[dates of the year, N]."""
        return self.axes.listed[self.first : self.end]

    @cached_property
    def cells(self) -> NDArray[np.intp]:
        """Flat positions of the listed cells in the year's [dates, N], in spine order."""
        return np.flatnonzero(self.listed)

    @property
    def rows(self) -> int:
        return len(self.cells)

    @cached_property
    def spine_hash(self) -> str:
        """SHA-256 of the year's keys, by way of dates, codes and the listed cells."""
        dates, codes = self.axes.dates[self.first : self.end].astype("datetime64[D]"), self.axes.codes.astype("<U5")
        whole = hashlib.sha256(f"{self.listed.shape}".encode())
        for part in (dates, codes, np.packbits(self.listed)):
            whole.update(np.ascontiguousarray(part).tobytes())
        return whole.hexdigest()

    def keys(self) -> pl.DataFrame:
        """Columns code and date, in spine order."""
        t, n = np.nonzero(self.listed)
        dates = pl.Series("date", self.axes.dates[self.first : self.end][t].astype("datetime64[D]")).cast(pl.Date)
        return pl.DataFrame([pl.Series("code", self.axes.codes[n].astype(str), dtype=pl.String), dates])

    def take(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Rows of the spine from a dense [T, N] array (or one value per date, [T] or [T, 1])."""
        dense = values[self.first : self.end]
        if dense.ndim == 1:
            dense = dense[:, None]
        if dense.shape != self.listed.shape:
            return np.asarray(np.broadcast_to(dense, self.listed.shape)[self.listed])
        return np.take(dense.reshape(-1), self.cells)

    def dense(self, column: pl.Series) -> NDArray[np.float64]:
        """[dates of the year, N] from spine rows, NaN where null or not listed."""
        grid = np.full(self.listed.size, np.nan)
        grid[self.cells] = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return grid.reshape(self.listed.shape)

    def require_aligned(self, path: Path, frame: pl.DataFrame) -> None:
        """Raise `ContractBroken` naming the first row where the file's keys are not the spine's."""
        keys = self.keys()
        if frame.height != keys.height:
            raise ContractBroken(
                f"{path}: {frame.height:,} rows, the panel has {keys.height:,} listed rows in {self.year}; "
                "rebuild this feature group on the present panel"
            )
        wrong = (frame["code"] != keys["code"]) | (frame["date"] != keys["date"])
        if wrong.any():
            row = int(wrong.arg_max() or 0)
            raise ContractBroken(
                f"{path}: row {row} is {frame['code'][row]} {frame['date'][row]}, the spine has {keys['code'][row]} "
                f"{keys['date'][row]}; the file is not in (date, code) order: rebuild this feature group"
            )


def years(axes: Axes) -> Iterator[YearSlice]:
    """The calendar years of the date axis, in order."""
    of_date = axes.dates.astype("datetime64[Y]").astype(int) + 1970
    for year in np.unique(of_date):
        first, end = np.searchsorted(of_date, [year, year + 1])
        yield YearSlice(f"{year:04d}", int(first), int(end), axes)


def typed_column(name: str, dtype: str, values: NDArray[np.generic]) -> pl.Series:
    """Row values as a declared type; NaN becomes null. Raises `ContractBroken` where the type cannot hold them."""
    if dtype == "f32":
        with np.errstate(over="ignore"):
            numbers = np.ascontiguousarray(values, dtype=np.float32)
        _require_finite(name, numbers)
        return pl.Series(name, numbers, nan_to_null=True)
    numbers = np.asarray(values, dtype=np.float64)
    _require_finite(name, numbers)
    missing = np.isnan(numbers)
    info = np.iinfo(INTEGER_TYPES[dtype])
    whole = np.where(missing, 0, numbers)
    if whole.size and (whole.min() < info.min or whole.max() > info.max or (whole != np.rint(whole)).any()):
        raise ContractBroken(
            f"column {name} is declared {dtype}, but its values run from {np.nanmin(numbers):g} to "
            f"{np.nanmax(numbers):g} or are not whole; correct the formula or the declared type"
        )
    filled = pl.Series(name, whole.astype(INTEGER_TYPES[dtype]))
    if not missing.any():
        return filled
    return pl.select(pl.when(pl.Series(missing)).then(None).otherwise(filled).alias(name)).to_series()


def _require_finite(name: str, numbers: NDArray[np.floating]) -> None:
    if np.isinf(numbers).any():
        raise ContractBroken(f"column {name} contains infinities; guard the division that makes them")
