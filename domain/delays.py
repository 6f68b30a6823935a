"""How long jobs waited for their first start, by tier: what a promised delay is measured by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.runs import Run

BUCKETS: Final = 32
"""counts[k]: waits of less than 2^k seconds, and of 2^(k-1) or more; the last has all above."""


class Delays:
    """The first starts of one tier's jobs."""

    __slots__ = ("counts", "id", "late", "mark", "total_ms")
    kind = "delays"

    def __init__(self, tier: int) -> None:
        self.id = tier
        self.counts = [0] * BUCKETS
        self.total_ms = 0
        self.late = 0
        """Those that waited longer than the policy's `queue_delay_s` of the tier."""
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (self.id, str(self.total_ms), self.late, self.counts)


def started(cell: Cell, run: Run) -> None:
    """Count the job's wait, if it starts for the first time."""
    if run.attempt != 1:
        return
    job = run.job
    delays = cell.delays.setdefault(job.shape.tier, Delays(job.shape.tier))
    wait_ms = cell.now_ms - job.seniority_ms
    delays.counts[min(BUCKETS - 1, (wait_ms // 1000).bit_length())] += 1
    delays.total_ms += wait_ms
    delays.late += wait_ms > 1000 * cell.policy.queue_delay_s[job.shape.tier]
    cell.touch(delays)


def restore(cell: Cell, states: list[Any]) -> None:
    for tier, total_ms, late, counts in states:
        delays = cell.delays[tier] = Delays(tier)
        delays.total_ms, delays.late, delays.counts = int(total_ms), late, counts
