"""`aquifer regions`, `peers` and `hand-offs`: the pool as one region's ledger knows it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aquifer.audit import Keys, LedgerPath
from aquifer.forecast import folded
from aquifer.output import JsonFlag, emit, fail
from aquifer.submit import Url, parse_command, send_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from domain.cell import Cell

Json = dict[str, Any]


def regions(ledger: LedgerPath = None, keys: Keys = None, as_json: JsonFlag = False) -> None:
    """List this region and its peers: what they have free, how fresh that is, rights to spare."""
    cell = _pool(ledger, keys)
    emit({"regions": _regions(cell)} if as_json else _regions(cell), as_json)


def peers(ledger: LedgerPath = None, keys: Keys = None, as_json: JsonFlag = False) -> None:
    """List the peers: who speaks for them, when they were heard, what is under way with each."""
    cell = _pool(ledger, keys)
    emit({"peers": _peers(cell)} if as_json else _peers(cell), as_json)


def hand_offs(ledger: LedgerPath = None, keys: Keys = None, as_json: JsonFlag = False) -> None:
    """List jobs that are offered, on their way, awaited, came from elsewhere, or are guarded."""
    cell = _pool(ledger, keys)
    emit({"hand_offs": _hand_offs(cell)} if as_json else _hand_offs(cell), as_json)


def fence(
    region: Annotated[str, typer.Argument(help="The peer that is lost.")],
    url: Url = None,
    as_json: JsonFlag = False,
) -> None:
    """Hold a peer for lost: its jobs that may fail over are brought back here.

    A majority of three or more regions does so by itself. Never say it of two regions to each
    other: jobs that either guards for the other could end twice.
    """
    send_all([parse_command({"type": "FenceRegion", "region": region})], url, as_json)


def _pool(ledger: Any, keys: Any) -> Cell:
    cell = asyncio.run(folded(ledger, keys))
    if cell.pool.region is None:
        fail(f"cell {cell.name} has no peers: SetPeers makes it a region of a pool")
    return cell


def _regions(cell: Cell) -> list[Json]:
    from domain.pool.inventory import stock
    from domain.pool.outlook import outlook

    own: Counter[str] = Counter()
    largest: dict[str, int] = {}
    for entry in stock(cell):
        _count(own, largest, entry.accelerator, entry.free)
    ours = [o.model_dump(mode="json") for o in outlook(cell)]
    found = [_region(cell.pool.own.id, cell.pool.own.epoch, 0, own, largest, {}, ours)]
    for peer in cell.pool.peers.values():
        free: Counter[str] = Counter()
        largest = {}
        for (accelerator, _), counts in peer.stock.items():
            _count(free, largest, accelerator, counts)
        age_s = (cell.now_ms - peer.heard_ms) // 1000 if peer.heard_ms else None
        theirs = list(peer.outlook.values())
        found.append(_region(peer.id, peer.epoch, age_s, free, largest, peer.surplus, theirs))
    return found


def _count(free: Counter[str], largest: dict[str, int], accelerator: str, counts: Any) -> None:
    free[accelerator] += sum(k * nodes for k, nodes in enumerate(counts))
    widest = max((k for k, nodes in enumerate(counts) if nodes), default=0)
    largest[accelerator] = max(largest.get(accelerator, 0), widest)


def _region(
    name: str,
    epoch: int,
    age_s: int | None,
    free: Counter[str],
    largest: dict[str, int],
    surplus: Mapping[tuple[str, str], int],
    outlook: list[Json],
) -> Json:
    return {
        "region": name,
        "epoch": epoch,
        "heard_s_ago": age_s,
        "free_slots": dict(free),
        "most_on_a_node": largest,
        "rights_to_spare": {f"{a}/{type_}": milli / 1000 for (a, type_), milli in surplus.items()},
        "outlook": outlook,
    }


def _peers(cell: Cell) -> list[Json]:
    pool = cell.pool
    rules = pool.own.rules
    offered = Counter(offer.to for offer in pool.offers.values())
    flying = Counter(flight.to for flight in pool.flights.values())
    came = Counter(p.source for p in pool.passports.values())
    rows = []
    for peer in pool.peers.values():
        age_s = (cell.now_ms - peer.heard_ms) // 1000 if peer.heard_ms else None
        state = "never heard" if age_s is None else "fresh"
        if age_s is not None and age_s > rules.stale_s:
            state = "forgotten" if age_s > rules.forget_s else "stale"
        if pool.guards.fenced(peer.id):
            state = "held for lost"
        rows.append(
            {
                "peer": peer.id,
                "actor": peer.actor,
                "epoch": peer.epoch,
                "heard_s_ago": age_s,
                "inventory": state,
                "distance_s": peer.distance_s,
                "offered": offered[peer.id],
                "on_their_way": flying[peer.id],
                "came_from": came[peer.id],
                "guards": len(pool.guards.by.get(peer.id, {})),
                "copies_of": pool.guards.copies_of_peer(peer.id),
            }
        )
    return rows


def _hand_offs(cell: Cell) -> list[Json]:
    from projections.pool_rows import HandOff, hand_off

    found = (e for e in cell.pool.entities() if isinstance(e, HandOff))
    told = ((entity, hand_off(entity)) for entity in found)
    return [{"job": entity.id, **row} for entity, row in told if row is not None]
