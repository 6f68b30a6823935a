"""The commands: what anyone may ask of a cell. A command may be refused; a fact never.

Every command is one frozen pydantic model. The JSON Schemas, the AsyncAPI page and the dead-letter
messages are generated from these models and from the values that they are made of (domain.specs).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from domain.maintenance_commands import CancelMaintenance, PlanMaintenance, check_window
from domain.policies.commands import (
    ActivatePolicy,
    DraftPolicy,
    PolicyCommand,
    ReplayPolicy,
    ReportSignal,
    RollBackPolicy,
    StartCanary,
)
from domain.pool.commands import FenceRegion, GrantRights, SetPeers
from domain.pool.specs import (
    Amount,
    Count,
    Doubt,
    History,
    Outlook,
    Owner,
    Stock,
    Token,
    Vote,
)
from domain.replays import Replay
from domain.specs import (
    LEVELS,
    MAX_MS,
    Budget,
    Deadline,
    Every,
    FabricPath,
    Flavour,
    JobId,
    Label,
    Level,
    Locality,
    Millis,
    Model,
    Name,
    Placement,
    PolicyParameters,
    Queue,
    Quota,
    ReplicaGroup,
    Runtime,
    Seconds,
    Selector,
    Text,
    Tier,
    Weight,
)

VERSION: Final = 1
"""Version of every command's schema; it is part of the CloudEvents type."""


class SubmitJob(Model):
    """Ask for a job to be run: one gang of all its replica groups."""

    type: Literal["SubmitJob"] = "SubmitJob"
    job: Name
    queue: Name
    tier: Tier = Tier.STANDARD
    priority: Annotated[int, Field(ge=0, le=1000)] = 0
    """Within tier and queue; higher first."""
    groups: Annotated[tuple[ReplicaGroup, ...], Field(min_length=1, max_length=16)]
    flavours: Annotated[tuple[Flavour, ...], Field(min_length=1, max_length=8)]
    placement: Placement = Placement()
    runtime: Runtime = Runtime()
    preemptible: bool = True
    max_restarts: Annotated[int, Field(ge=0, le=1000)] = 0
    """Attempts that failed by themselves are retried this often; a preemption does not count."""
    reservation: Name | None = None
    locality: Locality = Locality()
    deadline: Deadline | None = None
    labels: Annotated[dict[Label, Text], Field(max_length=32)] = {}

    @model_validator(mode="after")
    def _groups_differ(self) -> Self:
        if len({g.name for g in self.groups}) != len(self.groups):
            raise ValueError("groups must have different names")
        if len({f.accelerator for f in self.flavours}) != len(self.flavours):
            raise ValueError("flavours must name different accelerators")
        tied = len(self.groups) > 1 or self.reservation or self.placement.affinity
        if tied and any(g.grow_to for g in self.groups):
            raise ValueError("a job that grows has one group, no reservation and no affinity")
        if not any(g.slots for g in self.groups) and len(self.groups) > 1:
            raise ValueError("a job without accelerators has one group")
        return self


class CancelJob(Model):
    type: Literal["CancelJob"] = "CancelJob"
    job: JobId
    reason: Text = ""


class AmendJob(Model):
    """Change a waiting job; fields left out stay as they are. Seniority is kept."""

    type: Literal["AmendJob"] = "AmendJob"
    job: JobId
    priority: Annotated[int, Field(ge=0, le=1000)] | None = None
    tier: Tier | None = None
    estimate_s: Seconds | None = None
    deadline: Deadline | None = None


class PreemptJob(Model):
    """An operator asks a running job to make room; it is requeued with its seniority."""

    type: Literal["PreemptJob"] = "PreemptJob"
    job: JobId
    reason: Text = ""


class RegisterNode(Model):
    """A node appears, or comes back with what it has now."""

    type: Literal["RegisterNode"] = "RegisterNode"
    node: Name
    accelerator: Name
    kind: Literal["gpu", "npu", "cpu"] = "gpu"
    slots: Annotated[int, Field(ge=0, le=64)]
    memory_mib: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    """Memory of one accelerator."""
    host_cpu_milli: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    host_memory_mib: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    path: FabricPath
    labels: Annotated[dict[Label, Text], Field(max_length=32)] = {}
    lease_s: Annotated[int, Field(ge=0, le=86_400)] = 0
    """Silence longer than this means that the node is lost; 0: it is never lost by silence."""
    until_ms: Annotated[int, Field(ge=0, le=MAX_MS)] = 0
    """A rented node is there until this moment; 0: it stays."""
    lead_s: Seconds = 600
    """It is drained so long before `until_ms`."""

    @model_validator(mode="after")
    def _path_is_not_a_label(self) -> Self:
        if not self.labels.keys().isdisjoint(LEVELS):
            raise ValueError("labels must not repeat a level of the path")
        return self


class ReportNode(Model):
    """Sign of life from a node's agent; renews its lease."""

    type: Literal["ReportNode"] = "ReportNode"
    node: Name
    healthy: bool = True
    reason: Text = ""


