"""What was answered before: ids of commands and names of ended jobs, for a bounded time.

A name is remembered as a 128-bit hash, so that a million of them cost little.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Final

SIZE: Final = 16
"""Bytes of a key."""


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=SIZE).digest()


class Memory:
    def __init__(self) -> None:
        self._since: dict[bytes, int] = {}
        self._order: deque[bytes] = deque()
        """The same keys, oldest first: a dict is slow to tell its first key when many were."""
        self.digest = 0
        """Sum of all keys, as part of the state's digest."""

    def knows_name(self, job: str) -> bool:
        return _key(f"j{job}") in self._since

    def remember_command(self, source: str, id_: str, now_ms: int) -> bool:
        """False if it is known already: then the time at which it came stays."""
        return self._remember(_key(f"c{source}\0{id_}"), now_ms)

    def remember_name(self, job: str, now_ms: int) -> None:
        self._remember(_key(f"j{job}"), now_ms)

    def _remember(self, key: bytes, now_ms: int) -> bool:
        if key in self._since:
            return False
        self._since[key] = now_ms
        self._order.append(key)
        self.digest += int.from_bytes(key)
        return True

    def forget(self, before_ms: int) -> None:
        """Forget what was remembered before this time."""
        order, since = self._order, self._since
        while order and since[order[0]] < before_ms:
            key = order.popleft()
            del since[key]
            self.digest -= int.from_bytes(key)

    def __len__(self) -> int:
        return len(self._since)

    def state(self) -> tuple[bytes, list[int]]:
        """All keys in one piece, and the time of each."""
        entries = sorted(zip(self._since.values(), self._since, strict=True))
        return b"".join(key for _, key in entries), [since for since, _ in entries]

    def restore(self, keys: bytes, times: list[int]) -> None:
        names = [keys[at : at + SIZE] for at in range(0, len(keys), SIZE)]
        self._since = dict(zip(names, times, strict=True))
        self._order = deque(names)
        self.digest = sum(map(int.from_bytes, names))
