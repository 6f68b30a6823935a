"""Which waiting jobs are offered to which peer.

A job that cannot start here is offered where its slots seem to be free, if that saves enough:

    benefit   = wait here - (transfer of data + distance + age of stale inventory + price)
    threshold = max(min_benefit_s, min_work_ppm of the remaining work) * 2^hops

The wait here is what the job has waited already, or the time after which running work is expected
to have left it its slots, if that is longer. Near-ties are broken by a
rendezvous hash of job, round and region, so that regions with equal views do not herd.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING, Final

from domain import estimates, ordering
from domain.policies.admission import Leaving
from domain.pool import handoff, outlook, rights
from domain.pool.facts import HandoffOffered, OfferWhy
from domain.pool.inventory import take
from domain.pool.travel import rendezvous
from domain.specs import MAX_S

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.jobs import Job
    from domain.placement import Blocked
    from domain.pool.state import Peer, Region
    from domain.shapes import Demand, Need, Shape
    from domain.turn import Turn

SHAPES_TRIED: Final = 64
"""Blocked shapes of a round that are compared with the peers: those whose heads come first."""
DEEP: Final = 32
"""Jobs of one line that are looked at."""
TIE_PARTS: Final = 10
"""Benefits that differ by less than this part of the best are equal."""

_Line = tuple[int, int, int, int, int, "Shape", "Blocked"]


def consider(turn: Turn, blocked: Mapping[Demand, Blocked]) -> None:
    """Offer what is blocked here to peers, and ask them for rights."""
    pool = turn.cell.pool
    if pool.region is None or not pool.peers:
        return
    left = pool.region.rules.offers_per_round
    waits = _Waits(turn.cell)
    for *_, shape, reason in islice(
        sorted(_lines(turn.cell, blocked), key=lambda e: e[:5]), SHAPES_TRIED
    ):
        if reason.reason in ("quota_exceeded", "over_quota"):
            rights.request_for(turn, shape.demand, reason)
        for job in _jobs(shape):
            if left <= 0 or not handoff.has_room(pool):
                return
            if job.id in pool.offers or hops(turn.cell, job) >= shape.spec.locality.max_hops:
                continue
            if not _offer(turn, waits, shape, job):
                break
            left -= 1


def _lines(cell: Cell, blocked: Mapping[Demand, Blocked]) -> Iterator[_Line]:
    for demand, reason in blocked.items():
        if demand.reservation is not None or not demand.waiting or demand.held:
            continue
        for shape in demand.shapes.values():
            head = shape.head()
            if head is not None:
                place = ordering.place(cell, head)
                order = (shape.tier, -shape.priority, place, head.seniority_ms, head.number)
                yield (*order, shape, reason)


def _jobs(shape: Shape) -> list[Job]:
    """The first jobs of the line."""
    entries = [*islice(shape.line, DEEP), *nsmallest(DEEP, shape.returned, key=lambda e: e[:3])]
    jobs = (e[3] for e in sorted(entries, key=lambda e: e[:3]))
    return [j for j in dict.fromkeys(jobs) if j.queued and j.shape is shape][:DEEP]


def hops(cell: Cell, job: Job) -> int:
    """How often the job was handed over."""
    return cell.pool.token_of(job.id)[3]


def _offer(turn: Turn, waits: _Waits, shape: Shape, job: Job) -> bool:
    """Offer the job to the peer where it gains most; False if there is none."""
    cell = turn.cell
    own = cell.pool.own
    found: list[tuple[int, Peer, int, OfferWhy]] = []
    usual_s = _threshold_s(own, job) << hops(cell, job)
    leaving = Leaving(cell, job)
    for peer in _peers(cell, shape, job):
        threshold_s = leaving.threshold_s(peer, usual_s)
        if threshold_s is None:
            continue
        for flavour, need in enumerate(shape.needs):
            after_ms = 1000 * shape.waits_s[flavour]
            if cell.now_ms - job.seniority_ms < after_ms or not _fits(peer, need):
                continue
            why = _why(cell, waits.local_s(job, need), peer, shape, need, threshold_s)
            if why.benefit_s >= threshold_s:
                found.append((why.benefit_s, peer, flavour, why))
            break
    if not found:
        return False
    _, peer, flavour, why = _best(cell, job, found)
    others = [(b, p.id) for b, p, _, _ in found if p is not peer]
    second = max(others, default=None)
    why = OfferWhy(
        why.local_wait_s,
        why.transfer_s,
        why.distance_s,
        why.stale_s,
        why.benefit_s,
        why.threshold_s,
        len(found),
        why.price_s,
        second[1] if second else None,
        second[0] if second else None,
    )
    until_ms = cell.now_ms + 1000 * own.rules.offer_s
    turn.emit(HandoffOffered(job.id, peer.id, until_ms, flavour, why))
    return True


def _peers(cell: Cell, shape: Shape, job: Job) -> Iterator[Peer]:
    """Those that the job may go to, and of which enough is known."""
    rules, where = cell.pool.own.rules, shape.spec.locality
    passport = cell.pool.passports.get(job.id)
    left_ms = dict(passport.owners) if passport is not None else {}
    return_ms = 1000 * rules.return_s << (passport.hop if passport is not None else 0)
    for _, peer in sorted(cell.pool.peers.items()):
        if not peer.heard_ms or cell.now_ms - peer.heard_ms > 1000 * rules.forget_s:
            continue
        if not where.allows(peer.id) or cell.pool.guards.keeps_from(job.id, peer.id):
            continue
        if peer.rests.get(shape.id, 0) > cell.now_ms:
            continue
        if peer.id in left_ms and cell.now_ms - left_ms[peer.id] < return_ms:
            continue
        yield peer


def _fits(peer: Peer, need: Need) -> bool:
    return any(
        key[0] == need.accelerator and take(free, need.groups) is not None
        for key, free in peer.stock.items()
    )


def _threshold_s(own: Region, job: Job) -> int:
    slots = max(1, job.shape.slots)
    done_s = max(0, job.attained_slot_s - job.lost_slot_s) // slots
    left_s = max(0, (job.estimate_s or 0) - done_s)
    return max(own.rules.min_benefit_s, left_s * own.rules.min_work_ppm // 1_000_000)


def _why(
    cell: Cell, local_s: int, peer: Peer, shape: Shape, need: Need, threshold_s: int
) -> OfferWhy:
    rules = cell.pool.own.rules
    lacking = [
        d.size_mib
        for d in shape.spec.locality.data
        if peer.id not in d.regions and (d.name is None or d.name not in peer.datasets)
    ]
    transfer_s = -(-sum(lacking) // peer.mib_per_s)
    age_s = (cell.now_ms - peer.heard_ms) // 1000
    stale_s = age_s if age_s > rules.stale_s else 0
    price_s = 0
    if rules.price_s:
        theirs = peer.outlook.get(need.accelerator, {}).get("price_milli", 0)
        price_s = rules.price_s * (theirs - outlook.price_milli(cell, need.accelerator))
    benefit_s = local_s - transfer_s - peer.distance_s - stale_s - price_s
    return OfferWhy(
        local_s, transfer_s, peer.distance_s, stale_s, benefit_s, threshold_s, 1, price_s
    )


def _best(
    cell: Cell, job: Job, found: list[tuple[int, Peer, int, OfferWhy]]
) -> tuple[int, Peer, int, OfferWhy]:
    most = max(benefit for benefit, *_ in found)
    near = [f for f in found if (most - f[0]) * TIE_PARTS <= most]

    return max(near, key=lambda option: rendezvous(job.id, cell.head.round, option[1].id))


class _Waits:
    """How long jobs would have to wait here; found once a round for each type that is asked for."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self._ends: dict[str, list[tuple[int, int]]] = {}
        """By type: (seconds from now, slots that will have become free by then), in order."""

    def local_s(self, job: Job, need: Need) -> int:
        waited_s = max(0, self.cell.now_ms - job.seniority_ms) // 1000
        lacks = need.slots - sum(c.free for c in need.classes(self.cell))
        if lacks <= 0:
            return waited_s
        for after_s, free in self._freed(need.accelerator):
            if free >= lacks:
                return max(waited_s, after_s)
        return MAX_S

    def _freed(self, accelerator: str) -> Iterable[tuple[int, int]]:
        ends = self._ends.get(accelerator)
        if ends is None:
            ends = self._ends[accelerator] = estimates.freed(self.cell, accelerator)
        return ends
