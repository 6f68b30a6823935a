"""What the rules in force come to for one shape: found once, read in every round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from domain.fact import Counted
from domain.policies import rows
from domain.policies.attributes import MANY, Phase
from domain.policies.compiler import Names, Row
from domain.policies.effects import BOOST_MAX, FORMS, PPM, encode_bands, total
from domain.policies.live import Live, clamped, resolve

if TYPE_CHECKING:
    from domain.fabric import NodeClass
    from domain.quota import Account

ORDER: Final = -1
"""Stands for the band of what counted outside of placement."""


class Judged(NamedTuple):
    """What rules say of a shape on nodes of a class."""

    denied: str
    """The rule that keeps it away; empty: none does."""
    bands: tuple[int, int, int]
    why: tuple[Counted, ...]


class Terms:
    """Rules about where a shape may and would rather go; one object for equal ones."""

    __slots__ = ("_names", "_on", "_rules", "prefers")

    def __init__(self, rules: Sequence[tuple[Live, Row]], names: Names) -> None:
        self._rules = rules
        self._names = names
        self._on: dict[int, Judged] = {}
        self.prefers = any(rule.phase == Phase.SCORE for rule, _ in rules)

    def on(self, class_: NodeClass) -> Judged:
        found = self._on.get(class_.id)
        if found is None:
            found = self._on[class_.id] = self._judge(class_)
        return found

    def _judge(self, class_: NodeClass) -> Judged:
        other = rows.of_class(self._names, class_)
        holds = [
            (rule, clamped(rule, rule.value(row, other)))
            for rule, row in self._rules
            if rule.rest is None or rule.rest(row, other)
        ]
        denying = [r for r in holds if r[0].slot == "deny"]
        denied = resolve(denying)[1]["deny"][0][0] if denying else ""
        form = FORMS[Phase.SCORE]["prefer"]
        sums, why = [0, 0, 0], []
        for band in range(3):
            scores = [(r.name, v) for r, v in holds if r.slot == f"prefer.{band}"]
            sums[band] = total((v for _, v in scores), form)
            why += [Counted(name, v, band) for name, v in sorted(scores) if v]
        return Judged(denied, (sums[0], sums[1], sums[2]), tuple(why))

    def preference(self, class_: NodeClass, wished: int) -> int:
        """Rank of the class among others; what the job itself wishes stands in band 1."""
        first, second, third = self.on(class_).bands
        return encode_bands((first, second + wished, third))


class Ruling(NamedTuple):
    """By phase, what counts for a shape; as it is where no rule says anything."""

    held: str = ""
    """The rule that keeps all of its jobs waiting."""
    ceiling: int | None = None
    """Thousandths of slots that its account's own queues may use of a type, with this one."""
    ceiling_by: str = ""
    waits: tuple[tuple[str, int], ...] = ()
    """Seconds by accelerator type, instead of what the job's flavours say."""
    terms: Terms | None = None
    boost: int = 0
    share_ppm: int = PPM
    calm: bool = False
    """It preempts nobody."""
    protected: bool = False
    """Nobody preempts it."""
    patience_s: int | None = None
    loss_ppm: int = PPM
    grows: bool = True
    replicas: int | None = None
    why: tuple[Counted, ...] = ()
    """What is part of why it was started wherever that is: of order, and of like for all places."""

    @property
    def about_places(self) -> tuple[object, ...]:
        """What decides which shapes are asked for together."""
        return (self.held, self.ceiling, self.ceiling_by, self.waits, self.terms)

    @property
    def counts(self) -> bool:
        """True iff it may be part of why something was started."""
        return bool(self.why) or self.terms is not None

    def room(self, account: Account, accelerator: str) -> int:
        """What the ceiling lets the account's own queues take more, in thousandths of slots."""
        return MANY if self.ceiling is None else self.ceiling - account.own.get(accelerator, 0)

    def wait_s(self, accelerator: str, given_s: int) -> int:
        for name, after_s in self.waits:
            if name == accelerator:
                return after_s
        return given_s


class Verdict(NamedTuple):
    """What a job gets instead of what it asked for, and the rules that say so."""

    tier: str | None = None
    priority: int | None = None
    rules: tuple[str, ...] = ()


NO_RULING: Final = Ruling()


def ruling_of(held: Sequence[tuple[Live, int]], terms: Terms | None) -> Ruling:
    """Of rules that hold for a shape, whatever it is tried with; and the terms of the others."""
    by_phase: dict[Phase, list[tuple[Live, int]]] = {}
    for rule, value in held:
        by_phase.setdefault(rule.phase, []).append((rule, value))
    guard, why_guard = resolve(by_phase.get(Phase.GUARD, ()))
    order, why_order = resolve(by_phase.get(Phase.ORDER, ()))
    remedy, _ = resolve(by_phase.get(Phase.REMEDY, ()))
    scale, _ = resolve(by_phase.get(Phase.SCALE, ()))
    ceiling = guard.get("ceiling")
    counted = [
        Counted(name, value, ORDER)
        for slot in ("boost", "share")
        for name, value in why_order.get(slot, ())
    ]
    alike = by_phase.get(Phase.SCORE, ())
    counted += [Counted(r.name, v, int(r.slot[-1])) for r, v in alike if v]
    return Ruling(
        held=why_guard["deny"][0][0] if "deny" in guard else "",
        ceiling=None if ceiling is None else 1000 * ceiling,
        ceiling_by=why_guard["ceiling"][0][0] if ceiling is not None else "",
        waits=tuple(
            (slot.partition(".")[2], value)
            for slot, value in guard.items()
            if slot.startswith("after_wait.")
        ),
        terms=terms,
        boost=max(-BOOST_MAX, min(BOOST_MAX, order.get("boost", 0))),
        share_ppm=order.get("share", PPM),
        calm="deny" in remedy,
        protected="protect" in remedy,
        patience_s=remedy.get("patience"),
        loss_ppm=remedy.get("loss", PPM),
        grows="deny" not in scale,
        replicas=scale.get("replicas"),
        why=tuple(counted),
    )
