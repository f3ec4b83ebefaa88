"""The J-Quants v2 server over a market folder: who may ask, which page answers, and what was asked.

`create_app` builds the ASGI application, `bind` and `serve` run it. Parameter rules are in `tables.py`, plans and
rates in `plans.py`, faults in `faults.py`. The API key arrives in a header and is never logged or counted.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import polars as pl
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from atft_pipeline.exchange import bulk, control, replies
from atft_pipeline.exchange.bulk_files import BulkFiles
from atft_pipeline.exchange.clock import MarketClock
from atft_pipeline.exchange.distortions import distort_answer, distort_page, late_splits
from atft_pipeline.exchange.endpoints import ENDPOINTS, Endpoint
from atft_pipeline.exchange.faults import Fault, FaultBoard, FaultSyntaxError
from atft_pipeline.exchange.file_faults import FileFaults, rewriting
from atft_pipeline.exchange.pagination import Continuation, Page
from atft_pipeline.exchange.plans import (
    LOCKOUT_SECONDS,
    PLANS,
    Burst,
    Plan,
    RateEmulator,
    bucket_of,
)
from atft_pipeline.exchange.revisions import Revision, RevisionError
from atft_pipeline.exchange.tables import (
    SUBSCRIPTION_MESSAGE,
    BadRequest,
    MarketError,
    Query,
    ServedTable,
    load_tables,
    parse_query,
)
from atft_pipeline.exchange.traffic import RequestRecord, Traffic
from atft_pipeline.exchange.view import View

PREFIX = "/v2"
OUTSIDE_PLAN = "This API is not available on your subscription."
MESSAGES = {
    403: OUTSIDE_PLAN,
    413: "Response data is too large. Please specify parameters to reduce the acquired data range.",
    429: "Rate limit exceeded. Please try again later.",
    500: "Unexpected error. Please try again later.",
    503: "Service unavailable. Please try again later.",
}
_BODIES = {"null": b'{"data":null}', "text": b'{"data":"x"}', "object": b"{}"}
"""Fault -> the whole body that it sends."""


class Exchange:
    """The state behind the application. Tests in the same process read `requests` and replace `faults`."""

    def __init__(
        self,
        market_dir: Path,
        plan: Plan,
        api_keys: set[str],
        faults: Sequence[Fault],
        rates: RateEmulator,
        page_rows: int,
        seconds: Callable[[], float],
        now: datetime | None = None,
        revisions: Sequence[Revision] = (),
    ) -> None:
        content = (market_dir / "market.json").read_bytes()
        about = json.loads(content)
        self.clock = MarketClock(date.fromisoformat(about["start"]), date.fromisoformat(about["end"]), now)
        if about.get("recorded"):  # what was not recorded is as if it were outside the plan
            plan = replace(plan, tables=plan.tables & set(about["tables"]))
        self.plan = plan
        self.tables = load_tables(market_dir, plan)
        self._objects: Mapping[str, Sequence[str]] = about.get("objects", {})
        self.view = View(self.tables, plan, self.clock, revisions)
        self.page_rows = page_rows
        self.traffic = Traffic()
        self.rates = rates
        self.faults = FaultBoard()
        self.set_faults(faults)
        file_faults = FileFaults(self.faults, self.clock, seconds)
        files = BulkFiles(self.tables, self.view, plan, self.clock, market_dir, file_faults)
        self.bulk = bulk.Bulk(files, plan, lambda: self.view.window, seconds, file_faults)
        self._seconds = seconds
        self._started = seconds()
        self._keys = [key.encode() for key in api_keys]
        self._continuation = Continuation(hashlib.sha256(content).digest())
        self._endless = 0

    @property
    def today(self) -> date:
        """The day that the exchange stands at."""
        return self.clock.today

    @property
    def requests(self) -> deque[RequestRecord]:
        """The newest requests, in order."""
        return self.traffic.requests

    def set_faults(self, faults: Sequence[Fault]) -> None:
        """Replace the faults in force. Raises `FaultSyntaxError` for a column that the table does not have."""
        for fault in faults:
            served = self.tables.get(fault.table)
            names_column = fault.kind in ("drop_column", "retype") and fault.column is not None
            if served and names_column and fault.column not in served.columns:
                raise FaultSyntaxError(f"fault {fault}: {fault.table} has no column {fault.column}")
            if served and fault.kind == "rewrite":
                try:
                    self.view.require_target(rewriting(fault))
                except RevisionError as error:
                    raise FaultSyntaxError(f"fault {fault}: {error}") from None
        self.faults.replace(faults)

    async def answer(self, request: Request) -> Response:
        """Answer any request under /v2 and record it."""
        prefix, _, path = request.url.path.partition(PREFIX)
        endpoint = None if prefix else ENDPOINTS.get(path)
        params = dict(request.query_params)
        page = self._continuation.page(path, params)
        arrived = self._seconds()
        key = request.headers.get("x-api-key", "")
        is_bulk = not prefix and path in bulk.PATHS
        table = bulk.TABLE if is_bulk else endpoint.table if endpoint else ""
        refusal = self._refusal(key, table, request.method)
        bucket = "" if refusal else bucket_of(table)
        if refusal:
            response = replies.message_reply(403, refusal)
        elif endpoint is None:
            self.traffic.arrive(bucket, arrived)
            response = await self._respond_in_bulk(request, key, path, params)
        else:
            self.traffic.arrive(bucket, arrived)
            response = await self._respond(request, key, endpoint, params, page)
        shown = {name: text for name, text in params.items() if name != "pagination_key"}
        self.traffic.add(
            RequestRecord(
                table,
                path,
                shown,
                page.number if page else 0,
                response.status_code,
                bucket,
                round(arrived - self._started, 6),
                replies.sent_bytes(response),
            )
        )
        return response

    async def _respond(
        self, request: Request, key: str, endpoint: Endpoint, params: Mapping[str, str], page: Page | None
    ) -> Response:
        if not self.rates.admit(key, endpoint.table):
            return replies.message_reply(429, MESSAGES[429])
        try:
            query = parse_query(endpoint, params)
            number = page.number if page else 1
            faults = self.faults.take(endpoint.table, query, number, self.clock.now, self._seconds())
            early = await self._early_reply(key, faults)
            if early:
                return early
            is_endless = any(fault.kind == "endless" for fault in faults)
            if page is None and not is_endless:
                raise BadRequest("'pagination_key' is invalid.")
            body = self._body(self.tables[endpoint.table], query, params, page or Page(), faults)
        except BadRequest as error:
            return replies.message_reply(400, str(error))
        return _late_reply(body, faults, replies.accepts_gzip(request))

    async def _respond_in_bulk(self, request: Request, key: str, path: str, params: Mapping[str, str]) -> Response:
        if not self.rates.admit(key, bulk.TABLE):
            return replies.message_reply(429, MESSAGES[429])
        try:
            faults = self.faults.take(bulk.TABLE, Query(), 1, self.clock.now, self._seconds())
            early = await self._early_reply(key, faults)
            return early or _broken(await self.bulk.answer(request, path, params), faults)
        except BadRequest as error:
            return replies.message_reply(400, str(error))
        except bulk.OutsidePlan:
            return replies.message_reply(403, OUTSIDE_PLAN)

    def _refusal(self, key: str, table: str, method: str) -> str:
        """Why the answer is 403, in the service's words; empty when the request may go on."""
        if not table or method != "GET":
            return "The requested endpoint does not exist."
        if not key:
            return "The api key is required."
        if not self.knows(key):
            return control.WRONG_KEY
        if table not in self.plan.tables and table != bulk.TABLE:
            return OUTSIDE_PLAN
        return ""

    def knows(self, key: str) -> bool:
        return any([hmac.compare_digest(key.encode(), known) for known in self._keys])

    def _body(
        self, served: ServedTable, query: Query, params: Mapping[str, str], page: Page, faults: Sequence[Fault]
    ) -> bytes:
        endpoint = served.endpoint
        rows = self.view.rows(endpoint.table, query, late_splits(faults))
        seen = self._seen(endpoint, params)
        rows = distort_answer(self.view.newer(endpoint.table, rows, seen), endpoint, faults)
        size = self.page_rows if endpoint.paginated else max(1, rows.height)
        repeated = max((fault.rows for fault in faults if fault.kind == "duplicate"), default=0)
        if repeated:
            size = max(repeated + 1, size if rows.height > size else (rows.height + 1) // 2)
        end = page.offset + size
        extra: dict[str, str] = {}
        if end < rows.height:
            following = Page(page.number + 1, end - repeated)
            extra["pagination_key"] = self._continuation.page_key(endpoint.path, params, following)
        elif endpoint.cursor and self.plan.is_premium:
            extra["cursor"] = self._continuation.cursor(self.view.stamp)
        extra |= self._endless_key(faults)
        shown = distort_page(rows.slice(page.offset, size), endpoint, faults)
        objects = {*endpoint.objects, *self._objects.get(endpoint.table, ())}
        return _envelope(_records(shown, sorted(objects)), extra)

    def _seen(self, endpoint: Endpoint, params: Mapping[str, str]) -> str:
        """The stamp of the caller's cursor; empty without a cursor."""
        cursor = params.get("cursor", "") if endpoint.cursor else ""
        if cursor and not self.plan.is_premium:
            raise BadRequest("'cursor' is not available on your subscription.")
        return self._continuation.after(cursor)

    def _endless_key(self, faults: Sequence[Fault]) -> dict[str, str]:
        for fault in faults:
            if fault.kind == "endless":
                self._endless += 1 if fault.mode == "change" else 0
                return {"pagination_key": f"endless-{self._endless}"}
        return {}

    async def _early_reply(self, key: str, faults: Sequence[Fault]) -> Response | None:
        """The reply of a fault that needs no data; the slow fault waits here and then lets the request go on."""
        for fault in faults:
            if fault.kind == "slow":
                await asyncio.sleep(fault.duration)
            elif fault.kind == "400":
                raise BadRequest(SUBSCRIPTION_MESSAGE.format(window=self.view.window))
            elif fault.kind in ("lockout", "burst"):
                self.rates.lock(key, fault.duration if fault.kind == "lockout" else LOCKOUT_SECONDS)
                return replies.message_reply(429, MESSAGES[429])
            elif fault.kind.isdigit() and fault.kind != "210":
                status = int(fault.kind)
                return replies.message_reply(status, MESSAGES[status], fault.retry_after)
            elif fault.kind == "210":
                return replies.json_reply(b'{"data":[]}' if fault.body == "data" else b"", status=210)
            elif fault.kind == "reset":
                return replies.ResetReply()
            elif fault.kind in _BODIES:
                return replies.json_reply(_BODIES[fault.kind])
        return None


def _late_reply(body: bytes, faults: Sequence[Fault], accepts_gzip: bool) -> Response:
    kinds = {fault.kind for fault in faults}
    if "array" in kinds:
        body = json.dumps(json.loads(body)["data"]).encode()
    if "truncate" in kinds:
        return replies.TruncatedReply(body, media_type="application/json")
    if "malformed" in kinds:
        body = body[: len(body) // 2]
    return replies.json_reply(body, accepts_gzip=accepts_gzip)


def _broken(reply: Response, faults: Sequence[Fault]) -> Response:
    """A finished reply, cut off or with half of its JSON where a fault asks for that."""
    if not {"truncate", "malformed"} & {fault.kind for fault in faults}:
        return reply
    body = bytes(reply.body)
    return _late_reply(gzip.decompress(body) if "content-encoding" in reply.headers else body, faults, False)


def _records(rows: pl.DataFrame, objects: Sequence[str]) -> str:
    """The rows as a JSON array; `objects` are columns of JSON text that become what they say."""
    written = rows.write_json()
    if not any(name in rows.columns for name in objects):
        return written
    records = json.loads(written)
    for record in records:
        record |= {name: json.loads(record[name]) for name in objects if record.get(name) is not None}
    return json.dumps(records, ensure_ascii=False)


def _envelope(records: str, extra: Mapping[str, str]) -> bytes:
    tail = "".join(f",{json.dumps(name)}:{json.dumps(text)}" for name, text in extra.items())
    return f'{{"data":{records}{tail}}}'.encode()


async def _unexpected(request: Request, error: Exception) -> Response:
    return replies.message_reply(500, MESSAGES[500])


def create_app(
    market_dir: Path,
    *,
    plan: str,
    api_keys: set[str],
    faults: Sequence[Fault] = (),
    requests_per_minute: int | None = None,
    page_rows: int = 1500,
    clock: Callable[[], float] = time.monotonic,
    burst: Burst | None = None,
    now: datetime | None = None,
    revisions: Sequence[Revision] = (),
) -> Starlette:
    """The application over `market_dir`; its state is `app.state.exchange`.

    `clock` gives seconds for the rate limits; `now` is the time inside the market (None: after everything, at which
    all `revisions` have happened too). Raises `MarketError` for a missing or incomplete folder, `ClockError` for a time
    outside the market, `RevisionError` for a revision of nothing and `ValueError` for an unknown plan or no key.
    """
    if plan not in PLANS:
        raise ValueError(f"unknown plan {plan!r}; use one of {', '.join(PLANS)}")
    if not api_keys or not all(api_keys):
        raise ValueError("the exchange needs at least one API key")
    if not (market_dir / "market.json").is_file():
        raise MarketError(f"{market_dir} holds no market; run `python -m atft_pipeline.exchange generate` first")
    rates = RateEmulator(PLANS[plan], requests_per_minute, clock, burst)
    exchange = Exchange(market_dir, PLANS[plan], api_keys, faults, rates, page_rows, clock, now, revisions)
    routes = [
        *control.routes(exchange),
        Route(bulk.FILE_PREFIX + "{key:path}", exchange.bulk.file, methods=["GET"]),
        Route("/{path:path}", exchange.answer, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
    ]
    app = Starlette(routes=routes, exception_handlers={Exception: _unexpected})
    app.state.exchange = exchange
    return app


def bind(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A listening socket; port 0 takes a free one."""
    # The protocol is named because asyncio sets TCP_NODELAY only on sockets that name it.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(256)
    return listener


def make_server(app: Starlette, *, access_log: bool = False) -> uvicorn.Server:
    """A uvicorn server for `app` that reports errors only; call `run(sockets=[bind()])`."""
    config = uvicorn.Config(
        app,
        http=replies.Protocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        access_log=access_log,
        log_config=None,
        log_level=logging.INFO if access_log else logging.ERROR,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)
