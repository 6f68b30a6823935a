"""Cursors of paged answers: where the next page begins, signed, and bound to its query."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import Final

from projections.problems import Problem
from projections.tables import Key

MAC_BYTES: Final = 16


class Cursors:
    def __init__(self, key: bytes) -> None:
        """All processes that serve one API have the same key."""
        self._key = key

    def make(self, query: str, after: Key) -> str:
        body = json.dumps(list(after), separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._mac(query, body) + body).decode().rstrip("=")

    def read(self, query: str, cursor: str | None) -> Key | None:
        """Raises Problem for a cursor that was not made here for this query."""
        if cursor is None:
            return None
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError):
            raw = b""
        mac, body = raw[:MAC_BYTES], raw[MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(query, body)):
            raise Problem(400, "bad_cursor", "the cursor is not one of this query")
        return tuple(json.loads(body))

    def _mac(self, query: str, body: bytes) -> bytes:
        text = query.encode() + b"\0" + body
        return hmac.new(self._key, text, hashlib.sha256).digest()[:MAC_BYTES]
