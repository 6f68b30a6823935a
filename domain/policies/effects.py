"""The closed set of effects, by phase, and how several of them come together.

deny      any of them denies
scalar    one counts: a locked rule of the widest scope, else the most specific scope, then the
          higher priority, then the smaller name
sum       they add up, within bounds
product   parts per million that multiply, within bounds
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from domain.policies.attributes import Phase, Unit
from domain.specs import MAX_S, MAX_SLOTS, TIERS

PPM: Final = 1_000_000
SCORE_MAX: Final = 500_000
"""What preferences of one band add up to, at most."""
BOOST_MAX: Final = 10_000

Kind = Literal["deny", "scalar", "sum", "product"]


class Form(NamedTuple):
    """How an effect comes together with others, and what its value may be."""

    kind: Kind
    low: int = 0
    high: int = 1
    unit: Unit = ""
    reads: bool = False
    """Its value may read what the phase's subject is tried with."""


DENY: Final = Form("deny")
FORMS: Final[dict[Phase, dict[str, Form]]] = {
    Phase.ADMIT: {
        "deny": DENY,
        "tier": Form("scalar", 0, len(TIERS) - 1),
        "priority": Form("scalar", 0, 1000),
    },
    Phase.GUARD: {
        "deny": DENY,
        "ceiling": Form("scalar", 0, MAX_SLOTS, "slots"),
        "after_wait": Form("scalar", 0, MAX_S, "s"),
    },
    Phase.ORDER: {
        "boost": Form("sum", -BOOST_MAX, BOOST_MAX),
        "share": Form("product", 1000, 1000 * PPM, "ppm"),
    },
    Phase.SCORE: {"prefer": Form("sum", -SCORE_MAX, SCORE_MAX, reads=True)},
    Phase.REMEDY: {
        "deny": DENY,
        "protect": Form("deny"),
        "patience": Form("scalar", 0, MAX_S, "s"),
        "loss": Form("product", 1000, 1000 * PPM, "ppm"),
    },
    Phase.RESERVE: {"deny": DENY},
    Phase.LEND: {
        "lending": Form("scalar", 0, MAX_SLOTS, "slots"),
        "borrowing": Form("scalar", 0, MAX_SLOTS, "slots"),
    },
    Phase.HANDOFF: {"deny": DENY, "threshold": Form("scalar", 0, MAX_S, "s")},
    Phase.SCALE: {"deny": DENY, "replicas": Form("scalar", 0, 16_384)},
}


class Standing(NamedTuple):
    """What decides between rules that set the same; the smaller comes first."""

    specific: int
    """Depth of its scope: 0 is global, 1 a region, then accounts from the root down."""
    priority: int
    locked: bool
    name: str

    def order(self) -> tuple[int, int, int, str]:
        if self.locked:
            return (0, self.specific, -self.priority, self.name)
        return (1, -self.specific, -self.priority, self.name)


def total(values: Iterable[int], form: Form) -> int:
    return max(form.low, min(form.high, sum(values)))


def product(values: Iterable[int], form: Form) -> int:
    """Of parts per million; after each factor within bounds, in the order of the rules' names."""
    found = PPM
    for value in values:
        found = max(form.low, min(form.high, found * value // PPM))
    return found


def encode_bands(sums: tuple[int, int, int]) -> int:
    """One integer that compares as the bands do, one after the other."""
    radix = 4 * SCORE_MAX
    return (sums[0] * radix + sums[1]) * radix + sums[2]
