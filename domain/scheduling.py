"""Which waiting job comes next, and where it goes: the work of a round.

Tiers come first, then queues by their share, then within a queue priority and seniority. A demand
that finds no place is passed over for the rest of the round: nothing becomes free within it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, Final

from domain import fair_share, ordering, placement, promises, waiting
from domain.fact import Counted, Why
from domain.facts import AttemptStarted, JobClaimed, PreemptionDecided
from domain.gathering import Gathering
from domain.placement import Blocked, Choice
from domain.preemption import claims, consolidation
from domain.preemption.eviction import Plan
from domain.preemption.victims import Victims
from domain.shapes import Line
from domain.specs import TIERS

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.quota import Account
    from domain.shapes import Demand, Need, Shape
    from domain.turn import Turn

CLAIMS_TRIED: Final = 8
"""Blocked shapes of a round for which victims are searched: so many first, and as many in turn."""

TURN_MS: Final = 1000
"""A cell without events makes its rounds so far apart until each blocked shape had its turn."""

ROUND_IS_FULL: Final = "round_is_full"
"""Told to shapes that were never tried; those that were keep the reason that they have."""


Place = tuple[bool, int]
"""(nothing that was promised is lacking, share)"""


def _place(cell: Cell, shape: Shape) -> Place:
    return not promises.in_deficit(cell, shape), fair_share.order_share(cell, shape)


def _line(cell: Cell, shape: Shape) -> Line | None:
    version = cell.estimates.version
    if shape.lined is not None and shape.lined_by == version:
        return shape.lined
    head = shape.head()
    if head is None:
        return None
    rank = ordering.place(cell, head)
    line = Line(-shape.priority, rank, head.seniority_ms, head.number, shape)
    shape.lined, shape.lined_by = line, version
    return line


class Band:
    """The lines of one tier and queue of which something may start, best first."""

    __slots__ = ("_at", "_lines")

    def __init__(self, lines: list[Line]) -> None:
        self._lines = sorted(lines)
        self._at = 0

    @property
    def empty(self) -> bool:
        return self._at == len(self._lines)

    @property
    def first(self) -> Shape:
        return self._lines[self._at].shape

    def rest(self) -> list[Shape]:
        return [line.shape for line in self._lines[self._at :]]

    def advance(self, line: Line | None) -> None:
        """Another line, if any, is there for the first one."""
        self._at += 1
        if line is not None:
            insort(self._lines, line, self._at)

    def pass_over(self, blocked: dict[Demand, Blocked]) -> None:
        """Go on to the first line of which something may start."""
        lines, at = self._lines, self._at
        while at < len(lines) and lines[at].shape.demand in blocked:
            at += 1
        self._at = at


class Scheduling:
    """One round's pass over the lines."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.cell: Cell = turn.cell
        self.available: dict[tuple[Account, str], int] = {}
        """Quota that accounts have left by type, as long as nothing was started since."""
        self.no_place: dict[int, Blocked] = {}
        """By need: found to have no place in this round."""
        self.blocked: dict[Demand, Blocked] = {}
        """Demands of which nothing can start in this round any more."""
        self.gathering = Gathering(self.cell)

    def run(self) -> None:
        bands = [(key, Band(lines)) for key, lines in self._lines()]
        heap = [(tier, _place(self.cell, band.first), queue, band) for (tier, queue), band in bands]
        heapify(heap)
        while heap and self.turn.work > 0:
            tier, (_, share), queue, band = heap[0]
            if self.gathering.begin(tier):
                self.available.clear()
            shape = band.first
            if shape.demand not in self.blocked and self._start(shape, share):
                band.advance(_line(self.cell, shape))
            elif shape.queue.strict:
                self._hold_back(band)
                heappop(heap)
                continue
            if not shape.queue.strict:
                band.pass_over(self.blocked)
            if band.empty:
                heappop(heap)
            else:
                heapreplace(heap, (tier, _place(self.cell, band.first), queue, band))
        if heap:
            self.cell.unfinished = True
            unreached = [shape for *_, band in heap for shape in band.rest()]
            untold = [s for s in unreached if s.queue.strict or s.demand not in self.blocked]
            self._tell_all([s for s in untold if not s.reason], Blocked(ROUND_IS_FULL))
        self.gathering.begin(len(TIERS))
        self._tell_blocked()
        self.gathering.end()
        self._claim()

    def _lines(self) -> Iterable[tuple[tuple[int, int], list[Line]]]:
        """By tier and queue: the lines of which something may start."""
        found: dict[tuple[int, int], list[Line]] = {}
        for demand in self.cell.demands.values():
            if not demand.waiting:
                continue
            strict = False
            blocked = self._surely_blocked(demand)
            if blocked is not None:
                self.blocked[demand] = blocked
                strict = any(s.queue.strict for s in demand.shapes.values())
                if not strict:
                    continue
            for shape in demand.shapes.values():
                line = _line(self.cell, shape) if shape.waiting else None
                if line is None or (strict and not shape.queue.strict):
                    continue
                lines = found.get(shape.band)
                if lines is None:
                    found[shape.band] = [line]
                else:
                    lines.append(line)
        return found.items()

    def _surely_blocked(self, demand: Demand) -> Blocked | None:
        """A cheap no, from counts alone; None if the demand has to be tried."""
        if demand.held:
            return Blocked("held_by_policy", demand.size, 0, demand.held)
        if demand.reservation is not None:
            return None
        last: Blocked | None = None
        for need in demand.needs:
            last = self._short_of_quota(demand, need) or self._short_of_slots(need)
            if last is None:
                return None
        return last

    def _short_of_quota(self, demand: Demand, need: Need) -> Blocked | None:
        account, key = demand.account, (demand.account, need.accelerator)
        if demand.ceiling is not None:
            room = demand.below_ceiling(need.accelerator)
            if room < demand.size:
                return Blocked("policy_ceiling", demand.size, max(0, room), demand.ceiling_by)
        if account.exhausted and account.priced(need.accelerator)[0] in account.exhausted:
            return Blocked("budget_exhausted", demand.size, 0, account.id)
        available = self.available.get(key)
        if available is None:
            available = self.available[key] = account.available(need.accelerator)
        if available >= demand.size:
            return None
        ceiling = account.ceiling(need.accelerator)
        reason = "quota_exceeded" if ceiling >= demand.size else "over_quota"
        return Blocked(reason, demand.size, max(0, available), account.id)

    def _short_of_slots(self, need: Need) -> Blocked | None:
        blocked = self.no_place.get(need.id)
        if blocked is None and (need.plain or need.part) and not self._may_fit(need):
            answer = placement.place(self.cell, need)
            assert isinstance(answer, Blocked), "there is less than it needs"
            blocked = self.no_place[need.id] = answer
        return blocked

    def _may_fit(self, need: Need) -> bool:
        if need.part:
            return self.cell.parts.has_room(need)
        # By slots alone: a gang that lacks whole nodes keeps its queue's place for it, so that
        # small jobs of queues without one come first.
        return sum(c.free for c in need.classes(self.cell)) >= need.slots

    def _start(self, shape: Shape, share: int) -> bool:
        """Start the head of the shape's line, or find that its demand is blocked."""
        job = shape.head()
        assert job is not None, "only lines with a head are tried"
        last = Blocked("waits_for_flavour", shape.size)
        for flavour, need in enumerate(shape.needs):
            after_ms = shape.waits_s[flavour] * 1000
            if self.cell.now_ms - job.seniority_ms < after_ms:
                continue
            answer = self._find(shape.demand, need)
            if isinstance(answer, Choice):
                counted = self._counted(shape, need, answer) if shape.ruling.counts else ()
                why = Why(shape.tier, share, *answer[1:], flavour, counted)
                attempt = job.attempts + 1
                self.turn.emit(AttemptStarted(job.id, attempt, answer.nodes, flavour, why))
                self.available.clear()
                return True
            last = answer
        self.blocked[shape.demand] = last
        return False

    def _counted(self, shape: Shape, need: Need, answer: Choice) -> tuple[Counted, ...]:
        """What rules of policies contributed to the order and to the place."""
        ruling = shape.ruling
        where = self.cell.nodes[answer.nodes[0][0]].class_
        return ruling.why + (ruling.terms.on(where).why if ruling.terms is not None else ())

    def _find(self, demand: Demand, need: Need) -> Choice | Blocked:
        if demand.reservation is not None:
            reservation = self.cell.reservations.get(demand.reservation)
            if reservation is None:
                return Blocked("reservation_not_active", where=demand.reservation)
            return placement.inside(reservation, self.cell, need)
        gathers = demand in self.gathering.kept
        if gathers:
            self.gathering.show(demand)
            self.available.clear()
        answer: Choice | Blocked | None = self._short_of_quota(demand, need)
        if answer is None and not gathers:
            answer = self.no_place.get(need.id)
        if answer is None:
            self.turn.work -= 1
            answer = placement.place(self.cell, need)
            if isinstance(answer, Blocked):
                self.no_place[need.id] = answer
        if gathers and isinstance(answer, Blocked):
            self.gathering.hide(demand)
            self.available.clear()
        elif gathers:
            self.cell.unfinished = True  # what was hidden and not taken is there for all again
        return answer

    def _hold_back(self, band: Band) -> None:
        """A strict queue: what is behind a blocked job waits for it."""
        first, *behind = band.rest()
        self._tell_all((first,), self.blocked[first.demand])
        self._tell_all(behind, Blocked("behind_in_queue", where=first.queue.id))

    def _tell_all(self, shapes: Iterable[Shape], blocked: Blocked) -> None:
        for shape in sorted(shapes, key=lambda s: s.id):
            shape.demand.told = None
            waiting.tell(self.turn, shape, blocked)

    def _tell_blocked(self) -> None:
        """Tell each waiting shape of a blocked demand, unless they all know."""
        untold: list[tuple[int, Shape, Blocked]] = []
        for demand, blocked in self.blocked.items():
            blocked = self.gathering.told(demand, blocked)
            answer = (blocked.reason, blocked.where)
            if demand.told != answer:
                strict = False
                for shape in demand.shapes.values():
                    if shape.queue.strict:
                        strict = True
                    elif shape.waiting:
                        untold.append((shape.id, shape, blocked))
                demand.told = None if strict else answer
        untold.sort(key=lambda u: u[0])
        for _, shape, blocked in untold:
            if not waiting.tell(self.turn, shape, blocked):
                shape.demand.told = None

    def _claim(self) -> None:
        """Let higher claims that are real preempt."""
        policy = self.cell.policy
        most = policy.max_preemptions_per_round
        if policy.preemption and most and any(self.cell.preemptible.values()):
            victims = Victims(self.turn)
            self._preempt_for(self._claims(victims), victims, most)
            victims.end()

    def _claims(self, victims: Victims) -> list[Shape]:
        """Those whose head may preempt: the first in order, and of the others as many in turn."""
        found: list[list[Shape]] = [[] for _ in TIERS]
        for demand, blocked in self.blocked.items():
            if demand.reservation is not None or not demand.waiting or demand.held:
                continue
            all_may = self.cell.policy.yield_ratio_milli or consolidation.wanted(self.cell, blocked)
            weakest = len(TIERS) if all_may else victims.weakest_preemptor(demand)
            for shape in demand.shapes.values() if weakest >= 0 else ():
                if shape.waiting and shape.tier <= weakest and not shape.ruling.calm:
                    found[shape.tier].append(shape)
        first: list[Shape] = []
        for shapes in found:
            first += self._first(shapes, CLAIMS_TRIED - len(first))
        others = {s.id for shapes in found for s in shapes} - {s.id for s in first}
        return self._turns(first, sorted(others))

    def _first(self, shapes: list[Shape], most: int) -> list[Shape]:
        """So many of the shapes, in order."""
        found: list[tuple[Place, Line]] = []
        for shape in shapes if most else ():
            line = _line(self.cell, shape)
            if line is not None:
                place = (_place(self.cell, shape), line)
                if len(found) < most or place < found[-1]:
                    insort(found, place)
                    del found[most:]
        return [line.shape for _, line in found]

    def _preempt_for(self, shapes: list[Shape], victims: Victims, budget: int) -> None:
        for shape in shapes:
            job = shape.head()
            if budget <= 0 or job is None:
                return
            if self.turn.work <= 0:
                self.cell.wake(self.cell.now_ms + TURN_MS)  # for those that were not tried
                return
            blocked = self.blocked[shape.demand]
            found = claims.for_shape(self.turn, victims, shape, job, blocked)
            if found is not None:  # also if it needs more victims than are left: it would never fit
                budget -= len(found[1].runs)
                self._preempt(shape, *found)
                victims.moves.clear()
                self.cell.unfinished = True  # the next of its line may claim in the next round

    def _turns(self, first: list[Shape], others: list[int]) -> list[Shape]:
        """The first, and of the others (ids) as many in turn: none is passed over for ever."""
        at = self.turn.header.round * CLAIMS_TRIED % max(1, len(others))
        self.cell.quiet_rounds = 0 if self.turn.facts else self.cell.quiet_rounds + 1
        if self.cell.quiet_rounds * CLAIMS_TRIED < len(others):
            self.cell.wake(self.cell.now_ms + TURN_MS)
        tried = first + [self.cell.shapes[id_] for id_ in others[at : at + CLAIMS_TRIED]]
        if self.turn.header.round % 2:
            return tried
        # One search under rules may take a round's work: every other round it comes last.
        ruled = [shape for shape in tried if shape.needs[0].ruled]
        return [shape for shape in tried if not shape.needs[0].ruled] + ruled[::-1]

    def _preempt(self, shape: Shape, flavour: int, plan: Plan) -> None:
        job = shape.head()
        assert job is not None, "the line has a head"
        weaker = all(r.job.shape.tier > shape.tier for r in plan.runs)
        cause, second = plan.cause or ("tier" if weaker else "reclaim"), plan.runner_up_cost
        self.turn.emit(PreemptionDecided(job.id, cause, plan.victims, plan.candidates, second))
        waits = plan.waits_for(*(g.slots for g in shape.needs[flavour].groups))
        why = Why(
            tier=shape.tier,
            share_ppm=_place(self.cell, shape)[1],
            candidates=plan.candidates,
            chosen=plan.domain.name,
            score=(plan.cost,),
            flavour=flavour,
        )
        nodes = [(node.id, n, group, -1) for node, n, group in plan.placed]
        self.turn.emit(JobClaimed(job.id, job.attempts + 1, nodes, waits, flavour, why))
        for run in plan.runs:
            self.turn.stop(run, "preempted")
