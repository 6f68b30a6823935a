"""A region and its peers: who they are, and what they say that they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.commands import AdvertiseInventory, FromPeer
from domain.pool import fencing
from domain.pool.commands import SetPeers
from domain.pool.facts import InventorySeen, PeersSet
from domain.pool.state import Peer, Region
from domain.refusals import Refused

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.turn import Turn


# --- decide ---------------------------------------------------------------------------------------


def set_peers(turn: Turn, command: SetPeers, at: int) -> None:
    pool = turn.cell.pool
    own = pool.region
    if own is not None and (own.id, own.epoch) != (command.region, command.epoch):
        raise Refused("region_is_set", "region", "a ledger is that of one region and epoch")
    gone = pool.peers.keys() - {p.region for p in command.peers}
    for region in sorted(gone):
        tied = pool.guards.ties(region) and not pool.guards.fenced(region)
        taken = any(guard.taken for guard in pool.guards.by.get(region, {}).values())
        if tied or taken or pool.guards.has_copies(region):
            rule = f"jobs are guarded by or for {region!r}, which is not held for lost"
            raise Refused("peer_in_use", "peers", rule)
    if any(f.to in gone for f in pool.flights.values()):
        raise Refused("peer_in_use", "peers", "a job is on its way to a peer that would be gone")
    turn.emit(PeersSet(at))


def check_sender(turn: Turn, command: FromPeer, at: int) -> None:
    """Only who speaks for a region may speak for it, and only for its newest ledger.

    Raises Refused.
    """
    peer = turn.cell.pool.peers.get(command.region)
    if peer is None:
        raise Refused("unknown_peer", "region", f"no peer is named {command.region!r}")
    if turn.cell.accepted(at).actor != peer.actor:
        raise Refused("not_that_peer", "region", "this actor does not speak for the region")
    if command.epoch < peer.epoch:
        raise Refused("stale_epoch", "epoch", "the region has a newer ledger")


def see_inventory(turn: Turn, command: AdvertiseInventory, at: int) -> None:
    peer = turn.cell.pool.peers[command.region]
    if command.epoch == peer.epoch and command.round < peer.round:
        raise Refused("stale_inventory", "round", "newer inventory was seen")
    turn.emit(InventorySeen(at))
    fencing.consider(turn, command)


# --- evolve ---------------------------------------------------------------------------------------


def apply_set(cell: Cell, fact: PeersSet) -> None:
    command = cell.command(fact.command, SetPeers)
    pool = cell.pool
    if pool.region is None:
        pool.region = Region(command.region, command.epoch, command.rules)
    pool.region.rules = command.rules
    pool.region.datasets = list(command.datasets)
    if cell.policies:
        cell.rulebook.accounts_changed()
    cell.touch(pool.region)
    named = {p.region for p in command.peers}
    for name in [n for n in pool.peers if n not in named]:
        cell.left(pool.peers.pop(name))
        pool.gone(cell, name)
    for spec in command.peers:
        peer = pool.peers.get(spec.region)
        if peer is None:
            peer = pool.peers[spec.region] = Peer(spec.region)
        peer.actor, peer.distance_s, peer.mib_per_s = spec.actor, spec.distance_s, spec.mib_per_s
        cell.touch(peer)


def apply_seen(cell: Cell, fact: InventorySeen) -> None:
    command = cell.command(fact.command, AdvertiseInventory)
    peer = cell.pool.heard(cell, command)
    peer.round = command.round
    peer.heard_ms = cell.now_ms
    if command.full:
        peer.stock.clear()
        peer.outlook = {o.accelerator: o.model_dump(mode="json") for o in command.outlook}
        peer.datasets = list(command.datasets)
    for entry in command.stock:
        peer.stock[entry.accelerator, entry.cluster] = list(entry.free)
    fencing.heard(peer, cell.pool.own.id, command)
    peer.surplus = {(a.account, a.accelerator): a.milli for a in command.surplus}
    peer.rests = {shape: until for shape, until in peer.rests.items() if until > cell.now_ms}
    cell.touch(peer)
