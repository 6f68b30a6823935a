"""The facts: what a cell decided, in the past tense. The fold applies facts and never refuses one.

A fact that follows from a command names it by its place in the round (`command`) and does not
repeat it. Slots are accelerator slots.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from domain.fact import Fact, Held, Placed, Why
from domain.policies.facts import PolicyFact
from domain.pool.facts import (
    HandoffAccepted,
    HandoffCompleted,
    HandoffConfirmed,
    HandoffDeclined,
    HandoffLapsed,
    HandoffOffered,
    HandoffPrepared,
    HandoffReleased,
    HandoffWithdrawn,
    InventorySeen,
    PeersSet,
    RightsGranted,
    RightsReceived,
    RightsRequested,
    RightsSent,
)
from domain.pool.guard_facts import GuardFact


class Victim(Struct, frozen=True, gc=False, omit_defaults=True):
    job: str
    attempt: int
    cost_slot_s: int
    """Slot-seconds lost: since its last checkpoint, plus its restore time."""
    part: int = 0
    """The part that an elastic attempt gives up; 0: it ends as a whole."""


Labels = tuple[tuple[str, tuple[str, ...]], ...]
"""Labels with the values that they may have."""


class MixEntry(Struct, frozen=True, gc=False, omit_defaults=True):
    """Replicas of live jobs that ask for the same of a node's devices."""

    accelerator: str
    slots: int
    share_milli: int
    replicas: int
    host_cpu_milli: int
    """Of all of them together."""
    require: Labels = ()
    forbid: Labels = ()


class EstimateOf(Struct, frozen=True, gc=False, omit_defaults=True):
    """How long jobs of one queue and size ran that came to their end."""

    queue: str
    """Empty: of all queues."""
    size: int
    """Number of bits of the job's slots."""
    jobs: int
    mean_s: int
    """Drawn towards the mean of all jobs, the more the fewer there are."""
    p90_s: int
    off_p50_milli: int = 0
    """Run time by the user's estimate, in thousandths; 0: no job had one."""
    off_p90_milli: int = 0


class JobAdmitted(Fact, frozen=True, tag="JobAdmitted"):
    command: int
    shape: int
    tier: str | None = None
    """Instead of what was asked for, by a policy's rule; so is `priority`."""
    priority: int | None = None
    rules: tuple[str, ...] = ()
    """Rules of policies that counted."""


class JobAmended(Fact, frozen=True, tag="JobAmended"):
    command: int
    shape: int


class DeadlineInfeasible(Fact, frozen=True, tag="DeadlineInfeasible"):
    """Even if it started at its admission, the job would finish only then: after its deadline."""

    job: str
    earliest_finish_ms: int


class DeadlineAtRisk(Fact, frozen=True, tag="DeadlineAtRisk"):
    """The job's latest start has passed while it waits."""

    job: str
    earliest_finish_ms: int


class JobRequeued(Fact, frozen=True, tag="JobRequeued"):
    """The job waits again, with the seniority that it had."""

    job: str
    reason: str
    not_before_ms: int = 0


class JobClaimed(Fact, frozen=True, tag="JobClaimed"):
    """Slots are held for the job's next attempt until those still in use become free."""

    job: str
    attempt: int
    nodes: list[Placed]
    waits_for: list[Held]
    flavour: int
    why: Why


class AttemptStarted(Fact, frozen=True, tag="AttemptStarted"):
    """The attempt's slots are its own and its agents are told to start it."""

    job: str
    attempt: int
    nodes: list[Placed] = []
    """Empty if the attempt was claimed before: the nodes are those of the claim."""
    flavour: int = 0
    why: Why | None = None


class AttemptRunning(Fact, frozen=True, tag="AttemptRunning"):
    command: int
    job: str


class CheckpointRecorded(Fact, frozen=True, tag="CheckpointRecorded"):
    command: int
    job: str


