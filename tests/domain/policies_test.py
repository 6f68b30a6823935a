"""Policies in force: each effect, where it acts, and that it shows why."""

from __future__ import annotations

from typing import Any

import pytest

from domain import commands as c
from domain.cell import Cell
from domain.facts import AttemptStarted, JobAdmitted, PreemptionDecided, ShapeBlocked
from domain.policies import rulebook
from domain.policies.commands import ActivatePolicy, ReportSignal, RollBackPolicy, StartCanary
from domain.policies.documents import Gate
from domain.policies.facts import (
    PolicyActivated,
    PolicyParameterMoved,
    PolicyRolledBack,
    PolicyShadowed,
    PolicySuperseded,
    SignalsFrozen,
)
from domain.policies.rows import drawn
from domain.specs import Flavour, PolicyParameters, Queue, Quota, ReplicaGroup, Tier
from domain.timers import next_due_ms
from tests.domain.given import Given, job, node, of
from tests.domain.policy_given import BY, chasing, draft, in_force, rule

HOUR_S = 3600


def account(name: str, *queues: str, nominal: int = 16, **more: Any) -> c.SetQuota:
    quotas = (
        Quota(accelerator="h100", nominal=nominal, **more),
        Quota(accelerator="npu", nominal=nominal),
    )
    return c.SetQuota(
        account=name, parent="org", quotas=quotas, queues=tuple(Queue(queue=q) for q in queues)
    )


def world(*commands: c.Command, **more: Any) -> Given:
    """Accounts a (queue q) and b (queue p) below org; two nodes of 8, one with a label."""
    given = Given(**more)
    cheap = node("n1", labels={"provider": "cloud", "price": "3"})
    given.round(c.SetQuota(account="org"), account("a", "q"), account("b", "p"), node("n0"), cheap)
    given.round(*commands)
    assert given.last is not None
    assert not given.last.refusals
    return given


def running(given: Given) -> set[str]:
    return {j.id for j in given.cell.jobs.values() if j.run is not None}


def test_a_freeze_holds_jobs_and_says_by_which_rule() -> None:
    given = world(*in_force(rule("freeze", "guard", "deny", when="job.tier == 'basic'")))
    facts = given.facts(job("x", tier=Tier.BASIC), job("y"))
    assert running(given) == {"y"}
    blocked = of(ShapeBlocked, facts)
    assert [(b.reason, b.where) for b in blocked] == [("held_by_policy", "p/freeze")]
    given.round(RollBackPolicy(policy="p"))
    assert running(given) == {"x", "y"}


def test_a_guard_keeps_jobs_from_classes_of_nodes() -> None:
    own = rule("own-only", "guard", "deny", when="has(node.labels['provider'])")
    given = world(*in_force(own))
    given.round(*(job(f"j{i}", slots=8) for i in range(2)))
    assert running(given) == {"j0"}
    run = given.cell.jobs["j0"].run
    assert run is not None
    assert run.nodes[0][0] == "n0"
    given.round(c.RemoveNode(node="n0"), job("z", slots=4))
    assert given.cell.shapes[given.cell.jobs["z"].shape.id].reason == "held_by_policy"


def test_a_preference_chooses_the_place_and_is_part_of_why() -> None:
    cheap = rule("cheap", "score", "prefer", "5 + int(node.labels['price'], 0)")
    given = world(*in_force(cheap))
    (started,) = of(AttemptStarted, given.facts(job("x")))
    assert started.nodes[0][0] == "n1"
    assert [(k.rule, k.contribution, k.band) for k in started.why.rules] == [("p/cheap", 8, 1)]


def test_a_lower_band_outweighs_all_above_it() -> None:
    own = rule("own", "score", "prefer", 1, "!has(node.labels['provider'])", band=0)
    cloud = rule("cloud", "score", "prefer", 400_000, "has(node.labels['provider'])", band=1)
    (started,) = of(AttemptStarted, world(*in_force(own, cloud)).facts(job("x")))
    assert started.nodes[0][0] == "n0"


def test_a_ceiling_counts_the_accounts_own_slots() -> None:
    given = world(*in_force(rule("six", "guard", "ceiling", 6, "job.account == 'a'")))
    given.round(*(job(f"q{i}", slots=4) for i in range(2)), job("p0", queue="p", slots=8))
    assert running(given) == {"q0", "p0"}
    waiting = given.cell.jobs["q1"].shape
    assert (waiting.reason, waiting.where) == ("policy_ceiling", "p/six")
    given.round(job("small", slots=2))
    assert running(given) == {"q0", "p0", "small"}


