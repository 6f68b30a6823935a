"""Planted bugs: plausible mistakes, each switched on from outside of the product's code.

The simulation must find each of them. Whatever checks is not touched: the mistakes are made in the
names that the product's own roles use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any, Final
from unittest.mock import patch

from aiokafka.errors import KafkaError
from msgspec.structs import replace

import domain.decide
import domain.snapshots
import streams.rounds
from domain.cell import Cell
from domain.facts import JobCancelled
from domain.ledger import BrokenRecord, Head, Header, Round, Verifier, unseal
from domain.memory import Memory
from domain.slots import take_parts
from projections.projector import Projector
from projections.store import Applied
from streams import kafka_fleet, kafka_intake
from streams.agent import Agent
from streams.decider import Decider
from streams.kafka import KafkaAccepted, KafkaDeadLetters, KafkaInbox
from streams.kafka_dispatch import KafkaDispatch
from streams.reader import LedgerReader

Bug = Callable[[], AbstractContextManager[object]]


def _whatever_came_before(
    record: bytes, head: Head, cell: str, verifier: Verifier | None
) -> tuple[Round, Head] | None:
    try:
        return unseal(record, verifier)
    except BrokenRecord:
        return None


def reader_believes_any_record() -> AbstractContextManager[object]:
    """A reader checks signatures and forgets the chain."""
    return patch("streams.reader.as_next", _whatever_came_before)


def projector_believes_any_record() -> AbstractContextManager[object]:
    return patch("projections.projector.as_next", _whatever_came_before)


def intake_commits_first() -> AbstractContextManager[object]:
    """The offsets are committed, and then the commands are stored."""

    async def take_in(bootstrap: str, cell: str, identity: Any, clock: Any) -> None:
        stored: dict[Any, int] = {}
        async with (
            KafkaAccepted(bootstrap, cell) as accepted,
            KafkaDeadLetters(bootstrap, cell) as dead,
            kafka_intake._subscribed(bootstrap, cell, stored) as consumer,
        ):
            while True:
                batch = await consumer.getmany(timeout_ms=1000, max_records=250)
                stored.update({part: found[-1].offset + 1 for part, found in batch.items()})
                await kafka_intake._commit(consumer, stored)
                await kafka_intake._store(batch, accepted, dead, identity, clock.now_ms())

    return patch("streams.kafka_intake.take_in", take_in)


def intake_drops_on_back_pressure() -> AbstractContextManager[object]:
    """A write that fails is forgotten, and intake goes on."""
    put = KafkaAccepted.put

    async def careless(self: KafkaAccepted, accepted: Any) -> None:
        with suppress(KafkaError):
            await put(self, accepted)

    return patch.object(KafkaAccepted, "put", careless)


def dead_letters_are_dropped() -> AbstractContextManager[object]:
    async def put(self: KafkaDeadLetters, letters: Any) -> None:
        pass

    return patch.object(KafkaDeadLetters, "put", put)


@contextmanager
def duplicates_are_not_in_snapshots() -> Iterator[None]:
    """What was answered is neither in the digest nor in the snapshot."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(Memory, "state", lambda self: (b"", [])))
        always_zero = property(lambda self: 0, lambda self, value: None)
        stack.enter_context(patch.object(Memory, "digest", always_zero, create=True))
        yield


def back_offs_are_not_in_snapshots() -> AbstractContextManager[object]:
    """A restored cell waits for no job that backs off."""
    load_jobs = domain.snapshots._load_jobs

    def forgetful(cell: Cell, states: list[Any]) -> None:
        load_jobs(cell, states)
        cell.timers._backoffs.clear()

    return patch("domain.snapshots._load_jobs", forgetful)


def snapshot_before_belief() -> AbstractContextManager[object]:
    """A snapshot is taken of a state whose record is not in the log yet."""
    append = Decider._append

    async def hasty(self: Decider, candidate: Any) -> int | None:
        cell, position = self._cell, self._reader.head_position
        assert cell is not None
        assert self._snapshots is not None
        if cell.head.round:
            self._snapshots.save(cell.head.round, position, cell.snapshot())
        return await append(self, candidate)

    return patch.object(Decider, "_append", hasty)


