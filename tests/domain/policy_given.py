"""Policies for tests: documents in few words, and the refusals that policies meet."""

from __future__ import annotations

from typing import Any

from domain.commands import Command
from domain.policies import lifecycle, signals
from domain.policies.attributes import Phase
from domain.policies.commands import (
    ActivatePolicy,
    DraftPolicy,
    ReplayPolicy,
    ReportSignal,
    RollBackPolicy,
    StartCanary,
)
from domain.policies.documents import (
    Controller,
    Effect,
    Parameter,
    PolicyDocument,
    Rule,
)
from domain.replays import Replay
from tests.domain.given import job


def rule(
    name: str, phase: str, do: str, value: Any = None, when: str = "true", **more: Any
) -> Rule:
    effect = {k: more.pop(k) for k in ("band", "accelerator", "reason") if k in more}
    then = Effect.model_validate({"do": do, "value": value, **effect})
    return Rule(rule=name, phase=Phase(phase), when=when, then=then, **more)


def policy(*rules: Rule, name: str = "p", version: int = 1, **more: Any) -> PolicyDocument:
    return PolicyDocument(policy=name, version=version, rules=rules, **more)


def draft(*rules: Rule, **more: Any) -> DraftPolicy:
    return DraftPolicy(document=policy(*rules, **more))


def in_force(*rules: Rule, **more: Any) -> tuple[DraftPolicy, ActivatePolicy]:
    """The commands that make a policy count."""
    made = draft(*rules, **more)
    document = made.document
    return made, ActivatePolicy(policy=document.policy, version=document.version)


def chasing(name: str, param: str, raise_when: str, **more: Any) -> Controller:
    known = {"watch": "signal.waiting", "low": 2, "high": 5, "step": 8, "every_s": 60}
    return Controller.model_validate(
        {"controller": name, "param": param, "raise_when": raise_when, **known, **more}
    )


DENIES = rule("none", "admit", "deny", when="job.queue == 'q'", reason="launch week")
BY = Parameter(param="by", value=10, min=0, max=100)
FIGHT = draft(
    rule("r", "order", "boost", "param.by"),
    params=(BY,),
    controllers=(chasing("up", "by", "high"), chasing("down", "by", "low")),
)
MANY = [rule(f"r{i}", "order", "boost", 1) for i in range(256)]
_ACTIVATE = ActivatePolicy(policy="p", version=1)
_NONE = "0" * 64
_REPLAY = Replay(report=_NONE, parameters=_NONE, policy_version=0, first_round=1, last_round=1)

REFUSALS: dict[str, tuple[tuple[Command, ...], Command]] = {
    "denied_by_policy": (in_force(DENIES), job("x")),
    "invalid_policy": ((), draft(rule("r", "order", "boost", 1, "job.teir == 'basic'"))),
    "stale_version": ((draft(version=2),), draft(version=2)),
    "undamped_loop": ((), FIGHT),
    "unknown_policy": ((), _ACTIVATE),
    "unknown_policy in this version": (
        (draft(version=2),),
        ReplayPolicy(policy="p", version=1, replay=_REPLAY),
    ),
    "replay_failed of a document": (
        (draft(),),
        ReplayPolicy(policy="p", version=1, replay=_REPLAY),
    ),
    "policy_in_force": ((draft(), _ACTIVATE), _ACTIVATE),
    "policy_in_force on trial": ((draft(), _ACTIVATE), StartCanary(policy="p", version=1)),
    "trial_runs": (
        (draft(), draft(version=2), StartCanary(policy="p", version=1)),
        StartCanary(policy="p", version=2),
    ),
    "too_many_rules": (
        (*in_force(*MANY), *in_force(*MANY, name="q"), draft(*MANY, name="r")),
        ActivatePolicy(policy="r", version=1),
    ),
    "not_in_force": ((draft(),), RollBackPolicy(policy="p")),
}

BOUNDS: dict[str, tuple[object, str, int, Command]] = {
    "too_many_policies": (lifecycle, "POLICIES_MAX", 0, draft()),
    "too_many_signals": (signals, "REPORTED_MAX", 0, ReportSignal(signal="price", value=1)),
}
