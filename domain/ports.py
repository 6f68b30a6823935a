"""The doors to the outside world; each profile (embedded, distributed) has its own behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from domain.ledger import Accepted


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since the epoch; may step back, which a round's header never does."""
        ...


class Log(Protocol):
    """One cell's ledger: an append-only sequence of records. Not all of them need be believed."""

    async def append(self, record: bytes) -> int:
        """Append and return the record's position once the log acknowledged it.

        An exception leaves the outcome unknown: only `read` tells what the log holds.
        """
        ...

    def read(self, position: int) -> AsyncIterator[tuple[int, bytes]]:
        """(position, record) from `position` up to the end as it is at the call."""
        ...

    async def end(self) -> int:
        """The position that the next record will get, or a later one."""
        ...


class Inbox(Protocol):
    """The accepted commands of one cell, in order."""

    async def take(self, after: Mapping[str, int], limit: int, wait_ms: int) -> Sequence[Accepted]:
        """Up to `limit` commands from offsets `after` on; waits up to `wait_ms` for one."""
        ...


class Message(Struct, frozen=True):
    """One CloudEvents message in Kafka's form: structured (JSON value) or binary (ce_ headers)."""

    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    key: bytes | None = None


class CommandSink(Protocol):
    """Where anyone puts commands: the way in."""

    async def send(self, message: Message) -> None:
        """Returns when the message is stored; it may be stored twice after an error."""
        ...


class DeadLetter(Struct, frozen=True):
    """A message that intake did not accept, whole, with the reason."""

    partition: int
    offset: int
    """Where it stood in the cell's commands: a message has one dead letter at most."""
    code: str
    field: str
    message: str
    time_ms: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    key: bytes | None = None


class DeadLetters(Protocol):
    async def put(self, letters: Sequence[DeadLetter]) -> None: ...

    def read(self) -> AsyncIterator[DeadLetter]:
        """All dead letters, each once, oldest first."""
        ...


class Snapshots(Protocol):
    """Where a cell's snapshots are kept. What is kept may be lost or damaged: readers verify."""

    def save(self, round: int, position: int, state: bytes) -> None:
        """`position` is that of the record after which the state is."""
        ...

    def latest(self, not_after: int | None = None) -> tuple[int, int, bytes] | None:
        """(round, position, state) of the newest one, or of the newest up to a round."""
        ...

    def newest(self) -> int:
        """Round of the newest one, which may be damaged; 0 if there is none."""
        ...
