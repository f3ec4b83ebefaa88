"""The official client with one choke point: pacing, retries, validation and readable errors for every request.

`ClientV2` sends every request through `_get`; overriding it (and the session, which would otherwise re-send refused
requests at once) gives all getters the same behaviour on https:// and on loopback.
"""

from __future__ import annotations

import email.utils
import ipaddress
import json
import logging
import os
import random
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from zoneinfo import ZoneInfo

import pandas as pd
import requests
from jquantsapi import ClientV2
from requests.adapters import HTTPAdapter

from atft_pipeline.jquants.errors import NOTHING_STORED, ExchangeError, describe, failure, scrub
from atft_pipeline.jquants.limiter import Limiter, plan_windows
from atft_pipeline.jquants.plans import FINS_PER_MINUTE, Plan, get_plan

TOKYO = ZoneInfo("Asia/Tokyo")
OFFICIAL_URL = ClientV2.JQUANTS_API_BASE

log = logging.getLogger(__name__)

if hasattr(pd.errors, "Pandas4Warning"):
    # The official client sorts with deprecated arguments on every call. For good, as filters are not thread-safe.
    warnings.filterwarnings("ignore", category=pd.errors.Pandas4Warning, module="jquantsapi")


@dataclass(frozen=True)
class Patience:
    """How long a failing request is tried. Waits double from the first one. After a 429 everybody pauses: shortly, as
    another user of the key may have used up the minute, then longer, then past the service's five-minute lockout."""

    attempts: int = 7
    attempts_limited: int = 5
    first_wait: float = 0.5
    first_wait_limited: float = 5.0
    longest_wait: float = 330.0
    pages: int = 100
    """Most pages of one answer: a full-market day takes 2 to 10."""

    def wait(self, attempt: int, retry_after: float | None) -> float:
        """Seconds before attempt `attempt` + 1; at least what the server asked for, plus up to 25 % jitter."""
        return self._jittered(self.first_wait * 2 ** (attempt - 1), retry_after)

    def pause(self, strike: int, retry_after: float | None) -> float:
        """Seconds in which nobody sends, after `strike` refusals in a row: 5, 30, then 310."""
        return self._jittered(self.first_wait_limited * (1, 6, 62)[min(strike, 3) - 1], retry_after)

    def _jittered(self, planned: float, retry_after: float | None) -> float:
        return min(max(planned, retry_after or 0.0) * random.uniform(1.0, 1.25), self.longest_wait)


