"""Features over a whole market: cells per second against Polars and pandas, and raw tables -> dataset written.

    python benchmarks/features.py [--stocks 1000] [--start 2019-07-01] [--plan premium] [--lake FOLDER] [--only PART]

Parts: `kernels` computes every group whose tables the panel alone gives; `compute` computes all of the plan from the
raw tables of a lake that `build` left. `peers` computes 64 of the same columns by Polars `.over` (streaming engine), 61
of them by pandas groupby, and compares the values. `build` writes raw tables of a simulated market and runs panel,
every group of the plan and the dataset, each file on disk at the end. Prints JSON lines; cells are listed rows times
columns. Dated results are kept in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from feature_peers import PEER_GROUPS, by_pandas, by_polars, long_table

from atft_pipeline import steps
from atft_pipeline.exchange.market import generate
from atft_pipeline.features import catalog
from atft_pipeline.features.group import Inputs, compute_columns
from atft_pipeline.jquants.tables import TABLES
from atft_pipeline.lake.store import read_record, write_table
from atft_pipeline.panel.availability import TradingCalendar
from atft_pipeline.panel.axes import Axes
from atft_pipeline.panel.memory import reusing_memory
from atft_pipeline.panel.panel import Panel
from atft_pipeline.settings import MarketSize

MACHINE = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
PANEL_GROUPS = ("meta", "px", "ret", "vol", "ta", "liq", "evt", "cal", "xs")
Made = TypeVar("Made")


@dataclass
class Clock:
    """Wall and CPU seconds of a stretch of work."""

    wall: float
    cpu: float

    @classmethod
    def start(cls) -> Clock:
        return cls(time.perf_counter(), time.process_time())

    def stop(self) -> dict[str, float]:
        return {
            "wall_s": round(time.perf_counter() - self.wall, 2),
            "cpu_s": round(time.process_time() - self.cpu, 2),
        }


def report(name: str, **figures: object) -> None:
    load = round(os.getloadavg()[0], 1)
    print(json.dumps({"benchmark": name, **figures, "load": load, "machine": MACHINE}), flush=True)


def peak_gb() -> float:
    """Largest resident memory of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


def random_panel(stocks: int, days: int, seed: int = 0) -> Panel:
    """Random walks as a panel: a fifth of the codes list late, one quote in a hundred is missing, a few splits."""
    rng = np.random.default_rng(seed)
    shape = (days, stocks)

    def noise() -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32).astype(np.float64)

    calendar = np.busday_offset(np.datetime64("2015-01-05"), np.arange(days + 60), roll="forward")
    close = 1000 * np.exp(np.cumsum(0.02 * noise() - 2e-4, axis=0))
    open_ = close * np.exp(0.005 * noise())
    high = np.maximum(open_, close) * (1 + 0.004 * np.abs(noise()))
    low = np.minimum(open_, close) * (1 - 0.004 * np.abs(noise()))
    volume = np.round(np.exp(11 + noise()))
    listed = np.ones(shape, bool)
    late = stocks // 5
    listed[:, :late] = np.arange(days)[:, None] >= rng.integers(0, days, late)
    quiet = (rng.random(shape, dtype=np.float32) < 0.01) | ~listed
    for quote in (open_, high, low, close, volume):
        quote[quiet] = np.nan
    factor = np.where(rng.random(shape, dtype=np.float32) < 2e-5, 0.5, 1.0)
    limit = (rng.random(shape, dtype=np.float32) < 1e-3).astype(np.float64)
    for given in (factor, limit):
        given[~listed] = np.nan

    def ids(levels: int, missing: int) -> np.ndarray:
        return np.where(listed, np.arange(stocks) % levels + 1, missing).astype(np.int8)

    return Panel(
        Axes(calendar[:days], np.array([f"{10000 + 3 * i:05d}" for i in range(stocks)]), listed),
        TradingCalendar(calendar, calendar[:0]),
        open_, high, low, close, volume, volume * (high + low) / 2, factor, limit, limit[::-1].copy(),
        np.where(listed, 8, -1).astype(np.int8), ids(17, -1), ids(33, -1), ids(5, 0), ids(2, 0),
    )  # fmt: skip


def computed(panel: Panel, names: tuple[str, ...]) -> Iterator[tuple[str, str, np.ndarray]]:
    """(group, column, values) of the named groups."""
    for group in (group for group in catalog.GROUPS if group.name in names):
        for name, values in compute_columns(group, Inputs(panel, {})):
            yield group.name, name, values


