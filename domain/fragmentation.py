"""What the free parts of nodes are worth to the workload mix, and what a placement takes of it.

A free device, or the free rest of a shared one, is worth the part of it that the mix can use: for
each request of the mix, weighted by how often it is made, as many whole multiples of it as fit. A
request that few nodes may serve weighs more, by the share of all slots that these nodes have. Free
devices beyond what the node's free CPU can feed are stranded, and worth nothing. Of the places of a
replica, the one that loses least worth leaves the least fragments; compare Weng et al., "Beware of
Fragmentation" (ATC '23), which weighs by the requests that a node can no longer serve at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from domain.facts import Labels, MixEntry

if TYPE_CHECKING:
    from domain.fabric import NodeClass

WHOLE: Final = 1000
UNIT: Final = 1_000_000
"""Worth of a thousandth of a device that all of the mix can use."""
FED_MILLI: Final = 900
"""A node as it came, all free, is never stranded: in thousandths of its own CPU to slots."""


class Worth:
    """Worth of free parts on the nodes of one class and host size; all of it is derived."""

    __slots__ = ("_shared", "_singles", "_whole", "_wholes", "cpu_milli")

    def __init__(self, weighed: Iterable[tuple[MixEntry, int]], cpu_milli: int) -> None:
        singles: dict[int, int] = {}
        wholes: dict[int, int] = {}
        for entry, weight in weighed:
            if entry.slots == 1:
                singles[entry.share_milli] = singles.get(entry.share_milli, 0) + weight
            elif entry.slots:
                wholes[entry.slots] = wholes.get(entry.slots, 0) + weight
        self._singles = list(singles.items())
        self._wholes = list(wholes.items())
        self._shared: dict[int, int] = {}
        self._whole: dict[int, int] = {}
        self.cpu_milli = cpu_milli
        """Host CPU that feeds a whole device; 0 if the mix asks for none."""

    def shared(self, free_milli: int) -> int:
        """Of a device with so much free, to the requests for one device or less."""
        found = self._shared.get(free_milli)
        if found is None:
            found = sum(w * (free_milli - free_milli % share) for share, w in self._singles)
            self._shared[free_milli] = found
        return found

    def whole(self, free: int) -> int:
        """Of so many free devices together, to the requests for several."""
        found = self._whole.get(free)
        if found is None:
            found = sum(w * WHOLE * (free - free % slots) for slots, w in self._wholes)
            self._whole[free] = found
        return found

    def loss(self, slots: int, share_milli: int, free_milli: int, free: int) -> int:
        """Worth that a replica takes.

        A share takes of a device with `free_milli`; of an unused one (`free_milli` = 1000), and
        with whole slots, it takes of `free` unused devices.
        """
        if share_milli < WHOLE:
            lost = self.shared(free_milli) - self.shared(free_milli - share_milli)
            return lost + (self.whole(free) - self.whole(free - 1) if free_milli == WHOLE else 0)
        return slots * self.shared(WHOLE) + self.whole(free) - self.whole(free - slots)

    def fed_milli(self, cpu_milli: int) -> int:
        """Thousandths of devices that so much host CPU feeds."""
        return cpu_milli * WHOLE // self.cpu_milli if self.cpu_milli else 0


class Asked(NamedTuple):
    """What the mix asks of the nodes of one accelerator type."""

    weighed: list[tuple[MixEntry, int]]
    """By how often it is asked, and how few of all slots may serve it."""
    cpu_milli: int
    """Host CPU for a whole device, on the mean."""


def asked_of(entries: Sequence[MixEntry], classes: Iterable[NodeClass], accelerator: str) -> Asked:
    """What is asked of the nodes of a type, if `classes` are all that there are."""
    asked = [e for e in entries if e.accelerator == accelerator and e.slots]
    replicas = sum(e.replicas for e in asked)
    milli = sum(e.replicas * e.slots * e.share_milli for e in asked)
    cpu_milli = sum(e.host_cpu_milli for e in asked) * WHOLE // milli if milli else 0
    peers = [c for c in classes if c.accelerator == accelerator]
    slots = sum(c.slots * c.size for c in peers)
    weighed = []
    for entry in asked:
        anyone = not entry.require and not entry.forbid
        serving = slots if anyone else sum(c.slots * c.size for c in peers if serves(c, entry))
        weighed.append((entry, UNIT * entry.replicas * slots // (replicas * max(1, serving))))
    return Asked(weighed, cpu_milli)


def worth_of(asked: Asked, class_: NodeClass, host_cpu_milli: int) -> Worth:
    """Worth on nodes of a class with so much host CPU."""
    cpu_milli = asked.cpu_milli
    if class_.slots:
        cpu_milli = min(cpu_milli, host_cpu_milli * FED_MILLI // (WHOLE * class_.slots))
    return Worth((w for w in asked.weighed if serves(class_, w[0])), cpu_milli)


def serves(class_: NodeClass, entry: MixEntry) -> bool:
    """True iff the labels of the class are those that the entry's jobs ask for."""
    return _all_match(class_, entry.require) and not any(
        class_.labels.get(label) in values for label, values in entry.forbid
    )


def _all_match(class_: NodeClass, labels: Labels) -> bool:
    return all(class_.labels.get(label) in values for label, values in labels)


def stranded(fed_less_milli: int, by_milli: int) -> int:
    """Worth lost to stranding on a node that has so much more free than is fed, as `by` is added.

    The arguments are thousandths of devices: free beyond what is fed, and how that grows.
    """
    return UNIT * (max(0, fed_less_milli + by_milli) - max(0, fed_less_milli))
