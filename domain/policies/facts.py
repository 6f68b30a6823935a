"""The facts of policies: each step of a version's life, each move of a parameter, with its author.

The author is the actor of the command, or `gate/NAME`, `canary` or `controller/NAME` where no
person was asked.
"""

from __future__ import annotations

from typing import Any

from domain.fact import Fact


class PolicyDrafted(Fact, frozen=True, tag="PolicyDrafted"):
    command: int
    policy: str
    version: int
    author: str


class PolicyValidated(Fact, frozen=True, tag="PolicyValidated"):
    """All of it was checked, and its tests passed: from now on its trees are what it means."""

    policy: str
    version: int
    trees: dict[str, Any]
    """Its expressions, by their place in the document."""
    tests: int


class PolicyReplayed(Fact, frozen=True, tag="PolicyReplayed"):
    """Recorded demand was decided again with it, and the gates of the replay held."""

    command: int
    policy: str
    version: int
    author: str


class PolicyCanaryStarted(Fact, frozen=True, tag="PolicyCanaryStarted"):
    policy: str
    version: int
    mode: str
    """shadow: it is asked and not heeded; slice: it counts for a part of the queues."""
    slice_ppm: int
    until_ms: int
    then_activate: bool
    baseline: dict[str, int]
    """By gate: what it watches, as it was now."""
    author: str


class PolicyShadowed(Fact, frozen=True, tag="PolicyShadowed"):
    """What the version would change now, if it counted."""

    policy: str
    version: int
    shapes: int
    differing: int
    """Shapes that its rules would treat otherwise."""


class PolicyActivated(Fact, frozen=True, tag="PolicyActivated"):
    """It counts from this round on."""

    policy: str
    version: int
    author: str
    until_ms: int = 0
    """Its gates are watched until then; 0: they are not."""
    baseline: dict[str, int] = {}


class PolicySuperseded(Fact, frozen=True, tag="PolicySuperseded"):
    policy: str
    version: int
    by: int


class PolicyRolledBack(Fact, frozen=True, tag="PolicyRolledBack"):
    """The version counts no more; the one before it does again."""

    policy: str
    version: int
    to: int
    """0: none."""
    author: str
    reason: str
    found: int | None = None
    """What the gate watched, if one broke."""


class PolicyParameterMoved(Fact, frozen=True, tag="PolicyParameterMoved"):
    policy: str
    param: str
    old: int
    new: int
    controller: str
    watched: int


class SignalReported(Fact, frozen=True, tag="SignalReported"):
    command: int


class SignalsFrozen(Fact, frozen=True, tag="SignalsFrozen"):
    """What rules read as signals, from this round on until the next such fact."""

    values: dict[str, int]


PolicyFact = (
    PolicyDrafted
    | PolicyValidated
    | PolicyReplayed
    | PolicyCanaryStarted
    | PolicyShadowed
    | PolicyActivated
    | PolicySuperseded
    | PolicyRolledBack
    | PolicyParameterMoved
    | SignalReported
    | SignalsFrozen
)
