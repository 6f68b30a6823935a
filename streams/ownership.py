"""Whose every job is: a check across the ledgers of a pool, from their rounds alone.

The tokens of a job are ordered. Each is made once: by the submission at home, or by the release of
the one before it; each is held by the one ledger that was submitted to or that accepted it, until
that releases the job to one region or ends it. So a job has one owner at each moment, but on its
way, and one outcome.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TypeVar

from msgspec import Struct
from pydantic import BaseModel

from domain import facts as f
from domain.commands import AnswerHandoff, GuardJob, ReleaseHandoff
from domain.ledger import Round
from domain.pool import facts as p
from domain.pool import guard_facts as g
from domain.pool.commands import SetPeers
from domain.shapes import split

Model = TypeVar("Model", bound=BaseModel)

Job = tuple[str, str, int]
"""Home region, name there, term."""


class Owned(Struct):
    """One token in one ledger: who held it from where, and how it went."""

    region: str
    hop: int
    to: str = ""
    """To whom it was released."""
    outcome: str = ""
    adopted: bool = False
    """The one before may not know of it yet."""


class Verdict(Struct):
    jobs: int
    hand_offs: int
    outcomes: dict[str, int]
    in_flight: int
    """Released, and not accepted yet."""
    faults: list[str]
    """What breaks the rule; empty if all is well."""


class Ownership:
    """What the ledgers of all regions say of their jobs."""

    def __init__(self) -> None:
        self.owned: dict[Job, list[Owned]] = {}
        self.faults: list[str] = []

    def ledger(self) -> Ledger:
        """To read one region's ledger with."""
        return Ledger(self)

    def verdict(self) -> Verdict:
        faults = list(self.faults)
        outcomes: dict[str, int] = {}
        hand_offs = in_flight = 0
        for job, held in sorted(self.owned.items()):
            chain = sorted(held, key=lambda o: o.hop)
            faults += _broken(job, chain)
            hand_offs += chain[-1].hop
            in_flight += bool(chain[-1].to)
            for one in chain:
                if one.outcome:
                    outcomes[one.outcome] = outcomes.get(one.outcome, 0) + 1
        return Verdict(len(self.owned), hand_offs, outcomes, in_flight, faults)


def _broken(job: Job, chain: list[Owned]) -> list[str]:
    """Where the chain of owners is not one."""
    name = f"{job[1]}@{job[0]}"
    found = []
    if [one.hop for one in chain] != list(range(len(chain))):
        found.append(f"{name}: its tokens are {[one.hop for one in chain]}")
    for before, after in pairwise(chain):
        unaware = after.adopted and not before.to and not before.outcome
        if before.to != after.region and not unaware:
            found.append(
                f"{name}: {before.region} gave it to {before.to or 'nobody'},"
                f" and {after.region} has it"
            )
    ended = [one.region for one in chain if one.outcome]
    if len(ended) > 1:
        found.append(f"{name}: it ended in {ended}")
    if chain[-1].to and chain[-1].outcome:
        found.append(f"{name}: it ended where it had been released")
    return found


class Ledger:
    """One region's rounds."""

    def __init__(self, pool: Ownership) -> None:
        self.pool = pool
        self.region, self.epoch = "", 0
        self.here: dict[str, tuple[Job, Owned]] = {}
        """What the region owns now, by its names."""
        self.copies: dict[str, tuple[Job, int]] = {}
        """Of peers' jobs, with the hop that their owner has."""

    def read(self, rounds: Iterable[Round]) -> None:
        """The rounds that come next."""
        for round in rounds:
            for fact in round.facts:
                self._fact(round, fact)

    def _fact(self, round: Round, fact: f.AnyFact) -> None:
        match fact:
            case p.PeersSet():
                said = _command(round, fact.command, SetPeers)
                self.region, self.epoch = said.region, said.epoch
            case f.JobAdmitted():
                name = split(round.commands[fact.command].data)[1]["job"]
                self._own((self.region, name, self.epoch), name, 0)
            case p.HandoffReleased():
                self._release(_command(round, fact.command, AnswerHandoff), fact)
            case g.JobAdopted():
                self._adopt(fact)
            case g.JobLeft():
                self._left(fact)
            case g.CopyKept():
                token = _command(round, fact.command, GuardJob).token
                self.copies[fact.job] = ((token.home, token.job, token.term), token.hop)
            case p.HandoffAccepted():
                token = _command(round, fact.command, ReleaseHandoff).token
                job = (token.home, token.job, token.term)
                self._own(job, fact.job, token.hop)
                if fact.failed:
                    self._end(fact.job, "JobFailed")
            case f.JobFinished() | f.JobFailed() | f.JobCancelled():
                self._end(fact.job, type(fact).__name__)

    def _own(self, job: Job, id_: str, hop: int) -> None:
        if id_ in self.here:
            self.pool.faults.append(f"{id_}: {self.region} took what it has")
        owned = Owned(self.region, hop)
        self.here[id_] = (job, owned)
        self.pool.owned.setdefault(job, []).append(owned)

    def _adopt(self, fact: g.JobAdopted) -> None:
        job, hop = self.copies.pop(fact.job)
        self._own(job, fact.job, hop + 1)
        self.here[fact.job][1].adopted = True
        if fact.failed:
            self._end(fact.job, "JobFailed")

    def _left(self, fact: g.JobLeft) -> None:
        _, owned = self.here.pop(fact.job, (None, None))
        if owned is None:
            self.pool.faults.append(f"{fact.job}: it left {self.region}, which has it not")
        else:
            owned.to = fact.to

    def _release(self, answer: AnswerHandoff, fact: p.HandoffReleased) -> None:
        _, owned = self.here.pop(fact.job, (None, None))
        if owned is None or owned.hop != answer.token.hop:
            self.pool.faults.append(f"{fact.job}: {self.region} released what it has not")
        else:
            owned.to = fact.to

    def _end(self, id_: str, outcome: str) -> None:
        _, owned = self.here.pop(id_, (None, None))
        if owned is None:
            self.pool.faults.append(f"{id_}: it ended in {self.region}, which has it not")
        else:
            owned.outcome = outcome


def _command(round: Round, index: int, model: type[Model]) -> Model:
    return model.model_validate_json(bytes(round.commands[index].data))
