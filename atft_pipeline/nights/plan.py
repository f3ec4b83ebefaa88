"""Shall a night run, for which session, and over which months? Decided at every tick from what is stored and the clock.

Ticks only ask: one decision serves the evening, its later tries, the first tick after an outage, and holidays.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from atft_pipeline.jquants.checks.coverage import sessions_of
from atft_pipeline.jquants.checks.publication import PUBLICATIONS, newest_due
from atft_pipeline.jquants.tables import CALENDAR, partition_path


@dataclass(frozen=True)
class NightPlan:
    """`session`: the newest trading day whose prices must be out. `missed`: trading days between the last predictions
    and it: their rows are fetched, their predictions are not made up afterwards."""

    run: bool
    reason: str
    session: date | None = None
    missed: tuple[date, ...] = ()


def plan_night(lake: Path, now: datetime) -> NightPlan:
    """The decision at `now` (aware) for the lake as it is stored."""
    if not (lake / partition_path(CALENDAR)).exists() or not stored_months(lake):
        return NightPlan(False, "nothing is stored yet: run full_rebuild once, which brings the history")
    return decide(sessions_of(lake), predicted_days(lake), now)


def decide(sessions: Sequence[date], predicted: Collection[date], now: datetime) -> NightPlan:
    """As `plan_night`, from the trading days of the calendar, ascending, and the days that have predictions."""
    today = now.date()
    session = newest_due(PUBLICATIONS["bars_daily"], sessions, now)
    if session is None:
        return NightPlan(False, f"no prices are out by {now:%Y-%m-%d %H:%M}: the calendar starts later")
    if sessions[-1] < today:
        # The stored calendar ends before today, so whether today trades is unknown; a run reads it again.
        return NightPlan(True, f"the stored calendar ends on {sessions[-1]}; it is read again", session)
    closed = "" if today in sessions else f"{today} is no trading day; "
    if session in predicted:
        return NightPlan(False, f"{closed}predictions of {session}, the newest session, are written", session)
    missed = missed_before(sessions, predicted, session)
    reason = f"{closed}prices of {session} are out and have no predictions"
    if missed:
        reason += f"; {len(missed)} earlier sessions were missed ({missed[0]} to {missed[-1]}): their rows come too"
    return NightPlan(True, reason, session, missed)


def missed_before(sessions: Sequence[date], predicted: Collection[date], session: date) -> tuple[date, ...]:
    """Sessions after the last predictions and before `session`."""
    last = max((day for day in predicted if day < session), default=None)
    return () if last is None else tuple(day for day in sessions if last < day < session)


def predicted_days(lake: Path) -> set[date]:
    """Days that have predictions."""
    return {date.fromisoformat(path.stem) for path in (lake / "predictions").glob("????-??-??.parquet")}


def stored_months(lake: Path) -> list[str]:
    """Months of prices that are stored, ascending, as YYYY-MM."""
    return sorted(path.stem for path in (lake / "raw" / "bars_daily").glob("????-??.parquet"))


def months_in_motion(stored: Sequence[str], today: date) -> tuple[str, str]:
    """First and last month of a night, as YYYY-MM: the month before the running one, or before the newest stored one
    when an outage was longer; corrections and late rows touch them still."""
    newest = min(stored[-1], f"{today:%Y-%m}") if stored else f"{today:%Y-%m}"
    year, month = int(newest[:4]), int(newest[5:])
    return f"{year - (month == 1)}-{(month - 2) % 12 + 1:02d}", f"{today:%Y-%m}"
