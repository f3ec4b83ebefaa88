"""What goes over the wire: JSON replies with gzip, and the deliberately broken ones that the faults ask for."""

from __future__ import annotations

import gzip
import json
import socket
import struct

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

TRANSPORT = "atft.transport"
"""Scope key under which `Protocol` leaves the connection for `ResetReply`."""
_GZIP_FROM = 512
"""Bytes below which compression costs more than it saves."""
_GZIP_LEVEL = 1
"""The fastest: on loopback the bytes are free and the time is not."""


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol that lets a reply reach its own connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[TRANSPORT] = self.transport  # type: ignore[literal-required]


def json_reply(
    body: bytes, *, status: int = 200, accepts_gzip: bool = False, retry_after: int | None = None
) -> Response:
    """A complete reply with an exact Content-Length."""
    headers = {}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    if accepts_gzip and len(body) >= _GZIP_FROM:
        body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
        headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def message_reply(status: int, message: str, retry_after: int | None = None) -> Response:
    """The API's error shape, `{"message": ...}`."""
    return json_reply(json.dumps({"message": message}).encode(), status=status, retry_after=retry_after)


def accepts_gzip(request: Request) -> bool:
    """Whether the caller takes a gzipped body."""
    return "gzip" in request.headers.get("accept-encoding", "")


def sent_bytes(response: Response) -> int:
    """Size of the body that goes over the wire; a broken reply sends half of it, or nothing."""
    size = len(bytes(response.body))
    return size // 2 if isinstance(response, TruncatedReply) else size


class TruncatedReply(Response):
    """Announces the whole body, sends half of it and closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        scope[TRANSPORT].close()
        await _disconnected(receive)


class ResetReply(Response):
    """Sends nothing and resets the connection (TCP RST)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = scope[TRANSPORT]
        linger_zero = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
        transport.abort()
        await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    """Return once the connection is gone, so that uvicorn does not take the broken reply for a bug and log it."""
    while (await receive())["type"] != "http.disconnect":
        pass
