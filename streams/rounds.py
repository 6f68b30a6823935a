"""One round without I/O: cut its commands, decide, seal. All who make rounds do it here."""

from __future__ import annotations

import gc
from collections.abc import Collection, Sequence
from typing import Final

from msgspec import Struct

from domain.cell import Cell
from domain.decide import decide
from domain.ledger import ENGINE, Accepted, Head, Header, Round, Signer, seal

OVERHEAD: Final = 300
"""Bytes of an accepted command in a record besides its body, id and source; rounded up."""

MAX_BISECTED: Final = 200_000
"""Jobs of a cell that is still copied to find out which command it trips over."""

SWEEP_AFTER: Final = 2000
"""Commands and facts of the rounds after which their objects are searched for cycles."""

Place = tuple[int, int]
"""Partition and offset of a command."""


class Candidate(Struct, frozen=True, gc=False):
    """A record that is not in the log yet; the cell is already in the state after it."""

    round: Round
    record: bytes
    head: Head


class Sweep:
    """Garbage collection among what the last rounds made, in small portions.

    Left to itself the collector waits until allocations exceed releases by its threshold. Where as
    much ends as begins that takes hundreds of rounds, and the search of what is new by then takes
    as long as several of them.
    """

    def __init__(self) -> None:
        self._made = 0

    def after(self, round: Round) -> None:
        self._made += len(round.commands) + len(round.facts)
        if self._made >= SWEEP_AFTER and gc.isenabled():
            self._made = 0
            gc.collect(1)


class Poisoned(Exception):
    """Deciding tripped over something that should be impossible; nothing was written.

    `places` are the commands that may have caused it: one if it could be told, none if the round
    trips without any command. An operator takes a command out by its place (quarantine).
    """

    def __init__(self, round: int, places: Sequence[Place], detail: str) -> None:
        named = ", ".join(f"{p}:{o}" for p, o in places) or "none"
        super().__init__(f"round {round}: {detail}; commands (partition:offset): {named}")
        self.round = round
        self.places = list(places)
        self.detail = detail


def cut(commands: Sequence[Accepted], max_bytes: int) -> list[Accepted]:
    """As many from the start as fit a round; one always does."""
    size = 0
    for index, command in enumerate(commands):
        size += OVERHEAD + len(command.id) + len(command.source) + len(memoryview(command.data))
        if size > max_bytes and index:
            return list(commands[:index])
    return list(commands)


def header_of(
    cell: Cell,
    now_ms: int,
    work: int,
    commands: Sequence[Accepted] = (),
    quarantined: Collection[Place] = (),
) -> Header:
    """Header of the cell's next round; of the quarantine it names what is among the commands."""
    out = [p for c in commands if (p := (c.partition, c.offset)) in quarantined]
    return Header(cell.head.round + 1, max(cell.now_ms, now_ms), work, ENGINE, out)


def propose(cell: Cell, header: Header, commands: Sequence[Accepted], signer: Signer) -> Candidate:
    """Decide and seal. Once the record is believed: `cell.believe(c.head, c.round.inputs)`.

    Raises Poisoned, which names all commands. Then, and if the record is never believed, the cell
    is of no more use.
    """
    try:
        round = decide(cell, header, commands)
    except Exception as error:
        places = [(c.partition, c.offset) for c in commands]
        detail = f"{type(error).__name__}: {error}"
        raise Poisoned(header.round, places, detail) from error
    return Candidate(round, *seal(round, signer))


def culprit(cell: Cell, header: Header, commands: Sequence[Accepted]) -> list[Place]:
    """The command over which deciding trips, found by deciding ever fewer of them on copies.

    `cell` is the state before the round, and is not changed. Of a large cell no copies are made:
    then all commands are suspects.
    """
    suspects = [(c.partition, c.offset) for c in commands]
    if len(cell.jobs) > MAX_BISECTED:
        return suspects
    state = cell.snapshot()

    def trips(amount: int) -> bool:
        try:
            decide(Cell.restore(state), header, commands[:amount])
        except Exception:
            return True
        return False

    if trips(0):
        return []
    good, bad = 0, len(commands)
    while bad - good > 1:
        middle = (good + bad) // 2
        if trips(middle):
            bad = middle
        else:
            good = middle
    return suspects[good:bad]
