"""Shares and host parts: where they go, beside the same rule read over all nodes and devices."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from domain import specs
from domain.cell import Cell
from domain.commands import CancelJob, CordonNode, ReportAttempt, SetPolicy, SubmitJob
from domain.decide import decide
from domain.facts import (
    AttemptStarted,
    JobClaimed,
    MixEntry,
    PreemptionDecided,
    WorkloadMixPublished,
)
from domain.fragmentation import UNIT, asked_of, stranded, worth_of
from domain.ledger import Round, canonical
from domain.nodes import Node
from tests.domain.given import Given, job, node, of
from tests.domain.refusals_test import account

MODELS = ("old", "new")
shares = st.sampled_from((1000, 1000, 810, 650, 500, 470, 320, 160))


def group(slots: int, share: int, cpu: int = 2000, memory: int = 0) -> specs.ReplicaGroup:
    return specs.ReplicaGroup(
        slots=slots,
        share_milli=share if slots == 1 else 1000,
        host_cpu_milli=cpu,
        host_memory_mib=memory,
    )


class Naive:
    """The rule, read over all nodes and all of their devices from the definition of worth."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.entries = cell.mix.entries

    def weights(self, here: Node) -> list[tuple[MixEntry, int]]:
        """Entries that a node may serve, by how often they are asked and how few nodes serve."""
        asked = [e for e in self.entries if e.slots]
        replicas = sum(e.replicas for e in asked)
        nodes = list(self.cell.nodes.values())
        slots = sum(n.spec.slots for n in nodes)
        found = []
        for entry in asked:
            if self.serves(here, entry):
                serving = sum(n.spec.slots for n in nodes if self.serves(n, entry))
                found.append((entry, UNIT * entry.replicas * slots // (replicas * serving)))
        return found

    def serves(self, here: Node, entry: MixEntry) -> bool:
        return all(here.spec.labels.get(label) in values for label, values in entry.require)

    def fed(self, here: Node, cpu_milli: int) -> int | None:
        """Thousandths of devices that so much CPU feeds; None if the mix asks for no CPU."""
        asked = [e for e in self.entries if e.slots]
        cpu = sum(e.host_cpu_milli for e in asked)
        milli = sum(e.replicas * e.slots * e.share_milli for e in asked)
        own = here.spec.host_cpu_milli * 900 // (1000 * here.spec.slots)
        each = min(cpu * 1000 // milli if milli else 0, own)
        return cpu_milli * 1000 // each if each else None

    def worth(self, here: Node, rests: list[int], whole: int) -> int:
        """Of shared devices' rests and of unused devices."""
        value = 0
        for entry, weight in self.weights(here):
            if entry.slots == 1:
                fitting = [r // entry.share_milli for r in [*rests, *[1000] * whole]]
                value += weight * sum(fitting) * entry.share_milli
            else:
                value += weight * 1000 * (whole // entry.slots) * entry.slots
        return value

    def stranding(self, here: Node, asked: specs.ReplicaGroup) -> int:
        """Worth lost to devices that the node's CPU can no longer feed."""
        free = 1000 * here.available + sum(1000 - u for u in here.partial.values())
        fed, feeds = self.fed(here, here.free_cpu_milli), self.fed(here, asked.host_cpu_milli)
        if fed is None or feeds is None:
            return 0
        after = (free - asked.slots * asked.share_milli) - (fed - feeds)
        return UNIT * (max(0, after) - max(0, free - fed))

    def losses(self, spec: Any) -> dict[tuple[str, int], int]:
        """By node and free thousandths of the chosen device: worth that the job takes there."""
        asked, models = spec.groups[0], [v for s in spec.placement.require for v in s.values]
        found = {}
        for here in self.cell.nodes.values():
            fits = (
                here.schedulable
                and here.free_cpu_milli >= asked.host_cpu_milli
                and here.free_memory_mib >= asked.host_memory_mib
                and (not models or here.spec.labels["model"] in models)
            )
            rests, whole = [1000 - u for u in here.partial.values()], here.available
            before = self.worth(here, rests, whole)
            for milli, left, unused in self.choices(asked, rests, whole) if fits else ():
                lost = before - self.worth(here, left, unused)
                found[here.id, milli] = lost + self.stranding(here, asked)
        return found

    def choices(
        self, asked: specs.ReplicaGroup, rests: list[int], whole: int
    ) -> list[tuple[int, list[int], int]]:
        """(free thousandths of the device, rests and unused devices after)."""
        share = asked.share_milli
        if not asked.slots:
            return [(0, rests, whole)]
        if share == 1000:
            return [(1000, rests, whole - asked.slots)] if whole >= asked.slots else []
        found = [(1000, [*rests, 1000 - share], whole - 1)] if whole else []
        for i, rest in enumerate(rests):
            if rest >= share:
                found.append((rest, [*rests[:i], rest - share, *rests[i + 1 :]], whole))
        return found


class Machine(RuleBasedStateMachine):
    """Shares and host parts come and go; each is placed where the naive rule loses least."""

    def __init__(self) -> None:
        super().__init__()
        self.given = Given()
        self.jobs = 0
        self.live: list[str] = []

    @initialize(
        known=st.lists(
            st.tuples(st.integers(1, 4), st.sampled_from((4000, 16_000)), st.sampled_from(MODELS)),
            min_size=1,
            max_size=5,
        ),
        score=st.sampled_from(("fragmentation", "fragmentation", "best_fit")),
    )
    def start(self, known: list[tuple[int, int, str]], score: Any) -> None:
        quota = specs.Quota(accelerator="h100", nominal=1000)
        self.given.round(account("a", "q").model_copy(update={"quotas": (quota,)}))
        for number, (slots, cpu, model) in enumerate(known):
            made = node(f"n{number}", slots=slots, host_cpu_milli=cpu, host_memory_mib=64)
            self.given.round(made.model_copy(update={"labels": {"model": model}}))
        self.given.round(SetPolicy(parameters=specs.PolicyParameters(node_score=score)))

    @rule(
        slots=st.sampled_from((0, 1, 1, 1, 1, 2)),
        share=shares,
        cpu=st.sampled_from((0, 500, 1000, 3000)),
        memory=st.sampled_from((0, 8, 40)),
        model=st.sampled_from((None, None, *MODELS)),
    )
    def submit(self, slots: int, share: int, cpu: int, memory: int, model: str | None) -> None:
        wanted = group(slots, share, cpu, memory)
        require = (specs.Selector(label="model", values=(model,)),) if model else ()
        placement = specs.Placement(require=require)
        self.jobs += 1
        spec = job(f"j{self.jobs}", groups=(wanted,), placement=placement)
        before, round = self.decide_both_ways([spec])
        for fact in of(WorkloadMixPublished, round.facts):
            before.mix.entries = fact.entries
        self.check(before, spec, of(AttemptStarted, round.facts))

    @rule(
        wanted=st.lists(st.builds(group, st.sampled_from((0, 1, 2, 3)), shares), min_size=2),
        tier=st.sampled_from(tuple(specs.Tier)),
    )
    def submit_several(self, wanted: list[specs.ReplicaGroup], tier: specs.Tier) -> None:
        """What waits is told alike, by a cell that remembers what had no room and by one new."""
        first = self.jobs
        self.jobs += len(wanted)
        named = [(f"j{first + 1 + i}", g) for i, g in enumerate(wanted)]
        self.decide_both_ways([job(name, groups=(g,), tier=tier) for name, g in named])

    def decide_both_ways(self, specs_: list[SubmitJob]) -> tuple[Cell, Round]:
        """The state before, and the round that it and a restored one decide alike."""
        before = Cell.restore(self.given.cell.snapshot())
        round = self.given.round(*specs_)
        restored = Cell.restore(before.snapshot())
        assert canonical(decide(restored, round.header, round.commands)) == canonical(round)
        self.live.extend(s.job for s in specs_)
        return before, round

    def check(self, before: Cell, spec: Any, started: list[AttemptStarted]) -> None:
        plain = spec.groups[0] == specs.ReplicaGroup(slots=spec.groups[0].slots)
        if before.policy.node_score == "best_fit":
            before.mix.entries = []
        losses = Naive(before).losses(spec)
        assert bool(started) == bool(losses), "what fits starts"
        if started and not (plain and spec.groups[0].slots):
            (name, _, _, device), why = started[0].nodes[0], started[0].why
            partial = before.nodes[name].partial
            milli = 1000 - partial.get(device, 0) if device >= 0 else 1000
            milli = milli if spec.groups[0].slots else 0
            assert why is not None
            assert losses[name, milli] == min(losses.values())
            assert why.score[0] == losses[name, milli]

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.given.round(
            CancelJob(job=self.live.pop(data.draw(st.integers(0, 999)) % len(self.live)))
        )
        self.given.round(after_s=60)

    @rule(number=st.integers(0, 4), cordoned=st.booleans())
    def cordon(self, number: int, cordoned: bool) -> None:
        self.given.round(CordonNode(node=f"n{number}", cordoned=cordoned))

    @invariant()
    def parts_are_not_given_twice(self) -> None:
        claimed = {placed[0] for run in self.given.cell.claims for placed in run.nodes}
        for here in self.given.cell.nodes.values():
            assert here.id in claimed or here.free_cpu_milli >= 0
            assert here.id in claimed or here.free_memory_mib >= 0
            assert all(0 < used <= 1000 for used in here.partial.values())
            assert all(0 <= device < here.spec.slots for device in here.partial)
            assert 0 <= here.used <= here.spec.slots


Machine.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestMachine = Machine.TestCase


def entry(slots: int, share: int = 1000, replicas: int = 1, **more: Any) -> MixEntry:
    return MixEntry("h100", slots, share, replicas, more.pop("cpu", 0), **more)


def cell_of(*models: str) -> Cell:
    given = Given()
    for number, model in enumerate(models):
        made = node(f"n{number}", slots=8, host_cpu_milli=80_000)
        given.round(made.model_copy(update={"labels": {"model": model}}))
    return given.cell


def test_a_rest_is_worth_the_whole_shares_that_it_holds() -> None:
    cell = cell_of("new")
    class_ = cell.nodes["n0"].class_
    worth = worth_of(asked_of([entry(1, 300), entry(4)], [class_], "h100"), class_, 80_000)
    half = UNIT // 2
    assert [worth.shared(r) for r in (1000, 899, 300, 299)] == [
        900 * half,
        600 * half,
        300 * half,
        0,
    ]
    assert [worth.whole(n) for n in (8, 7, 4, 3)] == [8000 * half, 4000 * half, 4000 * half, 0]


def test_what_few_nodes_serve_weighs_more_there() -> None:
    cell = cell_of("old", "new", "new", "new")
    classes = list(cell.fabric.classes.values())
    old, new = cell.nodes["n0"].class_, cell.nodes["n1"].class_
    entries = [entry(1, replicas=3), entry(1, replicas=1, require=(("model", ("old",)),))]
    asked = asked_of(entries, classes, "h100")
    assert worth_of(asked, new, 80_000).shared(1000) == 1000 * UNIT * 3 // 4
    assert worth_of(asked, old, 80_000).shared(1000) == 1000 * (UNIT * 3 // 4 + UNIT)


def test_devices_beyond_what_the_cpu_feeds_are_stranded() -> None:
    cell = cell_of("new")
    class_ = cell.nodes["n0"].class_
    worth = worth_of(asked_of([entry(1, replicas=2, cpu=12_000)], [class_], "h100"), class_, 80_000)
    assert worth.cpu_milli == 6000
    assert worth.fed_milli(18_000) == 3000
    assert stranded(-500, 2000) == 1500 * UNIT
    assert stranded(700, -1000) == -700 * UNIT
    frugal = worth_of(asked_of([entry(1, cpu=50_000)], [class_], "h100"), class_, 80_000)
    assert frugal.cpu_milli == 9000, "nine tenths of its own CPU: an unused node is not stranded"


def test_the_mix_is_published_as_admissions_double_and_only_for_parts() -> None:
    given = Given()
    quota = specs.Quota(accelerator="h100", nominal=1000)
    given.round(account("a", "q").model_copy(update={"quotas": (quota,)}), node("n0"))
    part = (group(1, 400, 0, 0),)
    published = []
    for number in range(9):
        whole = number < 2
        spec = job(f"j{number}") if whole else job(f"j{number}", groups=part)
        found = of(WorkloadMixPublished, given.facts(spec))
        published.append(len(found))
    assert published == [0, 0, 1, 0, 0, 1, 0, 0, 0]
    (first, *_), mix = given.cell.mix.entries, given.cell.mix
    assert (first.share_milli, first.replicas, mix.due) == (400, 4, 12)
    assert Cell.restore(given.cell.snapshot()).mix.state() == mix.state()


def test_a_replica_with_host_parts_claims_the_cheapest_room_and_starts_when_all_of_it_is_free() -> (
    None
):
    given = Given()
    quota = specs.Quota(accelerator="h100", nominal=16)
    given.round(account("a", "q").model_copy(update={"quotas": (quota,)}))
    for name in ("n0", "n1"):
        given.round(node(name, slots=8, host_cpu_milli=10_000, host_memory_mib=100))
    eager = specs.PolicyParameters(min_run_s=(0, 0, 0, 0), queue_delay_s=(0, 0, 0, 0))
    given.round(SetPolicy(parameters=eager))

    def wants(name: str, slots: int, cpu: int, tier: specs.Tier) -> SubmitJob:
        group = specs.ReplicaGroup(slots=slots, host_cpu_milli=cpu, host_memory_mib=10)
        return job(name, groups=(group,), tier=tier)

    basic, premium = specs.Tier.BASIC, specs.Tier.PREMIUM
    old = [("big", 8, 1000), ("fed", 1, 6000), ("thin", 1, 3000)]
    for name, slots, cpu in old:
        given.round(wants(name, slots, cpu, basic))
        given.round(ReportAttempt(job=name, attempt=1, state="running"), after_s=1)
    big, other = (given.cell.jobs[n].run for n in ("big", "fed"))
    assert big is not None
    assert other is not None
    assert big.nodes[0][0] != other.nodes[0][0]
    facts = given.facts(wants("above", 1, 4000, premium), after_s=100)
    decided = of(PreemptionDecided, facts)[0]
    assert [v.job for v in decided.victims] == ["thin"], "it has run for the shorter time"
    claimed = of(JobClaimed, facts)[0]
    assert (claimed.nodes, claimed.waits_for) == ([(other.nodes[0][0], 1, 0, -1)], [])
    here = given.cell.nodes[other.nodes[0][0]]
    assert here.free_cpu_milli == -3000, "the claim has taken what the victim still uses"
    assert not of(AttemptStarted, given.facts(after_s=1))
    ended = given.facts(ReportAttempt(job="thin", attempt=1, state="stopped"), after_s=1)
    assert [f.job for f in of(AttemptStarted, ended)] == ["above"]
    assert here.free_cpu_milli == 0