class AttemptStopping(Fact, frozen=True, tag="AttemptStopping"):
    """The attempt's agents are told to stop it; at `stop_by_ms` it counts as ended."""

    job: str
    attempt: int
    reason: str
    stop_by_ms: int


class AttemptGrown(Fact, frozen=True, tag="AttemptGrown"):
    """An elastic attempt has more replicas; its agents are told to start them."""

    job: str
    attempt: int
    part: int
    nodes: list[Placed]


class AttemptShrinking(Fact, frozen=True, tag="AttemptShrinking"):
    """The agents are told to stop a part of the attempt; at `stop_by_ms` it counts as gone."""

    job: str
    attempt: int
    part: int
    reason: str
    stop_by_ms: int


class AttemptShrunk(Fact, frozen=True, tag="AttemptShrunk"):
    """A part of the attempt is gone; the attempt goes on."""

    job: str
    attempt: int
    part: int
    reason: str


class AttemptReported(Fact, frozen=True, tag="AttemptReported"):
    """Some, not all, nodes of the attempt reported a state."""

    command: int
    job: str


class AttemptEnded(Fact, frozen=True, tag="AttemptEnded"):
    job: str
    attempt: int
    reason: str
    """finished, failed, preempted, drained, cancelled, node_lost, overran, reservation_ended."""
    lost_slot_s: int = 0


class JobFinished(Fact, frozen=True, tag="JobFinished"):
    job: str


class JobFailed(Fact, frozen=True, tag="JobFailed"):
    job: str
    reason: str


class JobCancelled(Fact, frozen=True, tag="JobCancelled"):
    job: str


class PreemptionDecided(Fact, frozen=True, tag="PreemptionDecided"):
    """Whole gangs make room for a higher claim."""

    preemptor: str
    """A job, or a reservation if `cause` is reservation."""
    cause: str
    """reclaim, tier, reservation, or operator."""
    victims: list[Victim]
    candidates: int
    """Domains or nodes that were compared."""
    runner_up_cost_slot_s: int | None = None


class ShapeBlocked(Fact, frozen=True, tag="ShapeBlocked"):
    """Why the waiting jobs of a shape wait; told again only when the reason changes."""

    shape: int
    reason: str
    needed_milli: int = 0
    available_milli: int = 0
    where: str = ""
    """The account whose quota, or the label or domain, that binds."""


class PromiseVoided(Fact, frozen=True, tag="PromiseVoided"):
    """The tier's promise to the jobs of a shape cannot be kept, or (without a reason) it can."""

    shape: int
    reason: str


class SlaWindowClosed(Fact, frozen=True, tag="SlaWindowClosed"):
    """What a tier promised to an account's work on one type, and what of it was delivered."""

    account: str
    accelerator: str
    tier: int
    """Rank of the tier: 0 is the strongest promise."""
    from_ms: int
    to_ms: int
    due_slot_s: int
    delivered_slot_s: int
    met: bool
    starts: int = 0
    """First starts of jobs in the window, within nominal quota."""
    late: int = 0
    """Of these, those that waited longer than the tier's queueing delay."""


class NodeRegistered(Fact, frozen=True, tag="NodeRegistered"):
    command: int


class NodeReported(Fact, frozen=True, tag="NodeReported"):
    """A sign of life; `healthy` as the agent says."""

    node: str
    lease_until_ms: int
    healthy: bool = True


class NodeCordoned(Fact, frozen=True, tag="NodeCordoned"):
    node: str
    cordoned: bool


class NodeDraining(Fact, frozen=True, tag="NodeDraining"):
    node: str


class NodeDrained(Fact, frozen=True, tag="NodeDrained"):
    node: str


class NodeLost(Fact, frozen=True, tag="NodeLost"):
    node: str
    reason: str


class NodeRemoved(Fact, frozen=True, tag="NodeRemoved"):
    node: str


class QuotaSet(Fact, frozen=True, tag="QuotaSet"):
    command: int


class ReservationConfirmed(Fact, frozen=True, tag="ReservationConfirmed"):
    command: int