def told_before_belief() -> AbstractContextManager[object]:
    """Callers hear of a round while it is being appended."""
    append = Decider._append

    async def hasty(self: Decider, candidate: Any) -> int | None:
        await self._on_believed(candidate.round, self.cell)
        return await append(self, candidate)

    return patch.object(Decider, "_append", hasty)


def zombie_believes_itself() -> AbstractContextManager[object]:
    """What is acknowledged is believed: nobody looks who was there first."""

    async def append(self: Decider, candidate: Any) -> int | None:
        return await self._log.append(candidate.record)

    return patch.object(Decider, "_append", append)


def failure_is_taken_for_nothing_written() -> AbstractContextManager[object]:
    """After an error of the log the decider goes on with the state that it has."""

    async def append(self: Decider, candidate: Any) -> int | None:
        try:
            return await self._log.append(candidate.record)
        except KafkaError:
            return self._reader.position

    return patch.object(Decider, "_append", append)


def clock_is_taken_as_it_is() -> AbstractContextManager[object]:
    """A step back of the clock goes into the header."""
    take = Decider._input

    async def unwary(self: Decider) -> Any:
        commands, _ = await take(self)
        return commands, self._clock.now_ms()

    def header_of(
        cell: Cell, now_ms: int, work: int, commands: Any = (), quarantined: Any = ()
    ) -> Header:
        made = streams_header_of(cell, now_ms, work, commands, quarantined)
        return Header(made.round, now_ms, made.work, made.engine, made.quarantined)

    streams_header_of = streams.rounds.header_of
    stack = ExitStack()
    stack.enter_context(patch.object(Decider, "_input", unwary))
    stack.enter_context(patch("streams.rounds.header_of", header_of))
    return stack


def quarantine_is_not_in_the_header() -> AbstractContextManager[object]:
    """The decider leaves out what an operator took out, and does not write down that it did."""

    def decide(cell: Cell, header: Header, commands: Any) -> Any:
        made = domain.decide.decide(cell, header, commands)
        return replace(made, header=replace(header, quarantined=[]))

    return patch("streams.rounds.decide", decide)


def inbox_goes_on_from_its_own_position() -> AbstractContextManager[object]:
    """The inbox hands out what comes next for it, and not what comes next for the cell."""
    take = KafkaInbox.take

    async def stubborn(self: KafkaInbox, after: Any, limit: int, wait_ms: int) -> Any:
        own = after if self._next is None else {"0": self._next}
        return await take(self, own, limit, wait_ms)

    return patch.object(KafkaInbox, "take", stubborn)


def torn_record_is_the_end() -> AbstractContextManager[object]:
    """A record that cannot be read is taken for the end of the log."""

    async def read(self: LedgerReader) -> Any:
        async for position, record in self._log.read(self.position):
            try:
                unseal(record, self._verifier)
            except BrokenRecord:
                return
            self.position = position + 1
            believed = self.judge(position, record)
            if believed is not None:
                yield believed

    return patch.object(LedgerReader, "read", read)


def projector_trusts_any_snapshot() -> AbstractContextManager[object]:
    """The projector starts from a snapshot that is ahead of its tables."""
    restored = Projector._restored

    def trusting(self: Projector, name: str) -> Any:
        mine, self._applied = self._applied, Applied(1 << 40)
        try:
            return restored(self, name)
        finally:
            self._applied = mine

    return patch.object(Projector, "_restored", trusting)


def projector_writes_what_is_written() -> AbstractContextManager[object]:
    """After a restart old rounds are written again, and the read model goes back."""

    fold = Projector._fold

    def forgetful(self: Projector, round: Any, head: Any, position: int) -> None:
        if head.round <= self._applied.round:
            self._applied = Applied()
        fold(self, round, head, position)

    return patch.object(Projector, "_fold", forgetful)


def projector_skips_what_only_touches_kin() -> AbstractContextManager[object]:
    """Rows of those whose figures changed with another's are not written."""
    return patch("projections.rows._add_family", lambda account, found: None)


