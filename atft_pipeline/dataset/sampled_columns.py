"""The training rows behind the statistics, read from the dataset's files without holding the files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.dataset.contract import dataset_dir
from atft_pipeline.dataset.spine import YearSlice, years
from atft_pipeline.dataset.splits import Split
from atft_pipeline.lake.store import read_table
from atft_pipeline.panel.axes import Axes
from atft_pipeline.parallel import in_order
from atft_pipeline.verdict import ContractBroken

COLUMNS_AT_A_TIME = 32
"""Columns decoded together: 32 of a year's million rows are 140 MB."""

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Places = NDArray[np.intp]


def side_by_side(chosen: Mask) -> Mask:
    """[D, K]: which places hold a value when each date's chosen stocks [D, N] stand side by side."""
    count = chosen.sum(axis=1)
    return np.arange(int(count.max(initial=1))) < count[:, None]


def sampled_columns(
    lake: Path, names: Sequence[str], axes: Axes, chosen: Mask, split: Split
) -> Iterator[tuple[str, Array]]:
    """(name, raw [training dates, K]) of each column: the `chosen` [T, N] stocks of each date side by side.

    A batch of columns of one year is decoded at a time, while the batch before is used, and only the chosen rows are
    kept, so memory stays flat at any width and any length.
    """
    first, end = split.part("train")
    shape = side_by_side((chosen & axes.listed)[first:end]).shape
    slices = [y for y in years(axes) if y.first < end and y.end > first]
    places = [_chosen_rows(year, chosen, first, end) for year in slices]

    def decoded(batch: Sequence[str]) -> dict[str, Array]:
        grids = {name: np.full(shape, np.nan) for name in batch}
        for year, (rows, date, place) in zip(slices, places, strict=True):
            frame = read_table(dataset_dir(lake) / f"{year.year}.parquet", batch)
            if frame.height != year.rows:
                raise ContractBroken(
                    f"dataset {year.year}: {frame.height:,} rows, the panel has {year.rows:,}; assemble again"
                )
            kept = frame[rows]
            for name in batch:
                grids[name][date, place] = kept[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return grids

    batches = [names[at : at + COLUMNS_AT_A_TIME] for at in range(0, len(names), COLUMNS_AT_A_TIME)]
    for grids in in_order(decoded, batches, workers=1, waiting=1):
        yield from grids.items()


def _chosen_rows(year: YearSlice, chosen: Mask, first: int, end: int) -> tuple[Places, Places, Places]:
    """Rows of the year's file that are chosen in first..end, their training date, and their count within the date."""
    wanted = chosen[year.first : year.end] & year.listed
    wanted[: max(first - year.first, 0)] = False
    wanted[max(end - year.first, 0) :] = False
    date = np.nonzero(wanted)[0]
    rows = np.flatnonzero(np.take(wanted.reshape(-1), year.cells))
    start = np.searchsorted(date, np.arange(len(wanted)))
    return rows, date + year.first - first, np.arange(len(date)) - start[date]
