"""Switchable misbehaviour of the exchange: how a fault is written and which requests it hits.

A fault is written `kind:table[:option=value...]`, for example `429:bars_daily:date=2024-05-10:times=2:retry_after=1`;
`*` is every table. What a fault does to rows is in `distortions.py`, how a broken reply goes over the wire in
`replies.py`; docs/reliability.md lists them all.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime

from atft_pipeline.exchange.clock import parse_moment
from atft_pipeline.exchange.endpoints import TABLES
from atft_pipeline.exchange.plans import Recent
from atft_pipeline.exchange.tables import Query

_SELECTORS = ("date", "code", "page", "times", "after", "since", "until")


@dataclass(frozen=True)
class Kind:
    """What a kind of fault does, in words, and its own options beside the selectors."""

    does: str
    options: tuple[str, ...] = ()
    seconds: float = 0.0
    """Default of the option seconds."""


_OPTION = re.compile(r":(?=[a-z])")
"""A colon inside a time is followed by a digit."""
BULK = "bulk"
"""What a fault names instead of a table to hit /bulk/list and /bulk/get themselves."""
OF_FILES = ("expired", "cut_file", "rewrite")
"""Kinds that concern the bulk files of a table; `date` names the file that holds it."""
_OF_ROWS = ("late", "split")
"""Kinds whose date and code name rows instead of requests: however the rows are asked for, they are late, or split."""

KINDS: dict[str, Kind] = {
    "400": Kind("the date is outside the plan: 400 that names the covered dates"),
    "403": Kind("the endpoint is outside the plan"),
    "413": Kind("the answer is too large"),
    "429": Kind("rate limit exceeded, with Retry-After where retry_after is given", ("retry_after",)),
    "500": Kind("unexpected error; times=N makes a burst", ("retry_after",)),
    "503": Kind("service unavailable; times=N makes a burst", ("retry_after",)),
    "lockout": Kind("429, and every request of the key to any table is 429 for so long", ("seconds",), 300.0),
    "burst": Kind("a lockout as soon as more than requests arrive within seconds", ("requests", "seconds"), 12.0),
    "210": Kind("HTTP 210, no content: body=empty sends nothing, body=data an empty list", ("body",)),
    "slow": Kind("the reply comes whole, but after seconds (the official client gives up at 30)", ("seconds",), 35.0),
    "reset": Kind("no reply, TCP RST"),
    "truncate": Kind("the connection ends in the middle of the body"),
    "malformed": Kind("half of the JSON, with a matching length"),
    "null": Kind('{"data":null}'),
    "text": Kind('{"data":"x"}'),
    "array": Kind("the rows as a bare JSON array, without the envelope"),
    "object": Kind("an empty object, {}"),
    "endless": Kind("a pagination key on every page: mode=repeat the same, mode=change a new one", ("mode",)),
    "duplicate": Kind("the last rows of a page come again on the next", ("rows",)),
    "drop_column": Kind("a column is missing", ("column",)),
    "extra_column": Kind("a column nobody declared", ("column",)),
    "retype": Kind("numbers as text, or text that reads as numbers as numbers", ("column",)),
    "all_null": Kind("every value but the keys is null"),
    "partial": Kind("only a share of the rows is out yet; times=N or until=TIME ends it", ("share",)),
    "late": Kind("rows (of date, of code) are not out yet; until=TIME says when they appear"),
    "expired": Kind("bulk: the address that /bulk/get gives has expired, 403 with an XML body"),
    "cut_file": Kind("bulk: the connection ends in the middle of the file"),
    "rewrite": Kind("bulk: the file that holds date is listed anew with other numbers", ("column", "factor")),
    "split": Kind("a split of code on date, announced late: rewrites its whole adjusted history", ("factor",)),
}
"""Kind -> what it does."""


class FaultSyntaxError(ValueError):
    """A fault's text or values make no sense; the message says what is allowed."""


