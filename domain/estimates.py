"""How long jobs run: what has been seen of it, and the model of it that is published as a fact.

Seen: the run times of jobs that came to their end, by queue and size, in buckets of a quarter of an
octave. Published: quantiles of them, and of what users' estimates were off by. Decisions use what
was published last, so that whoever folds the ledger expects the same.

A job is expected to run as long as its user says, times the factor by which such estimates are
usually off; without an estimate as long as its like did in the mean. One that has run longer has as
much before it as behind it: the longer a run of unknown length, the longer it lasts.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import msgspec

from domain.facts import EstimateModelPublished, EstimateOf

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.jobs import Job
    from domain.runs import Run
    from domain.shapes import Shape
    from domain.turn import Turn

FIRST: Final = 16
"""Ends of jobs after which a model is first published; then each time that they have doubled."""
MOST: Final = 16_384
"""It is published after so many more ends at the latest."""
ENTRIES_MAX: Final = 1024
FEWEST: Final = 8
"""Ends of a kind from which it has an entry; a rarer one has that of all queues."""
PRIOR: Final = 256
"""Run times have long tails, so that means of few mislead: that of all counts as so many ends."""
ALL: Final = ""
"""Stands for every queue in an entry; no queue has this name."""
ANY_SIZE: Final = 0
UNKNOWN_S: Final = 1
"""Before any job came to its end: what runs has as much before it as behind it."""
MILLI: Final = 1000

Kind = tuple[str, int]
"""Queue, and the number of bits of the size in slots: sizes within a factor of two are alike."""


def bucket_of(value: int) -> int:
    """Four buckets to the octave: 1 -> 0, 2 -> 4, 3 -> 6, 4 -> 8, 5 -> 9."""
    value = max(1, value)
    octave = value.bit_length() - 1
    return 4 * octave + ((value << 2 >> octave) & 3)


def top_of(bucket: int) -> int:
    """The largest value in a bucket."""
    octave, quarter = divmod(bucket, 4)
    return max(1, ((5 + quarter) << octave) - 1 >> 2)


def quantile(counts: dict[int, int], permille: int) -> int:
    """The top of the bucket in which so many thousandths of the counted values have come."""
    rest = -(-sum(counts.values()) * permille // 1000)
    for bucket, count in sorted(counts.items()):
        rest -= count
        if rest <= 0:
            return top_of(bucket)
    return 0


class Seen:
    """The run times of the jobs of one kind that came to their end."""

    __slots__ = ("id", "jobs", "mark", "off", "ran", "total_s")
    kind = "runtimes"

    def __init__(self, id_: Kind) -> None:
        self.id = id_
        self.jobs = 0
        self.total_s = 0
        self.ran: dict[int, int] = {}
        """By bucket of seconds: jobs."""
        self.off: dict[int, int] = {}
        """By bucket of thousandths of their estimate: jobs that had one."""
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (
            *self.id,
            self.jobs,
            self.total_s,
            sorted(self.ran.items()),
            sorted(self.off.items()),
        )


class EstimateModel:
    """The model that was published last."""

    __slots__ = ("by_kind", "due", "ends", "entries", "mark", "version")
    kind = "estimates"

    def __init__(self) -> None:
        self.version = 0
        self.ends = 0
        """Jobs that came to their end."""
        self.due = FIRST
        self.entries: list[EstimateOf] = []
        self.by_kind: dict[Kind, EstimateOf] = {}
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (self.version, self.ends, self.due, self.entries)

    def publish(self, entries: list[EstimateOf]) -> None:
        self.version += 1
        self.entries = entries
        self.due = self.ends + min(self.ends, MOST)
        self.index()

    def index(self) -> None:
        self.by_kind = {(e.queue, e.size): e for e in self.entries}

    def of(self, shape: Shape) -> EstimateOf | None:
        """What is known of the shape's like."""
        size = shape.slots.bit_length()
        for kind in ((shape.queue.id, size), (ALL, size), (ALL, ANY_SIZE)):
            if kind in self.by_kind:
                return self.by_kind[kind]
        return None


# --- decide ---------------------------------------------------------------------------------------


def expected_s(cell: Cell, job: Job, *, at_most: bool = False) -> int:
    """Seconds that the job runs in all; `at_most`: nine of ten such jobs do not run longer."""
    entry = cell.estimates.of(job.shape)
    if job.estimate_s is not None:
        off = (entry.off_p90_milli if at_most else entry.off_p50_milli) if entry else 0
        return job.estimate_s * (off or MILLI) // MILLI
    if entry is None:
        return UNKNOWN_S
    return entry.p90_s if at_most else entry.mean_s


