"""Nobody waits for nothing: what must hold of a cell between two rounds."""

from __future__ import annotations

from domain import specs
from domain.cell import Cell
from domain.decide import decide
from domain.facts import PromiseVoided, ShapeBlocked
from domain.ledger import ENGINE, Header
from domain.policies.facts import SignalsFrozen
from domain.scheduling import TURN_MS
from domain.timers import next_due_ms


def sleeps_until_due(cell: Cell) -> None:
    """Who sleeps until the next due moment misses nothing (but for the pace of turns)."""
    if cell.unfinished:
        return
    due_ms = next_due_ms(cell)
    idle_ms = cell.now_ms + 86_400_000 if due_ms is None else due_ms - TURN_MS
    if idle_ms > cell.now_ms:
        sleeper = Cell.restore(cell.snapshot())
        round = decide(sleeper, Header(cell.head.round + 1, idle_ms, 100_000, ENGINE), [])
        # A reason may be told anew: the jobs that were placed last have changed what binds.
        free: tuple[type, ...] = (ShapeBlocked, PromiseVoided)
        if not cell.jobs:
            free += (SignalsFrozen,)  # nobody's rules ask for the hour
        late = [f for f in round.facts if not isinstance(f, free)]
        assert not late, f"{idle_ms - cell.now_ms} ms later, {due_ms=}: {late}"


def what_fits_does_not_wait(cell: Cell) -> None:
    """Work conservation: what is said to lack room has no node with room, by brute force."""
    if cell.unfinished:
        return
    free = [n for n in cell.nodes.values() if n.schedulable]
    for shape in cell.shapes.values():
        group = shape.spec.groups[0]
        plain = len(shape.spec.groups) == 1 and group.count == 1 and shape.plain
        if not shape.waiting or not plain or shape.reason not in ("no_capacity", "fragmented"):
            continue
        if shape.spec.placement != specs.Placement() or len(shape.spec.flavours) > 1:
            continue
        wanted = shape.spec.flavours[0].accelerator
        for one in free:
            room = one.class_.slots - one.used
            assert one.spec.accelerator != wanted or room < group.slots, "there is room"
