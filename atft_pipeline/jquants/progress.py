"""How far an ingestion is: months done, requests, rows per second, what is left of the minute's requests, time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from atft_pipeline.jquants.months import MonthReport

SAY_EVERY_SECONDS = 10.0


class Progress:
    """Counts month reports of one table. The time left supposes that the months to come are like the fetched ones."""

    def __init__(self, table: str, months: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._table, self._months, self._clock = table, months, clock
        self._began = self._said = clock()
        self._reports: list[MonthReport] = []

    def add(self, report: MonthReport) -> None:
        self._reports.append(report)

    @property
    def is_due(self) -> bool:
        """Whether a line in the log is worth its place: the last one is ten seconds ago."""
        if self._clock() - self._said < SAY_EVERY_SECONDS:
            return False
        self._said = self._clock()
        return True

    def text(self, free: int) -> str:
        """One line; `free`: requests that may be sent right now."""
        totals = self.totals()
        left = f", about {totals['seconds_left']:.0f} s left" if totals["seconds_left"] else ""
        return (
            f"{self._table}: {totals['months']}/{self._months} months ({totals['months_reused']} stored already), "
            f"{totals['rows']:,} rows, {totals['rows_per_second']:,} rows/s, {totals['requests']} requests, "
            f"{free} free this minute{left}"
        )

    def totals(self) -> dict[str, int]:
        """The same as numbers, for metadata."""
        fetched = [report for report in self._reports if not report.reused]
        seconds = max(self._clock() - self._began, 1e-3)
        rows = sum(report.rows for report in fetched)
        to_come = max(0, self._months - len(self._reports))
        return {
            "months": len(self._reports),
            "months_reused": len(self._reports) - len(fetched),
            "months_outside_plan": sum(report.outside for report in self._reports),
            "rows": sum(report.rows for report in self._reports),
            "rows_per_second": round(rows / seconds),
            "requests": sum(report.requests for report in self._reports),
            "revisions": sum(report.revision is not None for report in self._reports),
            "seconds_left": round(seconds / len(fetched) * to_come) if fetched else 0,
        }


def routes_of(reports: Sequence[MonthReport]) -> str:
    """The ways that were taken, in words, with the number of months of each."""
    counts: dict[str, int] = {}
    for report in reports:
        counts[report.route] = counts.get(report.route, 0) + 1
    return ", ".join(f"{route}: {count}" for route, count in sorted(counts.items()))
