"""What a region expects of its capacity: told to peers now and then, and read by operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from domain import estimates
from domain.pool_specs import Outlook
from domain.specs import TIERS

if TYPE_CHECKING:
    from domain.cell import Cell

PRICE: Final = "price"
"""Label of a node: thousandths of the currency for a slot-hour."""
HORIZONS_S: Final = (3600, 21_600, 86_400)
SIZES: Final = 12
"""Waits are told for jobs of 1, 2, 4, … 2,048 slots, as far as there are so many."""
MAX_TYPES: Final = 64


def outlook(cell: Cell) -> tuple[Outlook, ...]:
    """By type, from the expected ends of what runs; what waits is not looked at."""
    ends: dict[str, list[tuple[int, int]]] = {}
    evictable: dict[str, list[int]] = {}
    for node in cell.nodes.values():
        accelerator = node.class_.accelerator
        for run, slots in node.runs.items():
            if not slots:
                continue
            ends.setdefault(accelerator, []).append((estimates.run_left_s(cell, run), slots))
            shape = run.job.shape
            if shape.spec.preemptible:
                tiers = evictable.setdefault(accelerator, [0] * len(TIERS))
                tiers[shape.tier] += slots
    types = sorted(name for name, slots in cell.total.items() if slots)
    none = [0] * len(TIERS)
    return tuple(
        _of(cell, name, sorted(ends.get(name, ())), tuple(evictable.get(name, none)))
        for name in types[:MAX_TYPES]
    )


def _of(
    cell: Cell, accelerator: str, ends: list[tuple[int, int]], evictable: tuple[int, ...]
) -> Outlook:
    classes = [c for c in cell.fabric.classes.values() if c.accelerator == accelerator]
    free = sum(c.free for c in classes)
    after = [(0, free), *_freed(ends, free)]
    waits = []
    for k in range(SIZES):
        reached = next((s for s, slots in after if slots >= 1 << k), None)
        if reached is None:
            break
        waits.append(reached)
    return Outlook(
        accelerator=accelerator,
        largest_gang=max((c.counts[-1] * c.slots for c in classes), default=0),
        evictable=evictable,
        waits_s=tuple(waits),
        free_in=tuple(max(n for s, n in after if s <= until_s) for until_s in HORIZONS_S),
        price_milli=price_milli(cell, accelerator),
    )


def _freed(ends: list[tuple[int, int]], free: int) -> list[tuple[int, int]]:
    """(seconds from now, slots that are free by then)"""
    found = []
    for after_s, slots in ends:
        free += slots
        found.append((max(0, after_s), free))
    return found


def price_milli(cell: Cell, accelerator: str) -> int:
    """The lowest price among the nodes of the type; 0 if one has none."""
    prices = [
        int(price) if (price := c.labels.get(PRICE, "")).isdecimal() else 0
        for c in cell.fabric.classes.values()
        if c.accelerator == accelerator and c.size
    ]
    return min(prices, default=0)
