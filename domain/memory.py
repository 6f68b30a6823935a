"""What was answered before: ids of commands and names of ended jobs, for a bounded time.

A name is remembered as a 128-bit hash, so that a million of them cost little.
"""

from __future__ import annotations

import hashlib
from collections import deque


def _key(kind: bytes, *parts: str) -> int:
    text = kind + b"\0".join(part.encode() for part in parts)
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())


class Memory:
    def __init__(self) -> None:
        self._since: dict[int, int] = {}
        self._order: deque[tuple[int, int]] = deque()
        self.digest = 0
        """Sum of all keys, as part of the state's digest."""

    def knows_command(self, source: str, id_: str) -> bool:
        return _key(b"c", source, id_) in self._since

    def knows_name(self, job: str) -> bool:
        return _key(b"j", job) in self._since

    def remember_command(self, source: str, id_: str, now_ms: int) -> None:
        self._remember(_key(b"c", source, id_), now_ms)

    def remember_name(self, job: str, now_ms: int) -> None:
        self._remember(_key(b"j", job), now_ms)

    def _remember(self, key: int, now_ms: int) -> None:
        if key not in self._since:
            self._since[key] = now_ms
            self._order.append((now_ms, key))
            self.digest += key

    def forget(self, before_ms: int) -> None:
        """Forget what was remembered before this time."""
        order = self._order
        while order and order[0][0] < before_ms:
            key = order.popleft()[1]
            del self._since[key]
            self.digest -= key

    def __len__(self) -> int:
        return len(self._order)

    def state(self) -> list[tuple[int, bytes]]:
        return [(since, key.to_bytes(16)) for since, key in self._order]

    def restore(self, state: list[tuple[int, bytes]]) -> None:
        for since, key in state:
            self._remember(int.from_bytes(key), since)
