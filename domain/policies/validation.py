"""From a document to trees that may be used: everything in it is checked before it counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from domain.policies import checker, syntax
from domain.policies.attributes import READS, SCOPED_BY, Phase
from domain.policies.checker import Kind, Scope
from domain.policies.documents import Controller, Effect, PolicyDocument, Rule
from domain.policies.effects import FORMS, Form
from domain.policies.syntax import Fault, Node
from domain.specs import TIERS

Trees = dict[str, Node]
"""By place in the document, such as `rules/night/when`."""

WHEN: Final = "when"


class Invalid(Exception):
    """The document breaks a rule; `field` says where."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


def when_of(rule: str) -> str:
    return f"rules/{rule}/when"


def value_of(rule: str) -> str:
    return f"rules/{rule}/value"


def controller_of(name: str) -> str:
    return f"controllers/{name}/watch"


def gate_of(name: str) -> str:
    return f"gates/{name}/watch"


def trees_of(document: PolicyDocument) -> Trees:
    """All expressions of the document. Raises Invalid, which names the first that is wrong."""
    params = {p.param: Kind("int", p.min, p.max, p.unit) for p in document.params}
    values = Scope(None, params)
    trees = {WHEN: _condition(WHEN, document.when, values)}
    for at, rule in enumerate(document.rules):
        field = f"rules.{at}.{rule.rule}"
        _check_effect(field, document, rule)
        subject = READS[rule.phase][0]
        alike = rule.phase == Phase.GUARD and rule.then.do != "deny"
        scope = Scope(rule.phase, params, subject if alike else None)
        trees[when_of(rule.rule)] = _condition(f"{field}.when", rule.when, scope)
        if rule.then.value is not None and rule.then.do != "tier":
            form = FORMS[rule.phase][rule.then.do]
            trees[value_of(rule.rule)] = _value(f"{field}.then.value", rule, form, params)
    for controller in document.controllers:
        field = f"controllers.{controller.controller}"
        _check_controller(field, document, controller)
        watch = _integer(f"{field}.watch", controller.watch, Scope(None, {}))
        trees[controller_of(controller.controller)] = watch
    for gate in document.gates:
        watch = _integer(f"gates.{gate.gate}.watch", gate.watch, Scope(None, {}))
        trees[gate_of(gate.gate)] = watch
    return trees


def _parsed(field: str, source: str, scope: Scope) -> tuple[Node, Kind]:
    try:
        tree = syntax.parse(source)
        return tree, checker.check(tree, scope)
    except Fault as fault:
        raise Invalid(field, fault.in_source(source)) from None


def _condition(field: str, source: str, scope: Scope) -> Node:
    tree, kind = _parsed(field, source, scope)
    if kind.type != "bool":
        raise Invalid(field, "a condition is true or false")
    if kind.constant == 0:
        raise Invalid(field, "it is never true: the rule cannot be reached")
    return tree


def _integer(field: str, source: str, scope: Scope) -> Node:
    tree, kind = _parsed(field, source, scope)
    if kind.type != "int":
        raise Invalid(field, "what is watched is an integer")
    return tree


def _value(field: str, rule: Rule, form: Form, params: Mapping[str, Kind]) -> Node:
    given = rule.then.value
    assert given is not None, "the caller has seen it"
    subject, other = READS[rule.phase]
    scope = Scope(rule.phase, params, None if form.reads or other is None else subject)
    tree, kind = _parsed(field, str(given), scope)
    if kind.type != "int":
        raise Invalid(field, "the value of this effect is an integer")
    if kind.unit and form.unit and kind.unit != form.unit:
        raise Invalid(field, f"it is in {kind.unit}, and the effect takes {form.unit}")
    if kind.constant is not None and not form.low <= kind.constant <= form.high:
        raise Invalid(field, f"the effect takes {form.low} to {form.high}")
    return tree


def _check_effect(field: str, document: PolicyDocument, rule: Rule) -> None:
    effect, forms = rule.then, FORMS[rule.phase]
    if effect.do not in forms:
        raise Invalid(f"{field}.then.do", f"the {rule.phase} phase has {', '.join(forms)}")
    form = forms[effect.do]
    if form.kind == "deny":
        if effect.value is not None:
            raise Invalid(f"{field}.then.value", f"{effect.do} takes no value")
    elif effect.value is None:
        raise Invalid(f"{field}.then.value", f"{effect.do} needs a value")
    if effect.do == "tier" and effect.value not in TIERS:
        raise Invalid(f"{field}.then.value", f"a tier is one of {', '.join(TIERS)}")
    if (effect.do == "after_wait") != (effect.accelerator is not None):
        rule_ = "after_wait names the accelerator that it is about, and no other effect does"
        raise Invalid(f"{field}.then.accelerator", rule_)
    if effect.band != 1 and effect.do != "prefer":
        raise Invalid(f"{field}.then.band", "only prefer has bands")
    if rule.locked and form.kind != "scalar":
        raise Invalid(f"{field}.locked", f"{effect.do} sets nothing that could be set otherwise")
    if document.scope.startswith("account/") and READS[rule.phase][0] not in SCOPED_BY:
        raise Invalid(f"{field}.phase", "this phase knows no accounts")


def _check_controller(field: str, document: PolicyDocument, controller: Controller) -> None:
    param = next((p for p in document.params if p.param == controller.param), None)
    if param is None:
        raise Invalid(f"{field}.param", f"no parameter {controller.param!r}")
    if controller.step > param.max - param.min:
        raise Invalid(f"{field}.step", f"a step is at most {param.max - param.min}")


def slot_of(phase: Phase, effect: Effect) -> str:
    """What the effect acts on: effects of one slot come together."""
    if effect.do == "prefer":
        return f"prefer.{effect.band}"
    if effect.do == "after_wait":
        return f"after_wait.{effect.accelerator}"
    return effect.do
