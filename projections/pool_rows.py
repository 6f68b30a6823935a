"""The pool as one region knows it: rows of regions, of jobs that come and go, and of rights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from domain.cell import Cell, Changes
from domain.pool.guards import Copy, Fence, Guard
from domain.pool.inventory import stock
from domain.pool.rights import Rights
from domain.pool.state import Flight, Offer, Passport, Peer
from projections.store import Fields

Values = dict[str, Any]
HandOff = Offer | Flight | Passport | Guard | Copy


def rows(cell: Cell, changes: Changes) -> Iterator[tuple[str, tuple[str, ...], Values | None]]:
    """(table, key, values) of what a round changed; nothing in a cell without peers."""
    if cell.pool.region is None:
        return
    changed = {e.id: None for e in changes.touched if isinstance(e, Peer | Fence)}
    changed |= {e.id: None for e in changes.gone if isinstance(e, Fence)}
    peers = [cell.pool.peers[region] for region in changed if region in cell.pool.peers]
    if peers or cell.pool.region in changes.touched:
        yield "regions", (cell.pool.region.id,), _own(cell)
    flows = _flows(cell) if peers else {}
    for gone in changes.gone:
        if isinstance(gone, Peer):
            yield "regions", (gone.id,), None
        elif isinstance(gone, HandOff):
            yield "hand_offs", (gone.id, gone.kind), None
    for peer in peers:
        yield "regions", (peer.id,), _peer(cell, peer, flows)
    for entity in changes.touched:
        if isinstance(entity, HandOff):
            yield "hand_offs", (entity.id, entity.kind), hand_off(entity)
        elif isinstance(entity, Rights):
            yield "rights", (entity.account, entity.accelerator), _rights(entity)


def _own(cell: Cell) -> Values:
    counted = ((entry.accelerator, entry.free) for entry in stock(cell))
    free, largest = _slots(counted)
    return {
        "own": True,
        "epoch": cell.pool.own.epoch,
        "heard_ms": cell.now_ms,
        "stale_ms": None,
        "forgotten_ms": None,
        "lost_since_ms": None,
        "distance_s": 0,
        "free": free,
        "most_on_a_node": largest,
        "to_spare_milli": {},
        "outlook": {},
        "datasets": cell.pool.own.datasets,
        "flows": {},
    }


def _peer(cell: Cell, peer: Peer, flows: dict[str, Counter[str]]) -> Values:
    rules, fence = cell.pool.own.rules, cell.pool.guards.fences.get(peer.id)
    free, largest = _slots((accelerator, free) for (accelerator, _), free in peer.stock.items())
    return {
        "own": False,
        "epoch": peer.epoch,
        "heard_ms": peer.heard_ms or None,
        "stale_ms": peer.heard_ms + 1000 * rules.stale_s,
        "forgotten_ms": peer.heard_ms + 1000 * rules.forget_s,
        "lost_since_ms": fence.since_ms if fence is not None and fence.fenced else None,
        "distance_s": peer.distance_s,
        "free": free,
        "most_on_a_node": largest,
        "to_spare_milli": {f"{a}/{t}": milli for (a, t), milli in sorted(peer.surplus.items())},
        "outlook": peer.outlook,
        "datasets": peer.datasets,
        "flows": {step: counts[peer.id] for step, counts in flows.items()},
    }


def _slots(counted: Iterable[tuple[str, Iterable[int]]]) -> tuple[Values, Values]:
    """By type: free slots, and the most of them on one node."""
    free: Counter[str] = Counter()
    largest: dict[str, int] = {}
    for accelerator, nodes_by_free in counted:
        for slots, nodes in enumerate(nodes_by_free):
            if nodes:
                free[accelerator] += slots * nodes
                largest[accelerator] = max(largest.get(accelerator, 0), slots)
    return dict(sorted(free.items())), dict(sorted(largest.items()))


def _flows(cell: Cell) -> dict[str, Counter[str]]:
    """By what becomes of them: jobs by peer, as the last change of a peer found them."""
    pool = cell.pool
    return {
        "offered": Counter(offer.to for offer in pool.offers.values()),
        "on_their_way": Counter(flight.to for flight in pool.flights.values()),
        "came_from": Counter(p.source for p in pool.passports.values() if not p.until_ms),
    }


def hand_off(entity: HandOff) -> Values | None:
    """One job between this region and a peer; None if nothing is to come of it."""
    if isinstance(entity, Guard | Copy):
        return _guarded(entity)
    if isinstance(entity, Passport):
        held = "prepared" if entity.until_ms else "accepted"
        step = "completed" if entity.confirmed and not entity.until_ms else held
        return {"step": step, "peer": entity.source, "hop": entity.hop}
    step = "offered" if isinstance(entity, Offer) else "released"
    return {"step": step, "peer": entity.to, "hop": entity.token[3]}


def _guarded(entity: Guard | Copy) -> Values | None:
    if isinstance(entity, Copy):
        step, peer = "" if entity.ended_ms else "copy", entity.source
    else:
        ending = entity.outcome or entity.over
        step = "ending" if ending else "guarded" if entity.kept else "unguarded"
        step, peer = "taken" if entity.taken else step, entity.by
    return {"step": step, "peer": peer, "hop": entity.token[3]} if step else None


def _rights(entity: Rights) -> Values:
    return {
        "granted_milli": entity.granted,
        "held_milli": entity.held,
        "sent_milli": dict(sorted(entity.sent.items())),
        "received_milli": dict(sorted(entity.received.items())),
    }


def state(row: Fields, at_ms: int) -> str:
    """How much a region's inventory is worth as of a moment."""
    if row["own"]:
        return "own"
    if row["lost_since_ms"] is not None:
        return "held for lost"
    if row["heard_ms"] is None:
        return "never heard"
    if at_ms > row["forgotten_ms"]:
        return "forgotten"
    return "stale" if at_ms > row["stale_ms"] else "fresh"
