"""What a region expects of its capacity: told to peers now and then, and read by operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from domain import estimates
from domain.pool.specs import Outlook
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
    types = sorted(name for name, slots in cell.total.items() if slots)
    return tuple(_of(cell, name) for name in types[:MAX_TYPES])


def _of(cell: Cell, accelerator: str) -> Outlook:
    classes = [c for c in cell.fabric.classes.values() if c.accelerator == accelerator]
    free = sum(c.free for c in classes)
    ends = estimates.freed(cell, accelerator)
    after = [(0, free), *((max(0, after_s), free + slots) for after_s, slots in ends)]
    waits = []
    for k in range(SIZES):
        reached = next((s for s, slots in after if slots >= 1 << k), None)
        if reached is None:
            break
        waits.append(reached)
    return Outlook(
        accelerator=accelerator,
        largest_gang=max((c.counts[-1] * c.slots for c in classes), default=0),
        evictable=_evictable(cell, accelerator),
        waits_s=tuple(waits),
        free_in=tuple(max(n for s, n in after if s <= until_s) for until_s in HORIZONS_S),
        price_milli=price_milli(cell, accelerator),
    )


def _evictable(cell: Cell, accelerator: str) -> tuple[int, ...]:
    tiers = [0] * len(TIERS)
    for (type_, _), runs in cell.preemptible.items():
        for run in runs if type_ == accelerator else ():
            tiers[run.job.shape.tier] += run.slots
    return tuple(tiers)


def price_milli(cell: Cell, accelerator: str) -> int:
    """The lowest price among the nodes of the type; 0 if one has none."""
    prices = [
        int(price) if (price := c.labels.get(PRICE, "")).isdecimal() else 0
        for c in cell.fabric.classes.values()
        if c.accelerator == accelerator and c.size
    ]
    return min(prices, default=0)
