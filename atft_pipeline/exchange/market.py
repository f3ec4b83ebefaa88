"""One simulated Tokyo market: draw it, fit the planted signal, write its tables and its oracle.

This module only puts the pieces in order; each piece has its own module. The folder appears whole or not at all, and a
folder that already holds the wanted market is left alone. Tables are written month by month (see `storage.py`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.drawing import Market, draw_market
from atft_pipeline.exchange.oracle import Realised, label_columns, oracle_table
from atft_pipeline.exchange.plants import parse_plant
from atft_pipeline.exchange.sources import SOURCES, SpanTable
from atft_pipeline.exchange.storage import in_order, months, write_groups
from atft_pipeline.settings import MarketSize

VERSION = 3
"""Raised whenever the same size would give other numbers."""

TABLES = tuple(SOURCES)

Log = Callable[[str], None]


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
    for name, source in SOURCES.items():
        path = folder / f"{name}.parquet"
        rows = write_groups(path, table_by_months(name, source(market), size))
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        written[name] = {"rows": rows, "sha256": digest}
        tell(f"{name}: {rows:,} rows")
    return written


def table_by_months(name: str, rows: SpanTable, size: MarketSize) -> Iterator[pl.DataFrame]:
    """The table's frames, month by month. The calendar alone goes on to the end of the year after the market's last."""
    last = date(size.end.year + 1, 12, 31) if name == "calendar" else size.end
    return in_order(lambda span: rows(*span), months(size.start, last))


def _write_oracle(market: Market, folder: Path, tell: Log) -> None:
    """oracle.parquet, oracle.json and, for tests of the graph, the hidden neighbours."""
    folder.mkdir(parents=True)
    realised = Realised(market.quotes.returns(market.closes), market.members)

    def table(span: tuple[date, date]) -> tuple[pl.DataFrame, dict[str, NDArray[np.float64]]]:
        days = market.business_range(*span)
        row, trading = market.trading_row[days.start : days.stop], market.trading[days.start : days.stop]
        known = range(int(row[trading][0]), int(row[trading][-1]) + 1) if trading.any() else range(0)
        columns = label_columns(market.effects, market.scale, market.schedule, known)
        at = np.clip(row - known.start, 0, max(len(known) - 1, 0))
        business = market.business[days.start : days.stop]
        listed = market.universe.listed_on(days)
        frame = oracle_table(market.universe.codes, business, listed, at, trading, columns)
        return frame, realised.correlate(columns, known)

    def frames() -> Iterator[pl.DataFrame]:
        for frame, correlations in in_order(table, months(market.business[0], market.business[-1])):
            realised.add(correlations)
            yield frame

    write_groups(folder / "oracle.parquet", frames())
    facts = realised.facts(market.planted)
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
