"""The values that commands are made of: names, bounds, tiers, levels, and what a job asks for.

Bounds live here and in the commands, and nowhere else. Integers throughout; units are in the names
(`_s`, `_ms`, `_mib`, `_milli`, `_ppm`).
"""

from __future__ import annotations

import itertools
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""An identifier that a caller chooses: letters, digits, dot, dash, underscore; 128 at most."""

_Foreign = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}@[A-Za-z0-9][A-Za-z0-9._-]{0,127}(@[0-9]{1,9})?$"
    ),
]
JobId = Name | _Foreign
"""A job as its cell knows it: its name, and `@` and its home region if that is another one."""

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
Text = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]

MAX_S: Final = 10 * 365 * 86_400
MAX_MS: Final = 1 << 52
MAX_SLOTS: Final = 1_000_000

Seconds = Annotated[int, Field(ge=0, le=MAX_S)]
Every = Annotated[int, Field(ge=60, le=MAX_S)]
"""Seconds after which something recurs."""
Millis = Annotated[int, Field(ge=0, le=MAX_MS)]
Slots = Annotated[int, Field(ge=0, le=MAX_SLOTS)]
Ppm = Annotated[int, Field(ge=0, le=1_000_000)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Weight = Annotated[int, Field(ge=1, le=1_000_000)]


class Tier(StrEnum):
    """SLA tier, strongest first."""

    RESERVED = "reserved"
    PREMIUM = "premium"
    STANDARD = "standard"
    BASIC = "basic"


TIERS: Final = tuple(Tier)
"""Rank of a tier is its index here: a smaller rank is the stronger promise."""


class Level(StrEnum):
    """Level of the fabric tree, widest first."""

    REGION = "region"
    CLUSTER = "cluster"
    BLOCK = "block"
    RACK = "rack"
    NODE = "node"


LEVELS: Final = tuple(Level)


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Flavour(Model):
    """An accelerator type that the job accepts; earlier in the list is preferred."""

    accelerator: Name
    after_wait_s: Seconds = 0
    """Considered only once the job has waited this long: the fallback to a second choice."""


class Slice(Model):
    """Replicas that lie together: so many in one domain of a level."""

    size: Annotated[int, Field(ge=2, le=16_384)]
    level: Level


class Spread(Model):
    """Replicas that do not all lie together: at most so many in one domain of a level."""

    level: Level
    max_replicas: Annotated[int, Field(ge=1, le=16_384)]


class ReplicaGroup(Model):
    """`count` equal replicas, each on one node: the unit of a gang."""

    name: Name = "main"
    count: Annotated[int, Field(ge=1, le=16_384)] = 1
    slots: Annotated[int, Field(ge=0, le=64)] = 1
    """Accelerator slots of each replica; 0 for a replica that needs only its host."""
    share_milli: Annotated[int, Field(ge=1, le=1000)] = 1000
    """Share of its one device, in thousandths; below 1000 only with `slots` = 1."""
    host_cpu_milli: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    host_memory_mib: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    max_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """At most this many of the group's replicas on one node."""
    slices: Annotated[tuple[Slice, ...], Field(max_length=4)] = ()
    """The replicas come in parts that lie together, and these in smaller ones: the widest first."""
    spread: Spread | None = None
    grow_to: Annotated[int, Field(ge=2, le=16_384)] | None = None
    """An elastic job: it starts with `count` replicas, and grows up to so many into idle slots."""
    grow_by: Annotated[int, Field(ge=1, le=1024)] = 1
    """Replicas that come and go together."""

    @field_validator("slices")
    @classmethod
    def _slices_nest(cls, slices: tuple[Slice, ...], info: ValidationInfo) -> tuple[Slice, ...]:
        wider = [(info.data.get("count", 0), -1)]
        wider += [(s.size, LEVELS.index(s.level)) for s in slices]
        for (size, level), (inner, narrower) in itertools.pairwise(wider):
            if size % inner or narrower <= level:
                raise ValueError("each slice must divide the one before it and be narrower")
        return slices

    @model_validator(mode="after")
    def _share_of_one_device(self) -> Self:
        if self.share_milli < 1000 and self.slots != 1:
            raise ValueError("share_milli below 1000 is for groups of slots = 1")
        if self.grow_to is not None and self.grow_to < self.count + self.grow_by:
            raise ValueError("grow_to must be at least count + grow_by")
        whole = self.slots and self.share_milli == 1000
        host = self.host_cpu_milli or self.host_memory_mib
        ruled = self.max_per_node or self.slices or self.spread
        if self.grow_to is not None and (not whole or host or ruled):
            raise ValueError("grow_to is for groups of whole slots and nothing else")
        return self


