"""What the exchange was asked: every request with its time and size, and the busiest minute of each rate bucket.

The busiest minute is counted here, at the server, so it covers all clients together, however many processes they are.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from atft_pipeline.exchange.plans import WINDOW_SECONDS, Recent

_KEPT_REQUESTS = 100_000


@dataclass(frozen=True)
class RequestRecord:
    """One request under /v2, as the server saw and answered it. `table` is empty for an unknown path."""

    table: str
    path: str
    params: dict[str, str]
    page: int
    status: int
    bucket: str = ""
    """The rate bucket that counted it; empty when it was refused before any was asked (403)."""
    at: float = 0.0
    """Seconds since the exchange started, at arrival."""
    bytes: int = 0
    """Size of the reply's body as sent, after compression."""

    @property
    def date(self) -> str:
        """The `date` parameter, else `from..to`, else empty."""
        if "from" in self.params or "to" in self.params:
            return self.params.get("date") or f"{self.params.get('from', '')}..{self.params.get('to', '')}"
        return self.params.get("date", "")


class Traffic:
    """Requests so far. Totals and busiest minutes cover all of them; the list holds the newest 100,000."""

    def __init__(self) -> None:
        self.requests: deque[RequestRecord] = deque(maxlen=_KEPT_REQUESTS)
        self._recent: dict[str, Recent] = {}
        self._busiest: Counter[str] = Counter()
        self._tables: Counter[str] = Counter()
        self._bytes = 0
        self._total = 0

    def arrive(self, bucket: str, now: float) -> None:
        """Count a request that reached the rate limit, refused or not. `now` never goes back."""
        count = self._recent.setdefault(bucket, Recent(WINDOW_SECONDS)).add(now)
        self._busiest[bucket] = max(self._busiest[bucket], count)

    def add(self, record: RequestRecord) -> None:
        """Keep a request that was answered."""
        self.requests.append(record)
        self._tables[record.table] += 1
        self._bytes += record.bytes
        self._total += 1

    def report(self, limits: Mapping[str, int], *, listed: bool = True) -> dict[str, Any]:
        """Everything as JSON values; `limits` are the buckets' limits per minute. `listed` adds each request."""
        counts = Counter((record.table, record.date, record.status) for record in self.requests)
        answer: dict[str, Any] = {
            "total": self._total,
            "bytes": self._bytes,
            "tables": dict(sorted(self._tables.items())),
            "busiest_minute": {
                bucket: {"requests": self._busiest[bucket], "limit": limit} for bucket, limit in sorted(limits.items())
            },
            "counts": [
                {"table": table, "date": day, "status": status, "count": count}
                for (table, day, status), count in sorted(counts.items())
            ],
        }
        return answer | ({"requests": [asdict(record) for record in self.requests]} if listed else {})
