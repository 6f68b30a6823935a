"""Random sets of policies: the same as the naive reference, in whatever order they came."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.cell import Cell
from domain.fabric import NodeClass
from domain.policies import admission, cases, rows, validation
from domain.policies.attributes import Phase
from domain.policies.commands import ActivatePolicy, DraftPolicy, ReportSignal
from domain.policies.documents import PolicyDocument
from domain.policies.effects import PPM
from domain.policies.ruling import NO_RULING, Ruling
from domain.quota import Account
from domain.refusals import Refused
from domain.shapes import Shape, split
from domain.specs import TIERS
from tests.domain import naive_policies as naive
from tests.domain.given import Given, body_of
from tests.domain.policy_sets import ACCELERATORS, base, jobs, policies

SETS: Final = int(os.environ.get("POLICY_SETS", "1000"))
BASE: Final = base()
SOME: Final = settings(
    max_examples=100,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def cell_with(documents: list[PolicyDocument], reported: int) -> Given:
    """The documents in force, in their order; the invalid ones are refused, and name a place."""
    world = Given(now_ms=9 * 3_600_000)
    world.cell, world.twin = Cell.restore(BASE), Cell.restore(BASE)
    world.offset = 100  # the ids before it are those of the first rounds
    world.round(ReportSignal(signal="x", value=reported))
    for document in documents:
        round = world.round(DraftPolicy(document=document))
        if not is_valid(document):
            (refusal,) = round.refusals
            assert refusal.code == "invalid_policy"
            assert refusal.field.startswith("document.rules.")
            assert refusal.message
            assert document.policy not in world.cell.policies
            activation = ActivatePolicy(policy=document.policy, version=1)
            assert world.refusal(activation) == "unknown_policy"
            continue
        assert not round.refusals
        world.round(ActivatePolicy(policy=document.policy, version=1))
    return world


def is_valid(document: PolicyDocument) -> bool:
    try:
        cases.run(document, validation.trees_of(document))
    except validation.Invalid:
        return False
    return True


def world_of(cell: Cell) -> naive.World:
    known: naive.World = {
        "signal.reported": {"x": cell.signals.values.get("signal.reported[x]", 0)}
    }
    known.update((n, v) for n, v in cell.signals.values.items() if "[" not in n)
    return known


def shape_world(shape: Shape) -> naive.World:
    spec, account = shape.spec, shape.queue.account
    group = spec.groups[0]
    return {
        "job.queue": shape.queue.id,
        "job.account": account.id,
        "job.accounts": rows.lineage(account),
        "job.tier": str(spec.tier),
        "job.priority": spec.priority,
        "job.slots": sum(g.count * g.slots for g in spec.groups),
        "job.replicas": sum(g.count for g in spec.groups),
        "job.replica_slots": group.slots,
        "job.share": group.share_milli,
        "job.accelerators": tuple(f.accelerator for f in spec.flavours),
        "job.preemptible": spec.preemptible,
        "job.elastic": group.grow_to is not None,
        "job.level": "cluster",
        "job.grace": 30,
        "job.max_hops": 3,
        "job.slice": rows.drawn(shape.queue.id),
    }


def class_world(class_: NodeClass) -> naive.World:
    labels = class_.labels
    return {
        "node.accelerator": class_.accelerator,
        "node.slots": class_.slots,
        "node.region": labels["region"],
        "node.cluster": labels["cluster"],
        "node.labels": labels,
    }


def check_shape(cell: Cell, documents: list[PolicyDocument], shape: Shape) -> None:
    world, lineage = {**world_of(cell), **shape_world(shape)}, rows.lineage(shape.queue.account)

    def said(phase: Phase, **more: Any) -> dict[str, Any]:
        return naive.outcome(naive.holding(documents, phase, {**world, **more}, lineage))

    ruling: Ruling = shape.ruling
    assert ruling == cell.rulebook.rule(cell, shape.spec, shape.queue), "by row as by column"
    order, remedy, scale = said(Phase.ORDER), said(Phase.REMEDY), said(Phase.SCALE)
    assert (ruling.boost, ruling.share_ppm) == (order.get("boost", 0), order.get("share", PPM))
    assert (ruling.calm, ruling.protected) == ("deny" in remedy, "protect" in remedy)
    assert (ruling.patience_s, ruling.loss_ppm) == (
        remedy.get("patience"),
        remedy.get("loss", PPM),
    )
    assert (ruling.grows, ruling.replicas) == ("deny" not in scale, scale.get("replicas"))
    for class_ in cell.fabric.classes.values():
        check_place(documents, shape, class_, {**world, **class_world(class_)}, lineage)


def check_place(
    documents: list[PolicyDocument],
    shape: Shape,
    class_: NodeClass,
    world: naive.World,
    lineage: tuple[str, ...],
) -> None:
    ruling = shape.ruling
    on = ruling.terms.on(class_) if ruling.terms is not None else None
    found = naive.holding(documents, Phase.GUARD, world, lineage)
    guard = naive.outcome(found)
    denied = ruling.held or (on.denied if on is not None else "")
    assert bool(denied) == ("deny" in guard)
    assert not denied or denied in {f[1] for f in found if f[2] == "deny"}
    fixed = naive.outcome([f for f in found if not naive.reads_places(f[4])])
    if not any(naive.reads_places(f[4]) and f[2] != "deny" for f in found):
        assert ruling.ceiling == (None if "ceiling" not in fixed else 1000 * fixed["ceiling"])
        for accelerator in ACCELERATORS:
            expected = fixed.get(f"after_wait.{accelerator}", 7)
            assert ruling.wait_s(accelerator, 7) == expected
    scores = naive.holding(documents, Phase.SCORE, world, lineage)
    counted = {(f[1], f[3], f[4].then.band) for f in scores if f[3]}
    why = [*(k for k in ruling.why if k.band >= 0), *(on.why if on is not None else ())]
    assert {(k.rule, k.contribution, k.band) for k in why} == counted


def check_accounts(cell: Cell, documents: list[PolicyDocument]) -> None:
    for account in cell.accounts.values():
        for accelerator in ACCELERATORS:
            said = naive.outcome(_lent(cell, documents, account, accelerator))
            limits = account.borrowing_limit[accelerator], account.lending_limit[accelerator]
            assert limits == (1000 * said.get("borrowing", 4), 1000 * said.get("lending", 2))


def _lent(cell: Cell, documents: list[PolicyDocument], account: Account, type_: str) -> naive.Found:
    lineage = rows.lineage(account)
    world = {
        **world_of(cell),
        "account.id": account.id,
        "account.accounts": lineage,
        "account.accelerator": type_,
        "account.nominal": 6,
        "account.slice": rows.drawn(account.id),
    }
    return naive.holding(documents, Phase.LEND, world, lineage)


def check_admission(cell: Cell, documents: list[PolicyDocument], shape: Shape) -> None:
    spec = shape.spec.model_copy(update={"job": "new", "labels": {"k": "own"}})
    key, own, estimate = split(body_of(spec))
    world = {**world_of(cell), **shape_world(shape), "job.name": "new", "job.labels": spec.labels}
    lineage = rows.lineage(shape.queue.account)
    said = naive.outcome(naive.holding(documents, Phase.ADMIT, world, lineage))
    if Phase.ADMIT not in cell.rulebook.by_phase:
        assert not said
        return
    if "deny" in said:
        with pytest.raises(Refused) as caught:
            admission.judge(cell, key, spec, own, estimate)
        assert caught.value.code == "denied_by_policy"
        return
    verdict = admission.judge(cell, key, spec, own, estimate)
    tier = str(spec.tier) if verdict.tier is None else verdict.tier
    assert tier == (TIERS[said["tier"]] if "tier" in said else spec.tier)
    priority = verdict.priority if verdict.priority is not None else spec.priority
    assert priority == said.get("priority", spec.priority)


def check_set(documents: list[PolicyDocument], reported: int, order: int) -> None:
    valid = [d for d in documents if is_valid(d)]
    world, again = (cell_with(d, reported) for d in (documents, _turned(documents, order)))
    denied = [r.command for r in world.round(*jobs(), work=0).refusals]
    cell = world.cell
    for shape in cell.shapes.values():
        check_shape(cell, valid, shape)
        check_admission(cell, valid, shape)
    check_accounts(cell, valid)
    assert [r.command for r in again.round(*jobs(), work=0).refusals] == denied
    for one, two in zip(cell.shapes.values(), again.cell.shapes.values(), strict=True):
        same = (one.ruling._replace(terms=None), two.ruling._replace(terms=None))
        assert same[0] == same[1], "the order in which policies came means nothing"
    assert world.facts(after_s=1) == again.facts(after_s=1)
    restored = Cell.restore(cell.snapshot())
    for shape in restored.shapes.values():
        check_shape(restored, valid, shape)
    assert restored.digest() == cell.digest()


def _turned(documents: list[PolicyDocument], by: int) -> list[PolicyDocument]:
    by %= len(documents)
    turned = documents[by:] + documents[:by]
    return turned[::-1] if by % 2 else turned


@SOME
@given(policies(), st.integers(0, 9), st.integers(0, 5))
def test_random_sets_mean_what_the_reference_says(
    documents: list[PolicyDocument], reported: int, order: int
) -> None:
    check_set(documents, reported, order)


@pytest.mark.slow
@settings(SOME, max_examples=SETS)
@given(policies(), st.integers(0, 9), st.integers(0, 5))
def test_many_random_sets_mean_what_the_reference_says(
    documents: list[PolicyDocument], reported: int, order: int
) -> None:
    check_set(documents, reported, order)


def test_the_random_sets_are_worth_their_name() -> None:
    """Of the sets that are tried, many are valid, many are not, and rules of all phases act."""
    seen: dict[str, int] = {"valid": 0, "invalid": 0, "ruled": 0}
    phases: set[Phase] = set()

    @SOME
    @given(policies())
    def look(documents: list[PolicyDocument]) -> None:
        for document in documents:
            seen["valid" if is_valid(document) else "invalid"] += 1
            phases.update(r.phase for r in document.rules if is_valid(document))
        world = cell_with(documents, 1)
        world.round(*jobs(), work=0)
        shapes = world.cell.shapes.values()
        seen["ruled"] += any(s.ruling != NO_RULING for s in shapes)

    look()
    assert min(seen.values()) > 10, seen
    assert phases == set(Phase)
