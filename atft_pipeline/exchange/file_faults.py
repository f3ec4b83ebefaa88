"""The faults that concern bulk files: an address that has expired, a file that is cut off, a file written anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta

from atft_pipeline.exchange.clock import MarketClock
from atft_pipeline.exchange.faults import Fault, FaultBoard
from atft_pipeline.exchange.revisions import Revision
from atft_pipeline.exchange.tables import Query

_OF_DAYS = ("late", "drop_column", "extra_column")
"""Faults of rows and columns that the files of single days show as the pages do."""
_REWRITTEN_AFTER = timedelta(days=7)
"""When a file is said to be rewritten, counted from the changed day, where the fault names no time."""


def rewriting(fault: Fault) -> Revision:
    """What a `rewrite` fault does to the rows of its date, in bulk files only."""
    assert fault.date is not None
    since = fault.since or datetime.combine(fault.date + _REWRITTEN_AFTER, time(12))
    where = (("Code", fault.code),) if fault.code else ()
    return Revision("correct", fault.table, since, fault.date, where, fault.column, fault.factor)


class FileFaults:
    """The file faults of `board`, at the times of `clock` and `seconds`."""

    def __init__(self, board: FaultBoard, clock: MarketClock, seconds: Callable[[], float]) -> None:
        self._board = board
        self._clock = clock
        self._seconds = seconds
        self._rewritten: dict[str, list[Revision]] = {}

    def hits(self, kind: str, table: str, first: date, last: date) -> bool:
        """Whether a fault of this kind meets a request for the file of [first, last]; counts the request."""
        return bool(self._take(table, Query(first=first, last=last), kind))

    def of_day(self, table: str, day: date) -> list[Fault]:
        """The faults that the file of a single day shows too: what is late or has other columns is so in any form."""
        return self._board.holding(table, Query(first=day, last=day), self._clock.now, _OF_DAYS)

    def list_anew(self, tables: Sequence[str]) -> None:
        """A list of these tables' files is asked for: which of them are rewritten by now holds until the next list."""
        for table in tables:
            found = self._take(table, Query(first=date.min, last=date.max), "rewrite")
            self._rewritten[table] = [rewriting(fault) for fault in found]

    def rewrites(self, table: str, first: date, last: date) -> list[Revision]:
        """The changes in the file of [first, last]."""
        return [revision for revision in self._rewritten.get(table, []) if first <= revision.date <= last]

    def _take(self, table: str, query: Query, kind: str) -> list[Fault]:
        return self._board.take(table, query, 1, self._clock.now, self._seconds(), (kind,))
