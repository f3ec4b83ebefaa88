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
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from atft_pipeline.exchange.accounts import draw_accounts
from atft_pipeline.exchange.bars import bars_table
from atft_pipeline.exchange.drawing import Market, draw_market
from atft_pipeline.exchange.flows import investor_types_table
from atft_pipeline.exchange.indices import draw_indices, indices_table, topix_table
from atft_pipeline.exchange.oracle import label_columns, oracle_table, realised
from atft_pipeline.exchange.plants import parse_plant
from atft_pipeline.exchange.sources import SOURCES
from atft_pipeline.exchange.statements import fin_summary_table
from atft_pipeline.exchange.tokyo_calendar import calendar_table
from atft_pipeline.exchange.universe import master_table
from atft_pipeline.settings import MarketSize

VERSION = 2
"""Raised whenever the same size would give other numbers."""

TABLES = ("calendar", "master", "bars_daily", "topix", "indices", "fin_summary", "investor_types", *SOURCES)

Log = Callable[[str], None]


def market_tables(market: Market, size: MarketSize) -> Iterator[tuple[str, pl.DataFrame]]:
    """The tables of TABLES, as the API delivers them, in that order."""
    universe, business, trading = market.universe, market.business, market.trading
    yield "calendar", calendar_table(size.start, size.end)
    master = master_table(universe, business)
    yield "master", master
    bars = bars_table(universe, market.quotes, market.closes, business, trading, size.seed)
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
    for name, source in SOURCES.items():
        yield name, source(market)(size.start, size.end)


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
