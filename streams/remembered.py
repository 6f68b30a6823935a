"""The last head that this process believed, in a file: a log that cannot show it is refused.

So a log that lost its tail, or was exchanged, stops the cell; it does not go on from a fork.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import msgspec

from domain.ledger import Head, canonical
from streams import files


class LogTooShort(Exception):
    """The log does not hold the record that was believed before."""

    def __init__(self, remembered: Head, found: Head) -> None:
        short = found.round < remembered.round
        shown = f"ends at round {found.round}" if short else "has another record there"
        super().__init__(
            f"round {remembered.round} with hash {remembered.hash[:16]}… was believed;"
            f" the log {shown}"
        )
        self.remembered = remembered
        self.found = found


class RememberedHead:
    def __init__(self, path: Path, every_s: int = 0) -> None:
        """With `every_s` it is written at most so often: it takes a disk's time, and an older
        head only makes the check weaker."""
        self._path = path
        self._every_s = every_s
        self._written_at = -math.inf

    def read(self) -> Head | None:
        """None if nothing was remembered. Raises OSError, ValueError (the file is damaged)."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return msgspec.json.decode(data, type=Head)
        except msgspec.DecodeError as error:
            raise ValueError(f"{self._path.name} is damaged: {error}") from error

    def write(self, head: Head) -> None:
        now = time.monotonic()
        if now - self._written_at >= self._every_s:
            files.replace(self._path, canonical(head))
            self._written_at = now
