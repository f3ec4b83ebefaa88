"""Where the exchange stands in time. Tokyo wall time without a zone, moved by command only, never by itself."""

from __future__ import annotations

import threading
from datetime import date, datetime, time, timedelta

END_OF_DAY = time(23, 59, 59)
SLACK = timedelta(days=14)
"""How far past the market's last date the clock may go, so that its last rows can still be published late."""


class ClockError(ValueError):
    """A time that this exchange cannot stand at; the message says what is allowed."""


def parse_moment(text: str) -> datetime:
    """`YYYY-MM-DD` (the end of that day) or `YYYY-MM-DDTHH:MM[:SS]`. Raises `ClockError`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ClockError(f"{text!r} is no time; write YYYY-MM-DD or YYYY-MM-DDTHH:MM, Tokyo time") from None
    if moment.tzinfo is not None:
        raise ClockError(f"{text!r} names a time zone; write Tokyo time without one")
    return datetime.combine(moment, END_OF_DAY) if len(text) <= len("YYYY-MM-DD") else moment


class MarketClock:
    """The time inside a market of the dates [first, last]. Thread-safe.

    `now` None is after everything: all rows are published and the plan's window ends at the last date.
    """

    def __init__(self, first: date, last: date, now: datetime | None = None) -> None:
        self._first, self._last = first, last
        self._mutex = threading.Lock()
        self._now: datetime | None = None
        self.set(now)

    @property
    def now(self) -> datetime | None:
        return self._now

    @property
    def today(self) -> date:
        """The day that plan windows are relative to."""
        return self._last if self._now is None else self._now.date()

    def set(self, now: datetime | None) -> None:
        """Stand at `now`. Raises `ClockError` outside the market's dates (and two weeks after)."""
        if now is not None and not self._first <= now.date() <= self._last + SLACK:
            raise ClockError(f"the clock cannot stand at {now}: the market runs from {self._first} to {self._last}")
        with self._mutex:
            self._now = now

    def advance(self, minutes: float) -> None:
        """Move forward. Raises `ClockError` for a step back, or when the clock stands after everything."""
        with self._mutex:
            if self._now is None:
                raise ClockError("the clock stands after the market's end; set a time before advancing it")
            if minutes < 0:
                raise ClockError(f"the clock cannot go back by {-minutes} minutes; set a time instead")
            moved = self._now + timedelta(minutes=minutes)
        self.set(moved)
