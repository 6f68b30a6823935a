"""Faults: what goes wrong in a schedule, planned from its seed, so that each can be left out."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from tests.simulation.workload import span

Kind = Literal[
    "crash",
    "pause",
    "zombie",
    "cut",
    "slow",
    "write",
    "broker",
    "disk",
    "clock",
    "snapshot",
    "hide",
    "standby",
    "stranger",
    "outage",
    "drop",
    "gaps",
    "poison",
    "command",
]

ROLES: Final = ("decider", "intake", "dispatch", "projector", "fleet", "client")
ZOMBIES: Final = ("decider", "dispatch", "dispatch", "intake")
"""Roles that are replaced while they are stopped, and go on beside their successors."""
WEIGHTS: Final[dict[Kind, int]] = {
    "crash": 10,
    "pause": 3,
    "zombie": 3,
    "cut": 3,
    "slow": 2,
    "write": 8,
    "broker": 2,
    "disk": 2,
    "clock": 2,
    "snapshot": 3,
    "hide": 2,
    "standby": 3,
    "stranger": 2,
    "outage": 3,
    "drop": 1,
    "gaps": 1,
    "poison": 1,
}
KINDS: Final = tuple(WEIGHTS)
TOPICS: Final = ("cmd", "cmd", "accepted", "ledger", "ledger", "dispatch", "dispatch", "dead")
MODES: Final = ("lost", "unacknowledged", "unacknowledged", "late", "doubled", "torn")
DAMAGE: Final = ("torn", "flipped", "lost")
STRANGERS: Final = ("garbage", "unsigned", "repeated", "fork")


@dataclass(frozen=True)
class Fault:
    kind: Kind
    who: str = ""
    """A role, a topic, or a node."""
    n: int = 0
    """The step, write, save, or offset in milliseconds at which it happens."""
    at_s: float = 0.0
    for_s: float = 0.0
    how: str = ""

    def __str__(self) -> str:
        parts = [self.kind, self.who, self.how]
        parts += [f"at step {self.n}" if self.kind in ("crash", "pause", "zombie") else ""]
        parts += [f"number {self.n}" if self.kind in ("write", "snapshot", "command") else ""]
        parts += [f"by {self.n} ms" if self.kind == "clock" else ""]
        parts += [f"at {self.at_s:.1f} s" if self.at_s else ""]
        parts += [f"for {self.for_s:.1f} s" if self.for_s else ""]
        return " ".join(p for p in parts if p)


def plan(seed: int, nodes: int) -> list[Fault]:
    """The faults of a schedule; some schedules have none."""
    random = Random(seed)
    count = random.choice((0, 1, 2, 3, 4, 6, 8, 10))
    kinds = random.choices(KINDS, weights=tuple(WEIGHTS.values()), k=count)
    return [_fault(random, kind, nodes, span(seed).seconds) for kind in kinds]


def _fault(random: Random, kind: Kind, nodes: int, span_s: float) -> Fault:
    at_s = random.random() * span_s
    who = random.choice(ROLES)
    if random.random() < 0.35:
        who = "decider"
    step = int(2 ** (random.random() * 9.5))
    for_s = random.choice((0.1, 2.0, 8.0, 20.0)) * (0.5 + random.random())
    match kind:
        case "zombie":
            return Fault(kind, random.choice(ZOMBIES), n=step, for_s=for_s)
        case "crash" | "pause":
            return Fault(kind, who, n=step, for_s=for_s)
        case "cut" | "slow" | "disk":
            return Fault(kind, who, at_s=at_s, for_s=for_s)
        case "write":
            topic, how = random.choice(TOPICS), random.choice(MODES)
            if how == "torn" and topic not in ("ledger", "accepted"):
                how = "unacknowledged"
            return Fault(kind, topic, n=int(2 ** (random.random() * 5.5)), how=how)
        case "broker":
            return Fault(kind, at_s=at_s, for_s=min(for_s, 10.0))
        case "clock":
            by_ms = random.choice((-600_000, -30_000, -1000, 1000, 30_000, 120_000))
            return Fault(kind, who, n=by_ms, at_s=at_s)
        case "snapshot":
            return Fault(kind, n=random.randint(1, 6), how=random.choice(DAMAGE))
        case "drop":
            return Fault(kind, at_s=at_s)
        case "hide":
            return Fault(kind, n=random.randint(1, 4), at_s=at_s)
        case "standby":
            return Fault(kind, at_s=at_s, for_s=5.0 + for_s)
        case "stranger":
            return Fault(kind, at_s=at_s, how=random.choice(STRANGERS))
        case "outage":
            return Fault(kind, f"n{random.randrange(nodes)}", at_s=at_s, for_s=for_s)
        case _:
            return Fault(kind)
