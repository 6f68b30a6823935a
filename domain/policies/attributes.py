"""What rules may read: attributes by subject, with type, unit, bounds and meaning.

An attribute that is not set reads as the zero of its type (0, false, "", no entries), and `has` is
false for it, as in proto3. Rules that decide about places read shapes and node classes, never
single jobs or nodes, so that a round costs as much as there are shapes (domain.shapes).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal, NamedTuple

from domain.specs import MAX_S, TIERS

Type = Literal["int", "bool", "string", "strings", "map", "ints"]
Unit = Literal["", "s", "ms", "slots", "ppm", "jobs", "milli", "mib", "minutes", "hours"]

MANY: Final = 1 << 40
BELONGS_TO_A_JOB: Final = "single jobs differ in it: a round would cost as many jobs as wait"
BELONGS_TO_A_NODE: Final = "single nodes differ in it: a round would cost as many as there are"


class Phase(StrEnum):
    """When a rule is asked."""

    ADMIT = "admit"
    GUARD = "guard"
    ORDER = "order"
    SCORE = "score"
    REMEDY = "remedy"
    RESERVE = "reserve"
    LEND = "lend"
    HANDOFF = "handoff"
    SCALE = "scale"


class Attribute(NamedTuple):
    type: Type
    text: str
    unit: Unit = ""
    low: int = 0
    high: int = MANY
    per_job: bool = False
    """Only where one job is looked at anyway: when it is admitted, or offered to a peer."""


JOB: Final[dict[str, Attribute]] = {
    "job.queue": Attribute("string", "The queue."),
    "job.account": Attribute("string", "The queue's account."),
    "job.accounts": Attribute("strings", "That account and all above it."),
    "job.tier": Attribute("string", f"One of {', '.join(TIERS)}."),
    "job.priority": Attribute("int", "As submitted.", high=1000),
    "job.slots": Attribute("int", "Accelerator slots of the whole gang.", "slots"),
    "job.replicas": Attribute("int", "Replicas of all its groups.", low=1),
    "job.replica_slots": Attribute("int", "Slots of a replica of the first group.", "slots"),
    "job.share": Attribute("int", "Share of a device of the first group.", "milli", high=1000),
    "job.accelerators": Attribute("strings", "Types that it accepts, the preferred first."),
    "job.preemptible": Attribute("bool", "It may be preempted."),
    "job.elastic": Attribute("bool", "It may grow."),
    "job.reservation": Attribute("string", "The reservation that it runs in."),
    "job.level": Attribute("string", "The level of the fabric that all of it lies in."),
    "job.max_run": Attribute("int", "It is ended after this long.", "s", high=MAX_S),
    "job.checkpoint": Attribute("int", "Its checkpoint interval.", "s", high=MAX_S),
    "job.grace": Attribute("int", "Its grace period.", "s", high=86_400),
    "job.restarts": Attribute("int", "How often it is tried again.", high=1000),
    "job.max_hops": Attribute("int", "How often it may be handed over.", high=3),
    "job.regions": Attribute("strings", "Regions that it may run in; none: all."),
    "job.slice": Attribute("int", "A number drawn from its queue's name.", "ppm", high=999_999),
    # one job's own:
    "job.name": Attribute("string", "Its name.", per_job=True),
    "job.labels": Attribute("map", "Its labels.", per_job=True),
    "job.estimate": Attribute("int", "Its estimated run time.", "s", high=MAX_S, per_job=True),
    "job.has_deadline": Attribute("bool", "It has a deadline.", per_job=True),
    "job.deadline_in": Attribute(
        "int", "Time from now to its deadline.", "s", high=MAX_S, per_job=True
    ),
}
NODE: Final[dict[str, Attribute]] = {
    "node.accelerator": Attribute("string", "Its accelerator type."),
    "node.slots": Attribute("int", "Slots of a node.", "slots", high=64),
    "node.region": Attribute("string", "Its region."),
    "node.cluster": Attribute("string", "Its cluster."),
    "node.labels": Attribute("map", "Its labels, such as a provider or a price."),
}
ACCOUNT: Final[dict[str, Attribute]] = {
    "account.id": Attribute("string", "The account."),
    "account.accounts": Attribute("strings", "The account and all above it."),
    "account.accelerator": Attribute("string", "The type that the quota is for."),
    "account.nominal": Attribute("int", "Its nominal quota of the type.", "slots"),
    "account.slice": Attribute("int", "A number drawn from its name.", "ppm", high=999_999),
}
RESERVATION: Final[dict[str, Attribute]] = {
    "reservation.account": Attribute("string", "Whose it is."),
    "reservation.accounts": Attribute("strings", "That account and all above it."),
    "reservation.accelerator": Attribute("string", "The type that it holds."),
    "reservation.slots": Attribute("int", "Slots that it holds.", "slots"),
    "reservation.duration": Attribute("int", "Length of its window.", "s"),
    "reservation.lead": Attribute("int", "From now to the start of its window.", "s"),
    "reservation.slice": Attribute("int", "A number drawn from its account.", "ppm", high=999_999),
}
PEER: Final[dict[str, Attribute]] = {
    "peer.region": Attribute("string", "The region that the job would be offered to."),
    "peer.distance": Attribute("int", "The peer's distance.", "s", high=MAX_S),
}
SIGNAL: Final[dict[str, Attribute]] = {
    "signal.minute": Attribute("int", "Minute of the day, UTC.", "minutes", high=1439),
    "signal.hour": Attribute("int", "Hour of the day, UTC.", "hours", high=23),
    "signal.weekday": Attribute("int", "Day of the week, UTC; 0 is Monday.", high=6),
    "signal.utilisation": Attribute("int", "Slots in use by all slots.", "ppm", high=1_000_000),
    "signal.free": Attribute("int", "Free slots.", "slots"),
    "signal.fragmentation": Attribute(
        "int", "Of the free slots, those on nodes that are not all free.", "ppm", high=1_000_000
    ),
    "signal.pressure": Attribute("int", "Slots that wait for a start, by all slots.", "ppm"),
    "signal.waiting": Attribute("int", "Jobs that wait for a start.", "jobs"),
    "signal.wait_reserved": Attribute("int", "The longest wait of the tier now.", "s", high=MAX_S),
    "signal.wait_premium": Attribute("int", "The longest wait of the tier now.", "s", high=MAX_S),
    "signal.wait_standard": Attribute("int", "The longest wait of the tier now.", "s", high=MAX_S),
    "signal.wait_basic": Attribute("int", "The longest wait of the tier now.", "s", high=MAX_S),
    "signal.late_premium": Attribute("int", "Waits beyond the promised delay, by shape.", "jobs"),
    "signal.late_standard": Attribute("int", "Waits beyond the promised delay, by shape.", "jobs"),
    "signal.reported": Attribute("map", "What others report, such as a price or carbon."),
}

SUBJECTS: Final = {
    "job": JOB,
    "node": NODE,
    "account": ACCOUNT,
    "reservation": RESERVATION,
    "peer": PEER,
    "signal": SIGNAL,
}

READS: Final[dict[Phase, tuple[str, str | None]]] = {
    Phase.ADMIT: ("job", None),
    Phase.GUARD: ("job", "node"),
    Phase.ORDER: ("job", None),
    Phase.SCORE: ("job", "node"),
    Phase.REMEDY: ("job", None),
    Phase.RESERVE: ("reservation", None),
    Phase.LEND: ("account", None),
    Phase.HANDOFF: ("job", "peer"),
    Phase.SCALE: ("job", None),
}
"""The subject of each phase, and what it is tried with; all phases read signals and parameters."""

PER_JOB: Final = (Phase.ADMIT, Phase.HANDOFF)
"""Phases in which one job is looked at anyway."""

NOT_OFFERED: Final = {
    "node.name": BELONGS_TO_A_NODE,
    "node.id": BELONGS_TO_A_NODE,
    "node.block": BELONGS_TO_A_NODE,
    "node.rack": BELONGS_TO_A_NODE,
    "node.free": BELONGS_TO_A_NODE,
    "job.age": BELONGS_TO_A_JOB,
    "job.wait": BELONGS_TO_A_JOB,
    "job.attempts": BELONGS_TO_A_JOB,
    "job.deadline": BELONGS_TO_A_JOB,
}
"""What is asked for by mistake, and why no rule may read it."""

INDEX: Final[dict[str, int]] = {
    name: at for table in SUBJECTS.values() for at, name in enumerate(table)
}
"""Place of an attribute in the row of its subject."""
SHAPE_COLUMNS: Final = sum(not a.per_job for a in JOB.values())
"""Of a job's row, what its shape says; the job's own follow."""
SCOPED_BY: Final = {
    "job": "job.accounts",
    "account": "account.accounts",
    "reservation": "reservation.accounts",
}
SLICED_BY: Final = {
    "job": "job.slice",
    "account": "account.slice",
    "reservation": "reservation.slice",
}
