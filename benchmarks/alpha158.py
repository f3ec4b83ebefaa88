"""Alpha158 of Qlib (github.com/microsoft/qlib, contrib/data/loader.py) in our operators, against Qlib's own engine.

    python benchmarks/alpha158.py [--stocks 400] [--days 2450] [--qlib PYTHON]

PYTHON is the interpreter of an environment of its own that has pyqlib. It gets the same float32 quotes as a Qlib data
folder, evaluates the expressions that its Alpha158 publishes with one process and with one per core, and hands values
back. Names must be equal; values are compared where the longest window is full. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.panel.memory import reusing_memory
from atft_pipeline.panel.operators import (
    ts_beta,
    ts_corr,
    ts_lag,
    ts_max,
    ts_mean,
    ts_min,
    ts_quantile,
    ts_rank,
    ts_since_max,
    ts_since_min,
    ts_std,
    ts_sum,
)

Array = NDArray[np.float64]
WINDOWS = (5, 10, 20, 30, 60)
SMALL = 1e-12
COMPARED = 40
"""Stocks whose values Qlib hands back."""


def quotes(stocks: int, days: int, seed: int = 0) -> dict[str, Array]:
    """Random walks without gaps, [T, N], rounded to float32 as Qlib stores them."""
    rng = np.random.default_rng(seed)
    close = 1000 * np.exp(np.cumsum(0.02 * rng.standard_normal((days, stocks)), axis=0))
    open_ = close * np.exp(0.005 * rng.standard_normal(close.shape))
    high = np.maximum(open_, close) * (1 + 0.004 * np.abs(rng.standard_normal(close.shape)))
    low = np.minimum(open_, close) * (1 - 0.004 * np.abs(rng.standard_normal(close.shape)))
    volume = np.round(np.exp(11 + rng.standard_normal(close.shape)))
    fields = {"open": open_, "high": high, "low": low, "close": close, "volume": volume, "vwap": (high + low) / 2}
    return {name: values.astype(np.float32).astype(np.float64) for name, values in fields.items()}


def alpha158(q: dict[str, Array]) -> Iterator[tuple[str, Array]]:
    """(name, [T, N]) of the 158 expressions, from adjusted quotes. Windows skip nulls and need one value, as there."""
    o, h, l, c = q["open"], q["high"], q["low"], q["close"]  # noqa: E741  (the expressions' own letters)
    width, top, bottom = h - l + SMALL, np.maximum(o, c), np.minimum(o, c)
    yield "KMID", (c - o) / o
    yield "KLEN", (h - l) / o
    yield "KMID2", (c - o) / width
    yield "KUP", (h - top) / o
    yield "KUP2", (h - top) / width
    yield "KLOW", (bottom - l) / o
    yield "KLOW2", (bottom - l) / width
    yield "KSFT", (2 * c - h - l) / o
    yield "KSFT2", (2 * c - h - l) / width
    for name in ("open", "high", "low", "vwap"):
        yield f"{name.upper()}0", q[name] / c
    yield from _of_price(h, l, c)
    yield from _of_volume(c, q["volume"])


def _of_price(h: Array, l: Array, c: Array) -> Iterator[tuple[str, Array]]:  # noqa: E741
    day = np.broadcast_to(np.arange(len(c), dtype=np.float64)[:, None], c.shape)
    known_day = np.where(np.isnan(c), np.nan, day)
    for n in WINDOWS:
        yield f"ROC{n}", ts_lag(c, n) / c
        yield f"MA{n}", ts_mean(c, n, 1) / c
        yield f"STD{n}", ts_std(c, n, 1) / c
        slope = ts_beta(c, day, n, 1)
        yield f"BETA{n}", slope / c
        yield f"RSQR{n}", ts_corr(c, day, n, 1) ** 2
        yield f"RESI{n}", (c - ts_mean(c, n, 1) - slope * (day - ts_mean(known_day, n, 1))) / c
        high, low = ts_max(h, n, 1), ts_min(l, n, 1)
        yield f"MAX{n}", high / c
        yield f"MIN{n}", low / c
        yield f"QTLU{n}", ts_quantile(c, 0.8, n, 1) / c
        yield f"QTLD{n}", ts_quantile(c, 0.2, n, 1) / c
        yield f"RANK{n}", ts_rank(c, n, 1)
        yield f"RSV{n}", (c - low) / (high - low + SMALL)
        since_high, since_low = ts_since_max(h, n, 1), ts_since_min(l, n, 1)
        yield f"IMAX{n}", (n - since_high) / n
        yield f"IMIN{n}", (n - since_low) / n
        yield f"IMXD{n}", (since_low - since_high) / n


def _of_volume(c: Array, v: Array) -> Iterator[tuple[str, Array]]:
    before, earlier = ts_lag(c, 1), ts_lag(v, 1)
    log_v, ratio, log_ratio = np.log(v + 1), c / before, np.log(v / earlier + 1)
    rising, falling = (c > before).astype(np.float64), (c < before).astype(np.float64)
    traded_move = np.abs(ratio - 1) * v
    for n in WINDOWS:
        yield f"CORR{n}", ts_corr(c, log_v, n, 1)
        yield f"CORD{n}", ts_corr(ratio, log_ratio, n, 1)
        up, down = ts_mean(rising, n, 1), ts_mean(falling, n, 1)
        yield f"CNTP{n}", up
        yield f"CNTN{n}", down
        yield f"CNTD{n}", up - down
        yield from _strength("SUM", c - before, n)
        yield f"VMA{n}", ts_mean(v, n, 1) / (v + SMALL)
        yield f"VSTD{n}", ts_std(v, n, 1) / (v + SMALL)
        yield f"WVMA{n}", ts_std(traded_move, n, 1) / (ts_mean(traded_move, n, 1) + SMALL)
        yield from _strength("VSUM", v - earlier, n)


def _strength(name: str, change: Array, n: int) -> Iterator[tuple[str, Array]]:
    gains, losses = ts_sum(np.maximum(change, 0), n, 1), ts_sum(np.maximum(-change, 0), n, 1)
    whole = ts_sum(np.abs(change), n, 1) + SMALL
    yield f"{name}P{n}", gains / whole
    yield f"{name}N{n}", losses / whole
    yield f"{name}D{n}", (gains - losses) / whole


def write_qlib_folder(q: dict[str, Array], folder: Path) -> None:
    """The quotes as Qlib's data folder: a calendar, the instruments, one float32 file per field with its first row."""
    days, stocks = q["close"].shape
    dates = np.busday_offset(np.datetime64("2015-01-05"), np.arange(days), roll="forward")
    for name in ("calendars", "instruments", "features"):
        (folder / name).mkdir(parents=True)
    (folder / "calendars" / "day.txt").write_text("\n".join(str(date) for date in dates) + "\n")
    codes = [f"c{i:05d}" for i in range(stocks)]
    lines = "".join(f"{code.upper()}\t{dates[0]}\t{dates[-1]}\n" for code in codes)
    (folder / "instruments" / "all.txt").write_text(lines)
    for i, code in enumerate(codes):
        (folder / "features" / code).mkdir()
        for name, values in q.items():
            np.append(np.float32(0), values[:, i].astype("<f4")).tofile(folder / "features" / code / f"{name}.day.bin")


