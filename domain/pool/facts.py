"""The facts of regions and their peers: inventory, hand-offs, rights."""

from __future__ import annotations

from msgspec import Struct

from domain.fact import Fact, Placed, Why

TokenOf = tuple[str, str, int, int]
"""Home region, name there, term, hop."""


class OfferWhy(Struct, frozen=True, gc=False, omit_defaults=True):
    """The reason of an offer, in seconds of waiting."""

    local_wait_s: int
    transfer_s: int
    distance_s: int
    stale_s: int
    """Age of the peer's inventory beyond what is fresh."""
    benefit_s: int
    threshold_s: int
    candidates: int
    price_s: int = 0
    """What the peer's price is worth more than the one here; negative if it is cheaper."""
    runner_up: str | None = None
    runner_up_benefit_s: int | None = None


class PeersSet(Fact, frozen=True, tag="PeersSet"):
    command: int


class InventorySeen(Fact, frozen=True, tag="InventorySeen"):
    command: int


class HandoffOffered(Fact, frozen=True, tag="HandoffOffered"):
    """The job waits on, here, while another region is asked to run it."""

    job: str
    to: str
    until_ms: int
    flavour: int
    why: OfferWhy


class HandoffWithdrawn(Fact, frozen=True, tag="HandoffWithdrawn"):
    """The offer counts no more; whatever the peer holds for it may go."""

    job: str
    to: str
    token: TokenOf
    offered_ms: int
    reason: str
    """declined, no_answer, not_offered, not_waiting, amended, no_rights."""
    detail: str = ""
    rest_until_ms: int = 0


class HandoffReleased(Fact, frozen=True, tag="HandoffReleased"):
    """The point of no return: from here on the job is the peer's, or on its way there."""

    command: int
    job: str
    to: str


class HandoffCompleted(Fact, frozen=True, tag="HandoffCompleted"):
    """The peer has the job."""

    command: int
    job: str


class HandoffPrepared(Fact, frozen=True, tag="HandoffPrepared"):
    """Slots are held for a job of another region."""

    command: int
    job: str
    shape: int
    attempt: int
    nodes: list[Placed]
    flavour: int
    until_ms: int
    rights_milli: int
    """Rights that have to come with it."""
    why: Why


class HandoffDeclined(Fact, frozen=True, tag="HandoffDeclined"):
    command: int
    reason: str
    retry_after_s: int


class HandoffLapsed(Fact, frozen=True, tag="HandoffLapsed"):
    """The slots that were held for a job of another region are free again."""

    job: str
    reason: str


class HandoffAccepted(Fact, frozen=True, tag="HandoffAccepted"):
    """The job is this region's."""

    command: int
    job: str
    shape: int
    failed: str = ""
    """Why it could not be entered; it has failed then."""


class HandoffConfirmed(Fact, frozen=True, tag="HandoffConfirmed"):
    """The region that the job came from knows that it came."""

    command: int
    job: str


class RightsGranted(Fact, frozen=True, tag="RightsGranted"):
    command: int


class RightsRequested(Fact, frozen=True, tag="RightsRequested"):
    account: str
    accelerator: str
    to: str
    milli: int


class RightsSent(Fact, frozen=True, tag="RightsSent"):
    account: str
    accelerator: str
    to: str
    milli: int


class RightsReceived(Fact, frozen=True, tag="RightsReceived"):
    command: int