class Selector(Model):
    """Matches a node whose label has one of the values."""

    label: Label
    values: Annotated[tuple[Text, ...], Field(min_length=1, max_length=64)]


class Preference(Selector):
    weight: Annotated[int, Field(ge=1, le=1000)] = 1


class Affinity(Model):
    """How the job lies to running jobs whose affinity names the same key."""

    key: Name
    level: Level
    mode: Literal["together", "apart"]
    """together: in a domain of the level in which some of them lie, if there are any; apart: in
    none in which one of them lies."""


class Placement(Model):
    """Where the job may and would like to run.

    Labels of a node include its fabric path as `region`, `cluster`, `block` and `rack`.
    """

    require: Annotated[tuple[Selector, ...], Field(max_length=16)] = ()
    forbid: Annotated[tuple[Selector, ...], Field(max_length=16)] = ()
    prefer: Annotated[tuple[Preference, ...], Field(max_length=16)] = ()
    required_level: Level = Level.CLUSTER
    """All replicas lie within one domain of this level."""
    preferred_level: Level | None = None
    """Tried first; by default the narrowest level that holds the gang."""
    affinity: Annotated[tuple[Affinity, ...], Field(max_length=4)] = ()


class Runtime(Model):
    estimate_s: Seconds | None = None
    max_s: Annotated[int, Field(ge=1, le=MAX_S)] | None = None
    """The attempt is ended after this long."""
    checkpoint_interval_s: Seconds = 0
    """0: the job keeps nothing; a preemption loses all since its start."""
    checkpoint_write_s: Seconds = 0
    restore_s: Seconds = 0
    grace_s: Annotated[int, Field(ge=0, le=86_400)] = 30
    """Time from the request to stop until the attempt is ended for it."""


class Dataset(Model):
    """Data that the job reads, and the regions that hold it."""

    name: Name | None = None
    """By which a region may say that it holds it."""
    size_mib: Annotated[int, Field(ge=0, le=1 << 40)]
    regions: Annotated[tuple[Name, ...], Field(max_length=64)] = ()


class Locality(Model):
    """Which regions the job may run in, and what it costs to move it there."""

    regions: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    """Those that are allowed; empty: all."""
    forbidden: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    data: Annotated[tuple[Dataset, ...], Field(max_length=16)] = ()
    max_hops: Annotated[int, Field(ge=0, le=3)] = 3
    """The job is handed over at most this often; 0: it stays at home."""
    on_region_loss: Literal["wait", "failover"] = "wait"
    """wait: it stays with its region until that is back. failover: a peer keeps a copy of it, which
    it brings back once the region is held for lost; until then it has to agree to the job's end."""

    def allows(self, region: str) -> bool:
        return region not in self.forbidden and (not self.regions or region in self.regions)


class Deadline(Model):
    finish_by_ms: Millis
    hardness: Literal["soft", "hard"] = "soft"
    """soft: a job that cannot be in time comes later; hard: it is refused, or fails."""


class FabricPath(Model):
    """The node's place in the fabric tree."""

    region: Name
    cluster: Name
    block: Name
    rack: Name


class Quota(Model):
    """An account's quota for one accelerator type or group of types, in slots.

    Entries for the same add up while their windows are on; so do those for a group and for its
    members, at their rates. A limit that one of them leaves out does not bind.
    """

    accelerator: Name
    """An accelerator type, or a group of the policy's `groups`."""
    nominal: Slots
    from_ms: Millis = 0
    until_ms: Millis = MAX_MS
    """The entry counts from `from_ms` until before `until_ms`."""
    borrowing_limit: Slots | None = None
    """Most that the account may use beyond its nominal; None: no limit."""
    lending_limit: Slots | None = None
    """Most of the nominal that others may use while it is idle; None: all of it."""
    rights: bool = False
    """The quota is the pool's: here its nominal is what rights the region holds; nothing of it is
    lent, and nothing is borrowed beyond it."""


