"""What became of every slot-second: double entry, in thousandths of slots times milliseconds.

At each moment every thousandth of a slot of every node that is registered is put to exactly one
use, so that the totals over all uses and owners are the slots of the nodes times the time that has
passed, after each round and for each accelerator type. A book holds the totals of one account's
work on one type; the book of no account ("") holds what no work or reservation has.

A round brings to book what it changed, at its end: an entry is an amount that counts from then on,
so the cost is that of the changes, and a total at any moment is settled + rate x time.

productive      work that runs, less what turned out to be lost or overhead: those are transfers,
                made when a checkpoint or an attempt's end tells
overhead        attempts that start, the writing of checkpoints, and restores
lost_preempted  work since the last checkpoint of an attempt that had to go, for others or for a
                drain or a window's end
lost_failed     the same of one that failed, overran, was cancelled, or lost a node
reserved_idle   held by a reservation whose window is on, and used by none of its jobs
claimed         held by a claim, or by a reservation that is not complete, until the rest is free
draining        idle on nodes that an operator has cordoned or drains
unhealthy       idle on nodes that are lost or say that they are not well
fragmented      idle while a job that accepts the type waits because what is free is in pieces,
                or gathers it
free            idle otherwise
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from domain.jobs import Job
from domain.nodes import Node
from domain.quota import MILLI
from domain.reservations import Reservation

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.runs import Run
    from domain.shapes import Shape

Entity = Node | Job | Reservation


class Use(IntEnum):
    PRODUCTIVE = 0
    OVERHEAD = 1
    LOST_PREEMPTED = 2
    LOST_FAILED = 3
    RESERVED_IDLE = 4
    CLAIMED = 5
    DRAINING = 6
    UNHEALTHY = 7
    FRAGMENTED = 8
    FREE = 9


NOBODY: Final = ""
"""Owner of what no account's work or reservation holds."""

IN_PIECES: Final = ("fragmented", "gathering")
"""Reasons of waiting that make idle slots fragmented ones."""

PREEMPTED: Final = ("preempted", "drained", "reservation_ended")
"""Reasons of an attempt's end that others made."""


class Book:
    """Totals of one owner on one accelerator type, by use."""

    __slots__ = (
        "_entries",
        "accelerator",
        "id",
        "in_pieces",
        "mark",
        "owner",
        "rates",
        "settled",
        "since_ms",
    )
    kind = "book"

    def __init__(self, owner: str, accelerator: str, now_ms: int) -> None:
        self.id = (owner, accelerator)
        self.owner = owner
        self.accelerator = accelerator
        self.rates = [0] * len(Use)
        """Thousandths of slots in each use now."""
        self.settled = [0] * len(Use)
        """Thousandths of slots x milliseconds, up to `since_ms`."""
        self.since_ms = now_ms
        self._entries: dict[tuple[Use, int], Entry] = {}
        self.in_pieces = False
        """What is idle counts as fragmented, not as free."""
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        # As text: over years these outgrow the 64 bits of the packed form.
        return (self.owner, self.accelerator, self.since_ms, [str(n) for n in self.settled])

    def entry(self, use: Use, amount: int) -> Entry:
        """Equal ones are one object, for many jobs have the same."""
        key = (use, amount)
        found = self._entries.get(key)
        if found is None:
            found = self._entries[key] = Entry(self, use, amount)
        return found

    def totals(self, now_ms: int) -> list[int]:
        """By use, thousandths of slots x milliseconds up to a moment that is not before the last
        change."""
        elapsed = now_ms - self.since_ms
        return [s + r * elapsed for s, r in zip(self.settled, self.rates, strict=True)]

    def add(self, use: Use, amount: int, now_ms: int) -> None:
        """From now on so much more is in that use."""
        self._settle(now_ms)
        if use is Use.FREE and self.in_pieces:
            use = Use.FRAGMENTED
        self.rates[use] += amount

    def transfer(self, source: Use, target: Use, amount: int, now_ms: int) -> None:
        """So much (thousandths of slots x milliseconds) was in another use than had been said."""
        self._settle(now_ms)
        self.settled[source] -= amount
        self.settled[target] += amount

    def mark_pieces(self, in_pieces: bool, now_ms: int) -> None:
        self._settle(now_ms)
        source, target = (Use.FREE, Use.FRAGMENTED) if in_pieces else (Use.FRAGMENTED, Use.FREE)
        self.rates[target] += self.rates[source]
        self.rates[source] = 0
        self.in_pieces = in_pieces

    def _settle(self, now_ms: int) -> None:
        if now_ms != self.since_ms:
            self.settled = self.totals(now_ms)
            self.since_ms = now_ms


class Entry(NamedTuple):
    """What an entity has in the books: so many thousandths of slots in one use."""

    book: Book
    use: Use
    amount: int


def book(cell: Cell, owner: str, accelerator: str) -> Book:
    found = cell.books.get((owner, accelerator))
    if found is None:
        found = Book(owner, accelerator, cell.now_ms)
        cell.books[found.id] = found
    return found


# --- at the end of a round ------------------------------------------------------------------------


