"""The two axes that every dense array shares, and who is listed where on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.verdict import ContractBroken


@dataclass(frozen=True)
class Axes:
    """Dates down, codes across. The date axis is the trading days with data, without outage days such as 2020-10-01."""

    dates: NDArray[np.datetime64]
    """datetime64[D] [T], strictly ascending."""
    codes: NDArray[np.str_]
    """5-character codes [N], strictly ascending."""
    listed: NDArray[np.bool_]
    """[T, N]: the code is in the listed snapshot of the date. These cells are the rows of every dataset."""

    def __post_init__(self) -> None:
        if self.listed.shape != self.shape:
            raise ContractBroken(f"listed mask of shape {self.listed.shape} on axes {self.shape}; rebuild the panel")
        axes: dict[str, NDArray[Any]] = {"dates": self.dates, "codes": self.codes}
        for name, axis in axes.items():
            if not (axis[:-1] < axis[1:]).all():
                raise ContractBroken(f"the {name} axis is not strictly ascending; rebuild the panel")

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.dates), len(self.codes)

    def code_index(self, codes: NDArray[np.str_] | pl.Series) -> NDArray[np.int64]:
        """Column of each code, -1 for a code that is not on the axis. A column of a table is looked up as it is."""
        if isinstance(codes, pl.Series):  # hashing millions of texts takes a tenth of sorting them in
            known, place = pl.Series(self.codes.astype(str), dtype=pl.String), pl.Series(np.arange(len(self.codes)))
            return codes.replace_strict(known, place, default=-1, return_dtype=pl.Int64).to_numpy()
        return _positions(self.codes, np.asarray(codes, self.codes.dtype))

    def date_index(self, dates: NDArray[np.datetime64]) -> NDArray[np.int64]:
        """Row of each date, -1 for a date that is not on the axis."""
        return rows_of(dates, self.dates)

    def first_row_from(self, dates: NDArray[np.datetime64]) -> NDArray[np.int64]:
        """First row on or after each date; T for a date after the last row."""
        return np.searchsorted(self.dates, np.asarray(dates, "datetime64[D]")).astype(np.int64)


def rows_of(dates: NDArray[np.datetime64], axis: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Row of each date on an ascending axis, -1 for a date that is not on it: looked up by the day's number."""
    if not len(axis):
        return np.full(len(dates), -1, np.int64)
    number, of_axis = (np.asarray(days, "datetime64[D]").astype(np.int64) for days in (dates, axis))
    row = np.full(of_axis[-1] - of_axis[0] + 3, -1, np.int64)  # the first and the last place stand for all days beyond
    row[of_axis - of_axis[0] + 1] = np.arange(len(axis))
    return row[np.clip(number - of_axis[0] + 1, 0, len(row) - 1)]


def _positions(axis: NDArray[np.generic], wanted: NDArray[np.generic]) -> NDArray[np.int64]:
    if not len(axis):
        return np.full(len(wanted), -1, np.int64)
    place = np.minimum(np.searchsorted(axis, wanted), len(axis) - 1)
    return np.where(axis[place] == wanted, place, -1).astype(np.int64)
