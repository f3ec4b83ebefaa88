"""One simulated Tokyo market: draw it, fit the planted signal, write its tables and its oracle.

This module only puts the pieces in order; each piece has its own module. The folder appears whole or not at all, and a
folder that already holds the wanted market is left alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.accounts import draw_accounts
from atft_pipeline.exchange.bars import Quotes, bars_table, draw_quotes, draw_traded
from atft_pipeline.exchange.flows import investor_types_table
from atft_pipeline.exchange.indices import draw_indices, indices_table, topix_table
from atft_pipeline.exchange.oracle import acting_dates, calibrate, label_columns, oracle_table, realised
from atft_pipeline.exchange.plants import PARTS, Planted, parse_plant
from atft_pipeline.exchange.prices import Closes, price_path
from atft_pipeline.exchange.returns import Noise, draw_noise, simulate
from atft_pipeline.exchange.signals import Effects, Groups, Hidden, draw_groups, draw_hidden
from atft_pipeline.exchange.statements import fin_summary_table
from atft_pipeline.exchange.tokyo_calendar import OUTAGES, business_days, calendar_table
from atft_pipeline.exchange.universe import Universe, draw_universe, master_table
from atft_pipeline.settings import MarketSize

VERSION = 1
"""Raised whenever the same size would give other numbers."""

FEWEST_STOCKS = 12
FEWEST_DAYS = 30

TABLES = ("calendar", "master", "bars_daily", "topix", "indices", "fin_summary", "investor_types")

Log = Callable[[str], None]


class MarketSizeError(ValueError):
    """The wanted market is too small to simulate; the message says what is needed."""


@dataclass(frozen=True)
class Market:
    """A market in memory. Arrays are [trading days, issues]; business days include those of an outage."""

    universe: Universe
    business: list[date]
    trading: NDArray[np.bool_]
    """[business days]: the exchange traded."""
    hidden: Hidden
    groups: Groups
    noise: Noise
    effects: Effects
    closes: Closes
    quotes: Quotes
    planted: Mapping[str, Planted]
    scale: Mapping[str, float]
    schedule: Mapping[str, NDArray[np.float64]]

    @property
    def trading_days(self) -> list[date]:
        return [day for day, trades in zip(self.business, self.trading, strict=True) if trades]

    @property
    def members(self) -> NDArray[np.bool_]:
        """Stocks that traded on the day: who counts in an information coefficient."""
        return self.quotes.traded & self.universe.common


def draw_market(size: MarketSize) -> Market:
    """Draw the market of `size` and fit the scales of its planted parts to their sizes on the written bars."""
    planted = parse_plant(size.plant)
    business = business_days(size.start, size.end)
    if size.stocks < FEWEST_STOCKS or len(business) < FEWEST_DAYS:
        raise MarketSizeError(
            f"a market of {size.stocks} stocks and {len(business)} business days ({size.start} to {size.end}) is too "
            f"small; it needs {FEWEST_STOCKS} stocks and {FEWEST_DAYS} business days"
        )
    trading = np.array([day not in OUTAGES for day in business])
    days = [day for day in business if day not in OUTAGES]
    universe = draw_universe(size.stocks, business, size.seed)
    listed = universe.listed(len(business))[trading]
    hidden = draw_hidden(universe, len(days), size.seed)
    groups = draw_groups(universe, size.seed)
    noise = draw_noise(universe, groups, len(days), size.seed)
    traded = draw_traded(universe, listed, size.seed)
    acting = acting_dates(days)
    schedule = {part: planted.get(part, Planted(0.0)).schedule(acting) for part in PARTS}

    def play(scale: Mapping[str, float]) -> tuple[Effects, Closes]:
        returns = simulate(noise, hidden, groups, listed, scale, schedule)
        return returns.effects, price_path(universe, returns.simple, listed, days, size.seed)

    def realise(scale: Mapping[str, float]) -> tuple[Effects, NDArray[np.float64]]:
        effects, closes = play(scale)
        return effects, closes.returns()

    scale = calibrate(planted, schedule, realise, traded & universe.common)
    effects, closes = play(scale)
    quotes = draw_quotes(universe, closes, hidden, noise.volatility, traded, size.seed)
    return Market(universe, business, trading, hidden, groups, noise, effects, closes, quotes, planted, scale, schedule)


def market_tables(market: Market, size: MarketSize) -> Iterator[tuple[str, pl.DataFrame]]:
    """The tables of TABLES, as the API delivers them, in that order."""
    universe, business, trading = market.universe, market.business, market.trading
    yield "calendar", calendar_table(size.start, size.end)
    master = master_table(universe, business)
    yield "master", master
    bars = bars_table(universe, market.quotes, market.closes, business, trading)
    yield "bars_daily", bars
    lines = draw_indices(universe, market.quotes, market.closes, market.noise, size.seed)
    indices = indices_table(lines, business, trading)
    topix = topix_table(indices)
    yield "topix", topix
    yield "indices", indices
    accounts = draw_accounts(universe, market.hidden.linear, market.trading_days, size.seed)
    adjustment = np.asarray(np.cumprod(market.closes.factor, axis=0), dtype=np.float64)
    yield (
        "fin_summary",
        fin_summary_table(
            universe, accounts, market.hidden.linear, adjustment, business, market.trading_days, size.seed
        ),
    )
    yield "investor_types", investor_types_table(bars, master, topix, business, size.seed)


def generate(size: MarketSize, out: Path, log: Log | None = None) -> dict[str, Any]:
    """Write the market of `size` to the folder `out` and return its description (`market.json`).

    The same size gives the same bytes. A folder that already holds this market is returned as it is; any other content
    of `out` is replaced in one rename. Concurrent callers wait for each other. Raises `PlantError` for an unknown plant
    and `MarketSizeError` for a market too small to simulate.
    """
    tell = log or (lambda text: None)
    parse_plant(size.plant)
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(out):
        found = _existing(out, size)
        if found is not None:
            return found
        staging = out.with_name(f".{out.name}.staging")
        shutil.rmtree(staging, ignore_errors=True)
        tell(f"simulating {size.stocks} stocks from {size.start} to {size.end}, plant {size.plant!r}")
        market = draw_market(size)
        description = _identity(size) | {"tables": _write_tables(market, size, staging / "tables", tell)}
        _write_oracle(market, staging / "oracle", tell)
        _write_json(staging / "market.json", description)
        _replace(staging, out)
        return description


@contextmanager
def _only_one(out: Path) -> Iterator[None]:
    with open(out.with_name(f".{out.name}.generating"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _identity(size: MarketSize) -> dict[str, Any]:
    return {
        "version": VERSION,
        "stocks": size.stocks,
        "start": size.start.isoformat(),
        "end": size.end.isoformat(),
        "seed": size.seed,
        "plant": size.plant,
    }


def _existing(out: Path, size: MarketSize) -> dict[str, Any] | None:
    """The description of `out` if it holds exactly this market with every file in place."""
    wanted = [out / "tables" / f"{name}.parquet" for name in TABLES]
    wanted += [out / "oracle" / "oracle.parquet", out / "oracle" / "oracle.json"]
    try:
        found: dict[str, Any] = json.loads((out / "market.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    same = all(found.get(key) == value for key, value in _identity(size).items())
    return found if same and all(path.exists() for path in wanted) else None


def _write_tables(market: Market, size: MarketSize, folder: Path, tell: Log) -> dict[str, dict[str, Any]]:
    folder.mkdir(parents=True)
    written = {}
    for name, table in market_tables(market, size):
        path = folder / f"{name}.parquet"
        table.write_parquet(path, compression="zstd", compression_level=3)
        written[name] = {"rows": table.height, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        tell(f"{name}: {table.height:,} rows")
    return written


def _write_oracle(market: Market, folder: Path, tell: Log) -> None:
    """oracle.parquet, oracle.json and, for tests of the graph, the hidden neighbours."""
    folder.mkdir(parents=True)
    columns = label_columns(market.effects, market.scale, market.schedule)
    listed = market.universe.listed(len(market.business))
    table = oracle_table(market.universe.codes, market.business, listed, market.trading, columns)
    table.write_parquet(folder / "oracle.parquet", compression="zstd", compression_level=3)
    returns = market.quotes.returns(market.closes)
    facts = realised(columns, returns, market.members, market.planted)
    facts["scale"] = {part: float(size) for part, size in market.scale.items()}
    _write_json(folder / "oracle.json", facts)
    codes = market.universe.codes
    pairs = [(codes[a], codes[b]) for a, b in market.groups.edges()]
    pl.DataFrame(pairs, schema=["code", "neighbour"], orient="row").write_parquet(folder / "neighbours.parquet")
    total = facts["labels"]["d0_h1"]
    tell(f"oracle: 1-day IC {total['ic']:.4f} (daily SD {total['sd']:.3f}, SE {total['se']:.4f})")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _replace(staging: Path, out: Path) -> None:
    """Put `staging` in the place of `out`; killed in between, `out` is missing and the next call writes it again."""
    for path in [*staging.rglob("*"), staging]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    retired = out.with_name(f".{out.name}.retired")
    shutil.rmtree(retired, ignore_errors=True)
    if out.exists():
        out.rename(retired)
    staging.rename(out)
    shutil.rmtree(retired, ignore_errors=True)