class Budget(Model):
    """Slot-seconds that an account's own queues may use in each period."""

    accelerator: Name
    """An accelerator type, or a group of the policy's `groups`."""
    slot_s: Annotated[int, Field(ge=1, le=1 << 50)]
    period_s: Annotated[int, Field(ge=60, le=MAX_S)] = 30 * 86_400
    """Periods are multiples of this since the epoch."""


class Queue(Model):
    queue: Name
    weight: Weight = 1000
    order: Literal["skip", "strict"] = "skip"
    """skip: a job that does not fit lets later ones pass; strict: it does not."""


class Rate(Model):
    accelerator: Name
    rate_milli: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """What one slot of the type takes of the group's quota, in thousandths."""


class TypeGroup(Model):
    """Types on which one entitlement is spent: a slot of each costs its rate."""

    group: Name
    members: Annotated[tuple[Rate, ...], Field(min_length=1, max_length=64)]


class PolicyParameters(Model):
    """What an operator may turn while the cell runs."""

    preemption: bool = True
    order: Literal["seniority", "least_attained", "least_remaining", "earliest_deadline"] = (
        "seniority"
    )
    """Which job of a queue comes first, of those of equal tier and priority."""
    yield_ratio_milli: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """A running job makes room for one of its own account that comes before it in this order by
    this factor, in thousandths; 0: never. Not with `order` = seniority."""
    min_run_s: tuple[Seconds, Seconds, Seconds, Seconds] = (0, 600, 600, 600)
    """By tier: an attempt is no victim before it has run this long."""
    queue_delay_s: tuple[Seconds, Seconds, Seconds, Seconds] = (0, 300, 3600, 86_400)
    """By tier: after this long a claim within nominal quota preempts at whatever cost; before, only
    if its victims lose less than the slot-seconds that it has waited."""
    gathering: bool = False
    """One blocked gang at a time of each accelerator type gathers free nodes until it starts: for
    work that may not be preempted. All that is smaller waits longer for it."""
    gather_after_s: tuple[Seconds, Seconds, Seconds, Seconds] = (0, 300, 3600, 86_400)
    """By tier: a gang gathers once it has waited so long."""
    consolidation: bool = False
    """Attempts of no stronger tier move into holes that are large enough for them where that frees
    nodes for a job that lacks nothing else, and costs less than it has waited."""
    node_score: Literal["fragmentation", "best_fit"] = "fragmentation"
    """Where a replica with a share or host parts goes: where it takes least of what the workload
    mix could use, or where it leaves the least CPU and devices."""
    gpu_time_fraction_ppm: tuple[Ppm, Ppm, Ppm, Ppm] = (995_000, 950_000, 700_000, 0)
    """By tier: the promised part of the slot-time that an account's work asks for within its
    nominal quota, in millionths; 0: no promise, and none is reported."""
    sla_window_s: Annotated[int, Field(ge=60, le=MAX_S)] = 86_400
    """The time over which that part is measured."""
    preemptions_per_day: tuple[Count, Count, Count, Count] = (0, 1, 4, 1_000_000)
    """By tier: how often a day a stronger tier may preempt a job; what an account uses beyond its
    nominal quota is not protected."""
    max_lost_s: tuple[Seconds, Seconds, Seconds, Seconds] = (0, 600, MAX_S, MAX_S)
    """By tier: a stronger tier preempts no job that would lose more seconds of work than these."""
    groups: Annotated[tuple[TypeGroup, ...], Field(max_length=64)] = ()
    """Quota of a type that is a member of a group is the group's."""
    max_preemptions_per_round: Annotated[int, Field(ge=0, le=10_000)] = 64
    """No more claims are made in a round that has had so many victims."""
    requeue_backoff_s: Seconds = 30
    """Wait after an attempt failed by itself, doubled for each further failure."""
    duplicate_window_s: Annotated[int, Field(ge=60, le=MAX_S)] = 7 * 86_400
    """How long a command's id is remembered; an older command is refused as stale."""
    require_replay: bool = False
    """The next policy needs a replay of recorded demand that passed its gates."""
