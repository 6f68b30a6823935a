"""The decider's service: the single writer of one cell, whatever log is behind its ports.

A round is: take commands, decide, seal, append, learn that the record is the believed one, remember
its head, and only then tell. If another writer was faster, or the append's outcome is unknown, the
cell is rebuilt from the log: it is never decided twice on the same state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from msgspec import Struct

from domain.cell import Cell
from domain.ledger import Accepted, Head, Round, Signer, Verifier, offsets
from domain.ports import Clock, Inbox, Log, Snapshots
from domain.scheduling import ROUND_IS_FULL
from domain.snapshots import SAVED_AFTER, Saving
from domain.timers import next_due_ms
from streams import rounds
from streams.reader import LedgerReader, catch_up, restore
from streams.remembered import LogTooShort, RememberedHead
from streams.rounds import Candidate, Place, Poisoned


class Settings(Struct, frozen=True):
    """Bounds of a round and of the service."""

    max_commands: int = 1000
    max_bytes: int = 250_000
    """Of the commands in a round."""
    max_record: int = 900_000
    """Bytes of a record that the log takes."""
    work: int = 1000
    """A placement costs some 250 bytes of record, so work is a bound of its size too."""
    max_wait_ms: int = 500
    """An idle decider looks at its clock at least this often."""
    snapshot_facts: int = SAVED_AFTER
    """A snapshot is saved after so many facts, or as many as there are jobs: a restart reads them
    again, and saving takes a time that grows with the jobs."""
    by_command_time: bool = False
    """Replay a complete input: the time is the commands' own, and a round takes all of one time."""


class OutcomeUnknown(Exception):
    """The append failed, and the record may be in the log or not: recover before going on."""


async def _tell_nobody(*_: object) -> None:
    """For a decider whose rounds are followed through the log only."""


