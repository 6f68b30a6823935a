"""The facts of jobs that outlive their region, and of the regions that are held for lost."""

from __future__ import annotations

from domain.fact import Fact


class JobGuarded(Fact, frozen=True, tag="JobGuarded"):
    """From here on the peer may bring the job back, and has to agree to its end."""

    job: str
    by: str
    """Empty: no peer would."""


class GuardKept(Fact, frozen=True, tag="GuardKept"):
    """The guardian has its copy."""

    command: int
    job: str


class GuardEnded(Fact, frozen=True, tag="GuardEnded"):
    """The guardian has no copy any more, and will not have one of this token again."""

    command: int
    job: str


class OutcomeAsked(Fact, frozen=True, tag="OutcomeAsked"):
    """The job has come to this end here, if its guardian agrees."""

    job: str
    outcome: str
    """finished, failed, cancelled."""
    reason: str = ""


class CopyKept(Fact, frozen=True, tag="CopyKept"):
    command: int
    job: str


class CopyEnded(Fact, frozen=True, tag="CopyEnded"):
    """The job will not be brought back here under this token."""

    command: int
    job: str


class JobAdopted(Fact, frozen=True, tag="JobAdopted"):
    """Its region is lost: the job is this one's, with the next token."""

    job: str
    shape: int
    failed: str = ""
    """Why it could not be entered; it has failed then."""


class JobTaken(Fact, frozen=True, tag="JobTaken"):
    """The guardian has brought the job back: it is not this region's any more."""

    command: int
    job: str


class JobLeft(Fact, frozen=True, tag="JobLeft"):
    """Nothing of the job that was taken runs here any more."""

    job: str
    to: str


class RegionDoubted(Fact, frozen=True, tag="RegionDoubted"):
    """A peer has been silent for too long; the others are asked whether they agree."""

    region: str


class VoteGiven(Fact, frozen=True, tag="VoteGiven"):
    """To the region `by` this one agrees that `region` is lost, until `by` takes it back."""

    region: str
    by: str
    since_ms: int


class RegionFenced(Fact, frozen=True, tag="RegionFenced"):
    """The peer is held for lost."""

    region: str
    votes: list[str]
    """Who agrees; empty: an operator said so."""


class RegionTrusted(Fact, frozen=True, tag="RegionTrusted"):
    """The peer is back, and everything between is settled."""

    region: str


GuardFact = (
    JobGuarded
    | GuardKept
    | GuardEnded
    | OutcomeAsked
    | CopyKept
    | CopyEnded
    | JobAdopted
    | JobTaken
    | JobLeft
    | RegionDoubted
    | VoteGiven
    | RegionFenced
    | RegionTrusted
)
