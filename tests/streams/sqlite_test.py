"""What is particular to the SQLite ports; the rest is in the contract suite."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from domain.ports import Message
from streams.identity import Identity
from streams.sqlite import (
    MAX_MESSAGE,
    Database,
    SqliteCommandSink,
    SqliteDeadLetters,
    SqliteInbox,
    SqliteLog,
)

WRITER = """
import sys
from pathlib import Path
from streams.sqlite import Database, SqliteLog

log = SqliteLog(Database(Path(sys.argv[1])))
for number in range(int(sys.argv[3])):
    print(log.write(f"{sys.argv[2]}-{number}".encode()), flush=True)
"""


def _writer(path: Path, name: str, amount: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(amount)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )


def _records(log: SqliteLog) -> list[tuple[int, bytes]]:
    async def go() -> list[tuple[int, bytes]]:
        return [found async for found in log.read(0)]

    return asyncio.run(go())


def test_processes_write_the_same_log(tmp_path: Path) -> None:
    path = tmp_path / "cell.sqlite"
    writers = {name: _writer(path, name, 50) for name in "abc"}
    told = {name: writer.communicate()[0].split() for name, writer in writers.items()}
    assert [w.returncode for w in writers.values()] == [0, 0, 0]
    database = Database(path)
    found = dict(_records(SqliteLog(database)))
    assert sorted(found) == list(range(150))
    for name, positions in told.items():
        expected = [f"{name}-{n}".encode() for n in range(50)]
        assert [found[int(p)] for p in positions] == expected
    database.close()


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "cell.sqlite"
    told: list[int] = []
    for name in "abc":
        writer = _writer(path, name, 1_000_000)
        assert writer.stdout is not None
        told += [int(writer.stdout.readline()) for _ in range(20)]
        os.kill(writer.pid, signal.SIGKILL)
        told += [int(line) for line in writer.stdout if line.endswith("\n")]
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
    database = Database(path)
    positions = [p for p, _ in _records(SqliteLog(database))]
    assert positions == list(range(len(positions)))
    assert set(told) <= set(positions)
    database.close()


def test_a_group_of_writes_shares_a_commit(tmp_path: Path) -> None:
    path = tmp_path / "cell.sqlite"
    writing, reading = Database(path, synchronous="OFF", group=3), Database(path)
    mine, theirs = SqliteLog(writing), SqliteLog(reading)
    seen = []
    for number in range(5):
        assert mine.write(b"%d" % number) == number
        assert len(_records(mine)) == number + 1
        seen.append(len(_records(theirs)))
    assert seen == [0, 0, 3, 3, 3]
    writing.commit()
    assert len(_records(theirs)) == 5
    mine.write(b"last")
    writing.close()
    assert len(_records(theirs)) == 6
    reading.close()


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    database = Database(tmp_path / "cell.sqlite")
    statement = "INSERT INTO ledger (position, record) VALUES (?, ?)"
    with pytest.raises(sqlite3.IntegrityError):
        database.write(statement, [(1, b"one"), (1, b"again")])
    assert _records(SqliteLog(database)) == []
    assert SqliteLog(database).write(b"next") == 0
    database.close()


def test_offsets_of_commands_are_never_given_twice(tmp_path: Path) -> None:
    async def go() -> None:
        database = Database(tmp_path / "cell.sqlite")
        sink = SqliteCommandSink(database)
        for _ in range(3):
            await sink.send(Message(b"x"))
        database.write("DELETE FROM commands", [()])
        await sink.send(Message(b"y"))
        assert database.rows("SELECT place FROM commands") == [(4,)]
        database.close()

    asyncio.run(go())


class CountingClock:
    """Intake asks it once for each message."""

    def __init__(self) -> None:
        self.asked = 0

    def now_ms(self) -> int:
        self.asked += 1
        return 0


def test_dead_letters_at_the_end_are_not_read_again_and_again(tmp_path: Path) -> None:
    async def go() -> None:
        database = Database(tmp_path / "cell.sqlite")
        sink, clock = SqliteCommandSink(database), CountingClock()
        inbox = SqliteInbox(database, Identity(), SqliteDeadLetters(database), clock)
        for number in range(10):
            await sink.send(Message(b"bad"))
            for _ in range(3):
                assert await inbox.take({}, 100, 0) == []
            assert clock.asked == number + 1
        database.close()

    asyncio.run(go())


def test_a_message_that_is_too_large_is_not_stored(tmp_path: Path) -> None:
    async def go() -> None:
        database = Database(tmp_path / "cell.sqlite")
        sink = SqliteCommandSink(database)
        await sink.send(Message(b"x" * (MAX_MESSAGE - 1)))  # its empty headers take a byte
        for message in (Message(b"x" * MAX_MESSAGE), Message(b"", (("h", b"x" * MAX_MESSAGE),))):
            with pytest.raises(ValueError, match="at most"):
                await sink.send(message)
        assert database.rows("SELECT count(*) FROM commands") == [(1,)]
        database.close()

    asyncio.run(go())


def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        Database(path)
    later = tmp_path / "later.sqlite"
    connection = sqlite3.connect(later)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(sqlite3.DatabaseError, match="form 99"):
        Database(later)
