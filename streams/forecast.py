"""When waiting jobs are expected to start: the cell is copied and run forward.

The copy decides as the cell would, with simulated agents: no new demand comes, no node leaves, and
each job ends when the published model of run times expects it to. Neither the cell nor its ledger
hears of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from domain import estimates
from domain.cell import Cell
from domain.commands import Command
from domain.facts import (
    AttemptEnded,
    AttemptStarted,
    JobClaimed,
    PreemptionDecided,
    Victim,
)
from domain.jobs import Job
from domain.ledger import Refusal, Round
from streams import dispatch
from streams.agent import Work
from streams.clockwork import Clockwork
from streams.what_if import StandIns, Unsigned

SOURCE: Final = "forecast"
PARTITION: Final = 4
"""An input of its own, which no recorded command stands on."""
ROUNDS: Final = 5_000
"""So far it looks ahead by default."""
PATIENCE_MS: Final = 600_000
"""What agents say beside ends of attempts may wait for company."""
HORIZON_MS: Final = 30 * 86_400_000
NEVER_MS: Final = 1 << 62

Basis = Literal["estimate", "model", "unknown"]
"""Of an assumed end: the job's own estimate, corrected by the model; the run times of its like;
neither, so that it has as much before it as behind it."""


class Expected(Struct, frozen=True, kw_only=True):
    """When, where and at whose cost a waiting job starts, as far as can be foreseen."""

    job: str
    alike: int
    """Jobs of its shape that wait, itself among them."""
    at_ms: int | None
    """None: it does not start before the moment that was looked ahead to."""
    accelerator: str = ""
    nodes: tuple[tuple[str, int], ...] = ()
    """With the replicas on each."""
    victims: tuple[Victim, ...] = ()
    """What is preempted for it."""
    ends: dict[Basis, int] = {}
    """Ends of other jobs that were assumed before it starts, by what they rest on."""
    model: int = 0
    """Version of the model of run times; 0: none was published yet."""
    reason: str = ""
    """Why it waits, if it does not start."""


class Forecast(Struct, frozen=True):
    now_ms: int
    until_ms: int
    """So far was looked ahead."""
    rounds: int
    expected: list[Expected]
    refused: Refusal | None = None
    """Why the supposed command would be refused."""


class _StandIns(StandIns):
    def handle(self, instructions: Iterable[dispatch.Instruction], now_ms: int) -> None:
        """What was saved of a job is in the cell's books, which say what is left of it."""
        for instruction in instructions:
            if isinstance(instruction, dispatch.Start) and not instruction.part:
                self.agent.know_saved(instruction.job, 0)
            super().handle([instruction], now_ms)