def kernels(stocks: int, days: int) -> None:
    """Compute alone; nothing is kept or written. A small panel compiles the kernels first."""
    list(computed(random_panel(200, 300), PANEL_GROUPS))
    panel = random_panel(stocks, days)
    rows = int(panel.axes.listed.sum())
    with reusing_memory():
        clock, count = Clock.start(), 0
        for _ in computed(panel, PANEL_GROUPS):
            count += 1
        spent = clock.stop()
    rate = round(rows * count / spent["wall_s"] / 1e6, 1)
    report("features_kernels", stocks=stocks, days=days, columns=count, mcells_per_s=rate, **spent, peak_gb=peak_gb())


def compute(plan: str, lake: Path) -> None:
    """Every group of the plan from the tables of a lake with a market panel: columns computed, none kept or written.

    What the clock sees begins with a group's tables in memory and ends with its last column as float32 rows. Twice in
    one process: `cold` also pays for memory that the process touches for the first time, on a virtual machine as much
    as for the arithmetic; `warm` does not.
    """
    list(computed(random_panel(200, 300), PANEL_GROUPS))
    with reusing_memory():
        for memory in ("cold", "warm"):
            panel = steps.load_panel(lake)  # anew: it keeps the series that several groups share
            rows, (days, stocks) = int(panel.axes.listed.sum()), panel.axes.shape
            columns, wall, cpu = 0, 0.0, 0.0
            of_groups: dict[str, dict[str, float]] = {}
            for group in catalog.groups(plan):
                inputs = Inputs(panel, steps.read_tables(lake, group))
                clock = Clock.start()
                count = sum(1 for _ in compute_columns(group, inputs))
                spent = clock.stop()
                of_groups[group.name] = {"columns": count, **spent}
                columns, wall, cpu = columns + count, wall + spent["wall_s"], cpu + spent["cpu_s"]
            mcells = rows * columns / 1e6
            report("features_compute", memory=memory, stocks=stocks, days=days, plan=plan, columns=columns, rows=rows,
                   mcells_per_s=round(mcells / wall, 1), mcells_per_cpu_s=round(mcells / cpu, 1),
                   wall_s=round(wall, 2), cpu_s=round(cpu, 2), peak_gb=peak_gb(), groups=of_groups)  # fmt: skip


def best_of_two(work: Callable[[], Made]) -> tuple[Made, dict[str, float]]:
    """The result and the seconds of the faster of two runs: the first also touches its memory for the first time."""
    clock = Clock.start()
    made = work()
    first = clock.stop()
    del made  # its memory serves the second run
    clock = Clock.start()
    made = work()
    return made, min(first, clock.stop(), key=lambda run: run["wall_s"])


def anew(panel: Panel) -> Panel:
    """The panel without the series that groups share, which it keeps."""
    return replace(panel)


def peers(stocks: int, days: int) -> None:
    """The same columns from the same adjusted quotes, three ways, in one sitting.

    Our groups compute all of their 78 columns, a peer 61 or 64 of them: `ratio_*` compares the seconds as they are,
    `ratio_*_per_column` divides each by its columns.
    """
    list(computed(random_panel(200, 300), PEER_GROUPS))
    panel = random_panel(stocks, days)
    base = long_table(panel)
    rows = base.height
    with reusing_memory():
        ours, spent = best_of_two(lambda: {name: values for _, name, values in computed(anew(panel), PEER_GROUPS)})
    report("features_ours", stocks=stocks, days=days, columns=len(ours), **spent,
           mcells_per_s=round(rows * len(ours) / spent["wall_s"] / 1e6, 1))  # fmt: skip
    for library, work in (("polars", by_polars), ("pandas", by_pandas)):
        theirs, took = best_of_two(lambda work=work: work(base))
        worst = differences(panel, base, ours, theirs)
        ratios = {f"ratio_{of}": round(took[f"{of}_s"] / spent[f"{of}_s"], 2) for of in ("wall", "cpu")}
        share = len(ours) / len(theirs)
        per_column = {f"{name}_per_column": round(ratio * share, 2) for name, ratio in ratios.items()}
        report(f"features_{library}", stocks=stocks, days=days, columns=len(theirs), **took,
               mcells_per_s=round(rows * len(theirs) / took["wall_s"] / 1e6, 1), **ratios, **per_column,
               largest_difference=worst[0], in_column=worst[1])  # fmt: skip