def left_s(cell: Cell, job: Job, done_s: int) -> int:
    """Seconds that it is expected to run after `done_s` of them."""
    expected = expected_s(cell, job)
    return expected - done_s if expected > done_s else done_s


def run_left_s(cell: Cell, run: Run) -> int:
    """Seconds after which a running attempt is expected to be over."""
    age_s = (cell.now_ms - (run.started_ms or cell.now_ms)) // 1000
    job, slots = run.job, run.job.shape.slots
    before_s = max(0, job.attained_slot_s - job.lost_slot_s) // slots if slots else 0
    return left_s(cell, job, before_s + age_s)


def freed(cell: Cell, accelerator: str) -> list[tuple[int, int]]:
    """(seconds from now, slots that running work will have left by then), in order."""
    left: list[tuple[int, int]] = []
    for node in cell.nodes.values():
        if node.class_.accelerator == accelerator:
            left += [(run_left_s(cell, run), slots) for run, slots in node.runs.items()]
    left.sort()
    return list(zip((s for s, _ in left), accumulate(n for _, n in left), strict=True))


def until_left_s(cell: Cell, run: Run, slot_s: int) -> int:
    """Seconds after its start at which a run without estimate may have so much before it."""
    job, slots = run.job, run.job.shape.slots
    before_s = max(0, job.attained_slot_s - job.lost_slot_s) // slots
    return max(expected_s(cell, job), -(-slot_s // slots)) - before_s


def publish(turn: Turn) -> None:
    """Publish the model if enough jobs came to their end since the last."""
    cell = turn.cell
    if cell.estimates.ends >= cell.estimates.due:
        turn.emit(EstimateModelPublished(measure(cell.runtimes)))


def measure(seen: dict[Kind, Seen]) -> list[EstimateOf]:
    """The kinds that ended most often, and all queues together by size."""
    together: dict[int, Seen] = {}
    for (_, of), one in sorted(seen.items()):
        for size in (of, ANY_SIZE):
            _add(together.setdefault(size, Seen((ALL, size))), one)
    all_ = together[ANY_SIZE]
    prior_s = PRIOR * all_.total_s // all_.jobs
    often = sorted(seen.values(), key=lambda s: (-s.jobs, s.id))[:ENTRIES_MAX]
    told = [*together.values(), *(s for s in often if s.jobs >= FEWEST)]
    return [
        EstimateOf(
            queue=one.id[0],
            size=one.id[1],
            jobs=one.jobs,
            mean_s=(one.total_s + prior_s) // (one.jobs + PRIOR),
            p90_s=quantile(one.ran, 900),
            off_p50_milli=quantile(one.off, 500),
            off_p90_milli=quantile(one.off, 900),
        )
        for one in sorted(told, key=lambda s: s.id)
    ]


def _add(whole: Seen, one: Seen) -> None:
    whole.jobs += one.jobs
    whole.total_s += one.total_s
    for counts, more in ((whole.ran, one.ran), (whole.off, one.off)):
        for bucket, jobs in more.items():
            counts[bucket] = counts.get(bucket, 0) + jobs


# --- evolve ---------------------------------------------------------------------------------------


def ended(cell: Cell, job: Job) -> None:
    """Count the run time of a job that has come to its end."""
    shape = job.shape
    if not shape.slots or not job.attempts:
        return
    kind = (shape.queue.id, shape.slots.bit_length())
    seen = cell.runtimes.get(kind)
    if seen is None:
        seen = cell.runtimes[kind] = Seen(kind)
    ran_s = max(0, job.attained_slot_s - job.lost_slot_s) // shape.slots
    seen.jobs += 1
    seen.total_s += ran_s
    _count(seen.ran, bucket_of(ran_s))
    if job.estimate_s:
        _count(seen.off, bucket_of(ran_s * MILLI // job.estimate_s))
    cell.estimates.ends += 1
    cell.touch(seen)
    cell.touch(cell.estimates)


def _count(counts: dict[int, int], bucket: int) -> None:
    counts[bucket] = counts.get(bucket, 0) + 1


def apply_published(cell: Cell, fact: EstimateModelPublished) -> None:
    cell.estimates.publish(fact.entries)
    cell.touch(cell.estimates)


# --- snapshots ------------------------------------------------------------------------------------


def restore(cell: Cell, model: list[Any], seen: list[Any]) -> None:
    estimates = cell.estimates
    estimates.version, estimates.ends, estimates.due, entries = model
    estimates.entries = msgspec.convert(entries, list[EstimateOf])
    estimates.index()
    for queue, size, jobs, total_s, ran, off in seen:
        one = cell.runtimes[queue, size] = Seen((queue, size))
        one.jobs, one.total_s, one.ran, one.off = jobs, total_s, dict(ran), dict(off)
