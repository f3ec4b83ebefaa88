"""Opaque continuation: pagination keys and cursors that only this market's server can make and read.

Both carry their own position and a signature, so that the server keeps no state and a restart does not void them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass

from atft_pipeline.exchange.tables import BadRequest


@dataclass(frozen=True)
class Page:
    """Where one page starts; page numbers count from 1."""

    number: int = 1
    offset: int = 0


class Continuation:
    """Seals and opens keys under `secret`."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def page_key(self, path: str, params: Mapping[str, str], page: Page) -> str:
        """The key of `page`, good for this path with these parameters only."""
        return self._seal(f"{page.number}.{page.offset}", _scope(path, params))

    def page(self, path: str, params: Mapping[str, str]) -> Page | None:
        """The page that `params` ask for; None when the key was not made for this very query."""
        key = params.get("pagination_key", "")
        if not key:
            return Page()
        content = self._open(key, _scope(path, params))
        if content is None:
            return None
        number, offset = content.split(".")
        return Page(int(number), int(offset))

    def cursor(self, stamp: str) -> str:
        """A cursor that stands after everything published by `stamp`."""
        return self._seal(stamp, "cursor")

    def after(self, cursor: str) -> str:
        """The stamp that `cursor` stands after; empty for no cursor. Raises `BadRequest`."""
        if not cursor:
            return ""
        stamp = self._open(cursor, "cursor")
        if stamp is None:
            raise BadRequest("'cursor' is invalid.")
        return stamp

    def _seal(self, content: str, scope: str) -> str:
        sealed = f"{content}|{self._mac(scope, content)}"
        return base64.urlsafe_b64encode(sealed.encode()).decode().rstrip("=")

    def _open(self, key: str, scope: str) -> str | None:
        try:
            content, _, mac = base64.urlsafe_b64decode(key + "=" * (-len(key) % 4)).decode().rpartition("|")
        except ValueError:
            return None
        return content if hmac.compare_digest(mac, self._mac(scope, content)) else None

    def _mac(self, scope: str, content: str) -> str:
        return hmac.new(self._secret, f"{scope}|{content}".encode(), hashlib.sha256).hexdigest()[:24]


def _scope(path: str, params: Mapping[str, str]) -> str:
    return json.dumps([path, sorted((name, text) for name, text in params.items() if name != "pagination_key")])