class Page(requests.Response):
    """A checked answer. It holds the parsed body only: no headers, hence no API key."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__()
        self.status_code = 200
        self._body = body

    def json(self, **kwargs: Any) -> dict[str, Any]:
        return self._body


@dataclass(frozen=True)
class Refusal:
    """Why one attempt gave no page. `status` 0: no usable HTTP answer."""

    status: int
    message: str
    retry: bool
    retry_after: float | None = None


class Client(ClientV2):
    """`jquantsapi.ClientV2`, paced, patient and checked. Every failure is an `ExchangeError`. Thread-safe.

    `requests_sent` counts the calling thread's HTTP requests, retries included.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        plan: Plan,
        limiter: Limiter,
        *,
        origin: str = "",
        today: date | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(api_key=api_key)
        self.JQUANTS_API_BASE = base_url.rstrip("/")
        self.plan = plan
        self.origin = origin
        self.today = today or datetime.now(TOKYO).date()
        self._windows: dict[str, tuple[date, date | None]] = {}
        self._limiter = limiter
        self._patience = patience or Patience()
        self._sleep = sleep
        self._opening = threading.Lock()
        self._mine = threading.local()

        self._session: requests.Session | None = None

    def __repr__(self) -> str:
        return f"Client({self.JQUANTS_API_BASE}, plan={self.plan.name})"

    @property
    def requests_sent(self) -> int:
        return getattr(self._mine, "sent", 0)

    @property
    def columns_delivered(self) -> frozenset[str]:
        """The columns of the calling thread's last answer, all pages together: the official getters fill in some."""
        return frozenset(getattr(self._mine, "columns", ()))

    def window(self, endpoint: str) -> tuple[date, date | None] | None:
        """First and last date that the plan covers there: as the service named them in a refusal (400) of this run,
        else None, or the newest date that the plan shows where it hides some. None as last date is open."""
        if endpoint in self._windows:
            return self._windows[endpoint]
        return (date.min, self.plan.window(self.today)[1]) if self.plan.hidden_days else None

    @property
    def requests_free(self) -> int:
        """Requests that the plan allows at once, right now, over all processes that share the limit."""
        return self._limiter.free()

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine."""
        return _is_loopback(self.JQUANTS_API_BASE)

    def _load_config(self) -> dict[str, str]:
        # The key is always given: no configuration file of the machine takes part, broken or not.
        return {}

    def _request_session(
        self, status_forcelist: list[int] | None = None, allowed_methods: list[str] | None = None
    ) -> requests.Session:
        """The one session, without urllib3's own retries: on https they re-send a 429 three times at once."""
        with self._opening:
            if self._session is None:
                session = requests.Session()
                adapter = HTTPAdapter(pool_maxsize=self.MAX_WORKERS + 10, max_retries=0)
                session.mount("https://", adapter)
                session.mount("http://", adapter)
                session.max_redirects = 0  # a redirect would carry the key to another host
                if self.is_loopback:
                    session.trust_env = False  # a proxy of the environment must not come between us and ourselves
                    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
                self._session = session
            return self._session

    def _get(self, url: str, params: dict[str, Any] | None = None) -> requests.Response:
        """One page, paced, checked and retried. Raises `ExchangeError` after the last attempt, or at once on a 4xx."""
        endpoint = url.removeprefix(self.JQUANTS_API_BASE)
        query = dict(params or {})
        asked = describe(query)
        for attempt in range(1, self._patience.attempts + 1):
            sent = self._limiter.acquire(endpoint)
            self._mine.sent = self.requests_sent + 1
            answer = self._attempt(url, endpoint, query)
            if isinstance(answer, dict):
                self._limiter.accepted(sent)
                self._guard_pages(endpoint, query, answer)
                return Page(answer)
            limited = answer.status == 429
            allowed = min(self._patience.attempts, self._patience.attempts_limited if limited else attempt + 1)
            if limited:  # ordered even by a last attempt: the others must know
                wait = self._limiter.refused(sent, partial(self._patience.pause, retry_after=answer.retry_after))
            else:
                wait = self._patience.wait(attempt, answer.retry_after)
            if attempt >= allowed or not answer.retry:
                refusal = failure(endpoint, asked, answer.status, answer.message, attempt)
                if refusal.covered:
                    self._windows[endpoint] = refusal.covered
                raise refusal
            log.warning("%s %s: %s; trying again in %.1f s", endpoint, asked, answer.message, wait)
            if not limited:  # else the limiter waits, for everybody
                self._sleep(wait)
        raise AssertionError("the loop returns or raises")

    def _attempt(self, url: str, endpoint: str, query: dict[str, Any]) -> dict[str, Any] | Refusal:
        """Send once. Exceptions end here, as they hold the request and with it the key."""
        try:
            response = super()._get(url, params=query)
        except requests.HTTPError as error:
            return self._refused(error.response)
        except requests.TooManyRedirects:
            return Refusal(0, "the server redirects; the key is sent to the configured host only", retry=False)
        except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema) as error:
            return Refusal(0, scrub(str(error), self._api_key), retry=False)
        except requests.RequestException as error:
            return Refusal(0, f"{type(error).__name__}: {scrub(str(error), self._api_key)}", retry=True)
        try:
            return self._validated(response, endpoint)
        except ValueError as error:
            return Refusal(0, f"malformed body: {scrub(str(error), self._api_key)}", retry=True)

    def _refused(self, response: requests.Response | None) -> Refusal:
        if response is None:
            return Refusal(0, "an HTTP error without an answer", retry=True)
        status = response.status_code
        try:
            body = response.json()
            message = str(body.get("message", body)) if isinstance(body, dict) else str(body)
        except ValueError:
            message = response.text
        return Refusal(
            status,
            scrub(message, self._api_key) or "no message",
            retry=status == 429 or status >= 500,
            retry_after=_retry_after(response.headers.get("Retry-After", "")),
        )

    @staticmethod
    def _validated(response: requests.Response, endpoint: str) -> dict[str, Any]:
        """The body as an object with a list of rows; raises `ValueError` with what is wrong.

        Without this, the official client reads `{}` or `{"data": null}` as an empty table.
        """
        if response.status_code != 200:
            raise ValueError(f"status {response.status_code} where 200 was expected")
        body = json.loads(response.content)
        if not isinstance(body, dict):
            raise ValueError(f"a JSON {type(body).__name__} where an object was expected")
        if endpoint == "/bulk/get":
            return body
        rows = body.get("data")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("'data' is not a list of objects")
        key = body.get("pagination_key")
        if key is not None and not isinstance(key, str):
            raise ValueError("'pagination_key' is not text")
        return body

    def _guard_pages(self, endpoint: str, query: dict[str, Any], body: dict[str, Any]) -> None:
        """Note the answer's columns, and end one that never ends. A query without a continuation key starts a new
        answer in this thread."""
        if "pagination_key" not in query:
            self._mine.pages, self._mine.columns = set(), set()
        for row in body.get("data", ()):
            self._mine.columns.update(row)
        key = body.get("pagination_key")
        if not key:
            return
        seen: set[str] = self._mine.pages
        if key in seen:
            problem = f"page {len(seen) + 1} repeats an earlier pagination_key"
        elif len(seen) + 1 >= self._patience.pages:
            problem = f"more than {self._patience.pages} pages"
        else:
            seen.add(key)
            return
        asked = describe(query)
        raise ExchangeError(
            f"{endpoint} {asked}: endless pagination, {problem}; the server is at fault: run the same command again "
            f"later, and report it to the provider if it stays; {NOTHING_STORED}",
            endpoint=endpoint,
            request=asked,
            status=200,
        )


