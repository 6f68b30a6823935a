"""What-if: an unchanged history comes out the same, a changed one is what the simulator gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from domain.cell import Cell
from domain.commands import CancelJob, ReportAttempt, ReportNode, SetPolicy
from domain.evolve import evolve
from domain.ledger import Head, Header, unseal
from domain.specs import PolicyParameters
from streams import traces, workload
from streams.changes import Change
from streams.comparison import Comparison, study
from streams.reader import Believed
from streams.scenario import EPOCH_MS, Outage, Scenario, arrival
from streams.simulate import Simulation
from streams.traces import Options, Row
from tests.streams.cells import Site, drain, started, submit, world
from tests.streams.simulate_test import OneKey

LEASE_S = 900


def simulated(scenario: Scenario, until_ms: int | None = None) -> tuple[Simulation, list[bytes]]:
    records: list[bytes] = []
    simulation = Simulation("c", scenario, OneKey(), records.append)
    for _ in simulation.run(until_ms):
        pass
    return simulation, records


async def ask(
    records: list[bytes], change: Change, *, first: int = 1, last: int = 1 << 60
) -> tuple[dict[str, Any], Comparison]:
    believed = [Believed(n, *unseal(record, None), record) for n, record in enumerate(records)]

    async def read(head: Head) -> AsyncIterator[Believed]:
        for each in believed[head.round :]:
            yield each

    def since(header: Header) -> bool:
        return header.round >= first

    def until(header: Header) -> bool:
        return header.round <= last

    learned, window = await study(read, since, until, None)
    cell = Cell(believed[0].round.cell)
    for each in believed[: first - 1]:
        evolve(cell, each.round, each.head)
    comparison = Comparison(cell, learned, change, window)
    for each in believed[first - 1 : last]:
        comparison.follow(each)
    return comparison.finish(), comparison


def what_if(records: list[bytes], change: Change, **window: int) -> dict[str, Any]:
    return asyncio.run(ask(records, change, **window))[0]


def contended(seed: int, policy: PolicyParameters | None, *, outages: bool = False) -> Scenario:
    """Two partitions that borrow from each other, and reclaim."""
    nodes = traces.partition_nodes({"p": 2, "q": 2}, 8)
    rows = []
    for i in range(80):
        mixed = (i * 7919 + seed * 104_729) % 1009
        lasts_s = 60 + mixed * 13 % 9000
        size = (1, 2, 4, 8, 16)[mixed % 5]
        rows.append(Row(f"j{i}", i * 40 + mixed % 37, lasts_s, size, "pq"[mixed % 3 == 0]))
    scenario = traces.scenario(rows, nodes, Options(preemptible=True, checkpoint_s=600))
    if outages:
        scenario.nodes = [n.model_copy(update={"lease_s": LEASE_S}) for n in scenario.nodes]
        scenario.outages = [
            Outage(1000 * LEASE_S, 1000 * LEASE_S * 3, nodes[0].node),
            Outage(1000 * LEASE_S * 10, 1000 * LEASE_S * 13, nodes[3].node),
        ]
    if policy is not None:
        scenario.arrivals.insert(0, arrival(0, SetPolicy(parameters=policy)))
    return scenario


POLICIES = (
    PolicyParameters(preemption=False),
    PolicyParameters(order="least_attained", yield_ratio_milli=2000, min_run_s=(0, 60, 60, 60)),
    PolicyParameters(queue_delay_s=(0, 60, 120, 600), min_run_s=(0, 0, 0, 0)),
)


@pytest.mark.parametrize("outages", [False, True])
def test_an_unchanged_history_comes_out_the_same(outages: bool) -> None:
    _, records = simulated(contended(1, None, outages=outages))
    report = what_if(records, Change())
    assert report["differing_decisions"] == 0
    assert report["differs_at_round"] is None
    assert report["rounds_same_bytes"] == len(records)
    assert report["kpis"]["recorded"] == report["kpis"]["what_if"]
    assert report["kpis"]["recorded"]["preemptions"] > 0


@pytest.mark.parametrize(
    ("policy", "seed", "outages"),
    [(p, seed, False) for p in POLICIES for seed in (1, 2)] + [(POLICIES[2], 3, True)],
)
def test_a_changed_policy_gives_what_the_simulator_gives(
    policy: PolicyParameters, seed: int, outages: bool
) -> None:
    _, records = simulated(contended(seed, None, outages=outages))
    other, _ = simulated(contended(seed, policy, outages=outages))
    report = what_if(records, Change(policy=policy))
    expected = other.measure.report(other.last_submission_ms)
    found = report["kpis"]["what_if"]
    assert report["kpis"]["recorded"] != expected
    assert report["differing_decisions"] > 0
    if outages:  # recorded signs of life go on where the simulator ends with its last job
        for name in ("rounds", "facts"):
            assert found.pop(name) >= expected.pop(name)
    # the ledger knows the last submission's round, which the grid puts up to a second later
    assert found.pop("gpu_utilisation") == pytest.approx(expected.pop("gpu_utilisation"), abs=1e-3)
    assert found == expected


def test_more_nodes_and_other_quotas_give_what_the_simulator_gives() -> None:
    scenario = contended(4, None)
    _, records = simulated(scenario)
    more = scenario.nodes[0].model_copy(update={"node": "another"})
    quota = scenario.quotas[-1]
    larger = tuple(q.model_copy(update={"nominal": 4 * q.nominal}) for q in quota.quotas)
    other = quota.model_copy(update={"quotas": larger})
    scenario.nodes.append(more)
    scenario.quotas[-1] = other
    changed, _ = simulated(scenario)
    change = Change(nodes={"another": more}, quotas={other.account: other})
    found = what_if(records, change)["kpis"]["what_if"]
    expected = changed.measure.report(changed.last_submission_ms)
    assert found["jct_mean_s"] < what_if(records, Change())["kpis"]["what_if"]["jct_mean_s"]
    found.pop("gpu_utilisation"), expected.pop("gpu_utilisation")
    assert found == expected


def test_a_node_that_is_not_there_runs_nothing() -> None:
    scenario = contended(5, None)
    _, records = simulated(scenario)
    gone = scenario.nodes[0].node
    report, comparison = asyncio.run(ask(records, Change(nodes={gone: None})))
    assert gone not in comparison.supposed.cell.nodes
    assert gone in comparison.recorded.cell.nodes
    assert report["losers"]
    kpis = report["kpis"]
    assert kpis["what_if"]["jct_mean_s"] > kpis["recorded"]["jct_mean_s"]
    finished = [side["jobs_finished"] + side["jobs_refused"] for side in kpis.values()]
    assert finished[0] == finished[1] == 80


@pytest.mark.parametrize(("first", "last"), [(40, 90), (100, 1 << 60)])
def test_a_part_of_a_history_comes_out_the_same(first: int, last: int) -> None:
    _, records = simulated(contended(1, None))
    report = what_if(records, Change(), first=first, last=last)
    assert report["rounds"] == [first, min(last, len(records))]
    assert report["differing_decisions"] == 0
    assert report["rounds_same_bytes"] == min(last, len(records)) - first + 1
    assert report["kpis"]["recorded"] == report["kpis"]["what_if"]
    assert all(report["gates"].values())


def test_a_change_in_mid_history_counts_from_there() -> None:
    _, records = simulated(contended(1, None))
    report, comparison = asyncio.run(ask(records, Change(policy=POLICIES[0]), first=60))
    assert report["differs_at_round"] >= 60
    assert comparison.supposed.cell.policy == POLICIES[0]
    sides = report["kpis"]
    assert sides["what_if"]["preemptions"] < sides["recorded"]["preemptions"]
    assert sides["what_if"]["jobs_unfinished"] == sides["recorded"]["jobs_unfinished"] == 0


def test_a_generated_day_comes_out_the_same() -> None:
    """Reservations, cancels, failing nodes, tiers: all that the product's own day has."""
    day = workload.day(5, EPOCH_MS, jobs=250)
    _, records = simulated(day, EPOCH_MS + workload.DAY_MS)
    report = what_if(records, Change())
    assert report["differing_decisions"] == 0
    assert report["rounds_same_bytes"] == len(records)
    fewer = {node.node: None for node in day.nodes[: len(day.nodes) // 2]}
    other = what_if(records, Change(nodes={**fewer}))
    assert other["differing_decisions"] > 0
    kpis = other["kpis"]
    assert kpis["recorded"]["jobs_submitted"] == kpis["what_if"]["jobs_submitted"]
    assert kpis["recorded"]["jobs_finished"] > kpis["what_if"]["jobs_finished"] > 0


@pytest.mark.slow
def test_agents_that_are_late_or_silent_are_replayed_as_they_were() -> None:
    """Reports of no simulator: a slow start, a report twice, an end in parts, a lost agent."""
    records = asyncio.run(irregular())
    report = what_if(records, Change())
    assert report["differing_decisions"] == 0
    assert report["rounds_same_bytes"] == len(records)
    other = what_if(records, Change(policy=PolicyParameters(order="least_remaining")))
    assert other["kpis"]["what_if"]["jobs_submitted"] == 6


async def irregular() -> list[bytes]:
    with TemporaryDirectory() as folder:
        site = Site(Path(folder))
        decider = await started(site)
        await site.send(*world(lease_s=60), *(submit(f"j{n}", 8) for n in range(6)))
        await drain(decider)
        for said in (
            [ReportAttempt(job="j0", attempt=1, state="running")] * 2,
            [ReportAttempt(job="j1", attempt=1, state="finished")],
            [ReportNode(node="n0")],
            [ReportAttempt(job="j0", attempt=1, state="failed", nodes=("n0",))],
            [CancelJob(job="j3")],
            [],
        ):
            site.clock.ms += 47_123
            await site.send(*said)
            await drain(decider)
        records = [record async for _, record in site.log.read(0)]
        site.database.close()
    return records
