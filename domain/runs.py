"""A job's current attempt: what it holds, and how far it has come."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from domain.fact import Placed
from domain.quota import MILLI
from domain.specs import TIERS

if TYPE_CHECKING:
    from domain.jobs import Job
    from domain.reservations import Reservation


SURPLUS: Final = len(TIERS)
"""Rank of what an elastic attempt has grown by: weaker than every tier."""

NONE_REPORTED: Final[frozenset[str]] = frozenset()
"""One for all attempts: mypyc makes a new one each time."""

UNORDERED: Final = -(1 << 62)
"""Place of an attempt that is not in order with others."""

Order = tuple[int, int]
"""(number of the job, part)"""


class JobState(IntEnum):
    WAITING = 0
    CLAIMED = 1
    """Slots are held; some of them are still in use by others."""
    STARTING = 2
    RUNNING = 3
    STOPPING = 4


class Run:
    """A job's current attempt: the slots that are its own, or that it waits for."""

    __slots__ = (
        "accelerator",
        "attempt",
        "checkpoint_ms",
        "flavour",
        "job",
        "missing",
        "nodes",
        "part",
        "place",
        "reported",
        "reservation",
        "running_ms",
        "size",
        "slots",
        "started_ms",
        "stop_by_ms",
        "stop_reason",
        "tier",
    )

    def __init__(
        self, job: Job, attempt: int, flavour: int, nodes: list[Placed], part: int = 0
    ) -> None:
        self.job = job
        self.attempt = attempt
        self.flavour = flavour
        self.accelerator = job.shape.needs[flavour].accelerator
        self.nodes = nodes
        shape = job.shape
        self.part = part
        """0: the gang that the attempt started with; else what it grew by since."""
        self.slots = shape.slots
        self.size = shape.size
        """Thousandths of slots that are charged."""
        self.tier = shape.tier
        """Rank by which it may be preempted."""
        if part:
            self.slots = sum(replicas for _, replicas, *_ in nodes) * shape.slots_of[0]
            self.size = self.slots * MILLI
            self.tier = SURPLUS
        self.missing: dict[str, int] = {}
        """Of a claim: slots by node that others still use."""
        self.started_ms = 0
        self.running_ms = 0
        self.checkpoint_ms = 0
        """The work until then is safe; 0: none is."""
        self.stop_by_ms = 0
        self.stop_reason = ""
        self.reported = NONE_REPORTED
        """Nodes whose agents reported the end of their part."""
        self.reservation: Reservation | None = None
        self.place = UNORDERED
        """Among those that may be preempted, once they are put in order."""

    @property
    def status(self) -> JobState:
        if self.stop_by_ms:
            return JobState.STOPPING
        if not self.started_ms:
            return JobState.CLAIMED
        return JobState.RUNNING if self.running_ms else JobState.STARTING

    def slots_by_node(self) -> dict[str, int]:
        """Whole slots by node; shared devices are counted by their node."""
        slots_of = self.job.shape.slots_of
        slots: dict[str, int] = {}
        for node, replicas, group, device in self.nodes:
            own = replicas * slots_of[group] if device < 0 else 0
            slots[node] = slots.get(node, 0) + own
        return slots

    def lost_slot_s(self, now_ms: int) -> int:
        """Slot-seconds of work that would be lost if it ended now."""
        if not self.running_ms or self.part:  # what a part has done is the attempt's work
            return 0
        since = max(self.running_ms, self.checkpoint_ms)
        lost = self.slots * max(0, now_ms - since)
        for part in self.job.parts.values():
            lost += part.slots * max(0, now_ms - max(since, part.started_ms))
        return lost // 1000

    def held_slot_s(self, now_ms: int) -> int:
        """Slot-seconds of the attempt so far."""
        since = self.started_ms or now_ms
        return self.slots * max(0, now_ms - since) // 1000

    @property
    def order(self) -> Order:
        """Of equals the smaller comes first; no two live attempts have the same."""
        return (self.job.number, self.part)

    @property
    def live(self) -> bool:
        """True iff it is its job's current attempt, or a part of it."""
        return (self.job.parts.get(self.part) if self.part else self.job.run) is self

    def state(self) -> tuple[object, ...]:
        return (
            self.attempt,
            self.flavour,
            self.nodes,
            sorted(self.missing.items()),
            self.started_ms,
            self.running_ms,
            self.checkpoint_ms,
            self.stop_by_ms,
            self.stop_reason,
            sorted(self.reported),
            self.reservation.id if self.reservation else None,
        )