@dataclass(frozen=True)
class Fault:
    """One switch: `kind` on requests to `table`, narrowed by the selectors; None selects everything."""

    kind: str
    table: str = "*"
    date: date | None = None
    """Requests for this date, or for a range with an end that contains it."""
    code: str | None = None
    """The code as the server sees it: five characters for stocks."""
    page: int | None = None
    """Page number from 1."""
    times: int | None = None
    """How many matching requests are hit; None: all."""
    after: int = 0
    """How many matching requests are spared first."""
    retry_after: int | None = None
    """Seconds in the Retry-After header; None: no header."""
    column: str | None = None
    """drop_column and extra_column: the column. retype: the column, or None for every value column."""
    seconds: float | None = None
    """slow: delay before the reply. lockout: its length. burst: the window. None: the kind's own default."""
    mode: str = "repeat"
    """endless: `repeat` the same pagination key or `change` it every time."""
    rows: int = 1
    """duplicate: how many rows of this page come again on the next."""
    share: float = 0.5
    """partial: the share of the rows that is already published."""
    requests: int = 30
    """burst: how many are still tolerated within `seconds`."""
    body: str = "empty"
    """210: `empty`, or `data` for an empty list."""
    factor: float = 0.5
    """split: the adjustment factor. rewrite: what the numbers of that day are multiplied by."""
    since: datetime | None = None
    """Exchange time from which the fault acts; None: always."""
    until: datetime | None = None
    """Exchange time at which it ends; an exchange without a clock is past every time."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise FaultSyntaxError(f"unknown fault {self.kind!r}; known: {', '.join(KINDS)}")
        known = [*TABLES, BULK]
        if self.table != "*" and self.table not in known:
            raise FaultSyntaxError(f"fault {self.kind}: unknown table {self.table!r}; known: *, {', '.join(known)}")
        if self.kind in ("drop_column", "extra_column") and not self.column:
            raise FaultSyntaxError(f"fault {self.kind} needs column=NAME")
        if self.mode not in ("repeat", "change"):
            raise FaultSyntaxError(f"fault {self.kind}: mode is {self.mode!r}; use repeat or change")
        if not 0 <= self.share < 1:
            raise FaultSyntaxError(f"fault {self.kind}: share is {self.share}; it must be in [0, 1)")
        if min(self.rows, self.requests) < 1:
            raise FaultSyntaxError(f"fault {self.kind}: rows is {self.rows}; it must be at least 1")
        if self.body not in ("empty", "data"):
            raise FaultSyntaxError(f"fault {self.kind}: body is {self.body!r}; use empty or data")
        if self.kind == "rewrite" and (self.table not in TABLES or not self.date):
            raise FaultSyntaxError("fault rewrite needs a table and date=DATE")
        if self.kind == "split" and (self.table != "bars_daily" or not (self.date and self.code)):
            raise FaultSyntaxError("fault split needs the table bars_daily, code=CODE and date=EX-DATE")

    @property
    def duration(self) -> float:
        """`seconds`, or the kind's default."""
        return KINDS[self.kind].seconds if self.seconds is None else self.seconds

    def __str__(self) -> str:
        """The text that `parse_fault` reads back."""
        given = {f.name: getattr(self, f.name) for f in fields(self)[2:] if getattr(self, f.name) != f.default}
        options = [f"{k}={v.isoformat() if isinstance(v, datetime) else v}" for k, v in given.items()]
        return ":".join([self.kind, self.table, *options])

    def acts(self, now: datetime | None) -> bool:
        """Whether the exchange time `now` (None: after everything) lies in [since, until)."""
        begun = self.since is None or now is None or now >= self.since
        return begun and (self.until is None or (now is not None and now < self.until))

    def matches(self, table: str, query: Query, page: int) -> bool:
        if self.kind == "rewrite":
            return self.table == table
        if self.kind in _OF_ROWS:
            return self.table in ("*", table)
        return (
            self.table in ("*", table)
            and (self.date is None or query.touches(self.date))
            and (self.code is None or query.code == self.code)
            and (self.page is None or page == self.page)
        )


def parse_fault(text: str) -> Fault:
    """Read `kind:table[:option=value...]`. Raises `FaultSyntaxError`."""
    kind, _, rest = text.partition(":")
    table, *options = _OPTION.split(rest) if rest else ["*"]
    if kind not in KINDS:
        raise FaultSyntaxError(f"fault {text!r}: unknown kind {kind!r}; known: {', '.join(KINDS)}")
    allowed = _SELECTORS + KINDS[kind].options
    values: dict[str, object] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or name not in allowed:
            raise FaultSyntaxError(f"fault {text!r}: {option!r} is not an option; {kind} takes {', '.join(allowed)}")
        values[name] = _convert(text, name, value)
    return Fault(kind, table, **values)  # type: ignore[arg-type]


def _convert(text: str, name: str, value: str) -> object:
    try:
        if name == "date":
            return date.fromisoformat(value)
        if name in ("since", "until"):
            return parse_moment(value)
        if name in ("page", "times", "after", "retry_after", "rows", "requests"):
            return int(value)
        return float(value) if name in ("seconds", "share", "factor") else value
    except ValueError:
        raise FaultSyntaxError(f"fault {text!r}: {name} cannot be {value!r}") from None


class FaultBoard:
    """The faults in force and how many requests each has met."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._mutex = threading.Lock()
        self._faults: list[Fault] = []
        self._met: list[int] = []
        self._recent: list[Recent] = []
        self.replace(faults)

    def replace(self, faults: Iterable[Fault]) -> None:
        """Put `faults` in force instead of the present ones, with fresh counts."""
        with self._mutex:
            self._faults = list(faults)
            self._met = [0] * len(self._faults)
            self._recent = [Recent(fault.duration) for fault in self._faults]

    def holding(self, table: str, query: Query, now: datetime | None, kinds: Collection[str]) -> list[Fault]:
        """Faults of `kinds` that hold for as long as they act, so that no request is counted."""
        with self._mutex:
            return [
                fault
                for fault in self._faults
                if fault.kind in kinds
                and fault.times is None
                and not fault.after
                and fault.acts(now)
                and fault.matches(table, query, 1)
            ]

    def take(
        self,
        table: str,
        query: Query,
        page: int,
        now: datetime | None,
        seconds: float,
        kinds: Collection[str] | None = None,
    ) -> list[Fault]:
        """Faults that hit this request, at exchange time `now` and second `seconds` of a clock that never goes back.

        Counts the request for every fault that it matches. `kinds` are those that this sort of request can meet (None:
        all but those of files).
        """
        hit = []
        with self._mutex:
            for at, fault in enumerate(self._faults):
                meets = fault.kind in kinds if kinds is not None else fault.kind not in OF_FILES
                if not meets or not fault.acts(now) or not fault.matches(table, query, page):
                    continue
                self._met[at] += 1
                if self._met[at] <= fault.after:
                    continue
                if fault.kind == "burst" and self._recent[at].add(seconds) <= fault.requests:
                    continue
                if fault.times is None or self._met[at] <= fault.after + fault.times:
                    hit.append(fault)
        return hit
