"""The market panel: quotes and listing state as dense [date, stock] arrays, and the series that several groups share.

Prices are adjusted without the future: with F the adjustment factor on a row (.5 on the ex-date of a 1:2 split) and G
its product from the first row up to the row itself, c = close / G and v = volume * G. A later split changes no earlier
value, and ratios of these series equal ratios of fully adjusted ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.lake.store import read_array, read_json, write_array, write_json
from atft_pipeline.panel.axes import OUTAGE_DAYS, Axes, Calendar
from atft_pipeline.panel.operators import Array, divide, log, ts_lag, ts_mean
from atft_pipeline.verdict import ContractBroken

Ids = NDArray[np.int8]

MARKETS = {
    "0101": 1,
    "0102": 2,
    "0104": 3,
    "0105": 4,
    "0106": 5,
    "0107": 6,
    "0109": 7,
    "0111": 8,
    "0112": 9,
    "0113": 10,
}
"""Id of each market code: constants, never derived from the data at hand."""

STOCK_MARKETS = (1, 2, 3, 5, 6, 8, 9, 10)
"""Markets of ordinary shares: neither TOKYO PRO (4) nor funds and others (7)."""

SECTORS33 = (
    "0050 1050 2050 3050 3100 3150 3200 3250 3300 3350 3400 3450 3500 3550 3600 3650 3700 "
    "3750 3800 4050 5050 5100 5150 5200 5250 6050 6100 7050 7100 7150 7200 8050 9050"
).split()
"""The 33 sector codes; the id is the position from 1, and 9999 (funds and others) is 34."""

OTHER_SECTOR33, OTHER_SECTOR17 = 34, 18
SCALES = {"TOPIX Core30": 1, "TOPIX Large70": 2, "TOPIX Mid400": 3, "TOPIX Small 1": 4, "TOPIX Small 2": 5}

QUOTES = {
    "open": "O",
    "high": "H",
    "low": "L",
    "close": "C",
    "volume": "Vo",
    "turnover": "Va",
    "factor": "AdjFactor",
    "upper": "UL",
    "lower": "LL",
}
"""Panel array -> field of the daily bars."""

IDS = ("market", "sector17", "sector33", "scale", "margin")


@dataclass(frozen=True, eq=False)
class Panel:
    """Raw quotes float64 [T, N] (null: NaN), ids int8 [T, N] (-1 or 0: unknown), the axes and the calendar."""

    axes: Axes
    calendar: Calendar
    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    turnover: Array
    factor: Array
    upper: Array
    lower: Array
    market: Ids
    sector17: Ids
    sector33: Ids
    scale: Ids
    margin: Ids
    hash: str = ""
    """SHA-256 of everything above, as stored; empty for a panel that was not stored."""
    _returns: dict[int, Array] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def split(self) -> Array:
        """G: the product of all adjustment factors from the first row up to this one."""
        return np.asarray(np.cumprod(np.where(np.isfinite(self.factor), self.factor, 1.0), axis=0), np.float64)

    @cached_property
    def o(self) -> Array:
        return np.asarray(self.open / self.split)

    @cached_property
    def h(self) -> Array:
        return np.asarray(self.high / self.split)

    @cached_property
    def l(self) -> Array:  # noqa: E743  (the formulas say o, h, l, c)
        return np.asarray(self.low / self.split)

    @cached_property
    def c(self) -> Array:
        return np.asarray(self.close / self.split)

    @cached_property
    def v(self) -> Array:
        """Volume in shares of the first row's units."""
        return np.asarray(self.volume * self.split)

    def ret(self, k: int) -> Array:
        """c / c[-k] - 1, the k-day return."""
        if k not in self._returns:
            self._returns[k] = divide(self.c, ts_lag(self.c, k)) - 1
        return self._returns[k]

    @property
    def ret_1d(self) -> Array:
        return self.ret(1)

    @cached_property
    def logret_1d(self) -> Array:
        """ln(c / c[-1])."""
        return log(divide(self.c, ts_lag(self.c, 1)))

    @cached_property
    def traded(self) -> NDArray[np.bool_]:
        """[T, N]: some volume on the day."""
        return np.nan_to_num(self.volume, nan=0.0) > 0

    @cached_property
    def universe(self) -> NDArray[np.bool_]:
        """U(T): listed ordinary shares with a sector that traded on the day."""
        ordinary = np.isin(self.market, STOCK_MARKETS) & (self.sector33 > 0) & (self.sector33 < OTHER_SECTOR33)
        return np.asarray(ordinary & self.traded & self.axes.listed)

    @cached_property
    def vol_ratio_20(self) -> Array:
        """v over its mean of the prior 20 rows (at least 15)."""
        return divide(self.v, ts_mean(ts_lag(self.v, 1), 20, 15))

    @cached_property
    def log_adv_20(self) -> Array:
        """ln(1 + mean turnover of 20 rows, in yen; at least 10)."""
        return np.log1p(ts_mean(self.turnover, 20, 10))

    def save(self, folder: Path) -> str:
        """Store every array below `folder` and return the panel's hash; `panel.json` comes last and commits it."""
        digest = hashlib.sha256()
        for name, array in self._arrays().items():
            write_array(folder / f"{name}.npy", array)
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        write_json(
            folder / "panel.json",
            {"hash": digest.hexdigest(), "dates": self.axes.shape[0], "codes": self.axes.shape[1]},
        )
        return digest.hexdigest()

    @classmethod
    def load(cls, folder: Path) -> Panel:
        """The stored panel, memory-mapped. Raises `LakeError` when a file is missing or damaged."""
        described: Mapping[str, Any] = read_json(folder / "panel.json")

        def array(name: str) -> NDArray[Any]:
            return read_array(folder / f"{name}.npy")

        axes = Axes(*(np.asarray(array(name)) for name in ("dates", "codes", "listed")))
        if axes.shape != (described["dates"], described["codes"]):
            raise ContractBroken(f"{folder}: arrays and panel.json differ; materialise market_panel again")
        calendar = Calendar(*(np.asarray(array(name)) for name in ("calendar_days", "half_days")))
        arrays: dict[str, Any] = {name: array(name) for name in (*QUOTES, *IDS)}
        return cls(axes, calendar, **arrays, hash=described["hash"])

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "dates": self.axes.dates,
            "codes": self.axes.codes,
            "listed": self.axes.listed,
            "calendar_days": self.calendar.days,
            "half_days": self.calendar.half_days,
            **{name: getattr(self, name) for name in (*QUOTES, *IDS)},
        }


