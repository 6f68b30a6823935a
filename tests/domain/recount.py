"""What became of every slot-second, counted naively: node by node, slot by slot, round by round."""

from __future__ import annotations

from dataclasses import dataclass

from domain import facts as f
from domain.accounting import NOBODY, Use
from domain.cell import Cell
from domain.commands import ReportCheckpoint
from domain.ledger import Round
from domain.nodes import Node
from domain.runs import Run

Place = tuple[str, str, Use]
"""Owner, accelerator type, use."""
Counts = dict[Place, int]


@dataclass
class Spell:
    """Work of an attempt since it runs, or since its last checkpoint."""

    owner: str
    accelerator: str
    size: int
    since_ms: int
    write_ms: int
    restore_ms: int


class Recount:
    def __init__(self) -> None:
        self.at_ms = 0
        self.now: Counts = {}
        self.totals: Counts = {}
        self.slot_ms = 0
        """Slots of all nodes x milliseconds."""
        self.slots = 0
        self.spells: dict[str, Spell] = {}
        self.parts: dict[str, dict[int, tuple[int, int]]] = {}
        """By job, of what an elastic attempt has grown by: (size, since)."""
        self.replica: dict[str, int] = {}
        """Slots of a replica of an elastic job."""
        self.checkpoints: dict[str, bool] = {}
        """Jobs that have a checkpoint: of an attempt that ended."""

    def follow(self, cell: Cell, round: Round) -> None:
        elapsed = round.header.now_ms - self.at_ms
        for place, amount in self.now.items():
            self._add(place, amount * elapsed)
        self.slot_ms += self.slots * elapsed
        self.at_ms = round.header.now_ms
        for job in cell.jobs.values():
            self.replica[job.id] = job.shape.spec.groups[0].slots
        for fact in round.facts:
            self._apply(cell, round, fact)
        self.now = recount(cell)
        self.slots = sum(n.spec.slots for n in cell.nodes.values())
        for job in cell.jobs.values():
            if job.run is not None and job.run.running_ms and job.id not in self.spells:
                self._begin(job.run)

    def _begin(self, run: Run) -> None:
        spec, job = run.job.shape.spec, run.job
        size = sum(g.count * g.slots * g.share_milli for g in spec.groups)
        restore_ms = 1000 * spec.runtime.restore_s if self.checkpoints.get(job.id) else 0
        owner = job.shape.queue.account.id
        write_ms = 1000 * spec.runtime.checkpoint_write_s
        self.spells[job.id] = Spell(
            owner, run.accelerator, size, run.running_ms, write_ms, restore_ms
        )

    def _apply(self, cell: Cell, round: Round, fact: f.AnyFact) -> None:
        if isinstance(fact, f.AttemptRunning):
            run = cell.jobs[fact.job].run if fact.job in cell.jobs else None
            if run is not None and run.running_ms == self.at_ms:
                self._begin(run)
        elif isinstance(fact, f.CheckpointRecorded):
            self.checkpoints.setdefault(fact.job, False)
            self._checkpoint(fact.job, cell.command(fact.command, ReportCheckpoint).at_ms)
        elif isinstance(fact, f.AttemptGrown):
            slots = self.replica[fact.job]
            size = 1000 * slots * sum(placed[1] for placed in fact.nodes)
            self.parts.setdefault(fact.job, {})[fact.part] = (size, self.at_ms)
        elif isinstance(fact, f.AttemptShrunk):
            del self.parts[fact.job][fact.part]
        elif isinstance(fact, f.AttemptEnded):
            spell = self.spells.pop(fact.job, None)
            if fact.job in self.checkpoints:
                self.checkpoints[fact.job] = True
            if spell is not None:
                self._end(fact.job, spell, fact.reason)
            self.parts.pop(fact.job, None)

    def _checkpoint(self, job: str, at_ms: int) -> None:
        spell = self.spells.get(job)
        if spell is not None and at_ms > spell.since_ms:
            spent = min(spell.write_ms + spell.restore_ms, at_ms - spell.since_ms)
            self._move(job, spell, Use.OVERHEAD, spent)
            spell.since_ms, spell.restore_ms = at_ms, 0

    def _end(self, job: str, spell: Spell, reason: str) -> None:
        elapsed = self.at_ms - spell.since_ms
        if reason == "finished":
            self._move(job, spell, Use.OVERHEAD, min(elapsed, spell.restore_ms))
        elif reason in ("preempted", "drained", "reservation_ended"):
            self._move(job, spell, Use.LOST_PREEMPTED, elapsed)
        else:
            assert reason in ("failed", "overran", "cancelled", "node_lost")
            self._move(job, spell, Use.LOST_FAILED, elapsed)

    def _move(self, job: str, spell: Spell, use: Use, elapsed: int) -> None:
        amount = spell.size * elapsed
        for size, since_ms in self.parts.get(job, {}).values():
            amount += size * min(elapsed, self.at_ms - since_ms)
        self._add((spell.owner, spell.accelerator, Use.PRODUCTIVE), -amount)
        self._add((spell.owner, spell.accelerator, use), amount)

    def _add(self, place: Place, amount: int) -> None:
        self.totals[place] = self.totals.get(place, 0) + amount

    def check(self, cell: Cell) -> None:
        """The books say the same, and the sum is that of all slots and all time."""
        booked: Counts = {}
        for book in cell.books.values():
            for use, amount in zip(Use, book.totals(cell.now_ms), strict=True):
                booked[(book.owner, book.accelerator, use)] = amount
        assert {p: n for p, n in booked.items() if n} == {p: n for p, n in self.totals.items() if n}
        assert sum(booked.values()) == 1000 * self.slot_ms
        rates: Counts = {}
        for book in cell.books.values():
            for use, rate in zip(Use, book.rates, strict=True):
                rates[(book.owner, book.accelerator, use)] = rate
        assert {p: n for p, n in rates.items() if n} == {p: n for p, n in self.now.items() if n}
        assert sum(rates.values()) == 1000 * self.slots