class Outlook:
    """A copy of a cell that runs ahead of it."""

    def __init__(self, cell: Cell, now_ms: int) -> None:
        fork = self.cell = Cell.restore(cell.snapshot())
        fork.estimates.due = NEVER_MS  # what is only assumed teaches nothing
        # Also where no round was made for long: how long jobs have run says how long they will.
        self.now_ms = fork.now_ms = max(now_ms, fork.now_ms)
        self.rounds = 0
        self._supposed = False
        self.refused: Refusal | None = None
        self._basis: dict[str, Basis] = {}
        self._ends: Counter[Basis] = Counter()
        self._wanted: dict[str, int] = {}
        self._found: dict[str, Expected] = {}
        self._claims: dict[str, JobClaimed] = {}
        self._victims: dict[str, tuple[Victim, ...]] = {}
        self._clockwork = Clockwork(
            fork,
            self._stand_ins(),
            Unsigned(),
            lambda made, record: self._see(made),
            voice=(PARTITION, SOURCE),
            origin_ms=self.now_ms,
            round_ms=1000,
        )
        self._clockwork.resume(None)

    def _stand_ins(self) -> _StandIns:
        """Agents that say when the jobs are expected to end, and never that a node is gone."""
        fork = self.cell
        fleet = _StandIns(self._work_of, patience_ms=PATIENCE_MS)
        specs = [node.spec.model_copy(update={"lease_s": 0}) for node in fork.nodes.values()]
        fleet.add_nodes(specs, self.now_ms, known=True)
        for node in fork.nodes.values():
            fork.timers.no_lease(node)
        for told in dispatch.outstanding(fork):
            if isinstance(told, dispatch.Start):  # what it did before is over, and was reported
                told = replace(told, started_ms=self.now_ms)
            fleet.handle([told], self.now_ms)
        return fleet

    def _work_of(self, start: dispatch.Start) -> Work:
        """What is left of the job by the cell's books."""
        job = self.cell.jobs[start.job]
        run = job.run
        assert run is not None, "its attempt was started"
        if job.estimate_s is not None:
            self._basis[job.id] = "estimate"
        else:
            known = self.cell.estimates.of(job.shape) is not None
            self._basis[job.id] = "model" if known else "unknown"
        return Work(1000 * estimates.run_left_s(self.cell, run))

    def suppose(self, command: Command) -> None:
        """The command comes now."""
        self._supposed = True
        self._clockwork.say_command(command)

    def look(self, wanted: Sequence[str], rounds: int = ROUNDS) -> Forecast:
        """Run ahead until all of these jobs have started, or so many rounds were made."""
        self._wanted = dict.fromkeys(wanted, 0)
        clockwork = self._clockwork
        clockwork.step()
        while self._waits() and self.rounds < rounds:
            next_ms = clockwork.next_ms()
            if next_ms is None or next_ms > self.now_ms + HORIZON_MS:
                break
            clockwork.now_ms = next_ms
            clockwork.step()
        expected = [self._found.get(job) or self._waiting(job) for job in self._wanted]
        told = [e for e in expected if e is not None]
        return Forecast(self.now_ms, clockwork.now_ms, self.rounds, told, self.refused)

    def _waits(self) -> bool:
        return any(j not in self._found and j in self.cell.jobs for j in self._wanted)

    def _see(self, made: Round) -> None:
        self.rounds += 1
        if self._supposed and self.rounds == 1:  # it comes before all reports
            self.refused = next((r for r in made.refusals if r.command == 0), None)
        for fact in made.facts:
            if isinstance(fact, AttemptEnded):
                self._ends[self._basis[fact.job]] += 1
            elif isinstance(fact, PreemptionDecided) and fact.preemptor in self._wanted:
                self._victims[fact.preemptor] = tuple(fact.victims)
            elif isinstance(fact, JobClaimed) and fact.job in self._wanted:
                self._claims[fact.job] = fact
            elif isinstance(fact, AttemptStarted) and fact.job in self._wanted:
                self._starts(fact, made.header.now_ms)

    def _starts(self, fact: AttemptStarted, at_ms: int) -> None:
        job = self.cell.jobs.get(fact.job)
        if job is None or fact.job in self._found:
            return
        how = fact if fact.nodes else self._claims.get(fact.job, fact)
        nodes: Counter[str] = Counter()
        for node, replicas, *_ in how.nodes:
            nodes[node] += replicas
        self._found[fact.job] = Expected(
            job=job.id,
            alike=job.shape.waiting + 1,
            at_ms=at_ms,
            accelerator=job.shape.spec.flavours[how.flavour].accelerator,
            nodes=tuple(nodes.items()),
            victims=self._victims.get(job.id, ()),
            ends=dict(self._ends),
            model=self.cell.estimates.version,
        )

    def _waiting(self, name: str) -> Expected | None:
        job = self.cell.jobs.get(name)
        if job is None:
            return None
        return Expected(
            job=name,
            alike=job.shape.waiting,
            at_ms=None,
            ends=dict(self._ends),
            model=self.cell.estimates.version,
            reason=job.shape.reason,
        )


def heads(cell: Cell) -> list[Job]:
    """The next job of each shape that waits, in the order of their admission."""
    found = [shape.head() for shape in cell.shapes.values() if shape.waiting]
    return sorted((job for job in found if job is not None), key=lambda j: j.number)
