"""What the HTTP API is made of; the composition root hands it in."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.commands import Command
from domain.ports import CommandSink, DeadLetter, DeadLetters, Message
from projections.access import Reader, Readers, Sight, Sights
from projections.cache import Cache
from projections.cursors import Cursors
from projections.limits import Limits
from projections.store import Applied, Store


def _no_trouble() -> list[str]:
    return []


@dataclass(frozen=True)
class Services:
    store: Store
    cell: str
    """The cell that is served."""
    envelope: Callable[[Command, str, str, str | None], Message] | None = None
    """(command, source, id, actor) -> message, for those who submit over HTTP."""
    sink: CommandSink | None = None
    """Where commands go; None: this API only reads."""
    letters: Callable[[bytes, str], Awaitable[None]] | None = None
    """Takes a peer's letter and its signature, as they came; raises ValueError if it is none."""
    ask_peers: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None
    """What each peer's API says of itself, or why it says nothing; None: no peer is known."""
    dead_letters: DeadLetters | None = None
    resend: Callable[[DeadLetter], Message] | None = None
    """What is sent again for a dead letter."""
    cursors: Cursors = field(default_factory=lambda: Cursors(secrets.token_bytes(32)))
    readers: Readers | None = None
    """Who may read and submit; None: anyone, everything."""
    limits: Limits | None = None
    cache: Cache | None = None
    wait_s: float = 5.0
    """At most so long a reader waits for its `min_round`."""
    trouble: Callable[[], list[str]] = _no_trouble
    """Why the process is not ready, if it is not."""
    gauges: Mapping[str, Callable[[], float]] = field(default_factory=dict)
    """Further metrics by name."""
    sights: Sights = field(default_factory=Sights)

    async def sight(self, reader: Reader | None, applied: Applied) -> Sight:
        return await self.sights.of(reader, self.store, self.cell, applied)