def recount(cell: Cell) -> Counts:
    """To what use each thousandth of a slot of each node is put now."""
    found: Counts = {}
    for node in cell.nodes.values():
        for place, amount in _node(cell, node):
            found[place] = found.get(place, 0) + amount
    return found


def _node(cell: Cell, node: Node) -> list[tuple[Place, int]]:
    type_, left = node.spec.accelerator, 1000 * node.spec.slots
    parts: list[tuple[Place, int]] = []
    inside: dict[str, int] = {}
    for run in node.runs:
        amount = 1000 * node.runs[run]
        for name, replicas, index, device in run.nodes:
            group = run.job.shape.spec.groups[index]
            if name == node.id and device >= 0:
                amount += replicas * group.share_milli
            elif name == node.id and run.reservation is not None:
                amount += 1000 * replicas * group.slots
                res = run.reservation.id
                inside[res] = inside.get(res, 0) + 1000 * replicas * group.slots
        parts.append(((run.job.shape.queue.account.id, type_, _use(run)), amount))
    for reservation, slots in node.held.items():
        use = Use.RESERVED_IDLE if reservation.active else Use.CLAIMED
        idle = 1000 * slots - inside.get(reservation.id, 0)
        parts.append(((reservation.spec.account, type_, use), idle))
    left -= sum(amount for _, amount in parts)
    assert left >= 0, "no slot is put to two uses"
    return [*parts, ((NOBODY, type_, _idle(cell, node)), left)]


def _use(run: Run) -> Use:
    run = run.job.run if run.part and run.job.run else run  # a part does what its attempt does
    if not run.started_ms:
        return Use.CLAIMED
    return Use.PRODUCTIVE if run.running_ms else Use.OVERHEAD


def _idle(cell: Cell, node: Node) -> Use:
    if node.lost or not node.healthy:
        return Use.UNHEALTHY
    if node.cordoned or node.draining:
        return Use.DRAINING
    for shape in cell.shapes.values():
        types = [flavour.accelerator for flavour in shape.spec.flavours]
        in_pieces = shape.waiting and shape.reason in ("fragmented", "gathering")
        if in_pieces and node.spec.accelerator in types:
            return Use.FRAGMENTED
    return Use.FREE
