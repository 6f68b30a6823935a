"""The life of a version: drafted, validated, replayed, on trial, active, superseded, rolled back.

A draft is checked in the round that takes it, and refused with the place of what is wrong; so what
stands in the ledger is valid. What counts changes by facts alone, each with its author.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from domain import replays
from domain.ledger import canonical
from domain.policies import cases, controllers, gates, signals, validation
from domain.policies.commands import (
    ActivatePolicy,
    DraftPolicy,
    ReplayPolicy,
    RollBackPolicy,
    StartCanary,
)
from domain.policies.documents import PolicyDocument
from domain.policies.facts import (
    PolicyActivated,
    PolicyCanaryStarted,
    PolicyDrafted,
    PolicyReplayed,
    PolicyRolledBack,
    PolicySuperseded,
    PolicyValidated,
)
from domain.policies.rulebook import RULES_MAX, signals_read
from domain.policies.state import Policy, Trial, Version
from domain.policies.syntax import from_json, to_json
from domain.refusals import Refused

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.turn import Turn

POLICIES_MAX: Final = 512
VERSIONS_BACK: Final = 8
"""So many versions may be rolled back one after the other."""


def digest_of(document: PolicyDocument) -> str:
    """SHA-256 of the document's canonical JSON, in hex: what a replay names."""
    return hashlib.sha256(canonical(document.model_dump(mode="json"))).hexdigest()


# --- decide ---------------------------------------------------------------------------------------


def draft_policy(turn: Turn, command: DraftPolicy, at: int) -> None:
    cell, document = turn.cell, command.document
    known = cell.policies.get(document.policy)
    if known is None and len(cell.policies) >= POLICIES_MAX:
        raise Refused("too_many_policies", "document.policy", f"at most {POLICIES_MAX}")
    if known is not None and document.version <= max(known.versions):
        rule = f"version {max(known.versions)} is known: a new one is higher"
        raise Refused("stale_version", "document.version", rule)
    try:
        trees = validation.trees_of(document)
        cases.run(document, trees)
    except validation.Invalid as invalid:
        raise Refused("invalid_policy", f"document.{invalid.field}", invalid.rule) from None
    own = controllers.undamped_loop([(document, trees)])
    if own is not None:
        raise Refused("undamped_loop", "document.controllers", " -> ".join(own))
    author = cell.accepted(at).actor
    turn.emit(PolicyDrafted(at, document.policy, document.version, author))
    stored = {place: to_json(tree) for place, tree in sorted(trees.items())}
    turn.emit(PolicyValidated(document.policy, document.version, stored, len(document.tests)))


def replay_policy(turn: Turn, command: ReplayPolicy, at: int) -> None:
    cell = turn.cell
    version = _version(cell, command.policy, command.version)
    replays.check(command.replay, digest_of(version.document), cell.policy_version, cell.head.round)
    author = cell.accepted(at).actor
    turn.emit(PolicyReplayed(at, command.policy, command.version, author))


def start_canary(turn: Turn, command: StartCanary, at: int) -> None:
    cell = turn.cell
    _version(cell, command.policy, command.version)
    policy = cell.policies[command.policy]
    if policy.trial is not None:
        raise Refused("trial_runs", "policy", f"version {policy.trial.version} is on trial")
    if command.version == policy.active:
        raise Refused("policy_in_force", "version", "it is in force already")
    _check_in_force(cell, policy, command.version)
    reads = signals_of(policy, command.version)
    signals.freeze_now(turn, sorted({*cell.rulebook.reads, *reads}))
    fact = PolicyCanaryStarted(
        policy.id,
        command.version,
        command.mode,
        command.slice_ppm if command.mode == "slice" else 0,
        cell.now_ms + 1000 * command.for_s,
        command.then == "activate",
        gates.baseline(cell, policy, command.version),
        cell.accepted(at).actor,
    )
    turn.emit(fact)
    turn.settle()


def activate_policy(turn: Turn, command: ActivatePolicy, at: int) -> None:
    cell = turn.cell
    _version(cell, command.policy, command.version)
    policy = cell.policies[command.policy]
    if command.version == policy.active:
        raise Refused("policy_in_force", "version", "it is in force already")
    _check_in_force(cell, policy, command.version)
    watch_ms = 1000 * (command.watch_s or 0)
    until_ms = cell.now_ms + watch_ms if watch_ms else 0
    activate(turn, policy, command.version, cell.accepted(at).actor, until_ms)


def roll_back_policy(turn: Turn, command: RollBackPolicy, at: int) -> None:
    policy = turn.cell.policies.get(command.policy)
    if policy is None or not (policy.active or policy.trial):
        raise Refused("not_in_force", "policy", "no version of it counts")
    roll_back(turn, policy, turn.cell.accepted(at).actor, command.reason)


