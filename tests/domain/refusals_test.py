"""Every refusal: the command that meets it, its code, and that nothing else came of it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import Raw
from msgspec.structs import replace

import domain
from domain import accounts, cell, jobs, nodes, replays, reservations, specs
from domain import commands as c
from domain import maintenance as maintenance_rules
from domain.decide import decide
from domain.ledger import ENGINE, Accepted, Header
from domain.maintenance_commands import CancelMaintenance, PlanMaintenance
from tests.domain import policy_given
from tests.domain.given import H100, Given, job, node
from tests.domain.pooled import REFUSALS

HOUR_MS = 3_600_000


def window(name: str = "r", **fields: object) -> c.RequestReservation:
    start = 1_000_000
    known = {"account": "a", "accelerator": "h100", "count": 1, "slots": 8, "queues": ("q",)}
    times = {"start_ms": start, "end_ms": start + HOUR_MS}
    return c.RequestReservation.model_validate({"reservation": name, **known, **times, **fields})


def maintenance(name: str = "m", **fields: object) -> PlanMaintenance:
    times = {"start_ms": 2_000_000, "end_ms": 2_000_000 + HOUR_MS}
    return PlanMaintenance.model_validate(
        {"maintenance": name, "nodes": ("n0",), **times, **fields}
    )


def account(name: str, *queues: str, parent: str | None = None) -> c.SetQuota:
    quota = specs.Quota(accelerator="h100", nominal=16)
    listed = tuple(specs.Queue(queue=q) for q in queues)
    return c.SetQuota(account=name, parent=parent, quotas=(quota,), queues=listed)


def world() -> Given:
    """Account a with queue q, b with queue p; two nodes; job "runs" on a slot of n0."""
    given = Given()
    given.round(account("a", "q"), account("b", "p"), node("n0"), node("n1"), job("runs"))
    return given


def report(state: str, **fields: object) -> c.ReportAttempt:
    named = {"job": "runs", "attempt": 1, "state": state, **fields}
    return c.ReportAttempt.model_validate(named)


GATE = c.SetPolicy(parameters=specs.PolicyParameters(require_replay=True))
UNTRIED = replays.Replay(
    report="0" * 64, parameters="0" * 64, policy_version=1, first_round=1, last_round=1
)
TWICE = tuple(
    specs.TypeGroup(group=name, members=(specs.Rate(accelerator="h100"),)) for name in ("x", "y")
)
SIMPLE: dict[str, tuple[tuple[c.Command, ...], c.Command]] = {
    "groups_overlap": ((), c.SetPolicy(parameters=specs.PolicyParameters(groups=TWICE))),
    "replay_required": ((GATE,), c.SetPolicy(parameters=specs.PolicyParameters())),
    "replay_failed": (
        (GATE,),
        c.SetPolicy(parameters=specs.PolicyParameters(), replay=UNTRIED),
    ),
    "unknown_account": ((), account("x", parent="nobody")),
    "unknown_account of a window": ((), window(account="nobody")),
    "not_a_tree": ((account("b", "p", parent="a"),), account("a", "q", parent="b")),
    "not_a_tree by itself": ((), account("a", "q", parent="a")),
    "queue_taken": ((), account("b", "p", "q")),
    "queue_in_use": ((), account("a")),
    "job_exists": ((), job("runs")),
    "job_exists after its end": ((report("finished"),), job("runs")),
    "deadline_infeasible": (
        (),
        job("x", deadline=specs.Deadline(finish_by_ms=0, hardness="hard")),
    ),
    "unknown_queue": ((), job("x", queue="nothing")),
    "unknown_queue of a window": ((), window(queues=("nothing",))),
    "unknown_reservation": ((), job("x", reservation="nothing")),
    "unknown_reservation to cancel": ((), c.CancelReservation(reservation="nothing")),
    "not_in_reservation": ((window(),), job("x", queue="p", reservation="r")),
    "not_in_reservation with shares": (
        (window(),),
        job("x", groups=(specs.ReplicaGroup(share_milli=500),), reservation="r"),
    ),
    "unknown_job": ((), c.CancelJob(job="nobody")),
    "job_stopping": ((c.CancelJob(job="runs"),), c.CancelJob(job="runs")),
    "job_not_waiting": ((), c.AmendJob(job="runs", priority=3)),
    "job_not_running": ((c.PreemptJob(job="runs"),), c.PreemptJob(job="runs")),
    "stale_attempt": ((), report("running", attempt=2)),
    "not_its_node": ((), report("running", nodes=("n0", "n1"))),
    "stale_checkpoint": ((), c.ReportCheckpoint(job="runs", attempt=1, at_ms=1_000_001)),
    "unknown_node": ((), c.CordonNode(node="nothing")),
    "node_draining": ((c.DrainNode(node="n0"),), c.DrainNode(node="n0")),
    "node_draining and not empty": (
        (c.DrainNode(node="n0"),),
        c.CordonNode(node="n0", cordoned=False),
    ),
    "node_in_use": ((), node("n0", slots=4)),
    "reservation_exists": ((window(),), window()),
    "maintenance_exists": ((maintenance(),), maintenance()),
    "unknown_maintenance": ((), CancelMaintenance(maintenance="nothing")),
    "unknown_node in a maintenance": ((), maintenance(nodes=("nothing",))),
    "window_is_over for a maintenance": ((), maintenance(start_ms=1, end_ms=1_000_000)),
    "window_is_over": ((), window(start_ms=1, end_ms=1_000_000)),
    "never_fits": ((), window(count=3)),
    "window_is_taken": ((window(count=2),), window("other", start_ms=1_000_000 + HOUR_MS // 2)),
    **REFUSALS,
    **policy_given.REFUSALS,
}
"""By code: what is sent before, and what is refused with the code."""

BOUNDS: dict[str, tuple[object, str, int, c.Command]] = {
    "too_many_accounts": (accounts, "MAX_ACCOUNTS", 2, account("x")),
    "too_many_queues": (accounts, "MAX_QUEUES", 2, account("x", "x")),
    "too_deep": (accounts, "MAX_DEPTH", 1, account("x", parent="a")),
    "too_many_jobs": (jobs, "MAX_JOBS", 1, job("x")),
    "too_many_nodes": (nodes, "MAX_NODES", 2, node("x")),
    "too_many_shapes": (cell, "MAX_SHAPES", 1, job("x", slots=3)),
    "too_many_maintenances": (maintenance_rules, "MAX_MAINTENANCES", 0, maintenance()),
    "too_many_reservations": (reservations, "MAX_RESERVATIONS", 0, window()),
    **policy_given.BOUNDS,
}
"""By code: the bound, lowered to what the world has, and what would exceed it."""


def of_the_envelope(change: Callable[[Accepted], Accepted], quarantine: bool = False) -> str:
    given = world()
    accepted = change(given.accept(job("x")))
    out = [(accepted.partition, accepted.offset)] if quarantine else []
    header = Header(given.cell.head.round + 1, given.now_ms, 100_000, ENGINE, out)
    round = decide(given.cell, header, [accepted])
    assert "x" not in given.cell.jobs
    return round.refusals[0].code


def week_before(accepted: Accepted) -> Accepted:
    return replace(accepted, time_ms=accepted.time_ms - 7 * 86_400_000 - 1)


ENVELOPES: dict[str, Callable[[], str]] = {
    "quarantined": lambda: of_the_envelope(lambda a: a, quarantine=True),
    "stale_command": lambda: of_the_envelope(week_before),
    "unknown_type": lambda: of_the_envelope(lambda a: replace(a, type="Nothing")),
    "malformed": lambda: of_the_envelope(
        lambda a: replace(a, data=Raw(bytes(a.data).replace(b'"h100"', b'"!"')))
    ),
}


@pytest.mark.parametrize("case", SIMPLE)
def test_a_command_is_refused(case: str) -> None:
    before, command = SIMPLE[case]
    given = world()
    for one in before:
        given.round(one)
        assert given.last is not None
        assert not given.last.refusals, "what leads there is obeyed"
    state = given.cell.snapshot()
    assert given.refusal(command) == case.split()[0]
    assert_same_world(given, state)


def assert_same_world(given: Given, before: bytes) -> None:
    """The refused command is remembered by its id, and nothing else changed."""
    restored = cell.Cell.restore(before)
    tables = ("accounts", "queues", "nodes", "jobs", "reservations", "policies", "maintenances")
    for table in tables:
        old, new = getattr(restored, table), getattr(given.cell, table)
        assert {k: v.state() for k, v in old.items()} == {k: v.state() for k, v in new.items()}
    pools = (restored.pool, given.cell.pool)
    old, new = ([(e.kind, e.state()) for e in pool.entities()] for pool in pools)
    assert sorted(old, key=repr) == sorted(new, key=repr)


@pytest.mark.parametrize("code", BOUNDS)
def test_more_than_a_cell_holds_is_refused(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, bound, command = BOUNDS[code]
    given = world()
    monkeypatch.setattr(module, name, bound)
    assert given.refusal(command) == code
    monkeypatch.setattr(module, name, bound + 1)
    assert not given.round(command).refusals, "one more may be held, and it is"


@pytest.mark.parametrize("code", ENVELOPES)
def test_what_stands_around_a_command_may_refuse_it(code: str) -> None:
    assert ENVELOPES[code]() == code


def test_every_refusal_of_the_domain_is_met_here() -> None:
    found = set()
    for path in sorted(Path(domain.__path__[0]).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Refused":
                code = call.args[0]
                assert isinstance(code, ast.Constant), f"{path.name}: a code is a literal"
                found.add(code.value)
    met = {case.split()[0] for case in (*SIMPLE, *BOUNDS, *ENVELOPES)}
    assert met == found


def test_an_old_command_is_fresh_until_the_bound_is_passed() -> None:
    given = world()
    command = replace(given.accept(job("x")), time_ms=given.now_ms - 7 * 86_400_000)
    assert not given.decide([command]).refusals


def test_a_cancel_is_not_lost_while_the_job_stops_for_another_reason() -> None:
    given = world()
    given.round(c.PreemptJob(job="runs"))
    given.round(c.CancelJob(job="runs"))
    ended = given.facts(report("stopped"))
    assert [type(f).__name__ for f in ended[:2]] == ["AttemptEnded", "JobCancelled"]
    assert "runs" not in given.cell.jobs


def test_a_job_in_a_window_obeys_its_own_placement() -> None:
    given = world()
    given.round(window(count=1))
    host = (specs.ReplicaGroup(slots=1, host_cpu_milli=1),)
    nowhere = specs.Placement(require=(specs.Selector(label="rack", values=("elsewhere",)),))
    given.round(
        job("host", groups=host, reservation="r"),
        job("nowhere", placement=nowhere, reservation="r"),
        job("other", flavours=(specs.Flavour(accelerator="npu"),), reservation="r"),
        job("plain", reservation="r", flavours=H100),
    )
    waiting = {j.id for j in given.cell.jobs.values() if j.run is None}
    assert waiting == {"host", "nowhere", "other"}
