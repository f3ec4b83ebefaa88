"""How long a market takes to draw and write, in which memory, and how large it is on disk.

    python benchmarks/market.py --stocks 4400 --start 2016-11-24 --end 2026-11-20

Prints JSON lines: one per table with its rows, bytes and the time and memory up to then, and a last one for the whole.
`seconds` are of the wall clock, `cpu_seconds` of this process; on a busy machine the second is the honest one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from atft_pipeline.exchange.market import generate
from atft_pipeline.settings import MarketSize


def used(started: float) -> dict[str, Any]:
    """Seconds since `started`, processor seconds, and the highest resident memory so far in MiB."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(spent.ru_utime + spent.ru_stime, 1),
        "peak_mib": round(spent.ru_maxrss * unit / 2**20),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stocks", type=int, default=4400)
    parser.add_argument("--start", type=date.fromisoformat, default=date(2016, 11, 24))
    parser.add_argument("--end", type=date.fromisoformat, default=date(2026, 11, 20))
    parser.add_argument("--seed", type=int, default=MarketSize.seed)
    parser.add_argument("--plant", default=MarketSize.plant)
    parser.add_argument("--out", type=Path, help="keep the market here (default: a temporary folder)")
    options = parser.parse_args()
    size = MarketSize(options.stocks, options.start, options.end, options.seed, options.plant)
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary) / "market"
        started = time.perf_counter()

        def tell(step: str) -> None:
            print(json.dumps({"step": step, **used(started)}), flush=True)

        description = generate(size, out, tell)
        written = {path: path.stat().st_size for path in sorted(out.rglob("*.parquet"))}
        for name, table in description["tables"].items():
            size_on_disk = written[out / "tables" / f"{name}.parquet"]
            print(json.dumps({"table": name, "rows": table["rows"], "bytes": size_on_disk}))
        whole = {
            "market": size.name,
            "rows": sum(table["rows"] for table in description["tables"].values()),
            "bytes": sum(written.values()),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
        }
        print(json.dumps(whole | used(started)))


if __name__ == "__main__":
    main()
