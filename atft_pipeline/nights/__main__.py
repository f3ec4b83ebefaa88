"""`python -m atft_pipeline.nights [--from DATE] [--to DATE]`: each session, its predictions, or why it has none.

`python -m atft_pipeline.nights alerts` lists the alerts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from atft_pipeline.jquants.checks.coverage import sessions_of
from atft_pipeline.lake.store import LakeError, read_json
from atft_pipeline.nights.alerts import read_alerts
from atft_pipeline.nights.plan import predicted_days
from atft_pipeline.nights.record import account, read_log
from atft_pipeline.settings import SettingError, Settings

MONTH = timedelta(days=31)


def models_of(lake: Path) -> dict[date, str]:
    """Day -> model of its predictions."""
    days = predicted_days(lake)
    return {day: str(read_json(lake / "predictions" / f"{day}.json")["run_id"]) for day in days}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m atft_pipeline.nights", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("sessions", "alerts"), default="sessions")
    parser.add_argument("--from", dest="first", type=date.fromisoformat)
    parser.add_argument("--to", dest="last", type=date.fromisoformat)
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_env()
        if options.what == "alerts":
            for row in read_alerts(settings.lake):
                print(f"{row['at']}  {row['kind']:13}  {row['subject']}: {row['text']}")
            return 0
        last = options.last or settings.today()
        first = options.first or last - MONTH
        known = account(sessions_of(settings.lake), models_of(settings.lake), read_log(settings.lake), first, last)
    except (LakeError, SettingError) as error:
        print(f"no account of the nights: {error}", file=sys.stderr)
        return 2
    for day, has, why in known:
        print(f"{day}  {'predictions' if has else 'NONE       '}  {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
