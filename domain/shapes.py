"""Shapes: all that placement and order may read of a job, interned.

Jobs of equal shape are the same to the decider but for their seniority, so that a round costs as
much as there are shapes, however many jobs wait.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from domain.commands import SubmitJob
from domain.fabric import NODE, NodeClass, is_local, matches
from domain.ledger import canonical
from domain.policies.ruling import NO_RULING
from domain.quota import UNLIMITED, Account, Queue
from domain.specs import LEVELS, TIERS

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.jobs import Job
    from domain.policies.ruling import Ruling, Terms
    from domain.promises import Pledge

NOT_OF_SHAPE: Final = ("job", "labels", "deadline")
"""Fields of SubmitJob that tell jobs apart and that no placement may read."""

Entry = tuple[int, int, int, "Job"]
"""(rank, seniority, number) of a job when it joined a line, and the job."""

Split = tuple[bytes, dict[str, Any], int | None]
"""Of a SubmitJob body: the shape's key, the fields that are the job's own, its estimate."""

_pack: Final = msgspec.msgpack.Encoder().encode
_any = msgspec.json.Decoder(dict[str, Any])


def split(data: bytes | msgspec.Raw) -> Split:
    body = _any.decode(data)
    own: dict[str, Any] = {name: body.pop(name) for name in NOT_OF_SHAPE if name in body}
    runtime = body.get("runtime")
    estimate: int | None = runtime.pop("estimate_s", None) if runtime else None
    if runtime is not None and not runtime:
        del body["runtime"]
    return canonical(body), own, estimate


def amended(key: bytes, tier: str | None, priority: int | None) -> bytes:
    """The key of the same shape in another tier or priority."""
    body = _any.decode(key)
    for name, value in (("tier", tier), ("priority", priority)):
        if value is not None:
            body[name] = value
            if value == SubmitJob.model_fields[name].default:
                del body[name]  # bodies leave out defaults: one shape has one key
    return canonical(body)


def key_of(accelerator: str, spec: SubmitJob) -> bytes:
    """The same for all that ask the same of the nodes of a type."""
    groups = [g.model_dump(mode="json") for g in spec.groups]
    return _pack((accelerator, groups, spec.placement.model_dump(mode="json")))


class Need:
    """What one flavour of a shape asks of the fabric; equal needs are one object."""

    __slots__ = (
        "_classes",
        "_epoch",
        "accelerator",
        "denied",
        "fits_when_empty",
        "gang",
        "groups",
        "id",
        "key",
        "largest_epoch",
        "local",
        "part",
        "placement",
        "plain",
        "preferred",
        "prefers",
        "required",
        "ruled",
        "size_milli",
        "slots",
        "terms",
        "uniform",
        "uses",
    )

    def __init__(
        self,
        key: object,
        id_: int,
        accelerator: str,
        spec: SubmitJob,
        terms: Terms | None = None,
    ) -> None:
        self.key = key
        self.terms = terms
        """What rules of policies say about places."""
        self.denied = ""
        """The rule that keeps it from all classes that it would fit."""
        self.id = id_
        self.fits_when_empty = False
        self.largest_epoch = -1
        """When `fits_when_empty` was found, by the fabric's epoch."""
        self.uses = 0
        """Demands that have the need."""
        self.accelerator = accelerator
        self.groups = spec.groups
        self.placement = spec.placement
        self.slots = sum(g.count * g.slots for g in spec.groups)
        self.size_milli = sum(g.count * g.slots * g.share_milli for g in spec.groups)
        p = spec.placement
        self.prefers = bool(p.prefer) or (terms is not None and terms.prefers)
        """True iff some places are better than others by what is wished."""
        self.local = any(is_local(s) for s in (*p.require, *p.forbid, *p.prefer))
        """True iff a selector speaks of places within a cluster."""
        whole = not any(
            g.share_milli < 1000 or g.host_cpu_milli or g.host_memory_mib or not g.slots
            for g in spec.groups
        )
        self.ruled = bool(p.affinity) or any(g.slices or g.spread for g in spec.groups)
        """True iff rules say how replicas lie to each other or to other jobs."""
        self.plain = whole and not self.local and not self.ruled
        """True iff free slots by class tell all: no parts, no rules, no places in a cluster."""
        self.gang = self.plain and sum(g.count for g in spec.groups) > 1
        """True iff it needs several places at once, and free slots by class tell all."""
        self.required = LEVELS.index(p.required_level)
        in_one = len(spec.groups) == 1 and self.required != NODE
        self.uniform = whole and not self.local and in_one
        """True iff free slots by class, and rules of places, tell all of its one group."""
        single = len(spec.groups) == 1 and spec.groups[0].count == 1
        self.part = not whole and single and not self.ruled
        """True iff it is one replica with a share of a device or with host parts."""
        self.preferred = LEVELS.index(p.preferred_level) if p.preferred_level else None
        self._classes: list[NodeClass] = []
        self._epoch = -1

    def classes(self, cell: Cell) -> list[NodeClass]:
        """Node classes whose labels satisfy the need, in the order of their ids."""
        if self._epoch != cell.fabric.epoch:
            self._epoch = cell.fabric.epoch
            known = sorted(cell.fabric.classes.items())
            p = self.placement
            self._classes = [
                c
                for _, c in known
                if c.accelerator == self.accelerator
                and all(is_local(s) or matches(s, c.labels) for s in p.require)
                and not any(not is_local(s) and matches(s, c.labels) for s in p.forbid)
            ]
            if self.terms is not None:
                self._classes = self._allowed(self.terms)
        return self._classes

    def _allowed(self, terms: Terms) -> list[NodeClass]:
        by = [terms.on(c).denied for c in self._classes]
        self.denied = by[0] if by and all(by) else ""
        return [c for c, rule in zip(self._classes, by, strict=True) if not rule]

    def preference(self, class_: NodeClass) -> int:
        """Sum of the weights of the preferences that the class satisfies."""
        wished = sum(p.weight for p in self.placement.prefer if matches(p, class_.labels))
        return wished if self.terms is None else self.terms.preference(class_, wished)