def activate(turn: Turn, policy: Policy, number: int, author: str, until_ms: int) -> None:
    cell, old = turn.cell, policy.active
    reads = signals_of(policy, number)
    signals.freeze_now(turn, sorted({*cell.rulebook.reads, *reads}))
    found = gates.baseline(cell, policy, number) if until_ms else {}
    turn.emit(PolicyActivated(policy.id, number, author, until_ms, found))
    if old:
        turn.emit(PolicySuperseded(policy.id, old, number))
    turn.settle()


def roll_back(
    turn: Turn, policy: Policy, author: str, reason: str, found: int | None = None
) -> None:
    """A version on trial beside another one just stops; the one in force gives way."""
    trial = policy.trial
    if trial is not None and trial.mode != "all":
        version, to = trial.version, policy.active
    else:
        version, to = policy.active, policy.past[-1] if policy.past else 0
    turn.emit(PolicyRolledBack(policy.id, version, to, author, reason, found))
    turn.settle()


def _version(cell: Cell, id_: str, number: int) -> Version:
    policy = cell.policies.get(id_)
    if policy is None or number not in policy.versions:
        raise Refused("unknown_policy", "version", f"no version {number} of {id_!r} is known")
    return policy.versions[number]


def _check_in_force(cell: Cell, policy: Policy, number: int) -> None:
    """Refuse what may not count together with what does, or not without a replay."""
    version = policy.versions[number]
    if cell.policy.require_replay and not version.replayed:
        rule = "the policy in force asks for a replay of recorded demand with the new version"
        raise Refused("replay_required", "version", rule)
    others = [p for _, p in sorted(cell.policies.items()) if p is not policy and p.active]
    beside = [p.versions[p.active] for p in others]
    loop = controllers.undamped_loop((v.document, v.trees) for v in [*beside, version])
    if loop is not None:
        raise Refused("undamped_loop", "version", " -> ".join(loop))
    counts = [n for p in cell.policies.values() for n in _counting(p)]
    total = sum(counts) + len(version.document.rules)
    if total > RULES_MAX:
        raise Refused("too_many_rules", "version", f"{total} rules; at most {RULES_MAX} count")


def _counting(policy: Policy) -> list[int]:
    numbers = [policy.active] if policy.active else []
    if policy.trial is not None and policy.trial.mode != "all":
        numbers.append(policy.trial.version)
    return [len(policy.versions[n].document.rules) for n in numbers]


def signals_of(policy: Policy, number: int) -> list[str]:
    return signals_read(policy.versions[number])


# --- evolve ---------------------------------------------------------------------------------------


def apply_drafted(cell: Cell, fact: PolicyDrafted) -> None:
    document = cell.command(fact.command, DraftPolicy).document
    policy = cell.policies.get(fact.policy)
    if policy is None:
        policy = cell.policies[fact.policy] = Policy(fact.policy)
    policy.versions[fact.version] = Version(document, fact.author)
    policy.forget()
    cell.touch(policy)


def apply_validated(cell: Cell, fact: PolicyValidated) -> None:
    policy = cell.policies[fact.policy]
    version = policy.versions[fact.version]
    version.trees = {place: from_json(tree) for place, tree in fact.trees.items()}
    version.status = "validated"
    cell.touch(policy)


def apply_replayed(cell: Cell, fact: PolicyReplayed) -> None:
    policy = cell.policies[fact.policy]
    policy.versions[fact.version].replayed = True
    cell.touch(policy)


def apply_canary(cell: Cell, fact: PolicyCanaryStarted) -> None:
    policy = cell.policies[fact.policy]
    policy.versions[fact.version].status = "canary"
    policy.trial = Trial(
        fact.version, fact.mode, fact.slice_ppm, fact.until_ms, fact.then_activate, fact.baseline
    )
    _changed(cell, policy)


def apply_activated(cell: Cell, fact: PolicyActivated) -> None:
    policy = cell.policies[fact.policy]
    policy.trial = None
    if fact.until_ms:
        policy.trial = Trial(fact.version, "all", 0, fact.until_ms, False, fact.baseline)
    if policy.active != fact.version:
        if policy.active:
            policy.past = [*policy.past, policy.active][-VERSIONS_BACK:]
        policy.active = fact.version
        policy.moved, policy.moves = {}, {}
    policy.versions[fact.version].status = "active"
    _changed(cell, policy)


def apply_superseded(cell: Cell, fact: PolicySuperseded) -> None:
    policy = cell.policies[fact.policy]
    policy.versions[fact.version].status = "superseded"
    cell.touch(policy)


def apply_rolled_back(cell: Cell, fact: PolicyRolledBack) -> None:
    policy = cell.policies[fact.policy]
    policy.versions[fact.version].status = "rolled_back"
    policy.trial = None
    if policy.active != fact.to:
        policy.active = fact.to
        policy.past = policy.past[:-1]
        policy.moved, policy.moves = {}, {}
        if fact.to:
            policy.versions[fact.to].status = "active"
    _changed(cell, policy)


def _changed(cell: Cell, policy: Policy) -> None:
    cell.rulebook.dirty = True
    cell.touch(policy)