def compare(ours: dict[str, Array], folder: Path) -> dict[str, object]:
    """Largest |a - b| / (1e-2 + |b|) from row 61 on, and the share of cells above a thousandth.

    Qlib computes in float32 where no window is involved, so columns that cancel differ in their last digits. Raises
    when names differ or more than one cell in ten thousand of a column does.
    """
    theirs = np.load(folder / "values.npz")
    if sorted(theirs.files) != sorted(ours):
        raise AssertionError(f"names differ: {sorted(set(theirs.files) ^ set(ours))}")
    worst, far = (0.0, ""), 0.0
    for name, a in ours.items():
        a, b = a[max(WINDOWS) + 1 :, :COMPARED], theirs[name][max(WINDOWS) + 1 :]
        gap = np.abs(a - b) / (1e-2 + np.abs(b))
        share = float((~(gap <= 1e-3)).mean())
        if share > 1e-4:
            raise AssertionError(f"{name}: {share:.3%} of the cells differ from Qlib's by more than a thousandth")
        worst, far = max(worst, (float(np.nanmax(gap)), name)), max(far, share)
    return {"columns_equal": len(ours), "largest_difference": worst[0], "in_column": worst[1], "share_above_1e-3": far}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stocks", type=int, default=400)
    parser.add_argument("--days", type=int, default=2450)
    parser.add_argument("--qlib", type=Path, help="interpreter of an environment with pyqlib")
    chosen = parser.parse_args()
    list(alpha158(quotes(70, 100)))  # compiles the kernels
    q = quotes(chosen.stocks, chosen.days)
    size = {"stocks": chosen.stocks, "days": chosen.days, "columns": 158}
    cells = 158 * chosen.stocks * chosen.days / 1e6
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"

    def report(name: str, wall: float, cpu: float, **figures: object) -> None:
        rate = {"mcells_per_s": round(cells / wall, 1), "wall_s": round(wall, 2), "cpu_s": round(cpu, 2)}
        load = round(os.getloadavg()[0], 1)
        print(json.dumps({"benchmark": name, **size, **rate, **figures, "load": load, "machine": machine}), flush=True)

    with reusing_memory():
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in alpha158(q):
            pass
        spent = time.perf_counter() - wall, time.process_time() - cpu
    report("alpha158_ours", *spent)
    if chosen.qlib is None:
        return
    ours = dict(alpha158({name: np.ascontiguousarray(values[:, :COMPARED]) for name, values in q.items()}))
    with tempfile.TemporaryDirectory(prefix="alpha158.") as scratch:
        folder = Path(scratch) / "qlib"
        write_qlib_folder(q, folder)
        script = Path(__file__).with_name("alpha158_qlib.py")
        for processes in (1, len(os.sched_getaffinity(0))):
            command = [str(chosen.qlib), str(script), str(folder), str(processes), str(COMPARED)]
            environment = {**os.environ, "PYTHONPATH": ""}
            printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            figures = json.loads(printed.splitlines()[-1])
            ratios = {f"ratio_{of}": round(figures[f"{of}_s"] / spent[i], 1) for i, of in enumerate(("wall", "cpu"))}
            report("alpha158_qlib", figures["wall_s"], figures["cpu_s"], processes=processes, **ratios,
                   pyqlib=figures["version"], **compare(ours, folder))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
