"""What a region has free: said to its peers as a hint, and read from theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from domain.commands import AdvertiseInventory
from domain.fabric import CLUSTER
from domain.pool import fencing, outlook, rights
from domain.pool.specs import Amount, Stock

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.specs import ReplicaGroup

MAX_STOCK: Final = 256


def stock(cell: Cell) -> list[Stock]:
    """Nodes that may take work, by type, cluster and free slots; at most `MAX_STOCK` entries."""
    found: dict[tuple[str, str], list[int]] = {}
    for domain in cell.fabric.domains[CLUSTER]:
        for id_, counts in domain.counts.items():
            key = (cell.fabric.classes[id_].accelerator, domain.name)
            sums = found.setdefault(key, [])
            sums.extend([0] * (len(counts) - len(sums)))
            for k, count in enumerate(counts):
                sums[k] += count
    made = []
    for (accelerator, place), sums in sorted(found.items())[:MAX_STOCK]:
        cluster = place.rpartition("/")[2]
        made.append(Stock(accelerator=accelerator, cluster=cluster, free=tuple(sums)))
    return made


def advert(cell: Cell, whole: bool = True) -> AdvertiseInventory:
    """What the region has to say, as of its head; `whole`: with what is costly to find."""
    own = cell.pool.own
    spare = [
        Amount(account=account, accelerator=accelerator, milli=milli)
        for account, accelerator in sorted(cell.pool.rights)
        if (milli := rights.surplus(cell, account, accelerator))
    ]
    return AdvertiseInventory(
        region=own.id,
        epoch=own.epoch,
        round=cell.head.round,
        stock=tuple(stock(cell)),
        surplus=tuple(spare[:MAX_STOCK]),
        outlook=outlook.outlook(cell) if whole else (),
        datasets=tuple(cell.pool.own.datasets),
        lost=fencing.doubts(cell.pool),
        votes=fencing.votes(cell.pool),
    )


def delta(before: AdvertiseInventory, now: AdvertiseInventory) -> AdvertiseInventory:
    """What is new since an earlier one; types that are gone are told by a full one only."""
    known = set(before.stock)
    new = tuple(s for s in now.stock if s not in known)
    rare: dict[str, Any] = {"outlook": (), "datasets": ()}
    return now.model_copy(update={"full": False, "stock": new, **rare})


def take(free: Sequence[int], groups: Sequence[ReplicaGroup]) -> list[int] | None:
    """The counts after the groups took their slots, best fit first; None if they do not fit.

    Shares of devices count as whole ones, and host parts are not looked at: it is a hint.
    """
    counts = list(free)
    for group in groups:
        left, slots = group.count, group.slots
        if not slots:
            continue
        k = slots
        while left and k < len(counts):
            each = min(k // slots, group.max_per_node or k, left)
            nodes = min(counts[k], left // each)
            if not nodes:
                k += 1
                continue
            counts[k] -= nodes
            counts[k - each * slots] += nodes
            left -= each * nodes
        if left:
            return None
    return counts
