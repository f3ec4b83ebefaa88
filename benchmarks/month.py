"""A simulated month: twenty weekdays against an exchange whose clock advances, with faults planted on the way.

    python benchmarks/month.py [--first 2024-01-04] [--nights 20] [--stocks 220] [--market DIR] [--folder DIR]
        [--out FILE]

The history is built the evening before. Then each weekday's ticks of `nightly_schedule` (19:30, 23:30, 08:30) are
evaluated as the scheduler would, at the exchange's time; a requested run is executed in this process with the
schedule's own tags, and reported as the sensors do. Planted, in exchange time: a holiday, prices that come hours late,
a corrected price, two days on which the machine is down, prices without a column for a day and a half, a new column,
and an index that is not out by the next morning.

Nobody touches anything meanwhile. Each night trains the champion's recipe on the grown panel; where that run is refused
(a tiny model is often a little worse than the one before), the champion of an earlier panel gives the predictions, and
the line says so. One line a tick; then the account of all sessions against what must be. With --out, the account as
JSON. Exit status 1 when a session has predictions that it should not have, lacks those that it should have, or lacks
them for another reason than the planted one.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from atft_pipeline.exchange.process import Exchange, ensure_market, move_clock, running_exchange
from atft_pipeline.settings import TOKYO, MarketSize, Settings

SIZE = MarketSize(stocks=220, start=date(2021, 6, 1), end=date(2024, 1, 31), seed=3)
"""As small as every column allows: sector ranks need 20 sectors of five, some statement columns two fiscal years."""
FIRST = date(2024, 1, 4)
TICKS = ((0, 19, 30), (0, 23, 30), (1, 8, 30))
"""Days after the session, hour, minute: ticks of `nightly_schedule`."""

FAULTS = (
    "late:bars_daily:date=2024-01-10:until=2024-01-10T22:00",
    "drop_column:bars_daily:column=C:since=2024-01-24T00:00:until=2024-01-25T12:00",
    "extra_column:bars_daily:column=Novel:since=2024-01-29T00:00",
    "late:topix:date=2024-01-30:until=2024-01-31T12:00",
)
REVISED = date(2024, 1, 12)
REVISED_AT = "2024-01-16T12:00"
DOWN = (date(2024, 1, 18), date(2024, 1, 19))
PLANTED = {
    date(2024, 1, 8): "a holiday",
    date(2024, 1, 10): "prices late until 22:00",
    date(2024, 1, 16): f"a price of {REVISED} corrected",
    DOWN[0]: "the machine is down",
    DOWN[1]: "the machine is down",
    date(2024, 1, 24): "prices without their column C until the next noon",
    date(2024, 1, 29): "prices with a column nobody knows",
    date(2024, 1, 30): "TOPIX late until the next noon",
}
GAPS = {DOWN[0]: "no run that night", DOWN[1]: "no run that night", date(2024, 1, 24): "C", date(2024, 1, 30): "topix"}
"""Sessions that must have no predictions -> what their reason must say."""

TINY_TRAINING = {
    "hidden": "8", "value_width": "4", "attention_heads": "2", "sequence_length": "10", "dates_per_step": "16",
    "dates_per_epoch": "64", "epochs": "[2, 1, 2, 2, 1]", "checkpoint_every": "1", "threads": "1",
}  # fmt: skip
LENIENT = {
    "ATFT_CHECK_MIN_RANK_IC": "-1", "ATFT_CHECK_MIN_IC": "-1", "ATFT_CHECK_MIN_SHARPE": "-99",
    "ATFT_CHECK_MIN_STANDARD_ERRORS": "-99", "ATFT_CHECK_TOO_GOOD_MODEL_IC": "1", "ATFT_CHECK_MAX_REGRESSION": "1",
}  # fmt: skip
"""Whether a model of 8 units is good is not asked here."""


class Month:
    """The pipeline in this process, its exchange, and the clock that both stand at."""

    def __init__(self, exchange: Exchange, folder: Path) -> None:
        import dagster as dg

        self.exchange, self.lake = exchange, folder / "data" / "jquants"
        os.environ |= LENIENT | {
            "ATFT_DATA_DIR": str(folder / "data"), "JQUANTS_API_KEY": exchange.api_key,
            "JQUANTS_BASE_URL": exchange.base_url, "JQUANTS_PLAN": "standard", "ATFT_TRAINING_PRESET": "demo",
            "JQUANTS_REQUESTS_PER_MINUTE": "100000", "ATFT_START": SIZE.start.isoformat(),
            "ATFT_END": SIZE.end.isoformat(), "ATFT_LATE_TRIES": "0",
        }  # fmt: skip
        home = folder / "home"
        home.mkdir(parents=True)
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
        self.instance = dg.DagsterInstance.from_config(str(home))

    def stand_at(self, moment: datetime) -> None:
        os.environ["ATFT_NOW"] = moment.isoformat(timespec="minutes")
        move_clock(self.exchange, moment)

    def execute(self, job: str, tags: dict[str, str]) -> Any:
        """Run a job as the daemon would, and report it as the sensors would; returns the record of the run."""
        from atft_pipeline.definitions import defs
        from atft_pipeline.defs.nights import report_run

        config = {"ops": {"model": {"config": {"overrides": TINY_TRAINING}}}}
        done = defs.resolve_job_def(job).execute_in_process(
            instance=self.instance, tags=tags, run_config=config, raise_on_error=False
        )
        run = self.instance.get_run_by_id(done.run_id)
        assert run is not None
        return report_run(self.instance, run, Settings.from_env())[0]

    def tick(self, moment: datetime) -> tuple[str, str, Any]:
        """Evaluate the schedule at `moment`: (skipped or the run's outcome, why, record of the run or None)."""
        import dagster as dg

        from atft_pipeline.defs.schedules import nightly_schedule

        self.stand_at(moment)
        context = dg.build_schedule_context(
            instance=self.instance, scheduled_execution_time=moment.replace(tzinfo=TOKYO)
        )
        asked = nightly_schedule(context)
        if isinstance(asked, dg.SkipReason):
            return "skipped", str(asked.skip_message), None
        record = self.execute("nightly", dict(asked.tags))
        return record.outcome, record.why, record


def weekdays(first: date, count: int) -> list[date]:
    days = (first + timedelta(days=n) for n in range(2 * count + 7))
    return [day for day in days if day.weekday() < 5][:count]


def revised_code(market: Path) -> str:
    """A stock that traded on the day that is corrected."""
    import polars as pl

    for path in sorted(market.rglob("*.parquet")):
        if "oracle" not in path.parts and {"Date", "Code", "C", "Vo"} <= pl.read_parquet_schema(path).keys():
            rows = pl.read_parquet(path, columns=["Date", "Code", "C"]).filter(
                pl.col("Date").cast(pl.String) == REVISED.isoformat(), pl.col("C").is_not_null()
            )
            if rows.height:
                return str(rows.sort("Code")["Code"][rows.height // 2])
    raise SystemExit(f"no price of {REVISED} in {market}")


def evening_before(first: date) -> datetime:
    """When the history is built."""
    return datetime.combine(first - timedelta(days=1), datetime.min.time()).replace(hour=19, minute=30)


def live(month: Month, first: date, nights: int) -> Iterator[dict[str, Any]]:
    """The history, then one row a tick that did something."""
    from atft_pipeline.defs.jobs import full_rebuild

    month.stand_at(evening_before(first))
    began = time.monotonic()
    record = month.execute(full_rebuild.name, {})
    yield _row(evening_before(first), "history", record.outcome, "full_rebuild", record, began)
    for day in weekdays(first, nights):
        for later, hour, minute in TICKS:
            moment = datetime.combine(day + timedelta(days=later), datetime.min.time()).replace(
                hour=hour, minute=minute
            )
            if moment.date() in DOWN or (later and day in DOWN):
                continue  # nothing ticks while the machine is down; it is up again on the weekend
            began = time.monotonic()
            outcome, why, record = month.tick(moment)
            if record is not None or (later, hour) == (0, 19):
                yield _row(moment, PLANTED.get(day, ""), outcome, why, record, began)


def _row(moment: datetime, planted: str, outcome: str, why: str, record: Any, began: float) -> dict[str, Any]:
    challenge = record.challenge if record else None
    return {
        "clock": moment.isoformat(timespec="minutes"), "planted": planted, "outcome": outcome, "why": why,
        "predictions": record.predictions.date if record and record.predictions else "",
        "model": record.predictions.run_id if record and record.predictions else "",
        "refused": challenge.reason if challenge and challenge.refused else "",
        "requests": sum(t.requests for t in record.tables) if record else 0,
        "revisions": list(record.revisions) if record else [],
        "warnings": sum(not c.stops for c in record.checks) if record else 0,
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def wrong(account: list[tuple[date, bool, str]]) -> list[str]:
    """Sessions whose account is not what was planted."""
    found = []
    for day, has, why in account:
        if has == (day in GAPS):
            found.append(f"{day}: {'has predictions, should have none' if has else 'has none, should have: ' + why}")
        elif day in GAPS and GAPS[day] not in why:
            found.append(f"{day}: the reason does not name {GAPS[day]!r}: {why}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=date.fromisoformat, default=FIRST)
    parser.add_argument("--nights", type=int, default=20)
    parser.add_argument("--stocks", type=int, default=SIZE.stocks)
    parser.add_argument("--market", type=Path, help="the market's folder (default: in --folder)")
    parser.add_argument("--folder", type=Path, help="keep everything here (default: a temporary folder)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    size = MarketSize(stocks=options.stocks, start=SIZE.start, end=SIZE.end, seed=SIZE.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        market, start = options.market or folder / "market", evening_before(options.first)
        ensure_market(size, market)
        revision = f"correct:bars_daily:since={REVISED_AT}:date={REVISED}:code={revised_code(market)}:factor=1.02"
        with (
            running_exchange(
                market, requests_per_minute=100_000, today=start, faults=FAULTS, revisions=(revision,)
            ) as exchange,
            (folder / "dagster.log").open("w") as log,
        ):
            found = {"market": size.name, **run(exchange, folder, options.first, options.nights, log)}
    print(json.dumps({k: found[k] for k in ("market", "nights", "seconds", "wrong")}))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1, default=str) + "\n")
    return 1 if found["wrong"] else 0


def run(exchange: Exchange, folder: Path, first: date, nights: int, log: Any) -> dict[str, Any]:
    from atft_pipeline.jquants.checks.coverage import sessions_of
    from atft_pipeline.nights.__main__ import models_of
    from atft_pipeline.nights.alerts import read_alerts
    from atft_pipeline.nights.record import account, read_log

    began, rows = time.monotonic(), []
    with redirect_stderr(log):
        month = Month(exchange, folder)
        for row in live(month, first, nights):
            rows.append(row)
            print(f"{row['clock']}  {row['seconds']:5.1f} s  {row['planted']:50}  {row['outcome'][:150]}", flush=True)
            if row["outcome"] == "skipped":
                print(f"{'':27}{row['why']}")
            for text in row["revisions"]:
                print(f"{'':27}revision: {text[:150]}")
    lake, last = month.lake, weekdays(first, nights)[-1]
    known = account(sessions_of(lake), models_of(lake), read_log(lake), first, last)
    print()
    for day, has, why in known:
        print(f"{day}  {'predictions' if has else 'NONE       '}  {why[:170]}")
    alerts = read_alerts(lake)
    kinds = {
        kind: sum(row["kind"] == kind for row in alerts) for kind in ("run_failed", "check_blocked", "check_warned")
    }
    print(f"alerts: {kinds}")
    return {
        "nights": nights, "seconds": round(time.monotonic() - began), "wrong": wrong(known),
        "ticks": rows, "sessions": [[str(day), has, why] for day, has, why in known], "alerts": kinds,
        "refused_challengers": sum(bool(row["refused"]) for row in rows),
        "predicted_by_an_earlier_champion": sum(bool(row["refused"] and row["predictions"]) for row in rows),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
