"""Fragments moved together: whose move frees nodes for a gang that lacks nothing else.

What moves is placed again at once: it fits into holes that are no use to the gang. So only work
since its last checkpoint is lost, and no claim beside the gang's is served by it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from domain.eviction import Eligible, Plan

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.preemption import Victims
    from domain.runs import Run
    from domain.shapes import Shape

CAUSE = "consolidation"


def movable(victims: Victims, shape: Shape, accelerator: str) -> Eligible:
    """Attempts of no stronger tier, on one node that they do not fill, that ask for slots alone."""
    return Eligible(
        {run: cost for run, cost in victims.weaker_or_equal(shape.tier, accelerator) if _may(run)}
    )


def _may(run: Run) -> bool:
    job = run.job
    need = job.shape.needs[run.flavour]
    return len(run.nodes) == 1 and need.plain and not run.part and not job.parts


def fits_elsewhere(cell: Cell, plan: Plan) -> bool:
    """True iff all that moves has room on nodes that the gang does not take."""
    taken = {node.id for node, *_ in plan.placed}
    for run in plan.runs:
        taken.update(placed[0] for placed in run.nodes)
    holes: dict[int, Counter[int]] = {}
    for run in sorted(plan.runs, key=lambda r: -r.slots):
        classes = run.job.shape.needs[run.flavour].classes(cell)
        if not any(_take(cell, class_.id, run.slots, taken, holes) for class_ in classes):
            return False
    return True


def _take(
    cell: Cell, class_: int, slots: int, taken: set[str], holes: dict[int, Counter[int]]
) -> bool:
    """Fill the smallest hole of the class that is large enough."""
    counts = holes.get(class_)
    if counts is None:
        nodes = (n for n in cell.nodes.values() if n.class_.id == class_ and n.id not in taken)
        counts = holes[class_] = Counter(n.available for n in nodes if n.schedulable)
    size = min((free for free, count in counts.items() if count and free >= slots), default=None)
    if size is None:
        return False
    counts[size] -= 1
    counts[size - slots] += 1
    return True