class CordonNode(Model):
    """No new work on the node (or, with `cordoned` false, new work again)."""

    type: Literal["CordonNode"] = "CordonNode"
    node: Name
    cordoned: bool = True
    reason: Text = ""


class DrainNode(Model):
    """Cordon the node and move its work away by the end of the grace period of each job."""

    type: Literal["DrainNode"] = "DrainNode"
    node: Name
    reason: Text = ""


class RemoveNode(Model):
    type: Literal["RemoveNode"] = "RemoveNode"
    node: Name
    reason: Text = ""


class SetQuota(Model):
    """Create an account or replace what it has; its queues are those listed here."""

    type: Literal["SetQuota"] = "SetQuota"
    account: Name
    parent: Name | None = None
    weight: Weight = 1000
    quotas: Annotated[tuple[Quota, ...], Field(max_length=64)] = ()
    queues: Annotated[tuple[Queue, ...], Field(max_length=256)] = ()
    budgets: Annotated[tuple[Budget, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _entries_differ(self) -> Self:
        if len({(q.accelerator, q.from_ms, q.until_ms) for q in self.quotas}) != len(self.quotas):
            raise ValueError("quotas must differ in accelerator or window")
        if len({(b.accelerator, b.period_s) for b in self.budgets}) != len(self.budgets):
            raise ValueError("budgets must differ in accelerator or period")
        if any(q.until_ms <= q.from_ms for q in self.quotas):
            raise ValueError("until_ms of a quota must be after its from_ms")
        if len({q.queue for q in self.queues}) != len(self.queues):
            raise ValueError("queues must have different names")
        return self


class RequestReservation(Model):
    """Hold `count` nodes x `slots` in one fabric domain from `start_ms` until `end_ms`."""

    type: Literal["RequestReservation"] = "RequestReservation"
    reservation: Name
    account: Name
    accelerator: Name
    count: Annotated[int, Field(ge=1, le=16_384)]
    slots: Annotated[int, Field(ge=1, le=64)]
    start_ms: Millis
    end_ms: Millis
    queues: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)]
    """Queues whose jobs may use it, if they name it."""
    required_level: Level = Level.CLUSTER
    require: Annotated[tuple[Selector, ...], Field(max_length=16)] = ()
    every_s: Every | None = None
    """The window recurs after so long; None: there is one."""
    until_ms: Millis = MAX_MS
    """It recurs while it begins before this."""
    lead_s: Seconds = 0
    """Nodes are bound so long before each window, and what runs on them makes room."""

    @model_validator(mode="after")
    def _window_is_not_empty(self) -> Self:
        check_window(self.start_ms, self.end_ms, self.every_s)
        return self


class CancelReservation(Model):
    type: Literal["CancelReservation"] = "CancelReservation"
    reservation: Name
    reason: Text = ""


class ReportAttempt(Model):
    """What became of an attempt, from the agents of its nodes."""

    type: Literal["ReportAttempt"] = "ReportAttempt"
    job: JobId
    attempt: Annotated[int, Field(ge=1, le=1_000_000)]
    state: Literal["running", "finished", "failed", "stopped"]
    nodes: Annotated[tuple[Name, ...], Field(max_length=16_384)] = ()
    """The nodes that the reporter speaks for; empty: all nodes of the attempt."""
    part: Annotated[int, Field(ge=0)] = 0
    """Of an elastic attempt: the part that it grew by; 0 is the gang that it started with."""
    reason: Text = ""


class ReportCheckpoint(Model):
    """The attempt's work until `at_ms` is safe."""

    type: Literal["ReportCheckpoint"] = "ReportCheckpoint"
    job: JobId
    attempt: Annotated[int, Field(ge=1, le=1_000_000)]
    at_ms: Millis
    size_mib: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    ref: Text = ""


class SetPolicy(Model):
    """Replace the cell's policy; it counts from the next step of the same round on."""

    type: Literal["SetPolicy"] = "SetPolicy"
    parameters: PolicyParameters
    reason: Text = ""
    replay: Replay | None = None
    """What `aquifer what-if --sign` found; needed where the policy in force requires it."""


# --- regions and their peers ----------------------------------------------------------------------


class FromPeer(Model):
    """What a region says to another one; only the actor that speaks for it may."""

    region: Name
    epoch: Annotated[int, Field(ge=1, le=999_999_999)]


class AdvertiseInventory(FromPeer):
    """What is free: a hint, never a promise."""

    type: Literal["AdvertiseInventory"] = "AdvertiseInventory"
    round: Annotated[int, Field(ge=0, le=1 << 52)]
    """Of the ledger that it was read from; older inventory does not replace newer one."""
    full: bool = True
    """False: what is not listed is as it was."""
    stock: Annotated[tuple[Stock, ...], Field(max_length=256)] = ()
    surplus: Annotated[tuple[Amount, ...], Field(max_length=256)] = ()
    """Rights that the region could give away."""
    outlook: Annotated[tuple[Outlook, ...], Field(max_length=64)] = ()
    """With a full one."""
    datasets: Annotated[tuple[Name, ...], Field(max_length=256)] = ()
    """Those that the region holds; with a full one."""
    lost: Annotated[tuple[Doubt, ...], Field(max_length=64)] = ()
    """All that the region holds for lost, or would."""
    votes: Annotated[tuple[Vote, ...], Field(max_length=4096)] = ()
    """All in which the region agrees with others."""


