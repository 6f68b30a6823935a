"""The embedded profile's ports: log, inbox, command sink and dead letters in one SQLite file.

The file is in WAL mode, so that several processes may read and write it. Positions and offsets
count from 0 and are never given twice.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from domain.ledger import Accepted
from domain.ports import Clock, DeadLetter, DeadLetters, Message
from streams.identity import Identity
from streams.intake import accept

FORM: Final = 1
"""Of the tables; stands in the file as its user_version."""

MAX_MESSAGE: Final = 1 << 20
"""Bytes of a message that is stored at all: as Kafka's default."""

BUSY_S: Final = 30
"""A process waits this long for another one's commit."""

POLL_S: Final = 0.005
"""How often the inbox looks for commands that other processes put there."""

CHUNK: Final = 256

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS ledger (position INTEGER PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS commands (
    place INTEGER PRIMARY KEY AUTOINCREMENT, value BLOB NOT NULL, headers BLOB NOT NULL, key BLOB
);
CREATE TABLE IF NOT EXISTS dead_letters (
    place INTEGER PRIMARY KEY AUTOINCREMENT, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    code TEXT NOT NULL, field TEXT NOT NULL, message TEXT NOT NULL, time_ms INTEGER NOT NULL,
    value BLOB NOT NULL, headers BLOB NOT NULL, key BLOB, UNIQUE (partition, offset)
);
"""

_pack: Final = msgspec.msgpack.Encoder().encode
_headers: Final = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode


class Database:
    """One connection to the file, for any thread of this process."""

    def __init__(
        self,
        path: Path,
        *,
        synchronous: Literal["FULL", "NORMAL", "OFF"] = "FULL",
        group: int = 1,
    ) -> None:
        """Only FULL with `group` 1 is durable: a write that returned survives a power cut.

        With a larger group so many writes share a commit, and others see none of them before it.
        Raises sqlite3.DatabaseError for a file that is not ours.
        """
        self._lock = threading.RLock()
        self._group = group
        self._open = 0
        self._connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(f"PRAGMA synchronous = {synchronous}")
        (form,) = self._connection.execute("PRAGMA user_version").fetchone()
        if form not in (0, FORM):
            raise sqlite3.DatabaseError(f"the file has form {form}, this version reads {FORM}")
        if form == 0:
            self._connection.executescript(f"{_TABLES} PRAGMA user_version = {FORM};")

    def write(self, statement: str, rows: Sequence[Sequence[Any]]) -> int:
        """Execute for each row, all or none; returns the last row's id."""
        with self._lock:
            if not self._open:
                self._connection.execute("BEGIN IMMEDIATE")
            try:
                for row in rows:
                    last = self._connection.execute(statement, row).lastrowid
            except BaseException:
                self._connection.execute("ROLLBACK")
                self._open = 0
                raise
            self._open += 1
            if self._open >= self._group:
                self.commit()
            return last or 0

    def commit(self) -> None:
        """End the group of writes, if one is open."""
        with self._lock:
            if self._open:
                self._open = 0
                self._connection.execute("COMMIT")

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def close(self) -> None:
        with self._lock:
            self.commit()
            self._connection.close()


class SqliteLog:
    """The ledger of the cell that the file belongs to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, record: bytes) -> int:
        """`append` for callers without an event loop."""
        return self._database.write("INSERT INTO ledger (record) VALUES (?)", [(record,)]) - 1

    async def append(self, record: bytes) -> int:
        return await asyncio.to_thread(self.write, record)

    def read(self, position: int) -> AsyncIterator[tuple[int, bytes]]:
        return self._read(position, self._end())

    async def _read(self, position: int, end: int) -> AsyncIterator[tuple[int, bytes]]:
        statement = "SELECT position - 1, record FROM ledger WHERE position BETWEEN ? AND ?"
        while position < end:
            span = (position + 1, min(position + CHUNK, end))
            for found in await asyncio.to_thread(self._database.rows, statement, span):
                yield found
            position += CHUNK

    async def end(self) -> int:
        return self._end()

    def _end(self) -> int:
        return int(self._database.rows("SELECT coalesce(max(position), 0) FROM ledger")[0][0])


class SqliteCommandSink:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def send(self, message: Message) -> None:
        """Raises ValueError for a message of more than MAX_MESSAGE bytes."""
        headers = _pack(message.headers)
        if len(message.value) + len(headers) + len(message.key or b"") > MAX_MESSAGE:
            raise ValueError(f"a message has at most {MAX_MESSAGE} bytes")
        row = (message.value, headers, message.key)
        statement = "INSERT INTO commands (value, headers, key) VALUES (?, ?, ?)"
        await asyncio.to_thread(self._database.write, statement, [row])


class SqliteDeadLetters:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        rows = [(*msgspec.structs.astuple(x)[:7], _pack(x.headers), x.key) for x in letters]
        statement = (
            "INSERT OR IGNORE INTO dead_letters"
            " (partition, offset, code, field, message, time_ms, value, headers, key)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        await asyncio.to_thread(self._database.write, statement, rows)

    async def read(self) -> AsyncIterator[DeadLetter]:
        statement = (
            "SELECT place, partition, offset, code, field, message, time_ms, value, headers, key"
            " FROM dead_letters WHERE place > ? ORDER BY place LIMIT ?"
        )
        place = 0
        while found := await asyncio.to_thread(self._database.rows, statement, (place, CHUNK)):
            for row in found:
                yield _letter(row)
            place = found[-1][0]


def _letter(row: Any) -> DeadLetter:
    _, partition, offset, code, field, message, time_ms, value, headers, key = row
    return DeadLetter(
        partition, offset, code, field, message, time_ms, value, _headers(headers), key
    )


class SqliteInbox:
    """Intake at the moment of reading: what is no command goes to the dead letters."""

    def __init__(
        self, database: Database, identity: Identity, dead_letters: DeadLetters, clock: Clock
    ) -> None:
        self._database = database
        self._identity = identity
        self._dead_letters = dead_letters
        self._clock = clock
        self._dead = range(0)
        """Offsets known to hold dead letters only, so that they are not read again and again."""

    async def take(self, after: Mapping[str, int], limit: int, wait_ms: int) -> Sequence[Accepted]:
        until = time.monotonic() + wait_ms / 1000
        offset = after.get("0", 0)
        while True:
            taken = await self._take(offset, limit)
            if taken or time.monotonic() >= until:
                return taken
            await asyncio.sleep(POLL_S)

    async def _take(self, offset: int, limit: int) -> list[Accepted]:
        start = self._dead.stop if offset in self._dead else offset
        taken: list[Accepted] = []
        while len(taken) < limit:
            letters: list[DeadLetter] = []
            found = self._messages(start, limit - len(taken))
            for place, message in found:
                answer = accept(message, 0, place, self._identity, self._clock.now_ms())
                if isinstance(answer, DeadLetter):
                    letters.append(answer)
                else:
                    taken.append(answer)
            if letters:
                await self._dead_letters.put(letters)
            if not found:
                break
            start = found[-1][0] + 1
        if not taken:
            self._dead = range(offset, start)
        return taken

    def _messages(self, offset: int, limit: int) -> list[tuple[int, Message]]:
        statement = (
            "SELECT place - 1, value, headers, key FROM commands WHERE place > ?"
            " ORDER BY place LIMIT ?"
        )
        found = self._database.rows(statement, (offset, limit))
        return [(place, Message(value, _headers(h), key)) for place, value, h, key in found]
