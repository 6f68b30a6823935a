"""Fragments moved together: whose move frees nodes for a gang that lacks nothing else.

What moves is placed again at once: it fits into holes that are no use to the gang. So only work
since its last checkpoint is lost, and no claim beside the gang's is served by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.preemption.eviction import Plan

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.placement import Blocked
    from domain.runs import Run

CAUSE = "consolidation"


def wanted(cell: Cell, blocked: Blocked) -> bool:
    """True iff fragments may be moved for what is blocked so."""
    return cell.policy.consolidation and blocked.reason == "fragmented"


def may_move(run: Run) -> bool:
    """True iff it lies on one node, and asks for slots alone."""
    job = run.job
    need = job.shape.needs[run.flavour]
    return len(run.nodes) == 1 and need.plain and not run.part and not job.parts


def fits_elsewhere(cell: Cell, plan: Plan) -> bool:
    """True iff all that moves has room on nodes that the gang does not take."""
    taken = {node: None for node, *_ in plan.placed}
    taken |= {cell.nodes[placed[0]]: None for run in plan.runs for placed in run.nodes}
    holes: dict[int, list[int]] = {}
    for run in sorted(plan.runs, key=lambda r: -r.slots):
        classes = run.job.shape.needs[run.flavour].classes(cell)
        for class_ in classes:
            if class_.id not in holes:
                counts = holes[class_.id] = list(class_.counts)
                for node in taken:
                    counts[node.available] -= node.class_ is class_
        if not any(_take(holes[class_.id], run.slots) for class_ in classes):
            return False
    return True


def _take(holes: list[int], slots: int) -> bool:
    """Fill the smallest hole that is large enough; `holes` by free slots, as in a class."""
    size = next((k for k in range(slots, len(holes)) if holes[k]), None)
    if size is None:
        return False
    holes[size] -= 1
    holes[size - slots] += 1
    return True