class ReservationClaimed(Fact, frozen=True, tag="ReservationClaimed"):
    """Nodes are bound; slots that are still in use are waited for."""

    reservation: str
    nodes: list[Held]
    waits_for: list[Held] = []


class ReservationActive(Fact, frozen=True, tag="ReservationActive"):
    reservation: str


class ReservationMissed(Fact, frozen=True, tag="ReservationMissed"):
    """The window began, and so many slots of the promise could not be held."""

    reservation: str
    shortfall_slots: int


class ReservationUnbound(Fact, frozen=True, tag="ReservationUnbound"):
    """The reservation lost a node; another one will be bound in its place if there is one."""

    reservation: str
    node: str


class ReservationClosing(Fact, frozen=True, tag="ReservationClosing"):
    """No new work in it; it ends when the work in it has ended."""

    reservation: str
    reason: str
    """ended, or cancelled."""
    due_slot_s: int = 0
    """Promised in the part of the window that is over."""
    delivered_slot_s: int = 0
    """Held of that; the shortfall is what lacks."""


class ReservationEnded(Fact, frozen=True, tag="ReservationEnded"):
    reservation: str
    next_start_ms: int = 0
    """When its next window begins; 0: there is none."""


class MaintenancePlanned(Fact, frozen=True, tag="MaintenancePlanned"):
    command: int


class MaintenanceBegan(Fact, frozen=True, tag="MaintenanceBegan"):
    """The nodes that took work so far are drained for it."""

    maintenance: str
    nodes: list[str]


class MaintenanceEnded(Fact, frozen=True, tag="MaintenanceEnded"):
    """Its nodes take work again."""

    maintenance: str
    reason: str
    """ended, or cancelled."""
    next_start_ms: int = 0
    """When its next window begins; 0: there is none."""


class PolicySet(Fact, frozen=True, tag="PolicySet"):
    command: int
    version: int


class EstimateModelPublished(Fact, frozen=True, tag="EstimateModelPublished"):
    """How long jobs are expected to run from now on."""

    entries: list[EstimateOf]


class WorkloadMixPublished(Fact, frozen=True, tag="WorkloadMixPublished"):
    """What the live jobs ask for; placement weighs free parts of nodes by it from now on."""

    entries: list[MixEntry]


AnyFact = (
    JobAdmitted
    | JobAmended
    | DeadlineInfeasible
    | DeadlineAtRisk
    | JobRequeued
    | JobClaimed
    | AttemptStarted
    | AttemptRunning
    | CheckpointRecorded
    | AttemptStopping
    | AttemptGrown
    | AttemptShrinking
    | AttemptShrunk
    | AttemptReported
    | AttemptEnded
    | JobFinished
    | JobFailed
    | JobCancelled
    | PreemptionDecided
    | ShapeBlocked
    | PromiseVoided
    | SlaWindowClosed
    | NodeRegistered
    | NodeReported
    | NodeCordoned
    | NodeDraining
    | NodeDrained
    | NodeLost
    | NodeRemoved
    | QuotaSet
    | ReservationConfirmed
    | ReservationClaimed
    | ReservationActive
    | ReservationMissed
    | ReservationUnbound
    | ReservationClosing
    | ReservationEnded
    | MaintenancePlanned
    | MaintenanceBegan
    | MaintenanceEnded
    | PolicySet
    | PeersSet
    | InventorySeen
    | HandoffOffered
    | HandoffWithdrawn
    | HandoffReleased
    | HandoffCompleted
    | HandoffPrepared
    | HandoffDeclined
    | HandoffLapsed
    | HandoffAccepted
    | HandoffConfirmed
    | RightsGranted
    | RightsRequested
    | RightsSent
    | RightsReceived
    | WorkloadMixPublished
    | EstimateModelPublished
    | GuardFact
    | PolicyFact
)

FACTS: Final[dict[str, type[Fact]]] = {c.__name__: c for c in Fact.__subclasses__()}
