"""The calendar: what is promised in which window, what will be there, and what else could be had.

Windows may recur; all of them are intervals [start, end). Capacity of a window is what the nodes
hold that stay for all of it: not those that leave before its end, nor those of a maintenance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from domain import placement
from domain.fabric import NODE, NodeClass, matches
from domain.specs import LEVELS, MAX_MS

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.commands import RequestReservation
    from domain.maintenance_commands import PlanMaintenance
    from domain.nodes import Node

WINDOWS_CHECKED: Final = 16
"""Windows of a recurring reservation that are compared with all others before it is confirmed."""
STARTS_TRIED: Final = 16
"""Other moments that are tried for a window that is refused."""
TYPES_OFFERED: Final = 3


class Window(NamedTuple):
    start_ms: int
    end_ms: int
    every_ms: int = 0
    """0: it does not recur."""
    until_ms: int = MAX_MS
    """It recurs while it begins before this."""

    def within(self, from_ms: int, to_ms: int) -> list[tuple[int, int]]:
        """Its windows that share a moment with [from_ms, to_ms), in order."""
        if not self.every_ms:
            meets = self.start_ms < to_ms and from_ms < self.end_ms
            return [(self.start_ms, self.end_ms)] if meets else []
        found = []
        shift = max(0, (from_ms - self.end_ms) // self.every_ms + 1) * self.every_ms
        while self.start_ms + shift < min(to_ms, self.until_ms):
            found.append((self.start_ms + shift, self.end_ms + shift))
            shift += self.every_ms
        return found

    def after(self, now_ms: int) -> tuple[int, int] | None:
        """The next of its windows after this one that does not end before now; None: no more."""
        if not self.every_ms:
            return None
        shift = max(1, (now_ms - self.end_ms) // self.every_ms + 1) * self.every_ms
        if self.start_ms + shift >= self.until_ms:
            return None
        return self.start_ms + shift, self.end_ms + shift

    def first(self, most: int) -> list[tuple[int, int]]:
        shifts = range(0, most * self.every_ms, self.every_ms) if self.every_ms else (0,)
        windows = [(self.start_ms + s, self.end_ms + s) for s in shifts]
        return [w for n, w in enumerate(windows) if not n or w[0] < self.until_ms]


def window_of(spec: RequestReservation | PlanMaintenance) -> Window:
    every_ms = 1000 * spec.every_s if spec.every_s is not None else 0
    return Window(spec.start_ms, spec.end_ms, every_ms, spec.until_ms)


def moved(window: Window, start_ms: int) -> Window:
    """The same, from another of its windows on."""
    return window._replace(start_ms=start_ms, end_ms=window.end_ms + start_ms - window.start_ms)


def classes_for(cell: Cell, spec: RequestReservation) -> list[NodeClass]:
    return [
        c
        for _, c in sorted(cell.fabric.classes.items())
        if c.accelerator == spec.accelerator and all(matches(s, c.labels) for s in spec.require)
    ]


# --- what is there --------------------------------------------------------------------------------


def away(cell: Cell, from_ms: int, to_ms: int) -> dict[str, None]:
    """Nodes that are not there for all of the time."""
    found = {n.id: None for n in cell.nodes.values() if n.spec.until_ms and n.leaves_ms < to_ms}
    for one in cell.maintenances.values():
        if one.window.within(from_ms, to_ms + one.lead_ms):
            found.update(dict.fromkeys(one.spec.nodes))
    return found


def _capacity(
    cell: Cell, classes: Sequence[NodeClass], slots: int, level: int, gone: dict[str, None]
) -> tuple[int, int]:
    """If nothing ran: replicas in the domain of a level that holds most, and slots in all."""
    if not gone:
        return placement.empty_capacity(cell, classes, slots, level)
    held: dict[object, int] = {}
    total = 0
    for node in cell.nodes.values():
        if node.class_ in classes and node.id not in gone:
            total += node.class_.slots
            where = _domain(cell, node, level)
            held[where] = held.get(where, 0) + node.class_.slots // slots
    return max(held.values(), default=0), total


def _domain(cell: Cell, node: Node, level: int) -> object:
    return node.id if level == NODE else placement.domain_of_nodes(cell, (node.id,), level)


def _most_taken(cell: Cell, spec: RequestReservation, from_ms: int, to_ms: int) -> int:
    """The most slots of the type that reservations hold at one moment of the time."""
    edges: list[tuple[int, int]] = []
    for other in cell.reservations.values():
        if other.spec.accelerator == spec.accelerator and not other.is_over:
            slots = other.spec.count * other.spec.slots
            for start_ms, end_ms in other.window.within(from_ms, to_ms):
                edges += [(max(start_ms, from_ms), slots), (end_ms, -slots)]
    most = taken = 0
    for _, by in sorted(edges):  # at one moment, what ends comes before what begins
        taken += by
        most = max(most, taken)
    return most


class Fault(NamedTuple):
    """Why a window cannot be had."""

    rule: str
    taken: bool
    """By others; else the nodes could not hold it even if they were empty."""


def fault(cell: Cell, spec: RequestReservation) -> Fault | None:
    """What keeps the reservation from its windows; None if it can have them."""
    classes, level = classes_for(cell, spec), LEVELS.index(spec.required_level)
    for from_ms, to_ms in window_of(spec).first(WINDOWS_CHECKED):
        gone = away(cell, from_ms, to_ms)
        largest, total = _capacity(cell, classes, spec.slots, level, gone)
        if largest < spec.count:
            what = f"the largest {spec.required_level} holds {largest} x {spec.slots} slots"
            return Fault(what, taken=False)
        taken = _most_taken(cell, spec, from_ms, to_ms)
        if taken + spec.count * spec.slots > total:
            what = f"of {total} slots, {taken} are reserved in the window from {from_ms}"
            return Fault(what, taken=True)
    return None


# --- what else could be had -----------------------------------------------------------------------


def instead(cell: Cell, spec: RequestReservation, now_ms: int) -> list[str]:
    """What could be confirmed now, one field changed in each: as `field=value`."""
    offers = (
        _other_start(cell, spec, now_ms),
        _other_level(cell, spec),
        *_other_types(cell, spec),
        _fewer(cell, spec),
    )
    return [offer for offer in offers if offer]


def _other_start(cell: Cell, spec: RequestReservation, now_ms: int) -> str:
    """The earliest other time of equal length, of those at which something ends."""
    length = spec.end_ms - spec.start_ms
    ends: dict[int, None] = {}
    horizon_ms = spec.end_ms + STARTS_TRIED * max(length, 86_400_000)
    windows = [r.window for r in cell.reservations.values()]
    windows += [m.window for m in cell.maintenances.values()]
    for window in windows:
        for _, end_ms in window.within(spec.start_ms, horizon_ms)[:STARTS_TRIED]:
            ends[end_ms] = None
    for start_ms in sorted(m for m in ends if m > max(spec.start_ms, now_ms))[:STARTS_TRIED]:
        if start_ms < spec.until_ms:
            moved = {"start_ms": start_ms, "end_ms": start_ms + length}
            if fault(cell, spec.model_copy(update=moved)) is None:
                return f"start_ms={start_ms}"
    return ""


def _other_level(cell: Cell, spec: RequestReservation) -> str:
    """The narrowest of the wider levels."""
    for level in reversed(LEVELS[: LEVELS.index(spec.required_level)]):
        if fault(cell, spec.model_copy(update={"required_level": level})) is None:
            return f"required_level={level}"
    return ""


def _other_types(cell: Cell, spec: RequestReservation) -> list[str]:
    """Other types; those on which the same quota is spent come first."""
    group = cell.rates.get(spec.accelerator, ("", 0))[0]
    alike = {t: cell.rates.get(t, (None, 0))[0] != group for t in cell.total}
    found = []
    for type_ in sorted(alike, key=lambda t: (alike[t], t)):
        other = spec.model_copy(update={"accelerator": type_})
        if type_ != spec.accelerator and fault(cell, other) is None:
            found.append(f"accelerator={type_}")
    return found[:TYPES_OFFERED]


def _fewer(cell: Cell, spec: RequestReservation) -> str:
    """The largest count that could be had."""
    low, high = 0, spec.count
    while high - low > 1:
        count = (low + high) // 2
        if fault(cell, spec.model_copy(update={"count": count})) is None:
            low = count
        else:
            high = count
    return f"count={low}" if low else ""
