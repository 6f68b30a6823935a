"""Quota of groups of types, at exchange rates, and quota with windows."""

from __future__ import annotations

from typing import Any

from hypothesis import given as property_of
from hypothesis import strategies as st

from domain import commands as c
from domain import specs
from domain.cell import Cell
from domain.facts import AttemptStarted, PreemptionDecided, ShapeBlocked
from domain.quota import Account, Rates, rebuild
from domain.timers import next_due_ms
from tests.domain.given import Given, job, node, of

B200, H100 = "b200", "h100"
GROUP = specs.TypeGroup(
    group="h100-eq",
    members=(
        specs.Rate(accelerator=H100, rate_milli=1000),
        specs.Rate(accelerator=B200, rate_milli=2200),
    ),
)


def quota(name: str, nominal: int, **more: Any) -> specs.Quota:
    return specs.Quota(accelerator=name, nominal=nominal, **more)


def account(name: str, *quotas: specs.Quota, parent: str | None = "org") -> c.SetQuota:
    queues = (specs.Queue(queue=name),) if parent else ()
    return c.SetQuota(account=name, parent=parent, quotas=quotas, queues=queues)


def on(name: str, accelerator: str, slots: int, queue: str = "a", **more: Any) -> c.SubmitJob:
    flavours = (specs.Flavour(accelerator=accelerator),)
    return job(name, queue=queue, slots=slots, flavours=flavours, **more)


def policy(*groups: specs.TypeGroup, **more: Any) -> c.SetPolicy:
    parameters = specs.PolicyParameters(groups=groups, min_run_s=(0,) * 4, **more)
    return c.SetPolicy(parameters=parameters)


def world(*accounts: c.SetQuota, groups: tuple[specs.TypeGroup, ...] = (GROUP,)) -> Given:
    given = Given()
    given.round(policy(*groups), account("org", parent=None), *accounts)
    given.round(*(node(f"h{n}") for n in range(4)))
    given.round(*(node(f"b{n}", accelerator=B200) for n in range(2)))
    return given


def running(given: Given) -> set[str]:
    return {j.id for j in given.cell.jobs.values() if j.run is not None and j.run.started_ms}


def report(given: Given, state: Any = "running") -> None:
    jobs = [j for j in given.cell.jobs.values() if j.run is not None and j.run.started_ms]
    given.round(
        *(c.ReportAttempt(job=j.id, attempt=j.attempts, state=state) for j in jobs), after_s=1
    )


# --- groups ---------------------------------------------------------------------------------------


def test_one_entitlement_is_spent_on_several_types() -> None:
    given = world(account("a", quota("h100-eq", 24)))
    given.round(on("b", B200, 8), on("h", H100, 6), on("more", H100, 1))
    # 8 x 2.2 = 17.6; 24 - 17.6 = 6.4 are left, and 0.4 when six of them are used.
    assert running(given) == {"b", "h"}
    found = given.cell.accounts["a"]
    assert found.available(H100) == 400
    assert found.available(B200) == 400_000 // 2200
    assert found.available("h100-eq") == 400
    assert given.cell.jobs["more"].shape.reason == "quota_exceeded"


def test_without_the_group_the_types_have_quotas_of_their_own() -> None:
    given = world(account("a", quota(H100, 8), quota(B200, 1)), groups=())
    given.round(on("h", H100, 8), on("b", B200, 2))
    assert running(given) == {"h"}


def test_entries_of_members_add_up_in_the_group_at_their_rates() -> None:
    given = world(account("a", quota(B200, 10), quota("h100-eq", 2)))
    given.round(on("h", H100, 8), on("h2", H100, 8), on("h3", H100, 8), on("h4", H100, 1))
    assert given.cell.accounts["a"].ceiling(H100) == 24_000
    assert running(given) == {"h", "h2", "h3"}


def test_other_rates_charge_what_runs_anew() -> None:
    given = world(account("a", quota("h100-eq", 24)))
    given.round(on("b", B200, 8), on("w", B200, 8))
    assert given.cell.accounts["a"].usage["h100-eq"] == 17_600
    cheap = specs.TypeGroup(
        group="h100-eq", members=(specs.Rate(accelerator=B200, rate_milli=1500),)
    )
    given.round(policy(cheap))
    assert given.cell.accounts["a"].usage["h100-eq"] == 24_000
    assert running(given) == {"b", "w"}
    assert Cell.restore(given.cell.snapshot()).digest() == given.cell.digest()
    report(given)
    report(given, "finished")
    assert given.cell.accounts["a"].usage["h100-eq"] == 0
    given.round(policy())
    assert given.cell.accounts["a"].available(B200) <= 0


def test_what_is_lent_of_a_group_is_reclaimed_on_the_type_that_is_asked_for() -> None:
    given = world(account("a", quota("h100-eq", 0)), account("b", quota("h100-eq", 40)))
    given.round(*(on(f"x{n}", H100, 8) for n in range(4)))
    report(given)
    assert len(running(given)) == 4
    facts = given.facts(on("mine", H100, 8, queue="b", tier=specs.Tier.PREMIUM), after_s=1)
    facts += given.facts(after_s=3600)
    (decided,) = of(PreemptionDecided, facts)
    assert decided.cause in ("reclaim", "tier")
    assert len(decided.victims) == 1


