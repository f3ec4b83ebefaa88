"""What each J-Quants plan may ask for: endpoints, dates, requests per minute; and the rate emulator.

The dates are relative to the market's own end date, which plays the part of "today". Nothing here reads a table.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta

WINDOW_SECONDS = 60.0
LOCKOUT_SECONDS = 300.0
"""The official documents: a significant excess blocks every request for about five minutes."""
LOCKOUT_SHARE = 0.25
"""Refused requests inside one window, as a share of the limit, that count as a significant excess (at least 5)."""
STATEMENTS_PER_MINUTE = 60
"""`/fins/summary` has its own cap on every plan."""

_FREE = frozenset({"calendar", "master", "bars_daily", "fin_summary"})
_LIGHT = _FREE | {"topix", "investor_types"}
_STANDARD = _LIGHT | {"indices"}


@dataclass(frozen=True)
class Window:
    """Dates that a plan covers, both ends inclusive; None is open."""

    first: date | None
    last: date | None

    def covers(self, day: date) -> bool:
        return (self.first is None or day >= self.first) and (self.last is None or day <= self.last)

    def __str__(self) -> str:
        return f"{self.first or ''} ~ {self.last or ''}"


@dataclass(frozen=True)
class Plan:
    """One subscription. `years` of history end `hidden_weeks` before today."""

    name: str
    requests_per_minute: int
    tables: frozenset[str]
    years: int | None = None
    hidden_weeks: int = 0

    @property
    def is_premium(self) -> bool:
        """Premium alone has the cursor of `/fins/summary` and the morning and afternoon columns of the bars."""
        return self.name == "premium"

    def window(self, today: date) -> Window:
        """Covered dates on `today`. Paid plans are open at the newer end, as the service words it ("A ~ .")."""
        newest = today - timedelta(weeks=self.hidden_weeks)
        first = None if self.years is None else years_before(newest, self.years)
        return Window(first, newest if self.hidden_weeks else None)


PLANS: dict[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan("free", 5, _FREE, years=2, hidden_weeks=12),
        Plan("light", 60, _LIGHT, years=5),
        Plan("standard", 120, _STANDARD, years=10),
        Plan("premium", 500, _STANDARD),
    )
}


def years_before(day: date, years: int) -> date:
    """The same calendar day `years` earlier; 29 February becomes the 28th."""
    try:
        return day.replace(year=day.year - years)
    except ValueError:
        return day.replace(year=day.year - years, day=28)


@dataclass
class _Bucket:
    accepted: deque[float] = field(default_factory=deque)
    refused: deque[float] = field(default_factory=deque)

    def forget_before(self, moment: float) -> None:
        for times in (self.accepted, self.refused):
            while times and times[0] <= moment:
                times.popleft()


class RateEmulator:
    """A sliding window of 60 s per key and bucket, with the lockout that follows a significant excess.

    `/fins/summary` is counted in its own bucket. `requests_per_minute` replaces the plan's limit in both buckets, so
    that a demonstration need not wait. `clock` returns seconds that never go back.
    """

    def __init__(
        self,
        plan: Plan,
        requests_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        general = requests_per_minute or plan.requests_per_minute
        statements = requests_per_minute or min(STATEMENTS_PER_MINUTE, plan.requests_per_minute)
        self._limits = {"general": general, "fin_summary": statements}
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._locked_until: dict[str, float] = {}
        self._mutex = threading.Lock()

    def admit(self, key: str, table: str) -> bool:
        """Count one request of `key` to `table`; False means 429."""
        name = "fin_summary" if table == "fin_summary" else "general"
        with self._mutex:
            now = self._clock()
            if now < self._locked_until.get(key, float("-inf")):
                return False
            bucket = self._buckets.setdefault((key, name), _Bucket())
            bucket.forget_before(now - WINDOW_SECONDS)
            limit = self._limits[name]
            if len(bucket.accepted) < limit:
                bucket.accepted.append(now)
                return True
            bucket.refused.append(now)
            if len(bucket.refused) >= max(5.0, LOCKOUT_SHARE * limit):
                self._locked_until[key] = now + LOCKOUT_SECONDS
            return False
