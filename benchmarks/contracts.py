"""Every contract check and the coverage of every group, on datasets built from the loopback exchange.

    python benchmarks/contracts.py [--plans standard premium] [--stocks 400] [--start 2020-07-01] [--end 2024-06-28]
        [--seed 7] [--market FOLDER] [--lake FOLDER] [--out FILE]

Each plan is a process with a lake of its own: raw tables from the exchange under that plan, then panel, features,
dataset, statistics and training panel by the functions of `steps.py`, then the checks that Dagster runs on each. JSON
lines: one per check that did not pass, one per band of coverage (expected beside measured), one per plan with the
counts. Exit status 1 when a check fails or a coverage is below its band. A lake that is kept (--lake) is built again,
but its stored months are not fetched twice.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from atft_pipeline import steps
from atft_pipeline.dataset import quality
from atft_pipeline.dataset.contract import Contract, check_training_width, contract_of
from atft_pipeline.dataset.leak_scan import check_too_good
from atft_pipeline.dataset.scaling import Statistics, check_coverage, check_saturation
from atft_pipeline.dataset.splits import check_label_overlap
from atft_pipeline.dataset.training_panel import check_training_panel
from atft_pipeline.exchange.process import ensure_market, running_exchange
from atft_pipeline.features import catalog
from atft_pipeline.jquants.checks.judge import judge_table
from atft_pipeline.jquants.checks.publication import TOKYO
from atft_pipeline.jquants.client import connect
from atft_pipeline.jquants.fetch import ingest_calendar
from atft_pipeline.jquants.ingest import ingest_table
from atft_pipeline.jquants.plans import get_plan
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import CALENDAR, TABLES
from atft_pipeline.settings import PLANS, MarketSize, Thresholds
from atft_pipeline.verdict import Verdict

REQUESTS_PER_MINUTE = 120_000
CALENDAR_AHEAD = timedelta(days=120)


@dataclass(frozen=True)
class Band:
    """Expected share of known values after warm-up, of a group's columns that match `columns`."""

    group: str
    low: float
    high: float = 1.0
    columns: str = "."


BANDS = (
    *(Band(group, 0.97) for group in ("px", "ret", "vol", "ta", "liq")),
    Band("xs", 0.95), Band("mkt", 1.0), Band("mb", 0.95), Band("idx", 1.0), Band("sec", 0.98), Band("flow", 0.98),
    Band("wm", 0.85, 0.95), Band("dm", 0.04, 0.12, r"adv20$|_log$|imbalance|_chg_|_to_listed$"),
    Band("dm", 1.0, 1.0, r"_level$|_is_|_spell_|staleness|valid"), Band("ss", 0.97, 1.0, "^ss_"),
    Band("ss", 1.0, 1.0, "^ssp_"), Band("fs", 0.85), Band("ev", 1.0, 1.0, "_td_|_cnt_|_flag_|_is_"), Band("opt", 0.98),
    Band("gr", 0.90), Band("bd", 0.97), Band("ses", 0.95), Band("div", 0.80, 1.0, "^div_yield_ttm$"), Band("fut", 0.98),
    Band("bs", 0.60),
)  # fmt: skip
"""What a real market is expected to give. The median over the columns counts; above a band is printed, not refused."""


def months_between(first: date, last: date) -> list[str]:
    numbers = range(first.year * 12 + first.month - 1, last.year * 12 + last.month)
    return [f"{number // 12}-{number % 12 + 1:02}" for number in numbers]


def plan_tables(plan: str) -> list[Table]:
    return [table for table in TABLES.values() if get_plan(plan).includes(table.plan)]


def ingest(plan: str, size: MarketSize, market: Path, lake: Path) -> None:
    """Every raw table of the plan, from an exchange that grants that plan."""
    months = months_between(size.start, size.end)
    with running_exchange(market, plan=plan, requests_per_minute=REQUESTS_PER_MINUTE) as exchange:
        client = connect(exchange.base_url, exchange.api_key, plan, REQUESTS_PER_MINUTE, today=size.end)
        ingest_calendar(client, lake, size.start.replace(day=1), size.end + CALENDAR_AHEAD)
        for table in plan_tables(plan):
            if table is not CALENDAR:
                for _report in ingest_table(client, lake, table, months, last_date=size.end):
                    pass


def build(plan: str, size: MarketSize, lake: Path) -> dict[str, Any]:
    """Panel to training panel; the dataset's metadata."""
    steps.build_market_panel(lake)
    for group in catalog.groups(plan):
        steps.build_features(lake, group.name)
    metadata = steps.build_dataset(lake, plan, size.name)
    steps.build_statistics(lake, plan)
    contract = contract_of(plan)
    steps.build_training_panel(lake, plan, Thresholds(), {}, smaller_contract=contract.name)
    return metadata


def raw_verdicts(plan: str, size: MarketSize, lake: Path) -> dict[str, Verdict]:
    """`raw/<table>: <check>` of every raw table of the plan."""
    found: dict[str, Verdict] = {}
    for table in plan_tables(plan):
        stored = sorted(path.stem for path in (lake / "raw" / table.name).glob("*.parquet"))
        has_months = table is not CALENDAR and stored
        months = months_between(_first_day(stored[0]), _first_day(stored[-1])) if has_months else stored
        judged = judge_table(lake, table, months, now=datetime.now(TOKYO), end=size.end)
        found |= {f"raw/{table.name}: {name}": verdict for name, verdict in judged.items()}
    return found


