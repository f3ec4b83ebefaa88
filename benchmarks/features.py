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
import pandas as pd
import polars as pl

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
PEER_GROUPS = ("px", "ret", "vol", "ta", "liq", "xs")


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


def long_table(panel: Panel) -> pl.DataFrame:
    """Listed cells sorted by code and day, with the adjusted quotes that every way starts from."""
    t, n = np.nonzero(panel.axes.listed)
    order = np.lexsort((t, n))
    t, n = t[order], n[order]
    series = {
        "c": panel.c, "o": panel.o, "h": panel.h, "l": panel.l, "v": panel.v, "px_open": panel.open,
        "px_high": panel.high, "px_low": panel.low, "px_close": panel.close, "px_volume": panel.volume,
        "px_turnover": panel.turnover,
    }  # fmt: skip
    return pl.DataFrame(
        {
            "code": n.astype(np.int32),
            "day": t.astype(np.int32),
            "sector": panel.sector33[t, n],
            "member": panel.universe[t, n],
            **{name: pl.Series(values[t, n], nan_to_null=True) for name, values in series.items()},
        }
    )


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


MOMENTS = {"vol_cc_5": (5, 4), "vol_cc_10": (10, 8), "vol_cc_20": (20, 15), "vol_cc_60": (60, 45)}
AVERAGES = {5: 5, 20: 18, 60: 54, 200: 180}


