"""Which waiting job comes next, and where it goes: the work of a round.

Tiers come first, then queues by their share, then within a queue priority and seniority. A shape
that finds no place is passed over for the rest of the round: nothing becomes free within it.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Final

from domain import fair_share, placement, preemption, waiting
from domain.facts import AttemptStarted, JobClaimed, PreemptionDecided, Why
from domain.placement import Blocked, Choice

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.shapes import Need, Shape
    from domain.turn import Turn

CLAIMS_TRIED: Final = 16
"""Blocked shapes of a round for which victims are searched."""

Line = tuple[int, int, int, int, "Shape"]
"""(-priority, seniority of the head, its number, id of the shape, shape)"""


class Band:
    """The lines of one queue in one tier, best first."""

    __slots__ = ("lines", "queue", "tier")

    def __init__(self, tier: int, queue: int) -> None:
        self.tier = tier
        self.queue = queue
        self.lines: list[Line] = []


class Scheduling:
    """One round's pass over the lines."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.cell: Cell = turn.cell
        self.blocked: dict[int, Blocked] = {}
        """By need: found to have no place in this round."""
        self.passed: list[Shape] = []
        """Shapes that wait for slots or quota, in the order in which they were passed over."""

    def run(self) -> None:
        bands = self._bands()
        heap = [(b.tier, self._share(b), b.queue, b) for b in bands]
        heapify(heap)
        while heap:
            if self.turn.work <= 0:
                self._out_of_work(heap)
                return
            tier, _, queue, band = heap[0]
            shape = band.lines[0][4]
            blocked = self._start(shape, heap[0][1])
            if blocked is None:
                self._next_head(band)
            else:
                self._pass(shape, blocked)
                heappop(band.lines)
                if shape.queue.strict and band.lines:
                    self._hold_back(band)
            if band.lines:
                heapreplace(heap, (tier, self._share(band), queue, band))
            else:
                heappop(heap)
        self._claim()

    def _bands(self) -> list[Band]:
        bands: dict[tuple[int, int], Band] = {}
        for shape in self.cell.shapes.values():
            head = shape.head()
            if head is None:
                continue
            blocked = self._surely_blocked(shape, head.seniority_ms)
            if blocked is not None and not shape.queue.strict:
                self._pass(shape, blocked)
                continue
            key = (shape.tier, shape.queue.index)
            band = bands.get(key)
            if band is None:
                band = bands[key] = Band(*key)
            line = (-shape.priority, head.seniority_ms, head.number, shape.id, shape)
            band.lines.append(line)
        for band in bands.values():
            heapify(band.lines)
        return list(bands.values())

    def _surely_blocked(self, shape: Shape, since_ms: int) -> Blocked | None:
        """A cheap no, from counts alone; None if the shape has to be tried."""
        if shape.spec.reservation is not None:
            return None
        last: Blocked | None = None
        for flavour, need in enumerate(shape.needs):
            if not self._ripe(shape, flavour, since_ms):
                continue
            last = self._short_of_quota(shape, need) or self._short_of_slots(need)
            if last is None:
                return None
        return last

    def _ripe(self, shape: Shape, flavour: int, since_ms: int) -> bool:
        after_s = shape.spec.flavours[flavour].after_wait_s
        return self.cell.now_ms - since_ms >= after_s * 1000

    def _short_of_quota(self, shape: Shape, need: Need) -> Blocked | None:
        account = shape.queue.account
        available = account.available(need.accelerator)
        if available >= shape.size:
            return None
        if account.ceiling(need.accelerator) < shape.size:
            return Blocked("over_quota", shape.size, max(0, available), account.id)
        return Blocked("quota_exceeded", shape.size, max(0, available), account.id)

    def _short_of_slots(self, need: Need) -> Blocked | None:
        blocked = self.blocked.get(need.id)
        if blocked is None and need.slots:
            free = sum(c.free for c in need.classes(self.cell))
            if free < need.slots and need.plain:
                answer = placement.place(self.cell, need)
                assert isinstance(answer, Blocked), "there are fewer slots than it needs"
                blocked = self.blocked[need.id] = answer
        return blocked

    def _share(self, band: Band) -> int:
        return fair_share.order_share(self.cell, band.lines[0][4])

    def _start(self, shape: Shape, share: int) -> Blocked | None:
        """Start the head of the shape's line, or say why not."""
        job = shape.head()
        assert job is not None, "only lines with a head are tried"
        last = Blocked("waits_for_flavour", shape.slots)
        for flavour, need in enumerate(shape.needs):
            if not self._ripe(shape, flavour, job.seniority_ms):
                continue
            answer = self._find(shape, need)
            if isinstance(answer, Choice):
                why = Why(shape.tier, share, *answer[1:], flavour)
                attempt = job.attempts + 1
                self.turn.emit(AttemptStarted(job.id, attempt, answer.nodes, flavour, why))
                return None
            last = answer
        return last

    def _find(self, shape: Shape, need: Need) -> Choice | Blocked:
        if shape.spec.reservation is not None:
            reservation = self.cell.reservations.get(shape.spec.reservation)
            if reservation is None:
                return Blocked("reservation_not_active", where=shape.spec.reservation)
            return placement.inside(reservation, self.cell, need)
        short = self._short_of_quota(shape, need) or self.blocked.get(need.id)
        if short is not None:
            return short
        self.turn.work -= 1
        answer = placement.place(self.cell, need)
        if isinstance(answer, Blocked):
            self.blocked[need.id] = answer
        return answer

    def _next_head(self, band: Band) -> None:
        """The head of the first line was started: its next job, if any, takes its place."""
        shape = band.lines[0][4]
        head = shape.head()
        if head is None:
            heappop(band.lines)
        else:
            line = (-shape.priority, head.seniority_ms, head.number, shape.id, shape)
            heapreplace(band.lines, line)

    def _pass(self, shape: Shape, blocked: Blocked) -> None:
        self.passed.append(shape)
        waiting.tell(self.turn, shape, blocked)

    def _hold_back(self, band: Band) -> None:
        """A strict queue: what is behind a blocked job waits for it."""
        for *_, shape in sorted(band.lines, key=lambda line: line[3]):
            waiting.tell(self.turn, shape, Blocked("behind_in_queue", where=shape.queue.id))
        band.lines.clear()

    def _out_of_work(self, heap: list[tuple[int, int, int, Band]]) -> None:
        for *_, band in sorted(heap, key=lambda h: h[:3]):
            for *_, shape in sorted(band.lines, key=lambda line: line[3]):
                waiting.tell(self.turn, shape, Blocked("round_is_full"))

    def _claim(self) -> None:
        """Let higher claims that are real preempt."""
        policy = self.cell.policy
        if not policy.preemption:
            return
        budget = policy.max_preemptions_per_round
        lines: list[tuple[tuple[int, int, int, int, int], Shape]] = []
        for shape in self.passed:
            job = shape.head()
            if job is not None and shape.spec.reservation is None:
                order = (-shape.priority, job.seniority_ms, job.number)
                share = fair_share.order_share(self.cell, shape)
                heappush(lines, ((shape.tier, share, *order), shape))
        for _ in range(min(CLAIMS_TRIED, len(lines))):
            (_, share, *_), shape = heappop(lines)
            if budget <= 0 or self.turn.work <= 0:
                return
            found = preemption.for_shape(self.turn, shape)
            if found is not None and len(found[1].runs) <= budget:
                budget -= len(found[1].runs)
                self._preempt(shape, share, *found)

    def _preempt(self, shape: Shape, share: int, flavour: int, plan: preemption.Plan) -> None:
        job = shape.head()
        assert job is not None, "the line has a head"
        reclaim = any(r.job.shape.tier <= shape.tier for r in plan.runs)
        self.turn.emit(
            PreemptionDecided(
                job.id,
                "reclaim" if reclaim else "tier",
                plan.victims,
                plan.candidates,
                plan.runner_up_cost,
            )
        )
        slots = [g.slots for g in shape.needs[flavour].groups]
        waits = plan.waits_for(*slots)
        place = plan.domain.name
        why = Why(shape.tier, share, plan.candidates, place, (plan.cost,), flavour=flavour)
        nodes = [(node.id, n, group, -1) for node, n, group in plan.placed]
        attempt = job.attempts + 1
        self.turn.emit(JobClaimed(job.id, attempt, nodes, waits, flavour, why))
        for run in plan.runs:
            self.turn.stop(run, "preempted")
