"""The values that regions speak in: tokens, inventory, rights, and the rules of hand-offs."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from domain.specs import Millis, Model, Name, Seconds, Text

MilliSlots = Annotated[int, Field(ge=0, le=1 << 52)]
MAX_HOP: Final = 1000
Count = Annotated[int, Field(ge=0, le=1 << 52)]


class Token(Model):
    """The right to run a job; the larger (term, hop) is the newer one."""

    home: Name
    """The region that the job was submitted to."""
    job: Name
    """Its name there."""
    term: Annotated[int, Field(ge=1, le=999_999_999)]
    """Epoch of the home region when the job was submitted."""
    hop: Annotated[int, Field(ge=0, le=MAX_HOP)]
    """So often it was handed over."""


class History(Model):
    """What travels with a job besides its specification: seniority, and what it has had."""

    seniority_ms: Millis
    attempts: Count = 0
    attained_slot_s: Count = 0
    lost_slot_s: Count = 0
    failures: Count = 0
    preemptions: Count = 0


class Owner(Model):
    """A region that had the job, and when it let it go, by its own clock."""

    region: Name
    left_ms: Millis


class Amount(Model):
    """An amount of rights, in thousandths of slots."""

    account: Name
    accelerator: Name
    milli: MilliSlots


class Stock(Model):
    """Nodes of one type in one cluster by their free slots."""

    accelerator: Name
    cluster: Name
    free: Annotated[tuple[Count, ...], Field(max_length=65)]
    """free[k]: nodes with exactly k free slots."""


class Outlook(Model):
    """What a region expects of one type, if nothing new is started."""

    accelerator: Name
    largest_gang: Count = 0
    """Slots on whole free nodes that are alike."""
    evictable: Annotated[tuple[Count, ...], Field(max_length=4)] = ()
    """Slots of what may be preempted, by tier, the strongest first."""
    waits_s: Annotated[tuple[Seconds, ...], Field(max_length=16)] = ()
    """Until 1, 2, 4, … slots are free; no longer than what the region has."""
    free_in: Annotated[tuple[Count, ...], Field(max_length=3)] = ()
    """Slots that are free in an hour, six, and a day."""
    price_milli: Count = 0
    """For a slot-hour, in thousandths of the currency, of its cheapest nodes."""


class PeerSpec(Model):
    """Another region of the pool."""

    region: Name
    actor: Text
    """Who speaks for it: its messages are believed from this actor only."""
    distance_s: Seconds = 0
    """A hand-off there must save so much more waiting: price, preference, egress."""
    mib_per_s: Annotated[int, Field(ge=1, le=1 << 30)] = 1000
    """Speed at which data that it lacks gets there."""


class HandoffRules(Model):
    """When a waiting job is offered to another region."""

    min_benefit_s: Seconds = 30
    """Waiting that a hand-off must save, doubled for each one that the job has had."""
    min_work_ppm: Annotated[int, Field(ge=0, le=1_000_000)] = 200_000
    """It must save this part of the remaining work, too; doubled likewise."""
    offer_s: Annotated[int, Field(ge=1, le=3600)] = 10
    """An offer without an answer is withdrawn after this long."""
    claim_s: Annotated[int, Field(ge=1, le=3600)] = 30
    """Slots are held this long for a job that was promised a place."""
    rest_s: Annotated[int, Field(ge=0, le=86_400)] = 30
    """No such job is offered to a region again so soon after it declined or was silent."""
    return_s: Annotated[int, Field(ge=0, le=86_400)] = 600
    """No job goes back to a region that it left so recently, doubled for each hand-off."""
    stale_s: Annotated[int, Field(ge=1, le=3600)] = 30
    """The age of older inventory counts as waiting."""
    forget_s: Annotated[int, Field(ge=1, le=86_400)] = 300
    """Older inventory is not looked at."""
    offers_per_round: Annotated[int, Field(ge=0, le=1000)] = 32
    price_s: Seconds = 0
    """Waiting that is worth one thousandth of the currency less for a slot-hour."""
    lost_s: Annotated[int, Field(ge=0, le=86_400)] = 120
    """A peer that said nothing for this long is held for lost, if a majority of the regions agrees;
    0: only if an operator says so."""


class Doubt(Model):
    """A region that the speaker holds for lost, or would if a majority agreed."""

    region: Name
    since_ms: Millis
    """When that began, by the speaker's clock; tells it from earlier times."""


class Vote(Model):
    """The speaker agrees that region `by` holds `region` for lost, since then by its clock."""

    region: Name
    by: Name
    since_ms: Millis
