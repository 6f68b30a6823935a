"""Objectives: whole policies with a name, for what an operator may want most; and the defaults.

Each is a document as anyone could write it. To switch by schedule or by signal, several of them are
in force at once and each has a `when` of its own: `signal.hour >= 20`, or
`signal.reported['objective'] == 2`.
"""

from __future__ import annotations

from typing import Any, Final

from domain.policies.attributes import Phase
from domain.policies.documents import Effect, Parameter, PolicyDocument, Rule
from domain.specs import TIERS, PolicyParameters


def _rule(name: str, phase: Phase, when: str = "true", **then: Any) -> Rule:
    return Rule(rule=name, phase=phase, when=when, then=Effect(**then))


def _defaults() -> PolicyDocument:
    """The promise of each tier, as the parameters have it without any policy."""
    delays = PolicyParameters().queue_delay_s
    rules = [
        _rule(
            f"{tier}-delay",
            Phase.REMEDY,
            f"job.tier == '{tier}'",
            do="patience",
            value=f"param.{tier}",
        )
        for tier in TIERS
    ]
    params = tuple(
        Parameter(param=str(tier), value=delay, min=0, max=604_800, unit="s")
        for tier, delay in zip(TIERS, delays, strict=True)
    )
    title = "What each tier is promised: how long it waits, within its quota, before it preempts"
    return PolicyDocument(
        policy="tier-promises", version=1, title=title, params=params, rules=tuple(rules)
    )


def _objective(name: str, title: str, *rules: Rule) -> PolicyDocument:
    return PolicyDocument(policy=name, version=1, title=title, rules=rules)


OBJECTIVES: Final[dict[str, PolicyDocument]] = {
    d.policy: d
    for d in (
        _defaults(),
        _objective(
            "maximise-utilisation",
            "Idle slots are the worst: all quota is lent, fallbacks open soon, little is preempted",
            _rule("lend", Phase.LEND, do="lending", value=1_000_000),
            _rule("borrow", Phase.LEND, do="borrowing", value=1_000_000),
            _rule("keep-running", Phase.REMEDY, do="loss", value=4_000_000),
            _rule("small-first", Phase.ORDER, "job.slots <= 2", do="boost", value=10),
        ),
        _objective(
            "protect-premium",
            "Premium work starts within a minute, and is preempted by nobody",
            _rule("at-once", Phase.REMEDY, "job.tier == 'premium'", do="patience", value=60),
            _rule("spared", Phase.REMEDY, "job.tier == 'premium'", do="protect"),
            _rule("first", Phase.ORDER, "job.tier == 'premium'", do="share", value=250_000),
        ),
        _objective(
            "minimise-cost",
            "The cheapest places first; what is rented is for the stronger tiers alone",
            _rule(
                "price",
                Phase.SCORE,
                do="prefer",
                value="0 - int(node.labels['price'], 0)",
                band=0,
            ),
            _rule(
                "rented",
                Phase.GUARD,
                "job.tier == 'basic' && node.labels['provider'] == 'cloud'",
                do="deny",
                reason="rented nodes are not for the basic tier",
            ),
            _rule("stay", Phase.HANDOFF, do="threshold", value=3600),
        ),
        _objective(
            "fairness-first",
            "Quota is had when it is asked for: what was lent comes back within a minute",
            _rule("soon", Phase.REMEDY, "job.tier != 'basic'", do="patience", value=60),
            _rule("cheap", Phase.REMEDY, do="loss", value=250_000),
            _rule("large-later", Phase.ORDER, "job.slots >= 64", do="share", value=2_000_000),
        ),
    )
}