def bring(cell: Cell, entity: Entity, gone: bool) -> None:
    """Bring to book what the entity holds now; nothing changes if it holds what it did."""
    before = entity.booked
    after = None if gone else _entry(cell, entity)
    if before is after:
        return
    if before is not None:
        _add(cell, before, -1)
    if after is not None:
        _add(cell, after, 1)
    entity.booked = after


def _add(cell: Cell, entry: Entry, by: int) -> None:
    entry.book.add(entry.use, by * entry.amount, cell.now_ms)
    cell.touch(entry.book)


def _entry(cell: Cell, entity: Entity) -> Entry | None:
    if isinstance(entity, Job):
        return _of_run(cell, entity.run) if entity.run is not None else None
    if isinstance(entity, Node):
        return _of_node(cell, entity)
    return _of_reservation(cell, entity)


def _of_run(cell: Cell, run: Run) -> Entry:
    shape = run.job.shape
    if not run.started_ms:
        use, held = Use.CLAIMED, shape.size - MILLI * sum(run.missing.values())
    else:
        use = Use.PRODUCTIVE if run.running_ms else Use.OVERHEAD
        held = run.size + sum(part.size for part in run.job.parts.values())
    return book(cell, shape.queue.account.id, run.accelerator).entry(use, held)


def _of_node(cell: Cell, node: Node) -> Entry:
    whole = MILLI * (node.class_.slots - node.used)
    rest = sum(MILLI - used for used in node.partial.values()) if node.partial else 0
    if node.lost or not node.healthy:
        use = Use.UNHEALTHY
    elif node.cordoned or node.draining:
        use = Use.DRAINING
    else:
        use = Use.FREE
    return book(cell, NOBODY, node.spec.accelerator).entry(use, whole + rest)


def _of_reservation(cell: Cell, reservation: Reservation) -> Entry:
    spec = reservation.spec
    idle = sum(reservation.nodes.values()) - sum(reservation.missing.values())
    idle -= sum(reservation.used.values())
    use = Use.RESERVED_IDLE if reservation.active else Use.CLAIMED
    return book(cell, spec.account, spec.accelerator).entry(use, MILLI * idle)


def told(cell: Cell, shape: Shape) -> None:
    """The shape was told why it waits, or it is no more."""
    in_pieces = shape.reason in IN_PIECES and shape.id in cell.shapes
    for need in shape.needs:
        shapes = cell.in_pieces.setdefault(need.accelerator, {})
        if in_pieces:
            shapes[shape] = None
        else:
            shapes.pop(shape, None)


def mark_pieces(cell: Cell) -> None:
    """What is free of a type is fragmented while one waits for that reason."""
    for accelerator, slots in cell.total.items():
        where = cell.books.get((NOBODY, accelerator))
        if where is None or not slots:  # a restored cell knows no types that have left
            continue
        in_pieces = any(s.waiting for s in cell.in_pieces.get(accelerator, ()))
        if in_pieces != where.in_pieces:
            where.mark_pieces(in_pieces, cell.now_ms)
            cell.touch(where)


# --- transfers ------------------------------------------------------------------------------------


def checkpointed(cell: Cell, run: Run, at_ms: int) -> None:
    """The work until `at_ms` is safe, but for the time that the checkpoint took, and a restore."""
    since = max(run.running_ms, run.checkpoint_ms)
    if not run.running_ms or at_ms <= since:
        return
    spent = 1000 * run.job.shape.spec.runtime.checkpoint_write_s + _restore_ms(run)
    _transfer(cell, run, Use.OVERHEAD, min(spent, at_ms - since))


def ended(cell: Cell, run: Run, reason: str) -> None:
    """What the attempt did since its last checkpoint is lost, unless it finished."""
    if not run.running_ms:
        return
    since = max(run.running_ms, run.checkpoint_ms)
    elapsed = max(0, cell.now_ms - since)
    if reason == "finished":
        _transfer(cell, run, Use.OVERHEAD, min(_restore_ms(run), elapsed))
    else:
        use = Use.LOST_PREEMPTED if reason in PREEMPTED else Use.LOST_FAILED
        _transfer(cell, run, use, elapsed)


def _restore_ms(run: Run) -> int:
    """Of the time since it runs, before its first checkpoint: what the restore took."""
    first = run.checkpoint_ms <= run.running_ms
    return run.job.shape.restore_ms if first and run.job.resumes else 0


def _transfer(cell: Cell, run: Run, use: Use, elapsed_ms: int) -> None:
    if elapsed_ms:
        amount = run.size * elapsed_ms
        for part in run.job.parts.values():
            amount += part.size * min(elapsed_ms, cell.now_ms - part.started_ms)
        where = book(cell, run.job.shape.queue.account.id, run.accelerator)
        where.transfer(Use.PRODUCTIVE, use, amount, cell.now_ms)
        cell.touch(where)


# --- snapshots ------------------------------------------------------------------------------------


def restore(cell: Cell, states: list[Any]) -> None:
    """The books of a snapshot: rates follow from the entities, totals are as they were."""
    tables: tuple[dict[str, Any], ...] = (cell.nodes, cell.jobs, cell.reservations)
    for table in tables:
        for entity in table.values():
            bring(cell, entity, gone=False)
    mark_pieces(cell)
    for owner, accelerator, since_ms, settled in states:
        found = book(cell, owner, accelerator)
        found.since_ms, found.settled = since_ms, [int(n) for n in settled]