def connect(
    base_url: str,
    api_key: str,
    plan: str,
    requests_per_minute: int | None = None,
    *,
    limits_file: Path | None = None,
    origin: str = "",
    today: date | None = None,
    patience: Patience | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> Client:
    """A client for `base_url` (empty: the official service).

    `api_key` empty: read `JQUANTS_API_KEY`. `requests_per_minute` None: the plan's limit; a number above it says that
    the server is not the public one, so the statement endpoints' own cap is lifted too. `limits_file`: processes that
    name the same file share one limit; None paces this process alone. `origin` names the market behind the server
    (default: its host); months stored from another origin are fetched anew. `today` is the service's date (default: the
    date in Tokyo; a simulated market's is its last).
    """
    base_url = base_url or OFFICIAL_URL
    chosen = get_plan(plan)
    key = api_key or os.environ.get("JQUANTS_API_KEY", "")
    if not key:
        raise ExchangeError("no API key: set JQUANTS_API_KEY (J-Quants dashboard, API keys)")
    per_minute = requests_per_minute or chosen.requests_per_minute
    fins = per_minute if per_minute > chosen.requests_per_minute else min(per_minute, FINS_PER_MINUTE)
    return Client(
        base_url,
        key,
        chosen,
        Limiter(plan_windows(per_minute, fins), limits_file, clock=clock, sleep=sleep),
        origin=origin or (urlparse(base_url).hostname or base_url),
        today=today,
        patience=patience,
        sleep=sleep,
    )


def _is_loopback(url: str) -> bool:
    host = urlparse(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _retry_after(text: str) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or an HTTP date; None when absent or unreadable."""
    text = text.strip()
    if not text:
        return None
    if text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
