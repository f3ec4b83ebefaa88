"""The exchange's own endpoints beside the API: what was asked, and the time. For loopback callers with the key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from atft_pipeline.exchange import replies
from atft_pipeline.exchange.clock import ClockError, MarketClock, parse_moment
from atft_pipeline.exchange.plans import GENERAL, OWN_BUCKETS

if TYPE_CHECKING:
    from atft_pipeline.exchange.server import Exchange

REQUESTS_PATH = "/_exchange/requests"
CLOCK_PATH = "/_exchange/clock"
WRONG_KEY = "The incoming api key is invalid or expired."


def routes(exchange: Exchange) -> list[Route]:
    """The control endpoints of `exchange`."""

    async def requests(request: Request) -> Response:
        """Requests so far, counted by table, date and status, the busiest minute of each bucket, and each request in
        order (not with `list=0`)."""
        if not _is_owner(exchange, request):
            return replies.message_reply(403, WRONG_KEY)
        limits = {bucket: exchange.rates.limit(bucket) for bucket in (GENERAL, *sorted(OWN_BUCKETS))}
        answer = exchange.traffic.report(limits, listed=request.query_params.get("list") != "0")
        return replies.json_reply(json.dumps(answer).encode(), accepts_gzip=replies.accepts_gzip(request))

    async def clock(request: Request) -> Response:
        """Tell the exchange time, or move it: POST {"now": TIME or null} or {"advance_minutes": N}."""
        if not _is_owner(exchange, request):
            return replies.message_reply(403, WRONG_KEY)
        if request.method == "POST":
            try:
                _move(exchange.clock, await request.json())
            except (ClockError, json.JSONDecodeError) as error:
                return replies.message_reply(400, str(error))
        now = exchange.clock.now
        answer = {"now": now.isoformat() if now else None, "today": exchange.clock.today.isoformat()}
        return replies.json_reply(json.dumps(answer).encode())

    return [Route(REQUESTS_PATH, requests, methods=["GET"]), Route(CLOCK_PATH, clock, methods=["GET", "POST"])]


def _is_owner(exchange: Exchange, request: Request) -> bool:
    is_loopback = request.client is not None and request.client.host in ("127.0.0.1", "::1")
    return is_loopback and exchange.knows(request.headers.get("x-api-key", ""))


def _move(clock: MarketClock, order: object) -> None:
    if not isinstance(order, dict) or len(order) != 1 or not order.keys() <= {"now", "advance_minutes"}:
        raise ClockError('send {"now": TIME or null} or {"advance_minutes": NUMBER}')
    if "now" in order:
        clock.set(None if order["now"] is None else parse_moment(str(order["now"])))
    elif isinstance(order["advance_minutes"], int | float):
        clock.advance(order["advance_minutes"])
    else:
        raise ClockError(f"advance_minutes cannot be {order['advance_minutes']!r}")