def test_a_second_flavour_opens_after_the_time_that_a_rule_sets() -> None:
    wait = rule("npu", "guard", "after_wait", 900, accelerator="npu")
    given = world(*in_force(wait), node("npu0", accelerator="npu"))
    both = (Flavour(accelerator="h100"), Flavour(accelerator="npu"))
    given.round(*(job(f"full{i}", slots=8) for i in range(2)), job("x", slots=8, flavours=both))
    assert "x" not in running(given)
    assert next_due_ms(given.cell) == given.now_ms + 900_000
    given.round(after_s=900)
    assert "x" in running(given)


def test_a_boost_changes_the_order_and_is_part_of_why() -> None:
    given = world(*in_force(rule("small", "order", "boost", 5, "job.slots <= 4")))
    facts = given.facts(*(job(f"big{i}", slots=8) for i in range(2)), job("s", slots=4))
    assert of(AttemptStarted, facts)[0].job == "s"
    assert of(AttemptStarted, facts)[0].why.rules[0].rule == "p/small"


def test_a_share_moves_a_queue_in_the_fair_order() -> None:
    given = world(*in_force(rule("less", "order", "share", 4_000_000, "job.queue == 'p'")))
    facts = given.facts(*(job(f"p{i}", queue="p", slots=4) for i in range(2)), job("q0", slots=8))
    assert [f.job for f in of(AttemptStarted, facts)] == ["q0", "p0", "p1"]


def test_admission_sets_tier_and_priority_and_both_folds_agree() -> None:
    tier = rule("no-premium", "admit", "tier", "standard", "job.tier == 'premium'")
    cap = rule("cap", "admit", "priority", 3, "job.priority > 3 && job.labels['team'] == 'x'")
    given = world(*in_force(tier, cap))
    asked = job("x", tier=Tier.PREMIUM, priority=9, labels={"team": "x"})
    facts = given.facts(asked, job("y", tier=Tier.PREMIUM, priority=9))
    admitted = of(JobAdmitted, facts)
    assert [(a.tier, a.priority) for a in admitted] == [("standard", 3), ("standard", None)]
    assert admitted[0].rules == ("p/no-premium", "p/cap")
    assert given.cell.jobs["x"].shape.spec.priority == 3
    assert given.twin.jobs["x"].shape.spec.tier == Tier.STANDARD


def busy(*policy: c.Command) -> Given:
    """Both nodes run basic work of a; b's premium job waits at most a minute for its quota."""
    eager = PolicyParameters(min_run_s=(0, 0, 0, 0), queue_delay_s=(0, 60, 60, 60))
    given = world(*policy, c.SetPolicy(parameters=eager))
    given.round(*(job(f"j{i}", slots=8, tier=Tier.BASIC) for i in range(2)))
    reports = [c.ReportAttempt(job=f"j{i}", attempt=1, state="running") for i in range(2)]
    given.round(*reports, after_s=1)
    given.round(job("claim", queue="p", slots=8, tier=Tier.PREMIUM), after_s=10)
    return given


@pytest.mark.parametrize(
    ("policy", "preempts"),
    [
        ((), True),
        (in_force(rule("calm", "remedy", "deny", when="job.tier == 'premium'")), False),
        (in_force(rule("safe", "remedy", "protect", when="job.tier == 'basic'")), False),
        (in_force(rule("wait", "remedy", "patience", 3600)), False),
    ],
)
def test_remedies_obey(policy: tuple[c.Command, ...], preempts: bool) -> None:
    given = busy(*policy)
    facts = given.facts(after_s=61)
    assert bool(of(PreemptionDecided, facts)) == preempts


def test_a_loss_that_weighs_more_makes_others_the_victims() -> None:
    given = busy(*in_force(rule("dear", "remedy", "loss", 9_000_000, "job.queue == 'q'")))
    plan = of(PreemptionDecided, given.facts(after_s=61))
    assert plan[0].victims[0].cost_slot_s == 8 * 71, "what is told is what is lost"


