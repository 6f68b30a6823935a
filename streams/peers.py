"""The relay of a region: what its ledger says to peers goes to their way in.

It follows the ledger as any reader does and keeps nothing: after a restart it says again what
stands (`outbox.standing`), and a peer that hears a thing twice knows it again. A peer that cannot
be reached is tried again with growing pauses; what waits for it is bounded, since what must arrive
stands in the ledger, and offers are of no use when they are old.

Inventory is told every `changed_s` if it has changed, and whole every `full_s`, with what stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from domain.cell import Cell
from domain.commands import COMMANDS, AdvertiseInventory
from domain.evolve import evolve
from domain.ledger import Signer, Verifier
from domain.pool.inventory import advert, delta
from domain.ports import Clock, CommandSink, Message, Snapshots
from domain.snapshots import Saving
from streams import outbox
from streams.envelope import structured
from streams.outbox import Letter
from streams.reader import Readable, catch_up, restore

_log: Final = logging.getLogger(__name__)
MAX_WAITING: Final = 10_000
"""Letters for one peer; of more than these the oldest are dropped."""
TOLD: Final = ("stock", "surplus", "lost", "votes")
"""What is told as soon as it changes."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 30.0


class Undeliverable(Exception):
    """The peer will never take this letter, however often it comes."""


class Pace(Struct, frozen=True):
    """How often inventory is told, in seconds of the world."""

    changed_s: float = 2.0
    full_s: float = 30.0


class Relay:
    """Speaks for one region, with its key."""

    def __init__(
        self,
        name: str,
        log: Readable,
        verifier: Verifier,
        snapshots: Snapshots | None,
        peers: Mapping[str, CommandSink],
        signer: Signer,
        clock: Clock,
        pace: Pace | None = None,
    ) -> None:
        """`peers`: the way in of each."""
        self._name, self._log, self._verifier, self._snapshots = name, log, verifier, snapshots
        self._sinks = peers
        self._signer = signer
        self._clock = clock
        self._pace = pace or Pace()
        self._waiting: dict[str, deque[Letter]] = {p: deque(maxlen=MAX_WAITING) for p in peers}
        self._new = {peer: asyncio.Event() for peer in peers}
        self._cell = Cell(name)
        self.sent = 0
        self.failures = 0
        self.refused = 0

    async def run(self) -> None:
        """Until cancelled. Raises Divergence if the ledger cannot be followed."""
        self._cell, reader = await restore(self._name, self._log, self._verifier, self._snapshots)
        saving = Saving(self._snapshots, self._cell.head.round)
        async for _ in catch_up(self._cell, reader, saving):
            pass
        async with asyncio.TaskGroup() as tasks:
            for peer in self._sinks:
                tasks.create_task(self._deliver(peer))
            tasks.create_task(self._tell_inventory())
            async for believed in reader.follow():
                evolve(self._cell, believed.round, believed.head)
                for letter in outbox.letters(self._cell, believed.round):
                    self._put(letter)
                saving.went_on(self._cell, len(believed.round.facts), believed.position)

    def _put(self, letter: Letter) -> None:
        if letter.to in self._waiting:
            self._waiting[letter.to].append(letter)
            self._new[letter.to].set()

    async def _deliver(self, peer: str) -> None:
        """One peer's letters, in order, each until it is stored there."""
        waiting, pause_s = self._waiting[peer], FIRST_PAUSE_S
        while True:
            if not waiting:
                self._new[peer].clear()
                await self._new[peer].wait()
                continue
            letter = waiting[0]
            try:
                await self._sinks[peer].send(self.message(letter))
            except Undeliverable as error:
                self.refused += 1
                _log.warning("%s does not take a %s: %s", peer, letter.type, error)
            except Exception:  # a sink of any kind may fail in any way: it is tried again
                self.failures += 1
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            else:
                self.sent += 1
            pause_s = FIRST_PAUSE_S
            if waiting and waiting[0] is letter:
                waiting.popleft()

    def message(self, letter: Letter) -> Message:
        """The letter as a signed message."""
        return structured(
            COMMANDS[letter.type].model_validate_json(letter.body),
            source=self._name,
            id=letter.id,
            time_ms=self._clock.now_ms(),
            key_id=self._signer.key_id,
            sign=self._signer.sign,
        )

    async def _tell_inventory(self) -> None:
        told: AdvertiseInventory | None = None
        full_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            if self._cell.pool.region is not None:
                whole = told is None or loop.time() >= full_at
                now = advert(self._cell, whole)
                if told is None or whole:
                    full_at = loop.time() + self._pace.full_s
                    for letter in outbox.standing(self._cell):
                        self._put(letter)
                    self._tell(now)  # last: of too many letters the oldest are dropped
                elif any(getattr(now, part) != getattr(told, part) for part in TOLD):
                    self._tell(delta(told, now))
                told = now
            await asyncio.sleep(self._pace.changed_s)

    def _tell(self, said: AdvertiseInventory) -> None:
        for peer in self._sinks:
            self._put(outbox.letter(self._cell, peer, said))