def test_a_promise_counts_a_group_once() -> None:
    given = world(account("a", quota("h100-eq", 10)))
    given.round(on("h", H100, 10), on("b", B200, 10))
    keys = [k for k in given.cell.pledges if k[0] == "a"]
    assert keys == [("a", "h100-eq")]
    pledge = given.cell.pledges[("a", "h100-eq")]
    assert sum(pledge.duing) <= 10_000 * 1_000_000


rates = st.integers(1, 5000)
units = st.integers(0, 20)
amounts = st.integers(0, 9000)


@property_of(
    st.lists(st.tuples(units, st.one_of(st.none(), units)), min_size=1, max_size=5),
    rates,
    rates,
    st.lists(st.tuples(st.integers(0, 4), st.booleans(), amounts), max_size=20),
)
def test_groups_against_a_naive_count(
    entries: list[tuple[int, int | None]],
    first: int,
    second: int,
    charges: list[tuple[int, bool, int]],
) -> None:
    """Usage is the sum of rounded costs; what is available can be charged, one more cannot."""
    shared: Rates = {"x": ("g", first), "y": ("g", second)}
    root = Account("root", shared)
    leaves = []
    for n, (nominal, borrowing) in enumerate(entries):
        leaf = Account(f"a{n}", shared)
        entry = quota("g", nominal, borrowing_limit=borrowing)
        leaf.set(c.SetQuota(account=leaf.id, quotas=(entry,)), root)
        leaves.append(leaf)
    rebuild([root, *leaves])
    used = dict.fromkeys((leaf.id for leaf in leaves), 0)
    done: list[tuple[Account, str, int]] = []
    for n, is_first, amount in charges:
        leaf, (type_, rate) = leaves[n % len(leaves)], (("x", first) if is_first else ("y", second))
        room = leaf.available(type_)
        take = min(amount, max(0, room))
        leaf.charge(type_, take)
        done.append((leaf, type_, take))
        used[leaf.id] += -(-take * rate // 1000)
        assert leaf.usage["g"] == used[leaf.id]
        assert all(one.available("g") >= 0 for one in leaves if used[one.id])
        assert sum(used.values()) <= 1000 * sum(nominal for nominal, _ in entries)
        assert -(-(leaf.available(type_) + 1) * rate // 1000) > leaf.available("g")
    before = {leaf.id: dict(leaf.usage) for leaf in leaves}
    rebuild([root, *leaves])
    assert {leaf.id: {r: u for r, u in leaf.usage.items() if u} for leaf in leaves} == {
        n: {r: u for r, u in usage.items() if u} for n, usage in before.items()
    }
    for leaf, type_, take in done:
        leaf.charge(type_, -take)
    assert all(leaf.usage.get("g", 0) == 0 for leaf in leaves)


# --- windows --------------------------------------------------------------------------------------


def test_a_window_gives_quota_at_its_begin_and_takes_it_at_its_end() -> None:
    given = Given()
    now = given.now_ms
    window = quota(H100, 8, from_ms=now + 60_000, until_ms=now + 120_000)
    given.round(account("org", parent=None), account("a", window), node("h0"))
    blocked = of(ShapeBlocked, given.facts(on("x", H100, 8)))
    assert blocked[0].reason == "over_quota"
    assert next_due_ms(given.cell) == now + 60_000
    assert Cell.restore(given.cell.snapshot()).quota_edge_ms == now + 60_000
    given.now_ms = now + 60_000
    (started,) = of(AttemptStarted, given.facts())
    assert started.job == "x"
    assert given.cell.quota_edge_ms == now + 120_000
    given.now_ms = now + 120_000
    given.round()
    found = given.cell.accounts["a"]
    assert found.subtree.get(H100, 0) == 0
    assert found.borrowed(H100) == 8000
    assert running(given) == {"x"}, "nothing is killed: it has become a borrower"
    assert given.cell.quota_edge_ms is None


def test_who_has_quota_now_reclaims_from_one_whose_window_is_over() -> None:
    given = Given()
    now = given.now_ms
    given.round(policy())
    given.round(
        account("org", parent=None),
        account("a", quota(H100, 8, until_ms=now + 60_000)),
        account("b", quota(H100, 8, from_ms=now + 60_000)),
        node("h0"),
    )
    given.round(on("x", H100, 8))
    report(given)
    given.round(on("y", H100, 8, queue="b"))
    assert running(given) == {"x"}
    given.now_ms = now + 60_000
    facts = given.facts() + given.facts(after_s=3600)
    (decided,) = of(PreemptionDecided, facts)
    assert (decided.preemptor, decided.cause) == ("y", "reclaim")


def test_entries_for_one_type_add_up_while_their_windows_are_on() -> None:
    given = Given()
    now = given.now_ms
    entries = (quota(H100, 4), quota(H100, 4, until_ms=now + 60_000))
    given.round(account("org", parent=None), account("a", *entries))
    assert given.cell.accounts["a"].subtree[H100] == 8000
    given.round(after_s=60)
    assert given.cell.accounts["a"].subtree[H100] == 4000
    twin = Cell.restore(given.cell.snapshot())
    assert twin.accounts["a"].nominal == given.cell.accounts["a"].nominal