class Decider:
    def __init__(
        self,
        name: str,
        log: Log,
        inbox: Inbox,
        signer: Signer,
        verifier: Verifier,
        clock: Clock,
        *,
        snapshots: Snapshots | None = None,
        remembered: RememberedHead | None = None,
        quarantined: Collection[Place] = (),
        settings: Settings | None = None,
        on_believed: Callable[[Round, Cell], Awaitable[None]] = _tell_nobody,
        on_recovered: Callable[[Cell], Awaitable[None]] = _tell_nobody,
    ) -> None:
        """`on_believed` gets each round of this writer, once it is believed, and the state after.

        `on_recovered` gets the state whenever it was rebuilt: rounds that nobody was told of, and
        rounds of other writers, are in it.
        """
        self.name = name
        self.settings = settings or Settings()
        self.rebuilds = 0
        """Times that the cell had to be rebuilt while running."""
        self._log = log
        self._inbox = inbox
        self._signer = signer
        self._verifier = verifier
        self._clock = clock
        self._snapshots = snapshots
        self._remembered = remembered
        self._quarantined = frozenset(quarantined)
        self._on_believed = on_believed
        self._on_recovered = on_recovered
        self._cell: Cell | None = None
        self._reader = LedgerReader(log, name, verifier)
        self._saving = Saving(snapshots, 0, self.settings.snapshot_facts)
        self._sweep = rounds.Sweep()
        self._halvings = 0
        """Rounds are made smaller by so many powers of two, after a record that was too large."""
        self._full = False
        self._quiet_ms: int | None = None
        """A due moment at which nothing happened: it is not waited for again."""
        self._stopping = False

    @property
    def cell(self) -> Cell:
        """The state after the last believed round. Raises RuntimeError before `recover`."""
        if self._cell is None:
            raise RuntimeError("the cell has to be recovered first")
        return self._cell

    # --- recovery ---------------------------------------------------------------------------------

    async def recover(self) -> Cell:
        """Rebuild the cell from snapshot and log.

        Raises LogTooShort if the log does not hold what was believed before, and Divergence if a
        believed record does not fold to its own state.
        """
        cell = self._cell = await self._rebuilt()
        untried = ("", ROUND_IS_FULL)
        self._full = any(s.waiting and s.reason in untried for s in cell.shapes.values())
        self._quiet_ms = None
        await self._on_recovered(cell)
        return cell

    async def _rebuilt(self) -> Cell:
        self._cell = None
        remembered = self._remembered.read() if self._remembered is not None else None
        cell, self._reader = await restore(self.name, self._log, self._verifier, self._snapshots)
        self._saving = Saving(self._snapshots, cell.head.round, self.settings.snapshot_facts)
        _check_remembered(remembered, cell.head)
        async for believed in catch_up(cell, self._reader, self._saving):
            _check_remembered(remembered, believed.head)
        if remembered is not None and cell.head.round < remembered.round:
            raise LogTooShort(remembered, cell.head)
        await self._remember(cell.head)
        return cell

    async def follow(self) -> None:
        """Apply what others have written, as one who may have to take over. Raises as `recover`."""
        if self._cell is None:
            await self.recover()
        cell = self.cell
        before = cell.head
        async for _ in catch_up(cell, self._reader, self._saving):
            pass
        if cell.head != before:
            await self._remember(cell.head)

    async def take_over(self) -> None:
        """Follow up to now. The next step makes a round in any case: it shows who writes, and
        shuts out who did. By command time a round comes of commands alone, also that one."""
        await self.follow()
        self._full = self._full or not self.settings.by_command_time
        self._quiet_ms = None

    # --- rounds -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Make rounds until `stop`; recovers first. What it raises ends the service."""
        self._stopping = False
        await self.recover()
        while not self._stopping:
            await self.step()

    def stop(self) -> None:
        """Let `run` end after the round that it is in, or its wait."""
        self._stopping = True

    async def step(self) -> Round | None:
        """Wait for something to decide and make one round; None if there was nothing.

        Raises Poisoned (nothing was written), OutcomeUnknown, and what `recover` raises. After any
        of them the cell must be recovered.
        """
        cell = self.cell
        commands, now_ms = await self._input()
        if not commands and not self._full and not self._due(now_ms):
            return None
        try:
            candidate = await self._candidate(cell, commands, now_ms)
            if candidate is None:
                return None
            position = await self._append(candidate)
        except BaseException:
            self._cell = None
            raise
        if position is None:
            self.rebuilds += 1
            await self.recover()
            return None
        await self._believe(cell, candidate, position)
        return candidate.round

    async def _candidate(
        self, cell: Cell, commands: Sequence[Accepted], now_ms: int
    ) -> Candidate | None:
        """The next record, or None after the rounds were made smaller and the cell rebuilt."""
        work = max(1, self.settings.work >> self._halvings)
        header = rounds.header_of(cell, now_ms, work, commands, self._quarantined)
        try:
            candidate = rounds.propose(cell, header, commands, self._signer)
        except Poisoned as poison:
            before = await self._rebuilt()
            if before.head.round + 1 != header.round:  # another writer has gone on meanwhile
                self.rebuilds += 1
                await self.recover()
                return None
            places = rounds.culprit(before, header, commands)
            raise Poisoned(poison.round, places, poison.detail) from poison
        size = len(candidate.record)
        if size <= self.settings.max_record:
            if size < self.settings.max_record // 4 and self._halvings:
                self._halvings -= 1
            return candidate
        if work == 1 and len(commands) <= 1:
            places = [(c.partition, c.offset) for c in commands]
            raise Poisoned(header.round, places, f"its record would have {size} bytes")
        self._halvings += 1
        self.rebuilds += 1
        await self.recover()
        return None

    async def _append(self, candidate: Candidate) -> int | None:
        """Its position if the record is the believed one, None if another one is."""
        try:
            position = await self._log.append(candidate.record)
        except Exception as error:
            number = candidate.head.round
            raise OutcomeUnknown(f"round {number} may be in the log: {error}") from error
        if position == self._reader.position:
            return position  # nobody else has written since
        async for found, record in self._log.read(self._reader.position):
            if found > position:
                return None
            if self._reader.judge(found, record) is not None:
                return position if found == position else None
        return None

    async def _believe(self, cell: Cell, candidate: Candidate, position: int) -> None:
        round = candidate.round
        cell.believe(candidate.head, round.inputs)
        self._reader.advance(candidate.head, position)
        await self._remember(candidate.head)
        self._full = bool(round.facts) and cell.unfinished
        idle = not round.facts and not round.commands
        due_ms = next_due_ms(cell) if idle else None
        passed = due_ms is not None and due_ms <= round.header.now_ms
        self._quiet_ms = due_ms if passed else None
        await self._on_believed(round, cell)
        self._saving.went_on(cell, len(round.facts), position)
        self._sweep.after(round)

    async def _remember(self, head: Head) -> None:
        if self._remembered is not None and head.round:
            await asyncio.to_thread(self._remembered.write, head)

    # --- input ------------------------------------------------------------------------------------

    async def _input(self) -> tuple[list[Accepted], int]:
        """The commands of the next round, and its time."""
        cell, limit = self.cell, max(1, self.settings.max_commands >> self._halvings)
        if self.settings.by_command_time:
            commands = await self._of_one_time(limit)
            now_ms = commands[0].time_ms if commands else cell.now_ms
        else:
            commands = list(await self._inbox.take(cell.inputs, limit, self._wait_ms()))
            now_ms = self._clock.now_ms()
        max_bytes = max(1, self.settings.max_bytes >> self._halvings)
        return rounds.cut(commands, max_bytes), max(cell.now_ms, now_ms)

    async def _of_one_time(self, limit: int) -> list[Accepted]:
        """The next commands of one time: up to `limit`, the first of a later time, or the end.

        None while work is left over from the last round, which comes first. So the rounds depend
        on the input alone, and not on how much of it was there at which moment.
        """
        cell = self.cell
        group: list[Accepted] = []
        while not self._full and len(group) < limit:
            after = offsets(cell.inputs, group)
            more = await self._inbox.take(after, limit - len(group), self.settings.max_wait_ms)
            for command in more:
                if group and command.time_ms > max(cell.now_ms, group[0].time_ms):
                    return group
                group.append(command)
            if not more:
                break
        return group

    def _wait_ms(self) -> int:
        if self._full:
            return 0
        due_ms = next_due_ms(self.cell)
        if due_ms is None or due_ms == self._quiet_ms:
            return self.settings.max_wait_ms
        return min(max(0, due_ms - self._clock.now_ms()), self.settings.max_wait_ms)

    def _due(self, now_ms: int) -> bool:
        if self.settings.by_command_time:
            return False
        due_ms = next_due_ms(self.cell)
        return due_ms is not None and due_ms != self._quiet_ms and due_ms <= now_ms


def _check_remembered(remembered: Head | None, head: Head) -> None:
    if remembered is not None and head.round == remembered.round and head != remembered:
        raise LogTooShort(remembered, head)