class Demand:
    """What shapes of one account ask for, in whatever tier and priority: one answer serves all."""

    __slots__ = (
        "account",
        "ceiling",
        "ceiling_by",
        "held",
        "key",
        "needs",
        "reservation",
        "shapes",
        "size",
        "strongest",
        "told",
        "waiting",
    )

    def __init__(
        self,
        key: tuple[object, ...],
        account: Account,
        spec: SubmitJob,
        needs: list[Need],
        size: int,
    ) -> None:
        self.key = key
        self.account = account
        self.needs = needs
        """By flavour."""
        self.size = size
        """Charge against quota, in thousandths of slots."""
        self.reservation = spec.reservation
        self.held = ""
        """The rule of a policy that keeps all of it waiting."""
        self.ceiling: int | None = None
        """Thousandths of slots that the account's own queues may use of a type, by a rule."""
        self.ceiling_by = ""
        self.shapes: dict[int, Shape] = {}
        self.strongest = len(TIERS)
        """The strongest tier of the shapes."""
        self.waiting = 0
        """Jobs in the lines of the shapes."""
        self.told: tuple[str, str] | None = None
        """The (reason, where) that all shapes with waiting jobs carry, as far as is known."""

    def enter(self, shape: Shape) -> None:
        self.shapes[shape.id] = shape
        self.strongest = min(self.strongest, shape.tier)
        self.told = None

    def leave(self, shape: Shape) -> None:
        del self.shapes[shape.id]
        if shape.tier == self.strongest:
            self.strongest = min((s.tier for s in self.shapes.values()), default=len(TIERS))

    def below_ceiling(self, accelerator: str) -> int:
        """What the rules of policies let the account's queues take more."""
        if self.ceiling is None:
            return UNLIMITED
        return self.ceiling - self.account.own.get(accelerator, 0)


