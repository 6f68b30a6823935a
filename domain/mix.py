"""The workload mix: what live jobs ask of devices and hosts, published now and then as a fact.

Placement weighs the free parts of nodes by the published mix, so that whoever folds the ledger
weighs them alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from domain.fabric import is_local
from domain.facts import Labels, MixEntry, WorkloadMixPublished
from domain.specs import Selector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from domain.cell import Cell
    from domain.shapes import Shape
    from domain.turn import Turn

MOST_JOBS: Final = 16_384
"""A mix is published whenever the admissions have doubled, and after so many more at the latest."""
ENTRIES_MAX: Final = 256


class Mix:
    """The mix that was published last."""

    __slots__ = ("due", "entries", "mark", "version")
    kind = "mix"

    def __init__(self) -> None:
        self.version = 0
        self.due = 0
        """Another one is published once so many jobs have been admitted."""
        self.entries: list[MixEntry] = []
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (self.version, self.due, self.entries)


def publish(turn: Turn) -> None:
    """Publish the mix if enough jobs came since the last, and any of them needs parts of nodes."""
    cell = turn.cell
    wanted = cell.part_shapes and cell.policy.node_score == "fragmentation"
    if wanted and cell.next_job >= cell.mix.due:
        turn.emit(WorkloadMixPublished(measure(cell.shapes.values())))


def apply_published(cell: Cell, fact: WorkloadMixPublished) -> None:
    mix = cell.mix
    mix.version += 1
    mix.entries = fact.entries
    mix.due = cell.next_job + min(cell.next_job, MOST_JOBS)
    cell.touch(mix)


def measure(shapes: Iterable[Shape]) -> list[MixEntry]:
    """What the live jobs of these shapes ask for, as their first choice; the rarest left out."""
    found: dict[tuple[str, int, int, Labels, Labels], list[int]] = {}
    for shape in shapes:
        spec = shape.spec
        if spec.reservation is not None:
            continue
        require, forbid = _labels(spec.placement.require), _labels(spec.placement.forbid)
        for group in spec.groups:
            key = (spec.flavours[0].accelerator, group.slots, group.share_milli, require, forbid)
            entry = found.setdefault(key, [0, 0])
            entry[0] += shape.jobs * group.count
            entry[1] += shape.jobs * group.count * group.host_cpu_milli
    often = sorted(found.items(), key=lambda f: (-f[1][0], f[0]))[:ENTRIES_MAX]
    return [
        MixEntry(accelerator, slots, share, replicas, cpu, require, forbid)
        for (accelerator, slots, share, require, forbid), (replicas, cpu) in sorted(often)
    ]


def _labels(selectors: Iterable[Selector]) -> Labels:
    """The selectors that a node class can answer, in their order."""
    return tuple(sorted((s.label, s.values) for s in selectors if not is_local(s)))
