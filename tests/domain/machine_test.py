"""Random histories through the real decider, checked after each round against the naive model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from domain import commands as c
from domain import specs
from domain.cell import Cell
from domain.decide import decide
from domain.facts import ShapeBlocked
from domain.ledger import Accepted, canonical
from domain.maintenance_commands import PlanMaintenance
from domain.slots import ready_claims
from tests.domain.given import Given, job, node
from tests.domain.histories import (
    LEAVES,
    QUEUES,
    TYPES,
    Contention,
    contention,
    deadlines,
    flavours,
    groups,
    placements,
    quotas,
    runtimes,
)
from tests.domain.in_order import may_be_preempted_in_order
from tests.domain.naive import Naive
from tests.domain.owed import Owed
from tests.domain.recount import Recount
from tests.domain.waits import sleeps_until_due, what_fits_does_not_wait


class Machine(RuleBasedStateMachine):
    """Commands gather between rounds, so that one round has several."""

    def __init__(self) -> None:
        super().__init__()
        self.given = Given()
        self.naive = Naive()
        self.recount = Recount()
        self.owed = Owed()
        self.pending: list[Accepted] = []
        self.sent: list[Accepted] = []
        self.jobs = 0
        self.reasons: dict[int, tuple[str, str]] = {}
        self.along: Cell | None = None
        self.together = 1

    # --- commands ---

    def send(self, command: c.Command) -> None:
        self.pending.append(self.given.accept(command))

    @initialize(
        nominal=st.sampled_from((0, 4, 8, 16)),
        nodes=st.integers(1, 8),
        together=st.sampled_from((1, 2, 8)),
        eager=st.booleans(),
        contention=contention,
    )
    def start(
        self, nominal: int, nodes: int, together: int, eager: bool, contention: Contention
    ) -> None:
        self.together = together
        self.send(c.SetQuota(account="org"))
        entries = tuple(specs.Quota(accelerator=t, nominal=nominal) for t in TYPES)
        for leaf in LEAVES:
            self.set_leaf(leaf, entries)
        for n in range(nodes):
            self.node(n, n % 3 == 2, 0)
        if eager:
            parameters = specs.PolicyParameters(
                min_run_s=(0, 0, 0, 0), queue_delay_s=(0, 0, 0, 0), gather_after_s=(0, 0, 0, 0)
            )
            self.send(c.SetPolicy(parameters=parameters))
        self.decide_now(0)
        self.contend(contention)

    def set_leaf(self, leaf: str, entries: tuple[specs.Quota, ...], strict: bool = False) -> None:
        queues = (
            specs.Queue(queue=f"{leaf}-x", order="strict" if strict else "skip"),
            specs.Queue(queue=f"{leaf}-y", weight=2000),
        )
        self.send(c.SetQuota(account=leaf, parent="org", quotas=entries, queues=queues))

    @rule(
        leaf=st.sampled_from(LEAVES),
        entries=st.lists(quotas, max_size=2, unique_by=lambda q: q.accelerator),
        strict=st.booleans(),
    )
    def set_quota(self, leaf: str, entries: list[specs.Quota], strict: bool) -> None:
        self.set_leaf(leaf, tuple(entries), strict)

    @rule(n=st.integers(0, 9), npu=st.booleans(), lease_s=st.sampled_from((0, 0, 600)))
    def node(self, n: int, npu: bool, lease_s: int) -> None:
        path = {"cluster": f"c{n % 2}", "block": f"b{n % 2}{n // 4}"}
        made = node(
            f"n{n}",
            rack=f"k{n // 2}",
            slots=4 if npu else 8,
            accelerator="npu" if npu else "h100",
            kind="npu" if npu else "gpu",
            labels={"zone": "ab"[n % 2]},
            host_cpu_milli=16_000,
            host_memory_mib=8192,
            lease_s=lease_s,
            path=path,
        )
        self.send(made)

    @rule(
        queue=st.sampled_from(QUEUES),
        tier=st.sampled_from(tuple(specs.Tier)),
        priority=st.sampled_from((0, 5)),
        group=groups,
        second=st.one_of(st.none(), groups),
        flavour=flavours,
        placement=placements,
        runtime=runtimes,
        preemptible=st.booleans(),
        restarts=st.integers(0, 1),
        due=deadlines,
    )
    def submit(
        self,
        queue: str,
        tier: specs.Tier,
        priority: int,
        group: specs.ReplicaGroup,
        second: specs.ReplicaGroup | None,
        flavour: Any,
        placement: specs.Placement,
        runtime: specs.Runtime,
        preemptible: bool,
        restarts: int,
        due: tuple[int, Any] | None,
    ) -> None:
        deadline = None
        if due is not None:
            by_ms = self.given.now_ms + 1000 * due[0]
            deadline = specs.Deadline(finish_by_ms=by_ms, hardness=due[1])
        several: tuple[specs.ReplicaGroup, ...] = (group,)
        if second is not None and group.slots and second.slots:
            several = (group, second.model_copy(update={"name": "rest"}))
        self.jobs += 1
        self.send(
            job(
                f"j{self.jobs}",
                queue=queue,
                tier=tier,
                priority=priority,
                groups=several,
                flavours=flavour,
                placement=placement,
                runtime=runtime,
                preemptible=preemptible,
                max_restarts=restarts,
                deadline=deadline,
            )
        )

    @rule(contention=contention)
    def contend(self, contention: Contention) -> None:
        """One queue after another asks for more than there is, and what it gets runs a while."""
        for queue, tier, slots, count, after_s in contention:
            self.submit_several(queue, tier, slots, count)
            self.decide_now(0)
            self.report_all(True)
            self.decide_now(after_s)

    @rule(
        data=st.data(),
        count=st.integers(1, 3),
        start_s=st.integers(0, 2000),
        every_s=st.sampled_from((None, None, 3000, 5000)),
        lead_s=st.sampled_from((0, 0, 60, 600)),
    )
    def reserve(
        self, data: st.DataObject, count: int, start_s: int, every_s: int | None, lead_s: int
    ) -> None:
        name = data.draw(st.sampled_from(("r1", "r2")))
        start_ms = self.given.now_ms + start_s * 1000
        self.send(
            c.RequestReservation(
                reservation=name,
                account="team-a",
                accelerator="h100",
                count=count,
                slots=8,
                start_ms=start_ms,
                end_ms=start_ms + 3_000_000,
                queues=("team-a-x",),
                every_s=every_s,
                until_ms=start_ms + 20_000_000,
                lead_s=lead_s,
            )
        )

    @rule(
        data=st.data(),
        start_s=st.integers(0, 2000),
        for_s=st.integers(1, 2000),
        every_s=st.sampled_from((None, None, 3000)),
    )
    def maintain(self, data: st.DataObject, start_s: int, for_s: int, every_s: int | None) -> None:
        known = sorted(self.naive.nodes) or ["n0"]
        start_ms = self.given.now_ms + start_s * 1000
        self.send(
            PlanMaintenance(
                maintenance=data.draw(st.sampled_from(("m1", "m2"))),
                nodes=tuple(data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3))),
                start_ms=start_ms,
                end_ms=start_ms + for_s * 1000,
                every_s=every_s,
                until_ms=start_ms + 10_000_000,
                lead_s=data.draw(st.sampled_from((0, 100))),
            )
        )

    @rule(
        name=st.sampled_from(("r1", "r2")),
        group=groups,
        flavour=flavours,
        placement=placements,
        queue=st.sampled_from(("team-a-x", "team-a-x", "team-b-x")),
    )
    def submit_to_reservation(
        self, name: str, group: Any, flavour: Any, placement: Any, queue: str
    ) -> None:
        self.jobs += 1
        self.send(
            job(
                f"j{self.jobs}",
                queue=queue,
                groups=(group,),
                flavours=flavour,
                placement=placement,
                reservation=name,
            )
        )

    @rule(
        queue=st.sampled_from(QUEUES),
        tier=st.sampled_from(tuple(specs.Tier)),
        slots=st.sampled_from((2, 4, 8)),
        count=st.integers(1, 6),
    )
    def submit_several(self, queue: str, tier: specs.Tier, slots: int, count: int) -> None:
        for _ in range(count):
            self.jobs += 1
            self.send(job(f"j{self.jobs}", queue=queue, tier=tier, slots=slots))

    @rule(
        queue=st.sampled_from(QUEUES),
        tier=st.sampled_from(tuple(specs.Tier)),
        count=st.integers(1, 2),
        slots=st.sampled_from((1, 2, 8)),
        steps=st.integers(1, 6),
        by=st.integers(1, 2),
    )
    def submit_elastic(
        self, queue: str, tier: specs.Tier, count: int, slots: int, steps: int, by: int
    ) -> None:
        group = specs.ReplicaGroup(count=count, slots=slots, grow_to=count + steps * by, grow_by=by)
        self.jobs += 1
        self.send(job(f"j{self.jobs}", queue=queue, tier=tier, groups=(group,)))

    @rule(name=st.sampled_from(("r1", "r2")))
    def cancel_reservation(self, name: str) -> None:
        self.send(c.CancelReservation(reservation=name))

    def some_job(self, data: st.DataObject) -> str:
        known = sorted(self.naive.jobs) or ["nobody"]
        return data.draw(st.sampled_from(known))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.send(c.CancelJob(job=self.some_job(data)))

    @rule(
        data=st.data(),
        tier=st.sampled_from((None, *specs.Tier)),
        priority=st.sampled_from((None, 0, 5)),
        estimate_s=st.sampled_from((None, 1, 500)),
    )
    def amend(self, data: st.DataObject, tier: Any, priority: Any, estimate_s: Any) -> None:
        name = self.some_job(data)
        self.send(c.AmendJob(job=name, tier=tier, priority=priority, estimate_s=estimate_s))

    @rule(data=st.data())
    def preempt(self, data: st.DataObject) -> None:
        self.send(c.PreemptJob(job=self.some_job(data)))

    @rule(
        data=st.data(),
        state=st.sampled_from(("running", "running", "finished", "failed", "stopped")),
        part=st.booleans(),
        stale=st.booleans(),
    )
    def report(self, data: st.DataObject, state: Any, part: bool, stale: bool) -> None:
        name = self.some_job(data)
        known = self.naive.jobs.get(name)
        attempt = known.attempt if known else None
        number = (attempt.number if attempt else 1) + (1 if stale else 0)
        nodes = (attempt.nodes[0][0],) if attempt and part else ()
        self.send(c.ReportAttempt(job=name, attempt=number, state=state, nodes=nodes))

    @rule(running=st.booleans())
    def report_all(self, running: bool) -> None:
        """All agents report what is due, so that histories go on."""
        for name, known in sorted(self.naive.jobs.items()):
            attempt = known.attempt
            if attempt is None or not attempt.started:
                continue
            if attempt.stopping:
                state: Any = "stopped"
            else:
                state = "running" if running else "finished"
            self.send(c.ReportAttempt(job=name, attempt=attempt.number, state=state))
            for part in sorted(attempt.leaving):
                gone = c.ReportAttempt(job=name, attempt=attempt.number, state="stopped", part=part)
                self.send(gone)

    @rule(data=st.data(), state=st.sampled_from(("failed", "stopped")), part=st.integers(1, 4))
    def report_part(self, data: st.DataObject, state: Any, part: int) -> None:
        self.send(c.ReportAttempt(job=self.some_job(data), attempt=1, state=state, part=part))

    @rule(data=st.data())
    def checkpoint(self, data: st.DataObject) -> None:
        name = self.some_job(data)
        self.send(c.ReportCheckpoint(job=name, attempt=1, at_ms=self.given.now_ms))

    @rule(
        n=st.integers(0, 9),
        kind=st.sampled_from(("report", "sick", "cordon", "uncordon", "drain", "remove")),
    )
    def manage_node(self, n: int, kind: str) -> None:
        name = f"n{n}"
        made: dict[str, c.Command] = {
            "report": c.ReportNode(node=name),
            "sick": c.ReportNode(node=name, healthy=False),
            "cordon": c.CordonNode(node=name),
            "uncordon": c.CordonNode(node=name, cordoned=False),
            "drain": c.DrainNode(node=name),
            "remove": c.RemoveNode(node=name),
        }
        self.send(made[kind])

    @rule(
        order=st.sampled_from(
            ("seniority", "least_attained", "least_remaining", "earliest_deadline")
        ),
        ratio=st.sampled_from((0, 2000)),
        min_run_s=st.sampled_from((0, 600)),
        on=st.fixed_dictionaries(
            {name: st.booleans() for name in ("preemption", "gathering", "consolidation")}
        ),
    )
    def set_policy(self, order: Any, ratio: int, min_run_s: int, on: dict[str, Any]) -> None:
        parameters = specs.PolicyParameters(
            order=order,
            yield_ratio_milli=ratio,
            min_run_s=(0, min_run_s, min_run_s, min_run_s),
            queue_delay_s=(0, 0, 60, 600),
            **on,
            gather_after_s=(0, 0, 60, 600),
        )
        self.send(c.SetPolicy(parameters=parameters))

    @precondition(lambda self: bool(self.sent))
    @rule(data=st.data())
    def duplicate(self, data: st.DataObject) -> None:
        self.pending.append(data.draw(st.sampled_from(self.sent[-50:])))

    # --- rounds ---

    @rule(after_s=st.sampled_from((0, 1, 31, 700, 4000)))
    def decide_now(self, after_s: int) -> None:
        self.given.now_ms += after_s * 1000
        taken, self.pending = self.pending, []
        before = self.given.cell.snapshot()
        ready = {(r.job.id, r.attempt) for r in ready_claims(self.given.cell)}
        round = self.given.decide(taken)
        still = {(r.job.id, r.attempt) for r in ready_claims(self.given.cell)}
        assert not ready & still, "a claim that waits for nothing starts in the next round"
        self.check_restored(before, round)
        self.check_along(round)
        self.sent.extend(taken)
        self.naive.follow(round)
        self.recount.follow(self.given.cell, round)
        self.owed.follow(self.given.cell, round)
        self.check_reasons(round)

    @rule()
    def restart(self) -> None:
        """The decider goes on from a snapshot of its own state."""
        self.given.cell = Cell.restore(self.given.cell.snapshot())

    def check_restored(self, before: bytes, round: Any) -> None:
        """A cell restored from the state before decides the same bytes."""
        cell = Cell.restore(before)
        again = decide(cell, round.header, round.commands)
        assert canonical(again) == canonical(round)

    @rule()
    def restore_another(self) -> None:
        """A cell restored now decides all later rounds beside the one that was never restored."""
        self.along = Cell.restore(self.given.twin.snapshot())

    def check_along(self, round: Any) -> None:
        if self.along is not None:
            again = decide(self.along, round.header, round.commands)
            assert canonical(again) == canonical(round)
            self.along.believe(self.given.cell.head, round.inputs)

    def check_reasons(self, round: Any) -> None:
        """Whoever waits was told why, and told again only when the reason is another one."""
        for fact in round.facts:
            if isinstance(fact, ShapeBlocked):
                told = (fact.reason, fact.where)
                assert self.reasons.get(fact.shape) != told, "told twice"
                self.reasons[fact.shape] = told
        for shape in self.given.cell.shapes.values():
            if shape.waiting:
                assert shape.reason, "it waits and nobody knows why"

    # --- invariants ---

    @invariant()
    def rounds_are_made(self) -> None:
        if len(self.pending) >= self.together:
            self.decide_now(1)

    @invariant()
    def states_agree(self) -> None:
        assert self.given.twin.digest() == self.given.cell.digest()

    @invariant()
    def nothing_is_due_before_the_next_due_moment(self) -> None:
        sleeps_until_due(self.given.cell)

    @invariant()
    def every_slot_second_is_put_to_one_use(self) -> None:
        for cell in (self.given.cell, self.given.twin):
            self.recount.check(cell)
            self.owed.check(cell)

    @invariant()
    def usage_agrees(self) -> None:
        naive = self.naive.usage()
        for account in self.given.cell.accounts.values():
            for accelerator, used in account.own.items():
                assert used == naive.get((account.id, accelerator), 0)

    @invariant()
    def those_who_may_be_preempted_are_in_order(self) -> None:
        may_be_preempted_in_order(self.given.cell)

    @invariant()
    def what_fits_does_not_wait(self) -> None:
        if not self.pending:
            what_fits_does_not_wait(self.given.cell)


class LongMachine(Machine):
    """More and longer histories, always the same ones: a search for new ones is not for CI."""


Machine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
LongMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestMachine = Machine.TestCase
TestLongMachine = pytest.mark.slow(LongMachine.TestCase)