class Shape:
    """One shape: its demand, and the line of its jobs that wait."""

    __slots__ = (
        "_first",
        "_keys",
        "affinity",
        "available_milli",
        "band",
        "demand",
        "id",
        "jobs",
        "key",
        "line",
        "lined",
        "lined_by",
        "mark",
        "needed_milli",
        "plain",
        "pledge",
        "pledged",
        "priority",
        "queue",
        "reason",
        "restore_ms",
        "returned",
        "ripens",
        "row",
        "row_version",
        "ruling",
        "slots",
        "slots_of",
        "spec",
        "tier",
        "told_ms",
        "void",
        "waiting",
        "waits_s",
        "where",
    )
    kind = "shape"

    def __init__(self, id_: int, key: bytes, spec: SubmitJob, queue: Queue) -> None:
        self.id = id_
        self.key = key
        self.spec = spec
        """A SubmitJob of the shape; its job, labels, estimate and deadline mean nothing."""
        self.queue = queue
        self.tier = TIERS.index(spec.tier)
        self.band = (self.tier, queue.index)
        self._first: Job | None = None
        """The head of the line, as far as it is known."""
        self.lined: Line | None = None
        """Its place among other shapes, as long as the estimates are of the version below."""
        self.lined_by = 0
        self.ruling: Ruling
        """What rules of policies come to; `priority` and `waits_s` follow from it."""
        self.priority: int
        self.waits_s: list[int]
        """By flavour: considered only after this long."""
        self.ripens: bool
        """True iff a flavour is considered only after some wait."""
        self.obey(NO_RULING)
        self._keys: dict[str, bytes] = {}
        self.row: tuple[int, ...] = ()
        """What rules read of it."""
        self.row_version = 0
        self.slots = sum(g.count * g.slots for g in spec.groups)
        self.slots_of = tuple(g.slots for g in spec.groups)
        """Of a replica, by group."""
        self.restore_ms = 1000 * spec.runtime.restore_s
        self.affinity = spec.placement.affinity
        self.demand: Demand
        """Set when the shape enters its cell."""
        self.plain = not any(
            g.share_milli < 1000 or g.host_cpu_milli or g.host_memory_mib for g in spec.groups
        )
        """True iff its replicas take nothing but whole slots."""
        self.jobs = 0
        """Jobs of the shape that are not at an end."""
        self.waiting = 0
        """Jobs in the line."""
        self.line: deque[Entry] = deque()
        """In order; entries may be stale."""
        self.returned: list[Entry] = []
        """Heap of jobs that came into the line out of order; entries may be stale."""
        self.reason = ""
        self.needed_milli = 0
        self.available_milli = 0
        self.where = ""
        self.told_ms = 0
        """When it was last told why it waits."""
        self.void = ""
        """Why the tier's promise cannot be kept; empty if it can."""
        self.pledge: Pledge | None = None
        """What is promised to its account; None for work in a reservation."""
        self.pledged = 0
        """What one of its jobs counts there."""
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        blocked = (self.reason, self.needed_milli, self.available_milli, self.where)
        return (self.id, self.key, *blocked, self.told_ms, self.void)

    def key_of(self, accelerator: str) -> bytes:
        """Of what it asks of nodes of the type."""
        found = self._keys.get(accelerator)
        if found is None:
            found = self._keys[accelerator] = key_of(accelerator, self.spec)
        return found

    def obey(self, ruling: Ruling) -> None:
        spec, self.ruling = self.spec, ruling
        self.priority = spec.priority + ruling.boost
        self.waits_s = [ruling.wait_s(f.accelerator, f.after_wait_s) for f in spec.flavours]
        self.ripens = any(self.waits_s)
        self.lined = None

    def join(self, job: Job) -> None:
        """Put a waiting job into the line at the place that its seniority gives it."""
        job.queued = True
        if not self.waiting:
            self.demand.told = None
        self.waiting += 1
        self.demand.waiting += 1
        if self.pledge is not None and not self.void:
            self.pledge.wait(self.tier, self.pledged)
        place, first = (job.rank, job.seniority_ms, job.number), self._first
        if first is not None and place < (first.rank, first.seniority_ms, first.number):
            self._first = self.lined = None
        if not self.line or self.line[-1][:3] < place:
            self.line.append((*place, job))
        else:
            heappush(self.returned, (*place, job))

    def leave(self, job: Job) -> None:
        """The job no longer waits; its entry in the line has become stale."""
        job.queued = False
        if job is self._first:
            self._first = self.lined = None
        self.waiting -= 1
        self.demand.waiting -= 1
        if self.pledge is not None and not self.void:
            self.pledge.wait(self.tier, -self.pledged)

    def end(self) -> None:
        """No job is of the shape any more. What is left in its line would hold it for ever."""
        self.line.clear()
        self.returned.clear()
        self._first = self.lined = None

    @property
    def size(self) -> int:
        return self.demand.size

    @property
    def needs(self) -> list[Need]:
        return self.demand.needs

    def head(self) -> Job | None:
        """The job that is next in line, without taking it."""
        if self._first is None and self.waiting:
            self._first = self._find_head()
        return self._first

    def _find_head(self) -> Job | None:
        line, returned = self.line, self.returned
        while line and not self._counts(line[0]):
            line.popleft()
        while returned and not self._counts(returned[0]):
            heappop(returned)
        if not returned:
            return line[0][3] if line else None
        if line and line[0] < returned[0]:
            return line[0][3]
        return returned[0][3]

    def _counts(self, entry: Entry) -> bool:
        """True iff the entry is not stale: its job waits here, at the place that it says."""
        job = entry[3]
        return job.queued and job.shape is self and job.rank == entry[0]


class Line(NamedTuple):
    """A shape's place among others: the smallest comes first. No two heads have one number."""

    minus_priority: int
    rank: int
    """Of the head, as its seniority and number."""
    seniority_ms: int
    number: int
    shape: Shape