def build_panel(calendar: pl.DataFrame, master: pl.DataFrame, bars: pl.DataFrame) -> Panel:
    """The panel of the days that have bars, from the raw tables `calendar`, `master` and `bars_daily`.

    Raises `ContractBroken` when a table is empty or a day with bars has no list of issues.
    """
    for name, table in (("master", master), ("bars_daily", bars)):
        if not table.height:
            raise ContractBroken(f"raw table {name} is empty; materialise raw/{name} first")
    days = bars["Date"].unique().sort().to_numpy().astype("datetime64[D]")
    days = days[~np.isin(days, OUTAGE_DAYS)]
    unlisted = days[~np.isin(days, master["Date"].unique().to_numpy().astype("datetime64[D]"))]
    if len(unlisted):
        raise ContractBroken(f"raw/master has no issues on {unlisted[0]} ({len(unlisted)} such days): ingest it again")
    codes = np.array(master["Code"].unique().sort().to_list(), dtype="<U5")
    shape = (len(days), len(codes))
    places = Axes(days, codes, np.zeros(shape, bool))
    at = _cells(places, master)
    listed = places.listed
    listed[at.row, at.column] = True
    ids: dict[str, Any] = {
        "market": _ids(shape, at, master["Mkt"], MARKETS, -1),
        "sector17": _ids(shape, at, master["S17"], {**{str(k): k for k in range(1, 18)}, "99": OTHER_SECTOR17}, -1),
        "sector33": _ids(shape, at, master["S33"], {**_sector_ids(), "9999": OTHER_SECTOR33}, -1),
        "scale": _ids(shape, at, master["ScaleCat"], SCALES, 0),
        "margin": _ids(shape, at, master["Mrgn"], {"1": 1, "2": 2, "3": 3}, 0),
    }
    at = _cells(places, bars)
    quotes: dict[str, Any] = {name: _dense(shape, at, bars[source]) for name, source in QUOTES.items()}
    return Panel(Axes(days, codes, listed), Calendar.from_table(calendar), **quotes, **ids)


@dataclass(frozen=True)
class _Cells:
    """Where table rows lie on the axes; `kept` marks rows that lie on them at all."""

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    kept: NDArray[np.bool_]


def _cells(axes: Axes, table: pl.DataFrame) -> _Cells:
    row, column = axes.rows_of(table["Date"]), axes.columns_of(table["Code"])
    kept = (row >= 0) & (column >= 0)
    return _Cells(row[kept], column[kept], kept)


def _dense(shape: tuple[int, int], at: _Cells, values: pl.Series) -> Array:
    dense = np.full(shape, np.nan)
    dense[at.row, at.column] = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()[at.kept]
    return dense


def _ids(shape: tuple[int, int], at: _Cells, codes: pl.Series, known: Mapping[str, int], missing: int) -> Ids:
    """Ids by the constant dictionary; a code that it does not know counts as missing."""
    dense = np.full(shape, missing, np.int8)
    numbers = codes.replace_strict(known, default=missing, return_dtype=pl.Int8).fill_null(missing)
    dense[at.row, at.column] = numbers.to_numpy()[at.kept]
    return dense


def _sector_ids() -> dict[str, int]:
    return {code: place for place, code in enumerate(SECTORS33, start=1)}