def _first_day(month: str) -> date:
    return date.fromisoformat(f"{month}-01")


def dataset_verdicts(contract: Contract, lake: Path, thresholds: Thresholds) -> dict[str, Verdict]:
    """The checks of dataset, statistics and training panel, by asset and name."""
    panel = steps.load_panel(lake)
    fitted = Statistics.load(lake)
    judged = quality.check_quality(lake, contract, panel.axes, thresholds)
    return {
        **{f"dataset: {name}": verdict for name, verdict in judged.items()},
        "dataset: wide_enough_to_train": check_training_width(contract, ""),
        "dataset: not_too_good": check_too_good(lake, contract, panel.axes, thresholds),
        "normalization_stats: coverage": check_coverage(fitted, thresholds),
        "normalization_stats: saturation": check_saturation(fitted, thresholds),
        "training_panel: no_label_overlap": check_label_overlap(steps.split_of(panel)),
        "training_panel: intact": check_training_panel(lake),
    }


def coverage_lines(coverage: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Expected beside measured, for each band whose columns the dataset has."""
    lines = []
    for band in BANDS:
        shares = {n: share for n, share in coverage.get(band.group, {}).items() if re.search(band.columns, n)}
        if not shares:
            continue
        middle, least = statistics.median(shares.values()), min(shares, key=lambda n: shares[n])
        lines.append(
            {
                "group": band.group,
                "columns": len(shares),
                "of": "" if band.columns == "." else band.columns,
                "expected": [band.low, band.high],
                "measured": round(middle, 4),
                "least": {least: round(shares[least], 4)},
                "in_band": band.low - 5e-4 <= middle <= band.high,
                "below": middle < band.low - 5e-4,
            }
        )
    return lines


def judge(plan: str, size: MarketSize, market: Path, lake: Path) -> list[dict[str, Any]]:
    """All lines of one plan."""
    contract, thresholds = contract_of(plan), Thresholds()
    began = time.perf_counter()
    ingest(plan, size, market, lake)
    metadata = build(plan, size, lake)
    built = time.perf_counter()
    verdicts = {**raw_verdicts(plan, size, lake), **dataset_verdicts(contract, lake, thresholds)}
    coverage, ripe_rows = quality.column_coverage(lake, contract)
    bands = coverage_lines(coverage)
    red = {name: verdict for name, verdict in verdicts.items() if not verdict.passed}
    lines: list[dict[str, Any]] = [
        {"plan": plan, "check": name, "severity": verdict.severity, "message": verdict.message}
        for name, verdict in red.items()
    ]
    lines += [{"plan": plan, "coverage": band} for band in bands]
    lines.append(
        {
            "plan": plan,
            "market": size.name,
            "columns": len(contract.columns),
            "inputs": len(contract.features),
            "groups": len(contract.groups),
            "rows": metadata["rows"],
            "rows_after_warm_up": ripe_rows,
            "hash": str(metadata["hash"])[:16],
            "checks": len(verdicts),
            "passed": len(verdicts) - len(red),
            "failed": sum(verdict.severity == "error" for verdict in red.values()),
            "warned": sum(verdict.severity == "warn" for verdict in red.values()),
            "dataset_checks": {
                name: verdict.message for name, verdict in verdicts.items() if not name.startswith("raw/")
            },
            "bands_below": [f"{band['group']} {band['of']}".strip() for band in bands if band["below"]],
            "build_s": round(built - began, 1),
            "check_s": round(time.perf_counter() - built, 1),
            "machine": platform.machine(),
            "date": date.today().isoformat(),
        }
    )
    return lines


def _print(lines: Iterable[Mapping[str, Any]], out: Path | None) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    print(text, end="", flush=True)
    if out:
        with out.open("a", encoding="utf-8") as file:
            file.write(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", nargs="+", choices=PLANS[1:], default=["standard", "premium"])
    parser.add_argument("--stocks", type=int, default=400)
    parser.add_argument("--start", type=date.fromisoformat, default=date(2020, 7, 1))
    parser.add_argument("--end", type=date.fromisoformat, default=date(2024, 6, 28))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--market", type=Path, help="where the market lies or is to be written (default: temporary)")
    parser.add_argument("--lake", type=Path, help="keep the lakes, one folder per plan (default: temporary)")
    parser.add_argument("--out", type=Path, help="append the JSON lines to this file too")
    options = parser.parse_args()
    size = MarketSize(stocks=options.stocks, start=options.start, end=options.end, seed=options.seed)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        market, lakes = options.market or Path(folder) / "market", options.lake or Path(folder) / "lakes"
        ensure_market(size, market)
        for plan in options.plans:
            with multiprocessing.get_context("spawn").Pool(1) as process:
                lines = process.apply(judge, (plan, size, market, lakes / plan))
            _print(lines, options.out)
            bad += lines[-1]["failed"] + len(lines[-1]["bands_below"])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
