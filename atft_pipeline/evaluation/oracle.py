"""The only reader of the simulated market's oracle: the expected returns that generated every price.

Real markets have no oracle; then `load_oracle` returns None and the report says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.lake.store import read_json

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Oracle:
    """E[return over (T+delay, T+delay+h] | known at T] per label, aligned to the panel; and the market's account."""

    expected: Mapping[tuple[int, int], Array]
    """(delay, horizon) -> [T, N], NaN where the market has no bar."""
    account: Mapping[str, object]

    def stacked(self, delay: int, horizons: tuple[int, ...]) -> Array:
        """[T, N, H] of one delay."""
        return np.stack([self.expected[delay, h] for h in horizons], axis=2)


def load_oracle(
    market_dir: Path | None,
    dates: NDArray[np.datetime64],
    codes: NDArray[np.str_],
    delays: tuple[int, ...],
    horizons: tuple[int, ...],
) -> Oracle | None:
    """Read <market_dir>/oracle for the panel's dates and codes; None where there is no simulated market."""
    path = (market_dir or Path()) / "oracle" / "oracle.parquet"
    if market_dir is None or not path.exists():
        return None
    names = {(d, h): f"d{d}_h{h}" for d in delays for h in horizons}
    frame = pl.read_parquet(path, columns=["date", "code", *names.values()])
    row = np.searchsorted(dates, frame["date"].to_numpy().astype("datetime64[D]"))
    column = np.searchsorted(codes, frame["code"].to_numpy().astype(str))
    row_at, column_at = np.minimum(row, len(dates) - 1), np.minimum(column, len(codes) - 1)
    inside = (dates[row_at] == frame["date"].to_numpy().astype("datetime64[D]")) & (
        codes[column_at] == frame["code"].to_numpy().astype(str)
    )
    expected: dict[tuple[int, int], Array] = {}
    for key, name in names.items():
        grid = np.full((len(dates), len(codes)), np.nan)
        grid[row_at[inside], column_at[inside]] = frame[name].to_numpy()[inside]
        expected[key] = grid
    account = path.with_name("oracle.json")
    return Oracle(expected, read_json(account) if account.exists() else {})
