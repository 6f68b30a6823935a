"""Fragments are moved together for what lacks nothing else, and only then."""

from __future__ import annotations

from typing import Any

import pytest

from domain import facts as f
from domain.commands import ReportAttempt, SetPolicy, SetQuota
from domain.specs import PolicyParameters, Queue, Quota, Runtime, Tier
from tests.domain.given import Given, job, node, of

KEEPS = Runtime(checkpoint_interval_s=60, grace_s=1)


def world(nodes: int = 3, **policy: Any) -> Given:
    """Nodes of 4 slots; preemption for nothing but room."""
    given = Given()
    parameters = {"consolidation": True, "min_run_s": (0, 0, 0, 0), **policy}
    given.round(
        SetPolicy(parameters=PolicyParameters(**parameters)),
        SetQuota(
            account="a",
            quotas=(Quota(accelerator="h100", nominal=4 * nodes),),
            queues=(Queue(queue="q"),),
        ),
        *(node(f"n{i}", slots=4) for i in range(nodes)),
    )
    return given


def spread(given: Given, slots: int = 1, **more: Any) -> None:
    """A job on each node: beside each a filler that ends."""
    nodes = len(given.cell.nodes)
    for n in range(nodes):
        given.round(
            job(f"small{n}", slots=slots, runtime=KEEPS, **more), job(f"filler{n}", slots=4 - slots)
        )
    given.round(
        *(ReportAttempt(job=f"small{n}", attempt=1, state="running") for n in range(nodes)),
        *(ReportAttempt(job=f"filler{n}", attempt=1, state="finished") for n in range(nodes)),
    )
    given.round(after_s=120)
    assert all(n.used == slots for n in given.cell.nodes.values())


def decided(given: Given, *commands: Any, after_s: int = 0) -> list[f.PreemptionDecided]:
    return of(f.PreemptionDecided, given.facts(*commands, after_s=after_s))


def test_a_small_job_moves_for_one_that_needs_a_whole_node() -> None:
    given = world()
    spread(given)
    assert not decided(given, job("whole", slots=4)), "it has not waited for what the move loses"
    (move,) = decided(given, after_s=60)
    assert (move.cause, move.preemptor, len(move.victims)) == ("consolidation", "whole", 1)
    moved = move.victims[0].job
    ended = given.facts(ReportAttempt(job=moved, attempt=1, state="stopped"), after_s=1)
    starts = {start.job for start in of(f.AttemptStarted, ended)}
    assert moved in starts, "it has its hole at once"
    assert "whole" in starts | {s.job for s in of(f.AttemptStarted, given.facts())}
    assert not decided(given, after_s=600)


def test_as_few_move_as_are_needed_and_the_cheapest() -> None:
    given = world(4)
    spread(given)
    given.round(*(job(f"more{n}", slots=1, runtime=KEEPS) for n in range(2)))
    found = decided(given, job("whole", slots=4), after_s=0) or decided(given, after_s=120)
    assert len(found[0].victims) == 1


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int, int]] = {
    "off": ({"consolidation": False}, {}, 1, 4),
    "young": ({"min_run_s": (0, 0, 3600, 3600)}, {}, 1, 4),
    "not preemptible": ({}, {"preemptible": False}, 1, 4),
    "stronger": ({}, {"tier": Tier.PREMIUM}, 1, 4),
    "no hole": ({}, {}, 3, 2),
}
"""By case: policy, the jobs that lie there, their slots, and what is asked for."""


@pytest.mark.parametrize("case", CASES)
def test_nothing_moves(case: str) -> None:
    policy, more, slots, asked = CASES[case]
    given = world(**policy)
    spread(given, slots=slots, **more)
    assert not decided(given, job("whole", slots=asked))
    assert not decided(given, after_s=1200)


def test_nothing_moves_for_what_lacks_quota() -> None:
    given = world()
    spread(given)
    quota = Quota(accelerator="h100", nominal=5, borrowing_limit=0)
    given.round(SetQuota(account="a", quotas=(quota,), queues=(Queue(queue="q"),)))
    assert not decided(given, job("whole", slots=4))
    assert not decided(given, after_s=1200)