def by_polars(base: pl.DataFrame) -> dict[str, np.ndarray]:
    """64 columns by window expressions, each chain closed over its code or day."""
    col = pl.col

    def past(name: str, rows: int) -> pl.Expr:
        return col(name).shift(rows).over("code")

    def mean(x: pl.Expr, n: int, m: int) -> pl.Expr:
        return x.rolling_mean(n, min_samples=m).over("code")

    def sd(x: pl.Expr, n: int, m: int, ddof: int = 1) -> pl.Expr:
        return x.rolling_std(n, min_samples=m, ddof=ddof).over("code")

    def ema(x: pl.Expr, span: int) -> pl.Expr:
        return x.ewm_mean(span=span, adjust=False, ignore_nulls=True, min_samples=span).over("code")

    def pct(name: str, *by: str) -> pl.Expr:
        x = pl.when(col("member")).then(col(name))
        return ((x.rank("average") - 1) / (x.count() - 1)).over("day", *by)

    def z(x: pl.Expr) -> pl.Expr:
        inside = pl.when(col("member")).then(x)
        return ((inside - inside.mean()) / inside.std()).over("day").clip(-5, 5)

    low14, high14 = (f(14, min_samples=12).over("code") for f in (col("l").rolling_min, col("h").rolling_max))
    low20, high20 = (f(20, min_samples=18).over("code") for f in (col("l").rolling_min, col("h").rolling_max))
    log_before = col("v").log1p().shift(1)
    rs = (col("h") / col("c")).log() * (col("h") / col("o")).log() + (col("l") / col("c")).log() * (
        col("l") / col("o")
    ).log()
    hl, r = col("range_hl_1d"), col("logret_1d")
    lazy = (
        base.lazy()
        .with_columns(
            *((col("c") / past("c", k) - 1).alias(f"ret_{k}d") for k in (1, 3, 5, 10, 20, 60, 120, 240)),
            *((col("c") / past("c", k)).log().alias(f"logret_{k}d") for k in (1, 5)),
            (col("o") / past("c", 1) - 1).alias("ret_overnight"),
            (col("c") / col("o") - 1).alias("ret_intraday"),
            (past("c", 20) / past("c", 240) - 1).alias("mom_240_20"),
            (col("h") / col("l")).log().alias("range_hl_1d"),
            *((ema(col("c"), n)).alias(f"ema_{n}") for n in (5, 12, 20, 26, 60)),
            mean(col("c"), 20, 18).alias("sma"),
            sd(col("c"), 20, 18, 0).alias("band"),
            rs.alias("rs"),
        )
        .with_columns(
            *((sd(r, n, m) * 245**0.5).alias(name) for name, (n, m) in MOMENTS.items()),
            col("ret_1d").rolling_max(20, min_samples=15).over("code").alias("ret_max_20"),
            col("ret_1d").rolling_min(20, min_samples=15).over("code").alias("ret_min_20"),
            (245 * mean(hl * hl, 20, 15) / (4 * np.log(2))).sqrt().alias("vol_pk_20"),
            (245 * mean(col("rs"), 20, 15).clip(0)).sqrt().alias("vol_rs_20"),
            (245 * mean(r.clip(None, 0) ** 2, 20, 15)).sqrt().alias("vol_down_20"),
            ((hl - mean(hl.shift(1), 20, 15)) / sd(hl.shift(1), 20, 15)).alias("range_z_20"),
            *((col("c") / mean(col("c"), n, m) - 1).alias(f"ta_px_to_sma_{n}") for n, m in AVERAGES.items()),
            (col("ema_5") / col("ema_20") - 1).alias("ta_ema_gap_5_20"),
            (col("ema_20") / col("ema_60") - 1).alias("ta_ema_gap_20_60"),
            ((col("ema_12") - col("ema_26")) / col("c")).alias("ta_macd_pct"),
            (col("ema_12") - col("ema_26")).alias("macd"),
            ((col("c") - (col("sma") - 2 * col("band"))) / (4 * col("band"))).alias("ta_bb_pctb_20"),
            (4 * col("band") / col("sma")).alias("ta_bb_width_20"),
            ((col("c") - low14) / (high14 - low14)).alias("ta_stoch_k_14"),
            ((col("c") - low20) / (high20 - low20)).alias("ta_donchian_pos_20"),
            (col("c") / col("h").rolling_max(240, min_samples=120).over("code") - 1).alias("ta_dist_high_240"),
            (col("c") / col("l").rolling_min(240, min_samples=120).over("code") - 1).alias("ta_dist_low_240"),
            (col("v") / mean(col("v").shift(1), 5, 4)).alias("liq_vol_ratio_5"),
            (col("v") / mean(col("v").shift(1), 20, 15)).alias("liq_vol_ratio_20"),
            ((col("v").log1p() - mean(log_before, 20, 15)) / sd(log_before, 20, 15)).alias("liq_vol_z_20"),
            (mean(col("v"), 5, 4) / mean(col("v"), 20, 15) - 1).alias("liq_vol_accel"),
            mean(col("px_turnover"), 20, 10).log1p().alias("liq_log_adv_20"),
            mean(col("px_turnover"), 60, 30).log1p().alias("liq_log_adv_60"),
            (1e9 * mean(col("ret_1d").abs() / col("px_turnover"), 20, 10)).log1p().alias("liq_amihud_20"),
            mean((~(col("px_volume").fill_null(0) > 0)).cast(pl.Float64), 60, 30).alias("liq_zero_frac_60"),
            (col("px_close") * col("px_volume") / col("px_turnover") - 1).alias("liq_vwap_dev"),
        )
        .with_columns(
            (ema(col("macd"), 9) / col("c")).alias("ta_macd_signal_pct"),
            (col("vol_cc_5") / col("vol_cc_60")).alias("vol_ratio_5_60"),
            (sd(col("vol_cc_5"), 20, 15) / mean(col("vol_cc_5"), 20, 15)).alias("vol_of_vol_20"),
            pct("ret_1d").alias("xs_pct_ret_1d"),
            pct("ret_5d").alias("xs_pct_ret_5d"),
            pct("ret_20d").alias("xs_pct_ret_20d"),
            pct("mom_240_20").alias("xs_pct_mom_240_20"),
            pct("vol_cc_20").alias("xs_pct_vol_cc_20"),
            pct("liq_log_adv_20").alias("xs_pct_adv_20"),
            z(col("ret_5d")).alias("xs_z_ret_5d"),
            z(col("liq_vol_ratio_20").log()).alias("xs_z_vol_ratio_20"),
        )
        .with_columns((col("ta_macd_pct") - col("ta_macd_signal_pct")).alias("ta_macd_hist_pct"))
    )
    names = [name for name in lazy.collect_schema().names() if name in SHARED]
    frame = lazy.select(col(names).cast(pl.Float32)).collect(engine="streaming")
    return {name: frame[name].fill_null(np.nan).to_numpy() for name in names}