def test_lending_follows_the_hour_and_comes_back() -> None:
    night = "signal.hour >= 20 || signal.hour < 6"
    rules = (
        rule("day", "lend", "borrowing", 0),
        rule("night", "lend", "borrowing", 64, night, priority=1),
    )
    given = world(*in_force(*rules), now_ms=19 * HOUR_S * 1000)
    given.round(*(job(f"j{i}", slots=8) for i in range(3)), node("n2"))
    assert running(given) == {"j0", "j1"}
    assert next_due_ms(given.cell) == 20 * HOUR_S * 1000
    facts = given.facts(after_s=HOUR_S)
    assert of(SignalsFrozen, facts)[0].values == {"signal.hour": 20}
    assert running(given) == {"j0", "j1", "j2"}
    assert Cell.restore(given.cell.snapshot()).accounts["a"].borrowing_limit == {
        "h100": 64_000,
        "npu": 64_000,
    }
    given.round(after_s=10 * HOUR_S)
    assert given.cell.accounts["a"].borrowing_limit["h100"] == 0


def test_growth_is_bounded_by_rules() -> None:
    given = world(*in_force(rule("two", "scale", "replicas", 2)))
    given.round(job("e", groups=(ReplicaGroup(slots=4, count=1, grow_to=4),)))
    for _ in range(3):
        given.round(after_s=60)
    assert len(given.cell.jobs["e"].parts) == 1


def test_a_scope_counts_below_its_account_alone_and_beats_wider_ones() -> None:
    wide = in_force(rule("r", "order", "boost", 1), name="wide")
    own = in_force(rule("six", "guard", "ceiling", 6), name="own", scope="account/a")
    all_ = in_force(rule("eight", "guard", "ceiling", 8, priority=9), name="all")
    given = world(*wide, *own, *all_)
    given.round(job("x"), job("y", queue="p"))
    assert given.cell.jobs["x"].shape.ruling.ceiling_by == "own/six"
    assert given.cell.jobs["y"].shape.ruling.ceiling_by == "all/eight"


def test_a_locked_ancestor_holds() -> None:
    own = in_force(rule("six", "guard", "ceiling", 6), name="own", scope="account/a")
    all_ = in_force(rule("eight", "guard", "ceiling", 8, locked=True), name="all")
    given = world(*own, *all_)
    given.round(job("x"))
    assert given.cell.jobs["x"].shape.ruling.ceiling_by == "all/eight"


def test_a_reservation_may_be_denied() -> None:
    given = world(*in_force(rule("short", "reserve", "deny", when="reservation.slots > 8")))
    start = given.now_ms + 10_000
    window = c.RequestReservation(
        reservation="r",
        account="a",
        accelerator="h100",
        count=2,
        slots=8,
        start_ms=start,
        end_ms=start + 1000,
        queues=("q",),
    )
    assert given.refusal(window) == "denied_by_policy"
    assert not given.round(window.model_copy(update={"count": 1})).refusals


# --- the life of a version ------------------------------------------------------------------------


def test_a_new_version_supersedes_and_may_be_rolled_back() -> None:
    held = rule("freeze", "guard", "deny")
    given = world(*in_force())
    facts = given.facts(draft(held, version=2), ActivatePolicy(policy="p", version=2), job("x"))
    assert [f.version for f in of(PolicySuperseded, facts)] == [1]
    assert not running(given), "it counts from the same round on"
    (back,) = of(PolicyRolledBack, given.facts(RollBackPolicy(policy="p", reason="too much")))
    assert (back.version, back.to, back.author) == (2, 1, "someone")
    assert running(given) == {"x"}


ALARM = Gate(gate="alarm", watch="signal.reported['alarm']", at_most=3)


def test_a_canary_counts_for_its_slice_until_its_gate_breaks() -> None:
    assert drawn("p") < 500_000 <= drawn("q"), "the slice is drawn by name"
    given = world()
    freeze = draft(rule("freeze", "guard", "deny"), gates=(ALARM,))
    given.round(freeze, StartCanary(policy="p", version=1, slice_ppm=500_000, for_s=600))
    given.round(job("x", queue="p"), job("y"))
    assert running(given) == {"y"}
    given.round(ReportSignal(signal="alarm", value=4))
    (back,) = of(PolicyRolledBack, given.facts(after_s=60))
    assert (back.author, back.found, back.to) == ("gate/alarm", 4, 0)
    assert running(given) == {"x", "y"}


def test_a_canary_that_holds_becomes_active_by_itself() -> None:
    given = world(draft(rule("freeze", "guard", "deny"), gates=(ALARM,)))
    given.round(StartCanary(policy="p", version=1, slice_ppm=1, for_s=600))
    assert next_due_ms(given.cell) == given.now_ms + 600_000
    (active,) = of(PolicyActivated, given.facts(after_s=600))
    assert active.author == "canary"


