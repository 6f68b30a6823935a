"""The ports of each profile, fresh for every test: one suite is run against all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from msgspec import Struct

from domain.ports import CommandSink, DeadLetters, Inbox, Log
from streams.identity import Identity
from streams.sqlite import Database, SqliteCommandSink, SqliteDeadLetters, SqliteInbox, SqliteLog


class FixedClock:
    def now_ms(self) -> int:
        return 1_735_689_600_000


class Ports(Struct):
    """All doors of one cell. A second set on the same cell is as another process has them."""

    log: Log
    inbox: Inbox
    sink: CommandSink
    dead_letters: DeadLetters


Profile = Callable[[], AbstractAsyncContextManager[Ports]]
"""Opens the ports of the test's own cell; may be called again for a second set on it."""


def embedded(path: Path) -> Profile:
    @asynccontextmanager
    async def open_() -> AsyncIterator[Ports]:
        database = Database(path)
        dead_letters = SqliteDeadLetters(database)
        inbox = SqliteInbox(database, Identity(), dead_letters, FixedClock())
        try:
            yield Ports(SqliteLog(database), inbox, SqliteCommandSink(database), dead_letters)
        finally:
            database.close()

    return open_


@pytest.fixture(params=["embedded"])
def profile(request: pytest.FixtureRequest, tmp_path: Path) -> Profile:
    assert request.param == "embedded", request.param
    return embedded(tmp_path / "cell.sqlite")
