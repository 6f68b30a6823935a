"""Which peers are held for lost: by a majority of the regions, or by an operator.

A region doubts a peer that has been silent for `lost_s`, and says so with its inventory. Another
one that has not heard of that peer either gives it its vote, unless the peer holds its vote against
the doubting region: a vote is for one of two regions, and stands until the one that it was given to
says that it doubts no more. Two majorities have a region in common, so of two regions only one can
hold the other for lost at a time, whatever is cut off from whom. With that the one brings back the
other's jobs, or ends its own without asking it.

The peer is trusted again once it is heard and all that was decided meanwhile is settled with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.pool import guarding
from domain.pool.commands import FenceRegion
from domain.pool.guard_facts import RegionDoubted, RegionFenced, RegionTrusted, VoteGiven
from domain.pool.guards import Fence
from domain.pool.specs import Doubt, Vote
from domain.refusals import Refused

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.commands import AdvertiseInventory
    from domain.pool.state import Peer, Pool
    from domain.turn import Turn


# --- decide ---------------------------------------------------------------------------------------


def fence_region(turn: Turn, command: FenceRegion, at: int) -> None:
    guards = turn.cell.pool.guards
    if command.region not in turn.cell.pool.peers:
        raise Refused("unknown_peer", "region", f"no peer is named {command.region!r}")
    if guards.fenced(command.region):
        raise Refused("region_is_fenced", "region", "it is held for lost already")
    _fence(turn, command.region, [])


def _fence(turn: Turn, region: str, votes: list[str]) -> None:
    turn.emit(RegionFenced(region, votes))
    guarding.end_unasked(turn, region)


def keep(turn: Turn) -> None:
    """Doubt who is silent, fence whom a majority doubts, trust who is back."""
    cell, pool = turn.cell, turn.cell.pool
    for _, peer in sorted(pool.peers.items()):
        fence = pool.guards.fences.get(peer.id)
        if fence is None:
            due_ms = pool.doubt_ms(peer)
            if due_ms is not None and due_ms <= cell.now_ms:
                turn.emit(RegionDoubted(peer.id))
        elif not fence.fenced:
            if peer.heard_ms > fence.since_ms:
                turn.emit(RegionTrusted(peer.id))
            elif 2 * (len(votes := _votes(pool, fence)) + 1) > len(pool.peers) + 1:
                _fence(turn, peer.id, votes)
        elif peer.heard_ms > fence.since_ms and _is_settled(pool, peer.id):
            turn.emit(RegionTrusted(peer.id))


def _votes(pool: Pool, fence: Fence) -> list[str]:
    return sorted(p.id for p in pool.peers.values() if p.votes.get(fence.id) == fence.since_ms)


def _is_settled(pool: Pool, region: str) -> bool:
    """Nothing that was decided without the peer is unknown to it."""
    if pool.guards.has_copies(region):
        return False
    if any(guard.over for guard in pool.guards.by.get(region, {}).values()):
        return False
    return all(kept.source != region for kept in pool.unconfirmed())


def consider(turn: Turn, heard: AdvertiseInventory) -> None:
    """Give votes to a peer that doubts others."""
    cell, pool = turn.cell, turn.cell.pool
    by = pool.peers[heard.region]
    for doubt in heard.lost:
        peer = pool.peers.get(doubt.region)
        if peer is None or peer is by or by.given.get(peer.id) == doubt.since_ms:
            continue
        lost_s = pool.own.rules.lost_s
        silent = lost_s and cell.now_ms - peer.heard_ms >= 1000 * lost_s
        if silent and by.id not in peer.given:
            turn.emit(VoteGiven(peer.id, by.id, doubt.since_ms))


# --- evolve ---------------------------------------------------------------------------------------


def apply_doubted(cell: Cell, fact: RegionDoubted) -> None:
    fence = cell.pool.guards.fences[fact.region] = Fence(fact.region, cell.now_ms)
    cell.touch(fence)


def apply_vote(cell: Cell, fact: VoteGiven) -> None:
    by = cell.pool.peers[fact.by]
    by.given[fact.region] = fact.since_ms
    cell.touch(by)


def apply_fenced(cell: Cell, fact: RegionFenced) -> None:
    fence = cell.pool.guards.fences.setdefault(fact.region, Fence(fact.region, cell.now_ms))
    fence.fenced = True
    cell.touch(fence)


def apply_trusted(cell: Cell, fact: RegionTrusted) -> None:
    cell.left(cell.pool.guards.fences.pop(fact.region))


def heard(peer: Peer, own: str, command: AdvertiseInventory) -> None:
    """What the peer says of votes replaces what it said before."""
    doubted = {d.region: d.since_ms for d in command.lost}
    peer.given = {r: since for r, since in peer.given.items() if doubted.get(r) == since}
    peer.votes = {v.region: v.since_ms for v in command.votes if v.by == own}


# --- what is said ---------------------------------------------------------------------------------


def doubts(pool: Pool) -> tuple[Doubt, ...]:
    fences = sorted(pool.guards.fences.items())
    return tuple(Doubt(region=region, since_ms=fence.since_ms) for region, fence in fences)


def votes(pool: Pool) -> tuple[Vote, ...]:
    return tuple(
        Vote(region=region, by=by, since_ms=since_ms)
        for by, peer in sorted(pool.peers.items())
        for region, since_ms in sorted(peer.given.items())
    )