def dispatch_skips_the_round_it_was_at() -> AbstractContextManager[object]:
    """After a restart the last round is taken for told, though only a part of it was."""
    last_round = KafkaDispatch.last_round

    async def optimistic(self: KafkaDispatch) -> int | None:
        last = await last_round(self)
        return last + 1 if last else last

    return patch.object(KafkaDispatch, "last_round", optimistic)


def agent_ignores_the_fence() -> AbstractContextManager[object]:
    """An agent obeys a start whatever it has heard before."""
    start = Agent._start

    def unfenced(self: Agent, instruction: Any) -> None:
        self._newest.clear()
        start(self, instruction)

    return patch.object(Agent, "_start", unfenced)


def agent_lets_its_lease_run_out() -> AbstractContextManager[object]:
    """A node that registers is not kept alive."""
    return patch.object(Agent, "_renew_after", lambda self, spec, now_ms: None)


def node_forgets_what_died_with_it() -> AbstractContextManager[object]:
    """A node that comes back says nothing of the attempts that it had."""
    add_node = Agent.add_node

    def silent(self: Agent, spec: Any, now_ms: int) -> None:
        self._cut_off.pop(spec.node, None)
        add_node(self, spec, now_ms)

    return patch.object(Agent, "add_node", silent)


def fleet_forgets_what_stands() -> AbstractContextManager[object]:
    """A fleet that starts anew listens to new instructions only."""
    told_before = kafka_fleet.told_before

    async def deaf(bootstrap: str, cell: str) -> Any:
        _, position = await told_before(bootstrap, cell)
        return [], position

    return patch("streams.kafka_fleet.told_before", deaf)


def fleet_gives_the_same_ids_again() -> AbstractContextManager[object]:
    """The reports of a fleet that starts anew look like duplicates of its first ones."""
    run_fleet = kafka_fleet.run_fleet

    async def unnumbered(*args: Any) -> None:
        bootstrap, cell, fleet, clock, session, *rest = args
        await run_fleet(bootstrap, cell, fleet, clock, session.rpartition("-")[0], *rest)

    return patch("streams.kafka_fleet.run_fleet", unnumbered)


def host_parts_are_not_given_back() -> AbstractContextManager[object]:
    def forgetful(cell: Cell, run: Any, by: int) -> None:
        if by > 0:
            take_parts(cell, run, by)

    return patch("domain.slots.take_parts", forgetful)


def cancelled_claim_is_kept() -> AbstractContextManager[object]:
    """A job that is cancelled while it waits for its slots leaves its claim behind."""
    cancel_job = domain.decide.DECIDE["CancelJob"]

    def careless(turn: Any, command: Any, at: int) -> None:
        job = turn.cell.jobs.get(command.job)
        if job is not None and job.run is not None and not job.run.started_ms:
            turn.emit(JobCancelled(job.id))
        else:
            cancel_job(turn, command, at)

    return patch.dict(domain.decide.DECIDE, {"CancelJob": careless})


BUGS: Final[dict[str, Bug]] = {
    bug.__name__: bug
    for bug in (
        reader_believes_any_record,
        projector_believes_any_record,
        intake_commits_first,
        intake_drops_on_back_pressure,
        dead_letters_are_dropped,
        duplicates_are_not_in_snapshots,
        back_offs_are_not_in_snapshots,
        snapshot_before_belief,
        told_before_belief,
        zombie_believes_itself,
        failure_is_taken_for_nothing_written,
        clock_is_taken_as_it_is,
        quarantine_is_not_in_the_header,
        inbox_goes_on_from_its_own_position,
        torn_record_is_the_end,
        projector_trusts_any_snapshot,
        projector_writes_what_is_written,
        projector_skips_what_only_touches_kin,
        dispatch_skips_the_round_it_was_at,
        agent_ignores_the_fence,
        agent_lets_its_lease_run_out,
        node_forgets_what_died_with_it,
        fleet_forgets_what_stands,
        fleet_gives_the_same_ids_again,
        host_parts_are_not_given_back,
        cancelled_claim_is_kept,
    )
}