def test_a_shadow_is_asked_and_not_heeded() -> None:
    given = world(draft(rule("freeze", "guard", "deny", when="job.queue == 'q'")))
    given.round(StartCanary(policy="p", version=1, mode="shadow", for_s=60, then="stop"))
    given.round(job("x"), job("y", queue="p"))
    assert running(given) == {"x", "y"}
    facts = given.facts(after_s=60)
    assert [(s.shapes, s.differing) for s in of(PolicyShadowed, facts)] == [(2, 1)]
    assert of(PolicyRolledBack, facts)[0].author == "canary"


def test_a_gate_watches_what_was_activated() -> None:
    given = world(*in_force())
    given.round(draft(rule("freeze", "guard", "deny"), version=2, gates=(ALARM,)))
    given.round(ActivatePolicy(policy="p", version=2, watch_s=3600))
    given.round(ReportSignal(signal="alarm", value=4), job("x"))
    (back,) = of(PolicyRolledBack, given.facts(after_s=60))
    assert (back.version, back.to) == (2, 1)
    assert running(given) == {"x"}


def test_a_controller_moves_its_parameter_within_bounds_and_rate() -> None:
    up = chasing("up", "by", "high", step=40, watch="signal.reported['price']")
    boost = rule("r", "order", "boost", "param.by")
    given = world(ReportSignal(signal="price", value=4))
    given.round(*in_force(boost, params=(BY,), controllers=(up,)))
    given.round(ReportSignal(signal="price", value=9), job("x"), after_s=1)
    moves = [of(PolicyParameterMoved, given.facts(after_s=30)) for _ in range(12)]
    assert [(m.old, m.new) for each in moves for m in each] == [(10, 50), (50, 90), (90, 100)]
    assert given.cell.jobs["x"].shape.priority == 100
    given.round(ReportSignal(signal="price", value=4))
    assert not of(PolicyParameterMoved, given.facts(after_s=120)), "within the gap nothing moves"


def follower(name: str, **more: Any) -> tuple[c.Command, ...]:
    """A policy whose controller moves what others watch, and watches what they move."""
    room = rule("room", "guard", "ceiling", "param.by")
    return in_force(
        room, name=name, params=(BY,), controllers=(chasing(name, "by", "low", **more),)
    )


def test_controllers_of_two_policies_that_chase_each_other_are_refused_unless_damped() -> None:
    given = world(*follower("one"))
    draft_, activate = follower("other")
    given.round(draft_)
    assert given.last is not None
    assert not given.last.refusals, "alone it is damped by its gap"
    refused = given.round(activate).refusals[0]
    assert refused.code == "undamped_loop"
    assert "one/one moves by -> signal.waiting -> other/other moves by" in refused.message
    calm = world(*follower("one", damped=True), *follower("other", damped=True))
    assert [p.active for p in calm.cell.policies.values()] == [1, 1]
    half = world(*follower("one", damped=True))
    half.round(draft_)
    assert half.refusal(activate) == "undamped_loop", "one that is damped is not enough"


def test_a_damped_controller_comes_to_rest() -> None:
    up = chasing("up", "by", "high", watch="signal.reported['price']", damped=True)
    given = world(ReportSignal(signal="price", value=9))
    given.round(
        *in_force(rule("r", "order", "boost", "param.by"), params=(BY,), controllers=(up,)),
        job("keeps-signals-read"),
    )
    moves = []
    for turn in range(150):
        given.round(ReportSignal(signal="price", value=9 if turn % 2 else 0))
        moves.append(len(of(PolicyParameterMoved, given.facts(after_s=3600))))
    assert sum(moves[:10]) > 3
    assert sum(moves[-30:]) == 0


def test_work_is_paid_for_rules_that_are_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many shapes and rules cost units of the round's work, in the same way wherever it is made."""
    given = world(*(job(f"j{i}", slots=1 + i % 8, priority=i) for i in range(40)))
    monkeypatch.setattr(rulebook, "ROWS_A_UNIT", 1)
    held = rule("none", "guard", "deny", when="job.slots > 64")
    round = given.round(*in_force(held), node("n2"), work=10)
    assert not of(AttemptStarted, round.facts)
    assert given.cell.unfinished
