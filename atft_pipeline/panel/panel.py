"""The market panel: quotes, listing attributes and calendar as dense arrays, and the series that groups share.

Raw quotes are stored; adjusted series are derived with the forward-cumulated split factor, so that a later split
changes no earlier row. What only one feature group needs belongs in that group. `build` turns raw tables into arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.lake.store import LakeError, read_array, read_json, write_array, write_json
from atft_pipeline.panel.availability import TradingCalendar
from atft_pipeline.panel.axes import Axes
from atft_pipeline.panel.build import IDS, QUOTES, dense_arrays
from atft_pipeline.panel.element_operators import on_every_core
from atft_pipeline.panel.ids import UNIVERSE_MARKETS, UNIVERSE_SECTORS
from atft_pipeline.panel.operators import (
    Array,
    cs_clip,
    cs_sum,
    divide,
    elementwise,
    log,
    ts_change,
    ts_cumprod,
    ts_lag,
    ts_mean,
    ts_std,
)
from atft_pipeline.settings import ANNUAL_DAYS

Ids = NDArray[np.int8]
Mask = NDArray[np.bool_]

VERSION = 1

MARKET_TURNOVER = ("market_turnover", 1)
SHARED_RETURNS = (1, 5, 20)
"""Rows of the simple returns that several groups read; each that is kept takes 86 MB of a full market."""


@dataclass(frozen=True, eq=False, repr=False)
class Panel:
    """Arrays are [T, N]: float64 with NaN for null, or int8 ids with -1 (scale and margin: 0) for missing."""

    axes: Axes
    calendar: TradingCalendar
    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    turnover: Array
    factor: Array
    """Adjustment factor of the row: 0.5 on the ex-date of a 1-to-2 split, else 1."""
    upper: Array
    """1 where the day traded at its upper limit, else 0."""
    lower: Array
    market: Ids
    sector17: Ids
    sector33: Ids
    scale: Ids
    margin: Ids
    _shared: dict[tuple[str, int, int], Array] = field(default_factory=dict, init=False)

    @cached_property
    def split(self) -> Array:
        """G: the product of the adjustment factors of all rows up to this one. Raw price = adjusted price x G."""
        return ts_cumprod(self.factor)

    @cached_property
    def c(self) -> Array:
        """Close in the units of the code's first row."""
        return self.close / self.split

    @cached_property
    def o(self) -> Array:
        return self.open / self.split

    @cached_property
    def h(self) -> Array:
        return self.high / self.split

    @cached_property
    def l(self) -> Array:  # noqa: E743  (the catalogue's formulas say c, o, h, l, v)
        return self.low / self.split

    @cached_property
    def v(self) -> Array:
        """Volume in the share units of the code's first row."""
        return self.volume * self.split

    @cached_property
    def traded(self) -> Mask:
        """The code had volume on the date."""
        return self.volume > 0

    @cached_property
    def universe(self) -> Mask:
        """U(T): listed, traded on T, in a general market segment and one of the 33 sectors."""
        segment = np.isin(self.market, UNIVERSE_MARKETS) & np.isin(self.sector33, UNIVERSE_SECTORS)
        return self.axes.listed & self.traded & segment

    @property
    def ret_1d(self) -> Array:
        return self.ret(1)

    @property
    def logret_1d(self) -> Array:
        return self.logret(1)

    def ret(self, rows: int) -> Array:
        """c / c[-rows] - 1; null if either side is null."""
        if rows not in SHARED_RETURNS:
            return ts_change(self.c, rows)
        return self._keep("ret", rows, lambda: ts_change(self.c, rows))

    def logret(self, rows: int) -> Array:
        """ln(c / c[-rows])."""
        return self._keep("logret", rows, lambda: log(divide(self.c, ts_lag(self.c, rows))))

    def vol_cc(self, n: int, min_obs: int) -> Array:
        """Annualised standard deviation of the daily log return over n rows."""

        def annualised() -> Array:
            return elementwise(lambda sd: sd * np.sqrt(ANNUAL_DAYS), ts_std(self.logret_1d, n, min_obs))

        return self._keep("vol_cc", n, annualised, min_obs)

    @property
    def clipped_ret_1d(self) -> Array:
        """ret_1d of the universe within each date's own 1st to 99th percentile; null for everyone else."""
        return self._keep("clipped_ret", 1, lambda: cs_clip(self.ret_1d, self.universe, 0.01, 0.99))

    @property
    def vol_ratio_20(self) -> Array:
        """v over its mean of the prior 20 rows (at least 15)."""
        return self._keep("vol_ratio", 20, lambda: divide(self.v, ts_mean(ts_lag(self.v, 1), 20, 15)))

    @property
    def adv20(self) -> Array:
        """Mean turnover in yen over 20 rows (at least 10)."""
        return self._keep("adv", 20, lambda: ts_mean(self.turnover, 20, 10))

    @property
    def volume_20(self) -> Array:
        """Mean of v over 20 rows (at least 10)."""
        return self._keep("volume", 20, lambda: ts_mean(self.v, 20, 10))

    @property
    def log_adv_20(self) -> Array:
        """ln(1 + adv20)."""
        return self._keep("log_adv", 20, lambda: elementwise(np.log1p, self.adv20))

    @property
    def market_turnover(self) -> Array:
        """The universe's turnover in yen, [T]."""
        return self._keep(*MARKET_TURNOVER, lambda: cs_sum(self.turnover, self.universe))

    def stocks(self, first: int, end: int) -> Panel:
        """The panel of the stocks in columns first..end-1, as views; what is of the whole market stays that."""
        axes, cut = self.axes, {name: getattr(self, name)[:, first:end] for name in (*QUOTES, *IDS)}
        part = Panel(Axes(axes.dates, axes.codes[first:end], axes.listed[:, first:end]), self.calendar, **cut)
        part._keep(*MARKET_TURNOVER, lambda: self.market_turnover)
        return part

    def _keep(self, name: str, rows: int, make: Callable[[], Array], min_obs: int = 0) -> Array:
        """A series that several groups read, made once. Everything that it depends on belongs in the key."""
        key = (name, rows, min_obs)
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def save(self, folder: Path) -> str:
        """Store the panel under `folder` and return its content hash. Half a panel never loads.

        The manifest is removed first and written last; a reader that has an older panel mapped keeps its files.
        """
        manifest = folder / "panel.json"
        folder.mkdir(parents=True, exist_ok=True)
        manifest.unlink(missing_ok=True)

        def store(name: str, array: NDArray[Any]) -> str:
            write_array(folder / f"{name}.npy", array)
            return hashlib.blake2b(np.ascontiguousarray(array).view(np.uint8).data, digest_size=16).hexdigest()

        arrays = self._arrays()
        hashes = dict(zip(arrays, on_every_core(store, arrays, arrays.values()), strict=True))
        whole = hashlib.sha256("".join(f"{name}{digest}" for name, digest in hashes.items()).encode()).hexdigest()
        rows, codes = self.axes.shape
        write_json(manifest, {"version": VERSION, "dates": rows, "codes": codes, "hash": whole, "arrays": hashes})
        return whole

    @classmethod
    def load(cls, folder: Path) -> Panel:
        """Map a stored panel. Raises LakeError when it is missing, half written or of another version."""
        manifest = read_json(folder / "panel.json")
        if manifest["version"] != VERSION:
            raise LakeError(f"{folder}: panel version {manifest['version']}, this code reads {VERSION}; rebuild it")
        arrays = {name: read_array(folder / f"{name}.npy") for name in manifest["arrays"]}
        shape = (manifest["dates"], manifest["codes"])
        wrong = [name for name in (*QUOTES, *IDS, "listed") if arrays[name].shape != shape]
        if wrong:
            raise LakeError(f"{folder}: {', '.join(wrong)} not of shape {shape}; rebuild the market panel")
        return _from_arrays(arrays)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "dates": self.axes.dates,
            "codes": self.axes.codes,
            "listed": self.axes.listed,
            "calendar_days": self.calendar.days,
            "calendar_half_days": self.calendar.half_days,
            **{name: getattr(self, name) for name in (*QUOTES, *IDS)},
        }


def build_panel(calendar: pl.DataFrame, master: pl.DataFrame, bars: pl.DataFrame) -> Panel:
    """The panel of typed raw tables `calendar`, `master` and `bars_daily`; row order does not matter.

    Raises ContractBroken when a trading day has no rows, a key occurs twice, or bars do not meet the listed issues.
    """
    return _from_arrays(dense_arrays(calendar, master, bars))


def _from_arrays(arrays: dict[str, NDArray[Any]]) -> Panel:
    axes = Axes(np.asarray(arrays["dates"]), np.asarray(arrays["codes"]), arrays["listed"])
    days = TradingCalendar(np.asarray(arrays["calendar_days"]), np.asarray(arrays["calendar_half_days"]))
    grids: dict[str, Any] = {name: arrays[name] for name in (*QUOTES, *IDS)}
    return Panel(axes, days, **grids)
