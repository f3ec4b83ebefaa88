"""The bulk service over HTTP: /bulk/list, /bulk/get, and the files themselves under addresses that expire.

An address is signed with a key of this process, names the host that was asked, and needs no API key. The files are
served as they are, gzipped, without Content-Encoding: a client that decompressed them would store something else.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import secrets
from calendar import monthrange
from collections.abc import Callable, Mapping
from datetime import date
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from atft_pipeline.exchange import faults, replies
from atft_pipeline.exchange.bulk_files import BulkFile, BulkFiles
from atft_pipeline.exchange.endpoints import ENDPOINTS, TABLES
from atft_pipeline.exchange.file_faults import FileFaults
from atft_pipeline.exchange.plans import Plan, Window
from atft_pipeline.exchange.tables import SUBSCRIPTION_MESSAGE, BadRequest

LIST_PATH = "/bulk/list"
GET_PATH = "/bulk/get"
PATHS = frozenset({LIST_PATH, GET_PATH})
FILE_PREFIX = "/_bulk/"
TABLE = faults.BULK
"""What requests here count as in reports, and are called in faults."""
LIFETIME_SECONDS = 300.0
"""How long an address is good."""

_PERIOD = re.compile(r"(\d{4})-?(\d{2})(?:-?(\d{2}))?")
_EXPIRED = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
)


class OutsidePlan(Exception):
    """The plan has no such bulk files: 403."""


class Bulk:
    """Answers bulk requests from `files`. `seconds` never goes back; `lifetime` is that of an address, in seconds."""

    def __init__(
        self,
        files: BulkFiles,
        plan: Plan,
        window: Callable[[], Window],
        seconds: Callable[[], float],
        faults: FileFaults,
    ) -> None:
        self._files = files
        self._plan = plan
        self._window = window
        self._seconds = seconds
        self._faults = faults
        self._secret = secrets.token_bytes(32)
        self.lifetime = LIFETIME_SECONDS

    async def answer(self, request: Request, path: str, params: Mapping[str, str]) -> Response:
        """The list, or the address of a file. Raises `BadRequest` (400) and `OutsidePlan` (403)."""
        given = {name: text for name, text in params.items() if text}
        if path == LIST_PATH:
            body = await asyncio.to_thread(self._list, given)
            return replies.json_reply(body, accepts_gzip=replies.accepts_gzip(request))
        file = self._wanted(given)
        if await asyncio.to_thread(self._files.content, file) is None:
            raise BadRequest("The requested file does not exist.")
        host = request.headers.get("host") or request.url.netloc
        lifetime = -1.0 if self._faults.hits("expired", file.table, file.first, file.last) else self.lifetime
        expires = f"{self._seconds() + lifetime:.3f}"
        signature = self._signature(file.key, expires)
        address = f"{request.url.scheme}://{host}{FILE_PREFIX}{quote(file.key)}?expires={expires}&signature={signature}"
        return replies.json_reply(json.dumps({"url": address}).encode())

    async def file(self, request: Request) -> Response:
        """A file, for whoever has its address in time; otherwise 403 with an XML body."""
        key = request.path_params["key"]
        expires, signature = (request.query_params.get(name, "") for name in ("expires", "signature"))
        file = self._by_key(key)
        is_signed = hmac.compare_digest(signature.encode(), self._signature(key, expires).encode())
        if not is_signed or file is None or float(expires) < self._seconds():
            return Response(_EXPIRED, status_code=403, media_type="application/xml")
        content = await asyncio.to_thread(self._files.content, file)
        if content is None:
            return Response(_EXPIRED, status_code=403, media_type="application/xml")
        is_cut = self._faults.hits("cut_file", file.table, file.first, file.last)
        reply = replies.TruncatedReply if is_cut else Response
        return reply(content, media_type="application/octet-stream")

    def _list(self, given: Mapping[str, str]) -> bytes:
        if ("endpoint" in given) == ("date" in given):
            raise BadRequest("Exactly one of 'endpoint', 'date' must be specified.")
        if "endpoint" in given:
            tables = [self._table(given["endpoint"])]
            low, high = (self._period(name, given[name]) if name in given else None for name in ("from", "to"))
            first, last = low[0] if low else date.min, high[1] if high else date.max
            if first > last:
                raise BadRequest("'from' must not be later than 'to'.")
        else:
            self._require_bulk()
            first, last = self._period("date", given["date"])
            tables = sorted(self._plan.tables - {"calendar"})
        self._faults.list_anew(tables)
        files = [
            file
            for table in tables
            for file in self._files.files(table)
            if table == "calendar" or (file.first <= last and file.last >= first)
        ]
        return json.dumps({"data": [entry.row() for entry in self._files.listed(files)]}).encode()

    def _wanted(self, given: Mapping[str, str]) -> BulkFile:
        if ("key" in given) == ("endpoint" in given):
            raise BadRequest("Exactly one of 'key', 'endpoint' must be specified.")
        if "key" in given:
            file = self._by_key(given["key"])
            if file is None:
                raise BadRequest("'key' is invalid.")
            return file
        table = self._table(given["endpoint"])
        if table == "calendar":
            return self._files.files(table)[0]
        if "date" not in given:
            raise BadRequest("'endpoint' needs 'date'.")
        first, last = self._period("date", given["date"])
        for file in self._files.files(table):
            if file.first <= last and file.last >= first:
                return file
        raise BadRequest("The requested file does not exist.")

    def _by_key(self, key: str) -> BulkFile | None:
        """The file of this key. Raises `OutsidePlan` for a known endpoint that the plan lacks."""
        for path, endpoint in ENDPOINTS.items():
            folder, _, rest = key.removeprefix(path.strip("/")).partition("/")
            if key.startswith(path.strip("/") + "/") and not folder and rest.split("/")[0] in (
                "historical", "live", f"{path.strip('/').replace('/', '_')}.csv.gz"
            ):  # fmt: skip
                table = self._table(endpoint.path)
                return next((file for file in self._files.files(table) if file.key == key), None)
        return None

    def _table(self, path: str) -> str:
        """Raises `BadRequest` for an unknown endpoint, `OutsidePlan` for one without bulk files on this plan."""
        endpoint = ENDPOINTS.get(path)
        if endpoint is None:
            raise BadRequest("'endpoint' is invalid.")
        if endpoint.table not in self._plan.tables:
            raise OutsidePlan
        if endpoint.table != "calendar":
            self._require_bulk()
        return TABLES[endpoint.table].table

    def _require_bulk(self) -> None:
        if not self._plan.has_bulk:
            raise OutsidePlan

    def _period(self, name: str, text: str) -> tuple[date, date]:
        """First and last day of a month or a day. Raises `BadRequest`, also outside the plan's dates."""
        match = _PERIOD.fullmatch(text)
        try:
            if match is None:
                raise ValueError(text)
            year, month, day = (int(part) if part else 0 for part in match.groups())
            first = date(year, month, day or 1)
            last = first if day else date(year, month, monthrange(year, month)[1])
        except ValueError:
            raise BadRequest(f"'{name}' must be an existing date or month in YYYYMMDD or YYYYMM format.") from None
        window = self._window()
        if (window.first and last < window.first) or (window.last and first > window.last):
            raise BadRequest(SUBSCRIPTION_MESSAGE.format(window=window))
        return first, last

    def _signature(self, key: str, expires: str) -> str:
        return hmac.new(self._secret, f"{key}|{expires}".encode(), hashlib.sha256).hexdigest()
