"""A ledger as a file: each line the exact bytes of one believed record, and a last line with the
head, so that a file that was cut short says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from domain.ledger import Head, canonical
from streams.reader import LedgerReader


class _End(Struct, frozen=True):
    end: Head


_end: Final = msgspec.json.Decoder(_End, strict=True)


async def export(reader: LedgerReader, path: Path) -> AsyncIterator[int]:
    """Write all believed records from where the reader stands; yields each one's round.

    To prove the file, the reader has to stand at the log's start. Raises OSError.
    """
    with path.open("wb") as file:
        async for believed in reader.read():
            file.write(believed.record + b"\n")
            yield believed.head.round
        file.write(canonical(_End(reader.head)) + b"\n")


class FileLog:
    """An exported file, to be read as a log; a record's position is its line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self, position: int) -> AsyncIterator[tuple[int, bytes]]:
        with self._path.open("rb") as file:
            line = file.readline()
            number = 0
            while line:
                after = file.readline()
                if not after and line.startswith(b'{"end":'):
                    return
                if number >= position:
                    yield number, line.removesuffix(b"\n")
                line, number = after, number + 1

    def end(self) -> Head | None:
        """The head that the file's last line names; None if that line is missing or damaged."""
        last = b""
        with self._path.open("rb") as file:
            for line in file:
                last = line
        try:
            end = _end.decode(last).end
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return end if canonical(_End(end)) + b"\n" == last else None