def by_pandas(base: pl.DataFrame) -> dict[str, np.ndarray]:
    """The same by groupby on code or day; a subset of the columns, each checked like Polars' own."""
    f = base.to_pandas()
    code, day = f["code"], f["day"]
    out: dict[str, pd.Series] = {}

    def past(x: pd.Series, rows: int) -> pd.Series:
        return x.groupby(code, sort=False).shift(rows)

    def roll(x: pd.Series, n: int, m: int, how: str, **options: int) -> pd.Series:
        window = x.groupby(code, sort=False).rolling(n, min_periods=m)
        return getattr(window, how)(**options).reset_index(level=0, drop=True)

    def ema(x: pd.Series, span: int) -> pd.Series:
        window = x.groupby(code, sort=False).ewm(span=span, adjust=False, ignore_na=True, min_periods=span)
        return window.mean().reset_index(level=0, drop=True).where(x.notna())

    def pct(x: pd.Series) -> pd.Series:
        by_day = x.where(f["member"]).groupby(day)
        return (by_day.rank() - 1) / (by_day.transform("count") - 1)

    c, o, h, low, v = f["c"], f["o"], f["h"], f["l"], f["v"]
    for k in (1, 3, 5, 10, 20, 60, 120, 240):
        out[f"ret_{k}d"] = c / past(c, k) - 1
    for k in (1, 5):
        out[f"logret_{k}d"] = np.log(c / past(c, k))
    r, hl, tv = out["logret_1d"], np.log(h / low), f["px_turnover"]
    out |= {"ret_overnight": o / past(c, 1) - 1, "ret_intraday": c / o - 1, "range_hl_1d": hl}
    out["mom_240_20"] = past(c, 20) / past(c, 240) - 1
    for name, (n, m) in MOMENTS.items():
        out[name] = roll(r, n, m, "std") * 245**0.5
    out["ret_max_20"], out["ret_min_20"] = roll(out["ret_1d"], 20, 15, "max"), roll(out["ret_1d"], 20, 15, "min")
    out["vol_pk_20"] = np.sqrt(245 * roll(hl * hl, 20, 15, "mean") / (4 * np.log(2)))
    out["vol_down_20"] = np.sqrt(245 * roll(r.clip(upper=0) ** 2, 20, 15, "mean"))
    rs = np.log(h / c) * np.log(h / o) + np.log(low / c) * np.log(low / o)
    out["vol_rs_20"] = np.sqrt(245 * roll(rs, 20, 15, "mean").clip(lower=0))
    out["vol_of_vol_20"] = roll(out["vol_cc_5"], 20, 15, "std") / roll(out["vol_cc_5"], 20, 15, "mean")
    idle = (~(f["px_volume"].fillna(0) > 0)).astype(float)
    out["liq_zero_frac_60"] = roll(idle, 60, 30, "mean")
    out["vol_ratio_5_60"] = out["vol_cc_5"] / out["vol_cc_60"]
    out["range_z_20"] = (hl - roll(past(hl, 1), 20, 15, "mean")) / roll(past(hl, 1), 20, 15, "std")
    for n, m in AVERAGES.items():
        out[f"ta_px_to_sma_{n}"] = c / roll(c, n, m, "mean") - 1
    emas = {n: ema(c, n) for n in (5, 12, 20, 26, 60)}
    out["ta_ema_gap_5_20"], out["ta_ema_gap_20_60"] = emas[5] / emas[20] - 1, emas[20] / emas[60] - 1
    macd = emas[12] - emas[26]
    out["ta_macd_pct"], out["ta_macd_signal_pct"] = macd / c, ema(macd, 9) / c
    out["ta_macd_hist_pct"] = out["ta_macd_pct"] - out["ta_macd_signal_pct"]
    sma, band = roll(c, 20, 18, "mean"), roll(c, 20, 18, "std", ddof=0)
    out["ta_bb_pctb_20"], out["ta_bb_width_20"] = (c - (sma - 2 * band)) / (4 * band), 4 * band / sma
    for name, n, m in (("ta_stoch_k_14", 14, 12), ("ta_donchian_pos_20", 20, 18)):
        floor, roof = roll(low, n, m, "min"), roll(h, n, m, "max")
        out[name] = (c - floor) / (roof - floor)
    out["ta_dist_high_240"] = c / roll(h, 240, 120, "max") - 1
    out["ta_dist_low_240"] = c / roll(low, 240, 120, "min") - 1
    before = past(v, 1)
    for n, m in ((5, 4), (20, 15)):
        out[f"liq_vol_ratio_{n}"] = v / roll(before, n, m, "mean")
    out["liq_vol_accel"] = roll(v, 5, 4, "mean") / roll(v, 20, 15, "mean") - 1
    out["liq_log_adv_20"] = np.log1p(roll(tv, 20, 10, "mean"))
    out["liq_log_adv_60"] = np.log1p(roll(tv, 60, 30, "mean"))
    out["liq_amihud_20"] = np.log1p(1e9 * roll(out["ret_1d"].abs() / tv, 20, 10, "mean"))
    out["liq_vwap_dev"] = f["px_close"] * f["px_volume"] / tv - 1
    ranked = {"ret_1d": "ret_1d", "ret_5d": "ret_5d", "ret_20d": "ret_20d", "mom_240_20": "mom_240_20"}
    ranked |= {"vol_cc_20": "vol_cc_20", "adv_20": "liq_log_adv_20"}
    for name, source in ranked.items():
        out[f"xs_pct_{name}"] = pct(out[source])
    out |= {name: f[name] for name in SHARED if name.startswith("px_")}
    return {name: values.to_numpy(np.float32) for name, values in out.items()}


SHARED = frozenset(
    column.name for group in catalog.GROUPS if group.name in PEER_GROUPS for column in group.columns
)  # a peer's columns are those of our own names


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