def differences(
    panel: Panel, base: pl.DataFrame, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> tuple[float, str]:
    """Largest |a - b| / (1e-3 + |b|) over the shared columns. Raises when a column differs by more than 1 %, or in
    more than five of a million cells is known to one side only: running sums of a peer can end below zero at a root."""
    t, n = base["day"].to_numpy(), base["code"].to_numpy()
    worst = (0.0, "")
    for name, b in theirs.items():
        a = ours[name][t, n].astype(np.float64)
        lonely = int((np.isfinite(a) != np.isfinite(b)).sum())
        both = np.isfinite(a) & np.isfinite(b)
        gap = float((np.abs(a[both] - b[both]) / (1e-3 + np.abs(b[both]))).max(initial=0.0))
        if gap > 0.01 or lonely > 5 * len(a) / 1e6:
            raise AssertionError(f"{name}: largest relative difference {gap:.3g}, {lonely} cells known to one only")
        worst = max(worst, (gap, name))
    return worst


def _typed(name: str, delivered: pl.DataType, dtype: pl.DataType) -> pl.Expr:
    """A delivered column as the declared type: dates from text, nested values as JSON text."""
    if isinstance(delivered, pl.Struct) and dtype == pl.String:
        return pl.col(name).struct.json_encode().alias(name)
    if dtype == pl.Date and delivered == pl.String:
        return pl.col(name).replace("", None).str.to_date()
    return pl.col(name).cast(dtype, strict=False)


def store_raw(market: Path, lake: Path) -> None:
    """The simulated market's tables as the lake stores them, one file a year."""
    for path in sorted((market / "tables").glob("*.parquet")):
        table = TABLES[path.stem]
        have = pl.read_parquet_schema(path)
        wanted = {name: dtype for name, dtype in {**table.schema, **table.optional}.items() if name in have}
        frame = pl.read_parquet(path, columns=list(wanted)).select(
            _typed(name, have[name], dtype) for name, dtype in wanted.items()
        )
        absent = [pl.lit(None, dtype).alias(name) for name, dtype in table.schema.items() if name not in have]
        texts = [name for name in table.keys if wanted.get(name) == pl.String]
        frame = frame.with_columns(*absent, *(pl.col(name).fill_null("") for name in texts))
        for (year,), part in frame.group_by(pl.col(table.date_column).dt.year(), maintain_order=True):
            write_table(lake / "raw" / table.name / f"{year}-01.parquet", part, keys=table.keys)


def build(size: MarketSize, plan: str, lake: Path) -> None:
    """Panel, features and dataset from raw tables; a lake without any gets a market's first, outside the clock."""
    if not (lake / "raw").exists():
        generate(size, lake / "market")
        store_raw(lake / "market", lake)
        shutil.rmtree(lake / "market")
    if (lake / "features").exists():
        raise SystemExit(f"{lake}: features lie here already and would not be written again; remove all but raw/")
    rows = sum(read_record(path).rows for path in (lake / "raw").rglob("*.parquet"))
    whole = Clock.start()
    stages: dict[str, dict[str, float]] = {"wall_s": {}, "cpu_s": {}, "peak_gb": {}}

    def staged(name: str, work: Callable[[], Any]) -> Any:
        clock = Clock.start()
        result = work()
        for kind, seconds in clock.stop().items():
            stages[kind][name] = seconds
        stages["peak_gb"][name] = peak_gb()
        return result

    summary = staged("market_panel", lambda: steps.build_market_panel(lake))
    for group in catalog.groups(plan):
        staged(group.name, lambda group=group: steps.build_features(lake, group.name))
    dataset = staged("dataset", lambda: steps.build_dataset(lake, plan, size.name))
    figures = {"stocks": summary.codes, "days": summary.dates, "plan": plan, "columns": dataset["n_columns"]}
    written = sum(path.stat().st_size for room in ("features", "dataset") for path in (lake / room).rglob("*.parquet"))
    report("features_build", **figures, rows=dataset["rows"], raw_rows=rows, **whole.stop(), peak_gb=peak_gb(),
           written_gb=round(written / 1e9, 2), stages=stages)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stocks", type=int, default=500)
    parser.add_argument("--start", type=date.fromisoformat, default=date(2021, 7, 1))
    parser.add_argument("--end", type=date.fromisoformat, default=date(2024, 6, 28))
    parser.add_argument("--plan", default="premium")
    parser.add_argument("--only", choices=("kernels", "compute", "peers", "build"))
    parser.add_argument("--lake", type=Path, help="folder to keep, whose raw/ serves again; a temporary one otherwise")
    chosen = parser.parse_args()
    days = int(np.busday_count(chosen.start, chosen.end) * 245 / 261)
    if chosen.only in (None, "kernels"):
        kernels(chosen.stocks, days)
    if chosen.only == "compute":
        if chosen.lake is None:
            parser.error("--only compute needs --lake, the folder of a build")
        compute(chosen.plan, chosen.lake)
    if chosen.only in (None, "peers"):
        peers(chosen.stocks, days)
    if chosen.only in (None, "build"):
        lake = chosen.lake or Path(tempfile.mkdtemp(prefix="features_benchmark."))
        try:
            build(MarketSize(stocks=chosen.stocks, start=chosen.start, end=chosen.end), chosen.plan, lake)
        finally:
            if chosen.lake is None:
                shutil.rmtree(lake)


if __name__ == "__main__":
    sys.exit(main())
