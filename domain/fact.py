"""What all facts have in common."""

from __future__ import annotations

from msgspec import Struct

Placed = tuple[str, int, int, int]
"""A node, the replicas on it, the index of their group, and the shared device's number or -1."""

Held = tuple[str, int]
"""A node, and a number of slots on it."""


class Fact(Struct, frozen=True, gc=False, tag_field="t", tag=True, omit_defaults=True):
    """Base of all facts; `t` in the JSON is the class name."""


class Counted(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a policy's rule contributed to a decision."""

    rule: str
    """`POLICY/RULE`."""
    contribution: int
    band: int = 1
    """Of a preference among places; -1: it counted in the order of jobs."""


class Why(Struct, frozen=True, gc=False, omit_defaults=True):
    """The reason of a placement: what was compared, and what came second."""

    tier: int
    """Rank of the tier: 0 is the strongest promise."""
    share_ppm: int
    """Dominant share of the queue including this job, over its weight."""
    candidates: int
    """Nodes (or, for a gang, domains) that could have taken it."""
    chosen: str
    score: tuple[int, ...]
    """Left-over slots first, or the worth that parts of a node lose; the smaller score won."""
    runner_up: str | None = None
    runner_up_score: tuple[int, ...] | None = None
    flavour: int = 0
    """Index of the flavour in the job's list."""
    rules: tuple[Counted, ...] = ()
    """Rules of policies that contributed, and what."""
