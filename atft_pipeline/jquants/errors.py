"""What can go wrong between the API and the lake, as one family of exceptions, and the words for it.

Each text names the endpoint, the request (date or range), what happened and the remedy. No text ever holds the API key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

NOTHING_STORED = "nothing of this was stored, earlier content is unchanged"
_COVERED = re.compile(r"covers the following dates: *(\d{4}-\d\d-\d\d) *~ *(\d{4}-\d\d-\d\d)?")


class ExchangeError(Exception):
    """A request to the API could not be completed.

    `endpoint`, `request`, `status` (0: no HTTP status) and `covered` (first and last date of the subscription, from a
    400 answer; None when it named none) repeat what the text says, for callers that react to it.
    """

    def __init__(
        self,
        text: str,
        *,
        endpoint: str = "",
        request: str = "",
        status: int = 0,
        covered: tuple[date, date | None] | None = None,
    ) -> None:
        super().__init__(text)
        self.endpoint = endpoint
        self.request = request
        self.status = status
        self.covered = covered


class SchemaError(ExchangeError):
    """The answer's columns or values are not the declared ones."""


class IncompleteError(ExchangeError):
    """The answer is well formed but lacks rows that must exist."""


def describe(params: Mapping[str, object]) -> str:
    """`date=2024-05-14`: the request's parameters without the continuation key."""
    shown = [f"{name}={value}" for name, value in params.items() if name != "pagination_key"]
    return " ".join(shown) or "(no parameters)"


def scrub(text: str, key: str, limit: int = 300) -> str:
    """`text` on one line, shortened, with every occurrence of the API key replaced."""
    clean = text.replace(key, "***") if key else text
    return " ".join(clean.split())[:limit]


def covered_dates(message: str) -> tuple[date, date | None] | None:
    """The dates that a subscription covers, from the API's own 400 text; None when the text names none."""
    found = _COVERED.search(message)
    if not found:
        return None
    first, last = found.groups()
    return date.fromisoformat(first), date.fromisoformat(last) if last else None


def failure(endpoint: str, request: str, status: int, message: str, tries: int) -> ExchangeError:
    """The one error for a request that ended without an answer; `status` 0 means the connection itself failed."""
    covered = covered_dates(message) if status == 400 else None
    attempts = f" after {tries} attempts" if tries > 1 else ""
    what = f"HTTP {status}" if status else "no usable answer"
    remedy = _remedy(status, message, covered)
    return ExchangeError(
        f"{endpoint} {request}: {what}{attempts} ({message}); {remedy}; {NOTHING_STORED}",
        endpoint=endpoint,
        request=request,
        status=status,
        covered=covered,
    )


def _remedy(status: int, message: str, covered: tuple[date, date | None] | None) -> str:
    if covered:
        first, last = covered
        span = f"{first} to {last}" if last else f"{first} onwards"
        return f"the subscription covers {span}: set ATFT_START and ATFT_END inside it, or use a larger plan"
    if status == 400:
        return "the API rejected the parameters: check the date, and docs of the endpoint if the API has changed"
    if status == 403:
        words = message.lower()
        if "plan" in words or "subscription" in words:
            return "the endpoint is outside the plan of this key: set JQUANTS_PLAN to the plan you have, or upgrade"
        return "check JQUANTS_API_KEY (wrong or expired key), and that JQUANTS_PLAN is the plan you have"
    if status == 429:
        return "the API limits requests: wait five minutes, or lower JQUANTS_REQUESTS_PER_MINUTE"
    if status >= 500:
        return "the service failed: run the same command again later, fetched days are kept"
    if status:
        return "the API refused the request: check JQUANTS_BASE_URL"
    return "check the network and JQUANTS_BASE_URL, then run the same command again: fetched days are kept"
