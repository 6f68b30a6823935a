"""A process's own commands: numbered, and signed where commands are."""

from __future__ import annotations

from domain.commands import Command
from domain.ledger import Signer
from domain.ports import Clock, CommandSink
from streams.envelope import structured


class Voice:
    """Speaks under one source; `session` makes the ids of a process's commands new."""

    def __init__(
        self, sink: CommandSink, source: str, session: str, clock: Clock, signer: Signer | None
    ) -> None:
        self._sink, self._source, self._session = sink, source, session
        self._clock = clock
        self._signer = signer
        self._number = 0

    async def say(self, command: Command) -> None:
        self._number += 1
        signer = self._signer
        message = structured(
            command,
            source=self._source,
            id=f"{self._session}-{self._number}",
            time_ms=self._clock.now_ms(),
            key_id=None if signer is None else signer.key_id,
            sign=None if signer is None else signer.sign,
        )
        await self._sink.send(message)
