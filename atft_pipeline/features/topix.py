"""TOPIX bars on the panel's own dates: the one index series that several groups read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.tables import require_columns
from atft_pipeline.panel.operators import Array, divide, ts_lag
from atft_pipeline.verdict import ContractBroken

FIELDS = ("Date", "O", "H", "L", "C")


@dataclass(frozen=True)
class Topix:
    """Open, high, low and close, each float64 [T]; null on a date without a bar."""

    open: Array
    high: Array
    low: Array
    close: Array

    def simple_return(self, rows: int) -> Array:
        """Close over the close `rows` trading days earlier, minus 1."""
        return divide(self.close, ts_lag(self.close, rows)) - 1


def read_topix(topix: pl.DataFrame, dates: NDArray[np.datetime64]) -> Topix:
    """Align `topix` to the panel's dates; days off the axis (the 2020-10-01 outage repeats a close) are left out.

    Raises ContractBroken when a column is missing or a date occurs twice.
    """
    require_columns("topix", topix, FIELDS)
    days = topix["Date"].to_numpy().astype("datetime64[D]")
    if len(np.unique(days)) != len(days):
        raise ContractBroken("topix holds a date twice; ingest it again")
    place = np.searchsorted(dates, days)
    on_axis = (place < len(dates)) & (dates[np.minimum(place, len(dates) - 1)] == days)
    series = []
    for name in FIELDS[1:]:
        values = np.full(len(dates), np.nan)
        values[place[on_axis]] = topix[name].cast(pl.Float64).to_numpy()[on_axis]
        series.append(values)
    return Topix(*series)
