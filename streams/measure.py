"""What became of the jobs: a fold over rounds that gives the numbers of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any, Final

import msgspec
from msgspec import Struct

from domain.cell import Cell
from domain.commands import SubmitJob
from domain.facts import (
    AttemptEnded,
    AttemptGrown,
    AttemptShrunk,
    AttemptStarted,
    JobAdmitted,
    JobCancelled,
    JobFailed,
    JobFinished,
)
from domain.ledger import Round
from domain.pool.facts import HandoffAccepted, HandoffReleased
from domain.pool.guard_facts import JobAdopted, JobLeft
from domain.specs import TIERS, Tier

MILLI: Final = 1000


class Moment(Struct, frozen=True, gc=False):
    """The cell after a round; slots in thousandths."""

    at_ms: int
    busy: int
    capacity: int
    waiting: int


class _Due(Struct, frozen=True):
    finish_by_ms: int


class _Submitted(Struct, frozen=True):
    job: str
    queue: str
    tier: str = SubmitJob.model_fields["tier"].default
    deadline: _Due | None = None


submitted_of: Final = msgspec.json.Decoder(_Submitted).decode


class _Tier:
    """The jobs of one tier."""

    __slots__ = ("completed_ms", "in_time", "waited_ms", "with_deadline")

    def __init__(self) -> None:
        self.waited_ms = 0
        self.completed_ms: list[int] = []
        self.with_deadline = 0
        """Jobs that came to an end and had a deadline, and those of them that met it."""
        self.in_time = 0

    def report(self) -> dict[str, Any]:
        finished = len(self.completed_ms)
        return {
            "jobs_finished": finished,
            "queue_mean_s": round(self.waited_ms / max(1, finished) / 1000, 1),
            "jct_mean_s": mean_s(self.completed_ms),
            "with_deadline": self.with_deadline,
            "in_time": self.in_time,
        }


class _Job:
    __slots__ = (
        "admitted_ms",
        "deadline_ms",
        "parts",
        "queue",
        "run_ms",
        "size",
        "started_ms",
        "tier",
    )

    def __init__(self, admitted_ms: int, queue: str, tier: int, deadline_ms: int) -> None:
        self.admitted_ms = admitted_ms
        self.queue = queue
        self.tier = tier
        self.deadline_ms = deadline_ms
        """0: it has none."""
        self.started_ms = -1
        """Start of the attempt that runs; -1 while none does."""
        self.run_ms = 0
        """Time in attempts that ended."""
        self.size = 0
        self.parts: dict[int, int] = {}
        """Sizes of what it has grown by."""


class Measure:
    """Follows the rounds of one cell; needs the cell as it is right after each of them."""

    def __init__(self) -> None:
        self.rounds = 0
        self.facts = 0
        self.submitted = 0
        self.refused: Counter[str] = Counter()
        """Submissions by refusal code."""
        self.other_refused: Counter[str] = Counter()
        """Commands that are no submissions, by refusal code."""
        self.ended: Counter[str] = Counter()
        """Jobs by the fact that ended them."""
        self.attempts_ended: Counter[str] = Counter()
        self.lost_slot_s = 0
        self.worked_milli_ms = 0
        """Thousandths of slots x milliseconds of the attempts that ended."""
        self.timeline: list[Moment] = []
        self._live: dict[str, _Job] = {}
        self._busy = 0
        self._running = 0
        self._waited_ms: dict[str, list[int]] = {}
        """By queue, of the jobs that finished."""
        self._completed_ms: list[int] = []
        self._tiers = [_Tier() for _ in TIERS]
        self._handle: Final[dict[type, Any]] = {
            JobAdmitted: self._admitted,
            HandoffAccepted: self._accepted,
            HandoffReleased: self._released,
            JobAdopted: self._accepted,
            JobLeft: self._released,
            AttemptStarted: self._started,
            AttemptGrown: self._grown,
            AttemptShrunk: self._shrunk,
            AttemptEnded: self._attempt_ended,
            JobFinished: self._finished,
            JobFailed: self._gone,
            JobCancelled: self._gone,
        }

    def begin(self, cell: Cell) -> None:
        """Count the jobs that a cell has already as submitted; without it a cell is empty."""
        for job in cell.jobs.values():
            self.submitted += 1
            shape = job.shape
            live = _Job(job.seniority_ms, shape.queue.id, shape.tier, job.deadline_ms)
            self._live[job.id] = live
            live.run_ms = MILLI * job.attained_slot_s // shape.slots if shape.slots else 0
            if job.run is not None and job.run.started_ms:
                live.started_ms, live.size = job.run.started_ms, shape.size
                self._busy += live.size
                self._running += 1

    @property
    def unfinished(self) -> int:
        return len(self._live)

    def observe(self, round: Round, cell: Cell) -> None:
        self.rounds += 1
        self.facts += len(round.facts)
        for command in round.commands:
            self.submitted += command.type == SubmitJob.__name__
        for index in round.duplicates:
            self.submitted -= round.commands[index].type == SubmitJob.__name__
        for refusal in round.refusals:
            is_job = round.commands[refusal.command].type == SubmitJob.__name__
            (self.refused if is_job else self.other_refused)[refusal.code] += 1
        now_ms = round.header.now_ms
        for fact in round.facts:
            handle = self._handle.get(type(fact))
            if handle is not None:
                handle(fact, round, cell, now_ms)
        capacity = MILLI * sum(cell.total.values())
        moment = Moment(now_ms, self._busy, capacity, len(self._live) - self._running)
        self.timeline.append(moment)

    def _admitted(self, fact: JobAdmitted, round: Round, cell: Cell, now_ms: int) -> None:
        body = round.commands[fact.command]
        submitted = submitted_of(bytes(body.data))
        due_ms = submitted.deadline.finish_by_ms if submitted.deadline is not None else 0
        tier = TIERS.index(Tier(submitted.tier))
        self._live[submitted.job] = _Job(now_ms, submitted.queue, tier, due_ms)

    def _accepted(
        self, fact: HandoffAccepted | JobAdopted, round: Round, cell: Cell, now_ms: int
    ) -> None:
        """It came from another region, where it was submitted."""
        job = cell.jobs.get(fact.job)
        if job is not None:
            self.submitted += 1
            self._live[fact.job] = _Job(
                job.seniority_ms, job.shape.queue.id, job.shape.tier, job.deadline_ms
            )

    def _released(
        self, fact: HandoffReleased | JobLeft, round: Round, cell: Cell, now_ms: int
    ) -> None:
        self.submitted -= 1
        del self._live[fact.job]

    def _started(self, fact: AttemptStarted, round: Round, cell: Cell, now_ms: int) -> None:
        job = self._live[fact.job]
        job.started_ms = now_ms
        job.size = cell.jobs[fact.job].shape.size
        self._busy += job.size
        self._running += 1

    def _grown(self, fact: AttemptGrown, round: Round, cell: Cell, now_ms: int) -> None:
        group = cell.jobs[fact.job].shape.spec.groups[0]
        more = MILLI * group.slots * sum(replicas for _, replicas, *_ in fact.nodes)
        job = self._live[fact.job]
        job.parts[fact.part] = more
        self._busy += more

    def _shrunk(self, fact: AttemptShrunk, round: Round, cell: Cell, now_ms: int) -> None:
        self._busy -= self._live[fact.job].parts.pop(fact.part)

    def _attempt_ended(self, fact: AttemptEnded, round: Round, cell: Cell, now_ms: int) -> None:
        job = self._live[fact.job]
        self.lost_slot_s += fact.lost_slot_s
        if job.started_ms < 0:
            return  # a claim that was given up before it began
        self.attempts_ended[fact.reason] += 1
        job.run_ms += now_ms - job.started_ms
        self.worked_milli_ms += job.size * (now_ms - job.started_ms)
        job.started_ms = -1
        self._busy -= job.size + sum(job.parts.values())
        job.parts.clear()
        self._running -= 1

    def _finished(self, fact: JobFinished, round: Round, cell: Cell, now_ms: int) -> None:
        job = self._live[fact.job]
        self._completed_ms.append(now_ms - job.admitted_ms)
        waited_ms = now_ms - job.admitted_ms - job.run_ms
        self._waited_ms.setdefault(job.queue, []).append(waited_ms)
        tier = self._tiers[job.tier]
        tier.waited_ms += waited_ms
        tier.completed_ms.append(now_ms - job.admitted_ms)
        tier.in_time += now_ms <= job.deadline_ms
        self._gone(fact, round, cell, now_ms)

    def _gone(
        self, fact: JobFinished | JobFailed | JobCancelled, round: Round, cell: Cell, now_ms: int
    ) -> None:
        job = self._live.pop(fact.job)
        self._tiers[job.tier].with_deadline += job.deadline_ms > 0
        self.ended[type(fact).__name__] += 1

    # --- the report ---

    def check(self) -> None:
        """Every submission has one outcome; raises AssertionError otherwise."""
        outcomes = sum(self.refused.values()) + sum(self.ended.values()) + self.unfinished
        assert outcomes == self.submitted, f"{self.submitted} submitted, {outcomes} accounted for"

    def utilisation(self, until_ms: int) -> float:
        """Busy over all slots, from the first round to a moment."""
        busy = capacity = 0
        line = self.timeline
        for this, after in pairwise(line):
            if this.at_ms >= until_ms:
                break
            span = min(after.at_ms, until_ms) - this.at_ms
            busy += this.busy * span
            capacity += this.capacity * span
        return busy / capacity if capacity else 0.0

    def queue_mean_s(self) -> dict[str, float]:
        """Mean waiting of the jobs that finished, by queue."""
        return {queue: mean_s(waited) for queue, waited in sorted(self._waited_ms.items())}

    def waited_ms(self) -> list[int]:
        """Of the jobs that finished."""
        return list(chain.from_iterable(self._waited_ms.values()))

    def report(self, last_submission_ms: int) -> dict[str, Any]:
        """The numbers of a run; waiting is all time between submission and end without a run."""
        self.check()
        waited = sorted(self.waited_ms())
        return {
            "jobs_submitted": self.submitted,
            "jobs_finished": self.ended[JobFinished.__name__],
            "jobs_refused": sum(self.refused.values()),
            "jobs_failed": self.ended[JobFailed.__name__],
            "jobs_cancelled": self.ended[JobCancelled.__name__],
            "jobs_unfinished": self.unfinished,
            "refusals": dict(sorted(self.refused.items())),
            "other_refusals": dict(sorted(self.other_refused.items())),
            "queue_mean_s": mean_s(waited),
            "queue_p50_s": rank_s(waited, 50),
            "queue_p99_s": rank_s(waited, 99),
            "jct_mean_s": mean_s(self._completed_ms),
            "tiers": {
                name: tier.report()
                for name, tier in zip(TIERS, self._tiers, strict=True)
                if tier.completed_ms or tier.with_deadline
            },
            "gpu_utilisation": round(self.utilisation(last_submission_ms), 4),
            "preemptions": self.attempts_ended["preempted"],
            "lost_gpu_s": self.lost_slot_s,
            "rounds": self.rounds,
            "facts": self.facts,
        }


def pooled(measures: Sequence[Measure]) -> dict[str, Any]:
    """The numbers of jobs of several regions, each where it finished."""
    waited = sorted(chain.from_iterable(m.waited_ms() for m in measures))
    return {
        "jobs_submitted": sum(m.submitted for m in measures),
        "jobs_finished": sum(m.ended[JobFinished.__name__] for m in measures),
        "jobs_refused": sum(m.refused.total() for m in measures),
        "jobs_unfinished": sum(m.unfinished for m in measures),
        "queue_mean_s": mean_s(waited),
        "queue_p50_s": rank_s(waited, 50),
        "queue_p99_s": rank_s(waited, 99),
    }


def mean_s(values_ms: Sequence[int]) -> float:
    return round(sum(values_ms) / len(values_ms) / 1000, 1) if values_ms else 0.0


def rank_s(ordered_ms: Sequence[int], percent: int) -> float:
    """The nearest-rank percentile."""
    if not ordered_ms:
        return 0.0
    rank = -(-len(ordered_ms) * percent // 100)
    return ordered_ms[max(0, rank - 1)] / 1000
