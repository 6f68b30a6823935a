"""The proof of a ledger: chain, signatures, and every round decided again to the same bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from msgspec import Struct

from domain.cell import Cell
from domain.decide import decide
from domain.evolve import Divergence, evolve
from domain.ledger import (
    ENGINE,
    BrokenRecord,
    Head,
    Round,
    Verifier,
    canonical,
    digest,
    extends,
    unseal,
)
from streams.export import FileLog
from streams.reader import Readable


class Verdict(Struct):
    """What is proven so far."""

    cell: str
    head: Head = Head()
    records: int = 0
    """All that were read, those of writers that were too late among them."""
    facts: int = 0
    commands: int = 0
    strays: int = 0
    """Rightly signed records of rounds that were decided already: retries, or a slower writer."""
    folded: int = 0
    """Rounds of another engine: not decided again, only folded to the state that they name."""
    broken: BrokenRecord | None = None
    """The first break: the rule, and the round that should have stood there."""

    @property
    def rounds(self) -> int:
        return self.head.round

    @property
    def intact(self) -> bool:
        return self.broken is None


async def verify(
    log: Readable,
    verifier: Verifier,
    *,
    cell_name: str | None = None,
    expected: Head | None = None,
) -> AsyncIterator[Verdict]:
    """Prove a log from its start; yields the same growing verdict after each record.

    Without a name it has to be the ledger of the cell that the first record names. `expected` is
    a head that the ledger must hold: remembered, or told by someone else; without it a ledger that
    lost its last records looks whole. Stops at the first break. Rules of a break: form, canonical,
    hash, signature, chain, decision, end.
    """
    cell = Cell(await _first_name(log) if cell_name is None else cell_name)
    verdict = Verdict(cell.name)
    yield verdict
    seen = expected is None or expected.round == 0
    async for _, record in log.read(0):
        verdict.records += 1
        try:
            prove(cell, record, verifier, verdict)
            if expected is not None and cell.head.round == expected.round:
                _require(cell.head == expected, "end", expected.round, "its hash was another one")
                seen = True
        except BrokenRecord as broken:
            verdict.broken = broken
        yield verdict
        if verdict.broken is not None:
            return
    if not seen and expected is not None:
        detail = f"rounds {verdict.rounds + 1} to {expected.round} are missing"
        verdict.broken = BrokenRecord("end", verdict.rounds + 1, detail)
        yield verdict


async def verify_file(
    log: FileLog, verifier: Verifier, *, cell_name: str | None = None
) -> AsyncIterator[Verdict]:
    """`verify` for an exported file, which has to be whole."""
    end = log.end()
    async for verdict in verify(log, verifier, cell_name=cell_name, expected=end):
        yield verdict
    if verdict.broken is None and (end is None or end != verdict.head):
        detail = "the file's last line does not name the last record: it was cut short or changed"
        verdict.broken = BrokenRecord("end", verdict.rounds + 1, detail)
        yield verdict


async def _first_name(log: Readable) -> str:
    """The name in the first record; empty if it cannot be read, which `verify` then tells."""
    async for _, record in log.read(0):
        try:
            return unseal(record, None)[0].cell
        except BrokenRecord:
            break
    return ""


def prove(cell: Cell, record: bytes, verifier: Verifier, verdict: Verdict) -> None:
    """Prove the next record, and move the cell and the verdict on.

    Raises BrokenRecord with the round that should have stood here.
    """
    expected = cell.head.round + 1
    try:
        round, head = unseal(record, verifier)
    except BrokenRecord as broken:
        raise BrokenRecord(broken.rule, expected, broken.detail) from broken
    if round.cell == cell.name and round.header.round < expected:
        verdict.strays += 1
        return
    if not extends(cell.head, round, cell.name):
        raise BrokenRecord("chain", expected, _not_next(cell, round))
    if round.header.engine == ENGINE:
        _decide_again(cell, round, head)
    else:
        verdict.folded += 1
        _fold(cell, round, head)
    verdict.head = head
    verdict.facts += len(round.facts)
    verdict.commands += len(round.commands)


def _not_next(cell: Cell, round: Round) -> str:
    if round.cell != cell.name:
        return f"the record is of cell {round.cell!r}"
    if round.header.round != cell.head.round + 1:
        return f"round {round.header.round} stands in its place"
    return "it does not name the hash of the record before it"


def _decide_again(cell: Cell, round: Round, head: Head) -> None:
    number = round.header.round
    try:
        again = decide(cell, round.header, round.commands)
    except Exception as error:  # whatever trips, the record is not what this cell decides
        detail = f"deciding it again fails: {type(error).__name__}: {error}"
        raise BrokenRecord("decision", number, detail) from error
    if digest(canonical(again)).hex() != head.hash:
        differ = [name for name in Round.__struct_fields__ if _differ(again, round, name)]
        detail = f"decided again, it has other {', '.join(differ)}"
        raise BrokenRecord("decision", number, detail)
    cell.believe(head, again.inputs)


def _differ(one: Round, two: Round, name: str) -> bool:
    return canonical(getattr(one, name)) != canonical(getattr(two, name))


def _fold(cell: Cell, round: Round, head: Head) -> None:
    try:
        evolve(cell, round, head)
    except (Divergence, AssertionError, KeyError) as error:
        raise BrokenRecord("decision", round.header.round, str(error)) from error


def _require(holds: bool, rule: str, round: int, detail: str) -> None:
    if not holds:
        raise BrokenRecord(rule, round, detail)
