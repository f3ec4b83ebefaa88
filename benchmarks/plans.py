"""`full_rebuild` on each J-Quants plan, end to end on a small market: what every plan gives, and that it runs.

    python benchmarks/plans.py [--plans free light standard premium] [--stocks 220] [--start 2021-06-01]
        [--end 2024-01-31] [--out FILE]

Each plan is a child process with its own lake and Dagster home, against the loopback exchange under that plan's dates,
tables and columns. On Free, which hides twelve weeks of the calendar too, the run ends six weeks before the newest
visible day: distances to month ends and SQ days look ahead in the calendar. One JSON line per plan: columns, model
inputs, raw tables and their rows, checks passed and failed, seconds. Contracts below 306 columns are asked for by name
(ATFT_CONTRACT), as training demands. Exit status 1 when a plan does not end in predictions.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import atft_pipeline
from atft_pipeline.dataset.contract import FULL_COLUMNS, contract_of
from atft_pipeline.exchange.process import Exchange, ensure_market, running_exchange
from atft_pipeline.jquants.plans import get_plan
from atft_pipeline.lake.store import read_record
from atft_pipeline.settings import PLANS, MarketSize

ROOT = Path(atft_pipeline.__file__).parent.parent
REQUESTS_PER_MINUTE = 100_000
TINY_TRAINING = {
    "hidden": "8", "value_width": "4", "attention_heads": "2", "sequence_length": "10", "dates_per_step": "16",
    "dates_per_epoch": "64", "epochs": "[2, 1, 2, 2, 1]", "checkpoint_every": "1", "threads": "1",
}  # fmt: skip
LENIENT = {
    "ATFT_CHECK_MIN_RANK_IC": "-1", "ATFT_CHECK_MIN_IC": "-1", "ATFT_CHECK_MIN_SHARPE": "-99",
    "ATFT_CHECK_MIN_STANDARD_ERRORS": "-99", "ATFT_CHECK_TOO_GOOD_MODEL_IC": "1",
}  # fmt: skip
"""Whether a model of 8 units is good is not asked here."""
CALENDAR_LOOKS_AHEAD = timedelta(weeks=6)
CHECK = re.compile(r"ASSET_CHECK_EVALUATION - Asset check '([^']+)' on '([^']+)' (passed|did not pass)")


def rebuild(plan: str, exchange: Exchange, size: MarketSize, folder: Path) -> dict[str, Any]:
    """One run; what it left behind."""
    contract, end = contract_of(plan), size.end
    if hidden := get_plan(plan).hidden_days:
        end -= timedelta(days=hidden) + CALENDAR_LOOKS_AHEAD
    (folder / "home").mkdir(parents=True)
    (folder / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    (folder / "run.yaml").write_text(json.dumps({"ops": {"model": {"config": {"overrides": TINY_TRAINING}}}}))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JQUANTS_", "ATFT_"))}
    environment = kept | LENIENT | {
        "PYTHONPATH": str(ROOT), "DAGSTER_HOME": str(folder / "home"), "ATFT_DATA_DIR": str(folder / "data"),
        "JQUANTS_API_KEY": exchange.api_key, "JQUANTS_BASE_URL": exchange.base_url, "JQUANTS_PLAN": plan,
        "JQUANTS_REQUESTS_PER_MINUTE": str(REQUESTS_PER_MINUTE), "ATFT_START": size.start.isoformat(),
        "ATFT_END": end.isoformat(), "ATFT_TRAINING_PRESET": "demo",
        "ATFT_CONTRACT": "" if len(contract.columns) >= FULL_COLUMNS else contract.name,
    }  # fmt: skip
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "atft_pipeline.definitions"]
    command += ["-j", "full_rebuild", "-c", str(folder / "run.yaml")]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace")
    lake, log = folder / "data" / "jquants", done.stdout + done.stderr
    (folder / "log.txt").write_text(log)
    if done.returncode:
        print(log[-4000:], file=sys.stderr)
    checks = {(asset, name): word for name, asset, word in CHECK.findall(log)}
    raw = sorted((lake / "raw").glob("*/*.parquet"))
    return {
        "plan": plan,
        "exit_code": done.returncode,
        "contract": contract.name,
        "columns": len(contract.columns),
        "inputs": len(contract.features),
        "named": environment["ATFT_CONTRACT"],
        "tables": len({path.parent.name for path in raw}),
        "raw_rows": sum(read_record(path).rows for path in raw),
        "checks_passed": sum(word == "passed" for word in checks.values()),
        "checks_not_passed": sorted(f"{asset}: {name}" for (asset, name), word in checks.items() if word != "passed"),
        "predictions": [path.stem for path in sorted((lake / "predictions").glob("*.parquet"))],
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", nargs="+", choices=PLANS, default=PLANS)
    parser.add_argument("--stocks", type=int, default=220)
    parser.add_argument("--start", type=date.fromisoformat, default=date(2021, 6, 1))
    parser.add_argument("--end", type=date.fromisoformat, default=date(2024, 1, 31))
    parser.add_argument("--out", type=Path, help="append the JSON lines to this file too")
    options = parser.parse_args()
    size = MarketSize(stocks=options.stocks, start=options.start, end=options.end, seed=3)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        market = Path(folder) / "market"
        ensure_market(size, market)
        for plan in options.plans:
            with running_exchange(market, plan=plan, requests_per_minute=REQUESTS_PER_MINUTE) as exchange:
                found = {"market": size.name, **rebuild(plan, exchange, size, Path(folder) / plan)}
            failed += bool(found["exit_code"]) or not found["predictions"]
            line = json.dumps(found)
            print(line, flush=True)
            if options.out:
                with options.out.open("a", encoding="utf-8") as out:
                    out.write(line + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
