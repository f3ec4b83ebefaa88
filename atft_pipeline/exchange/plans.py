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
"""`/fins/summary` and `/fins/details` each have this cap of their own on every plan."""
OWN_BUCKETS = frozenset({"fin_summary", "fin_details"})

_FREE = frozenset({"calendar", "master", "bars_daily", "fin_summary"})
_LIGHT = _FREE | {"topix", "investor_types", "earnings_date"}
_STANDARD = _LIGHT | {"indices", "margin_interest", "margin_alert", "short_ratio", "short_sale_report", "options_225"}
_PREMIUM = _STANDARD | {"breakdown", "fin_details", "dividend", "futures"}


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

    @property
    def has_bulk(self) -> bool:
        """Whether there are bulk files of more than the calendar."""
        return self.name != "free"

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
        Plan("premium", 500, _PREMIUM),
    )
}


def years_before(day: date, years: int) -> date:
    """The same calendar day `years` earlier; 29 February becomes the 28th."""
    try:
        return day.replace(year=day.year - years)
    except ValueError:
        return day.replace(year=day.year - years, day=28)


GENERAL = "general"
"""The bucket of every table that has none of its own."""


def bucket_of(table: str) -> str:
    """The rate bucket that counts requests to `table`."""
    return table if table in OWN_BUCKETS else GENERAL


@dataclass(frozen=True)
class Burst:
    """More than `requests` within `seconds` lock the key out, even where the limit per minute is kept."""

    requests: int = 30
    seconds: float = 12.0

    def __post_init__(self) -> None:
        if self.requests < 1 or self.seconds <= 0:
            raise ValueError(f"a burst rule needs at least 1 request and more than 0 seconds, not {self}")

    def __str__(self) -> str:
        """The text that `parse_burst` reads back."""
        return f"{self.requests}/{self.seconds}"


def parse_burst(text: str) -> Burst:
    """Read `REQUESTS` or `REQUESTS/SECONDS`. Raises `ValueError`."""
    requests, slash, seconds = text.partition("/")
    return Burst(int(requests), float(seconds)) if slash else Burst(int(requests))


class Recent:
    """Times of the last `seconds`, oldest first; times must not go back."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._times: deque[float] = deque()

    def add(self, now: float) -> int:
        """Count one more and return how many lie in (now - seconds, now]."""
        self._times.append(now)
        return self.count(now)

    def count(self, now: float) -> int:
        """How many lie in (now - seconds, now]."""
        while self._times and self._times[0] <= now - self._seconds:
            self._times.popleft()
        return len(self._times)


@dataclass
class _Bucket:
    accepted: Recent = field(default_factory=lambda: Recent(WINDOW_SECONDS))
    refused: Recent = field(default_factory=lambda: Recent(WINDOW_SECONDS))


class RateEmulator:
    """A sliding window of 60 s per key and bucket, with the lockout that follows a significant excess.

    `/fins/summary` and `/fins/details` are counted in buckets of their own. `requests_per_minute` replaces the plan's
    limit in every bucket, so that a demonstration need not wait. `burst` adds the rule that users met in the field;
    the documents do not name it, so it is off by default. `clock` returns seconds that never go back.
    """

    def __init__(
        self,
        plan: Plan,
        requests_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        burst: Burst | None = None,
    ) -> None:
        self._general = requests_per_minute or plan.requests_per_minute
        self._own = requests_per_minute or min(STATEMENTS_PER_MINUTE, plan.requests_per_minute)
        self._clock = clock
        self._burst = burst
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._bursts: dict[str, Recent] = {}
        self._locked_until: dict[str, float] = {}
        self._mutex = threading.Lock()

    def limit(self, bucket: str) -> int:
        """Requests that `bucket` admits in any 60 s."""
        return self._general if bucket == GENERAL else self._own

    def admit(self, key: str, table: str) -> bool:
        """Count one request of `key` to `table`; False means 429."""
        name = bucket_of(table)
        with self._mutex:
            now = self._clock()
            if now < self._locked_until.get(key, float("-inf")):
                return False
            if (
                self._burst
                and self._bursts.setdefault(key, Recent(self._burst.seconds)).add(now) > self._burst.requests
            ):
                self._locked_until[key] = now + LOCKOUT_SECONDS
                return False
            bucket = self._buckets.setdefault((key, name), _Bucket())
            limit = self.limit(name)
            if bucket.accepted.count(now) < limit:
                bucket.accepted.add(now)
                return True
            if bucket.refused.add(now) >= max(5.0, LOCKOUT_SHARE * limit):
                self._locked_until[key] = now + LOCKOUT_SECONDS
            return False

    def lock(self, key: str, seconds: float) -> None:
        """Refuse everything of `key` for `seconds` from now."""
        with self._mutex:
            self._locked_until[key] = max(self._locked_until.get(key, float("-inf")), self._clock() + seconds)