class OfferHandoff(FromPeer):
    """Would you run this job? The job stays where it is."""

    type: Literal["OfferHandoff"] = "OfferHandoff"
    token: Token
    offered_ms: Millis
    """Tells this offer from others of the same token."""
    spec: SubmitJob
    history: History
    rights: Annotated[tuple[Amount, ...], Field(max_length=8)] = ()
    """What could come with it, by accelerator type."""


class AnswerHandoff(FromPeer):
    """Slots are held for the job, or there are none."""

    type: Literal["AnswerHandoff"] = "AnswerHandoff"
    token: Token
    offered_ms: Millis
    prepared: bool
    reason: Text = ""
    retry_after_s: Seconds = 0
    rights: Annotated[tuple[Amount, ...], Field(max_length=1)] = ()
    """What has to come with it."""


class WithdrawHandoff(FromPeer):
    """The offer counts no more."""

    type: Literal["WithdrawHandoff"] = "WithdrawHandoff"
    token: Token
    offered_ms: Millis


class ReleaseHandoff(FromPeer):
    """The job is yours, whatever you answered before."""

    type: Literal["ReleaseHandoff"] = "ReleaseHandoff"
    token: Token
    offered_ms: Millis
    spec: SubmitJob
    history: History
    owners: Annotated[tuple[Owner, ...], Field(max_length=8)] = ()
    """Where it was, latest last."""
    rights: Annotated[tuple[Amount, ...], Field(max_length=1)] = ()
    """All that the sender ever gave to this region, with what comes with the job."""


class AcknowledgeHandoff(FromPeer):
    """The job is mine."""

    type: Literal["AcknowledgeHandoff"] = "AcknowledgeHandoff"
    token: Token


class ConfirmHandoff(FromPeer):
    """I know that it is yours, and shall not say again that it is."""

    type: Literal["ConfirmHandoff"] = "ConfirmHandoff"
    token: Token


class GuardJob(FromPeer):
    """Keep a copy of this job, and bring it back if my region is lost."""

    type: Literal["GuardJob"] = "GuardJob"
    token: Token
    spec: SubmitJob
    history: History
    owners: Annotated[tuple[Owner, ...], Field(max_length=8)] = ()
    amended: Count = 0
    """So often the job was amended since it was guarded first."""


class AnswerGuard(FromPeer):
    """The copy is kept; or it is not, and never will be for this token."""

    type: Literal["AnswerGuard"] = "AnswerGuard"
    token: Token
    kept: bool
    amended: Count = 0
    """Of the copy that is kept."""


class EndGuard(FromPeer):
    """The job comes to its end here: may it, or is it yours already?"""

    type: Literal["EndGuard"] = "EndGuard"
    token: Token


class RequestRights(FromPeer):
    """Work waits for rights of which the peer has a surplus."""

    type: Literal["RequestRights"] = "RequestRights"
    amount: Amount
    asked_ms: Millis


class SendRights(FromPeer):
    """All that the sender ever gave to this region: the larger of two is the newer one."""

    type: Literal["SendRights"] = "SendRights"
    total: Amount


Command = (
    SubmitJob
    | CancelJob
    | AmendJob
    | PreemptJob
    | RegisterNode
    | ReportNode
    | CordonNode
    | DrainNode
    | RemoveNode
    | SetQuota
    | RequestReservation
    | CancelReservation
    | PlanMaintenance
    | CancelMaintenance
    | ReportAttempt
    | ReportCheckpoint
    | SetPolicy
    | SetPeers
    | GrantRights
    | AdvertiseInventory
    | OfferHandoff
    | AnswerHandoff
    | WithdrawHandoff
    | ReleaseHandoff
    | AcknowledgeHandoff
    | ConfirmHandoff
    | RequestRights
    | SendRights
    | GuardJob
    | AnswerGuard
    | EndGuard
    | FenceRegion
    | PolicyCommand
)

COMMANDS: Final[dict[str, type[Command]]] = {
    model.__name__: model
    for model in (
        SubmitJob,
        CancelJob,
        AmendJob,
        PreemptJob,
        RegisterNode,
        ReportNode,
        CordonNode,
        DrainNode,
        RemoveNode,
        SetQuota,
        RequestReservation,
        CancelReservation,
        PlanMaintenance,
        CancelMaintenance,
        ReportAttempt,
        ReportCheckpoint,
        SetPolicy,
        SetPeers,
        GrantRights,
        AdvertiseInventory,
        OfferHandoff,
        AnswerHandoff,
        WithdrawHandoff,
        ReleaseHandoff,
        AcknowledgeHandoff,
        ConfirmHandoff,
        RequestRights,
        SendRights,
        GuardJob,
        AnswerGuard,
        EndGuard,
        FenceRegion,
        DraftPolicy,
        ReplayPolicy,
        StartCanary,
        ActivatePolicy,
        RollBackPolicy,
        ReportSignal,
    )
}
