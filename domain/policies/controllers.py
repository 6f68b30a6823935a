"""Controllers: parameters that move with signals, slowly, within bounds, and without chasing.

Which parameters act on which signals is known by phase, so that loops show in a graph: parameter ->
signals that its rules act on -> controllers that watch them -> their parameters. A controller
alone is damped by its gap between low and high. A loop through two or more, or two controllers
that move one parameter, must be damped: each reversal halves the step and doubles the pause.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from domain.policies.attributes import Phase
from domain.policies.compiler import Names, compile
from domain.policies.documents import Controller, Parameter, PolicyDocument
from domain.policies.facts import PolicyParameterMoved
from domain.policies.state import Move, Policy
from domain.policies.syntax import Node, attributes, substitute
from domain.policies.validation import Trees, controller_of, value_of, when_of

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.turn import Turn

QUEUES: Final = (
    "utilisation", "free", "fragmentation", "pressure", "waiting", "wait_reserved", "wait_premium",
    "wait_standard", "wait_basic", "late_premium", "late_standard",
)  # fmt: skip
MOVED_BY: Final[dict[Phase, tuple[str, ...]]] = {
    Phase.ADMIT: QUEUES,
    Phase.GUARD: QUEUES,
    Phase.ORDER: tuple(s for s in QUEUES if s.startswith(("wait", "late", "frag"))),
    Phase.SCORE: ("fragmentation", "pressure"),
    Phase.REMEDY: tuple(s for s in QUEUES if s.startswith(("wait", "late"))),
    Phase.RESERVE: ("utilisation", "free"),
    Phase.LEND: QUEUES,
    Phase.HANDOFF: QUEUES,
    Phase.SCALE: QUEUES,
}
"""Signals that rules of a phase act on. Time and what others report are acted on by none."""
PAUSE_MAX_MS: Final = 86_400_000
REST_STEP: Final = 1
"""A damped controller whose step has come down to this rests at the next reversal."""


class Watched(NamedTuple):
    """A controller, and the signals that it watches."""

    policy: str
    spec: Controller
    signals: tuple[str, ...]


def _signals(node: Node) -> tuple[str, ...]:
    names = (str(a.value) for a in attributes(node))
    return tuple(n.removeprefix("signal.") for n in names if n.startswith("signal."))


def _acts_on(document: PolicyDocument, trees: Trees, param: str) -> list[str]:
    """Signals that the rules which read the parameter act on."""
    found: dict[str, None] = {}
    for rule in document.rules:
        for place in (when_of(rule.rule), value_of(rule.rule)):
            tree = trees.get(place)
            if tree is not None and any(a.value == f"param.{param}" for a in attributes(tree)):
                found.update(dict.fromkeys(MOVED_BY[rule.phase]))
    return list(found)


def undamped_loop(documents: Iterable[tuple[PolicyDocument, Trees]]) -> list[str] | None:
    """A loop of the graph that is not damped, as a path; None if there is none."""
    known = list(documents)
    watching = [
        Watched(d.policy, c, _signals(trees[controller_of(c.controller)]))
        for d, trees in known
        for c in d.controllers
    ]
    acts = {
        (d.policy, p.param): _acts_on(d, trees, p.param) for d, trees in known for p in d.params
    }
    for at, one in enumerate(watching):
        for two in watching[at + 1 :]:
            path = _fight(one, two, acts)
            if path is not None and not (one.spec.damped and two.spec.damped):
                return path
    return None


def _fight(
    one: Watched, two: Watched, acts: Mapping[tuple[str, str], list[str]]
) -> list[str] | None:
    """A loop through both, if there is one: each then moves what the other one watches."""
    first, second = ((c.policy, c.spec.param) for c in (one, two))
    named = [f"{c.policy}/{c.spec.controller}" for c in (one, two)]
    if first == second:
        return [named[0], f"param {first[0]}/{first[1]}", named[1]]
    there = next((s for s in acts[first] if s in two.signals), None)
    back = next((s for s in acts[second] if s in one.signals), None)
    if there is None or back is None:
        return None
    ways = [f"{n} moves {c.spec.param}" for n, c in zip(named, (one, two), strict=True)]
    return [ways[0], f"signal.{there}", ways[1], f"signal.{back}", named[0]]


# --- moving ---------------------------------------------------------------------------------------


def run(turn: Turn) -> None:
    """Move what is due, in the order of names."""
    for _, policy in sorted(turn.cell.policies.items()):
        if policy.active:
            version = policy.versions[policy.active]
            for spec in version.document.controllers:
                _run_one(turn, policy, spec, version.trees[controller_of(spec.controller)])


def watched(cell: Cell, tree: Node) -> int:
    """What an expression over signals is now."""
    values = {
        name: cell.signals.values.get(name, 0)
        for a in attributes(tree)
        for name in [str(a.value) + (f"[{a.args[0].value}]" if a.args else "")]
    }
    return int(compile(substitute(tree, values), Names(), "signal")((), ()))


def _run_one(turn: Turn, policy: Policy, spec: Controller, tree: Node) -> None:
    cell = turn.cell
    document = policy.versions[policy.active].document
    param = next(p for p in document.params if p.param == spec.param)
    value = watched(cell, tree)
    if spec.low < value < spec.high:
        return
    up = (value >= spec.high) == (spec.raise_when == "high")
    move = next_move(spec, policy.moves.get(spec.controller), up, cell.now_ms)
    if move is None:
        return
    old = policy.params(policy.active)[spec.param]
    new = stepped(param, old, move)
    if new != old:
        turn.emit(PolicyParameterMoved(policy.id, spec.param, old, new, spec.controller, value))


def next_move(spec: Controller, last: Move | None, up: bool, now_ms: int) -> Move | None:
    """The move that the controller makes now, if its rate and its damping let it."""
    pause_ms = 1000 * spec.every_s
    if last is None:
        return Move(now_ms, up, spec.step, pause_ms)
    if now_ms < last.at_ms + last.pause_ms:
        return None
    if not spec.damped or up == last.up:
        return Move(now_ms, up, last.step, last.pause_ms)
    if last.step == REST_STEP:
        return None
    return Move(now_ms, up, max(REST_STEP, last.step // 2), min(PAUSE_MAX_MS, 2 * last.pause_ms))


def stepped(param: Parameter, old: int, move: Move) -> int:
    return max(param.min, min(param.max, old + (move.step if move.up else -move.step)))


def apply_moved(cell: Cell, fact: PolicyParameterMoved) -> None:
    policy = cell.policies[fact.policy]
    document = policy.versions[policy.active].document
    spec = next(c for c in document.controllers if c.controller == fact.controller)
    move = next_move(spec, policy.moves.get(fact.controller), fact.new > fact.old, cell.now_ms)
    assert move is not None, "the fact says that it moved"
    policy.moves[fact.controller] = move
    policy.moved[fact.param] = fact.new
    cell.rulebook.dirty = True
    cell.touch(policy)
