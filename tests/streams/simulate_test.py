"""The simulator: real decisions on a virtual clock, every job accounted for."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domain.cell import Cell
from domain.evolve import evolve
from domain.facts import AttemptStarted, DeadlineAtRisk, PreemptionDecided, ReservationActive
from domain.ledger import Round, unseal
from streams import traces, workload
from streams.scenario import EPOCH_MS, Scenario
from streams.simulate import Simulation
from streams.traces import Options, Row


class OneKey:
    """A signer with a fresh key."""

    key_id = "test"

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def simulate(scenario: Scenario, until_ms: int | None = None) -> tuple[Simulation, list[Round]]:
    records: list[bytes] = []
    simulation = Simulation("c", scenario, OneKey(), records.append)
    for _ in simulation.run(until_ms):
        pass
    return simulation, [unseal(record, None)[0] for record in records]


def report(simulation: Simulation) -> dict[str, Any]:
    return simulation.measure.report(simulation.last_submission_ms)


def starts(rounds: list[Round]) -> dict[str, int]:
    """Second of the start of each job."""
    return {
        fact.job: (made.header.now_ms - EPOCH_MS) // 1000
        for made in rounds
        for fact in made.facts
        if isinstance(fact, AttemptStarted)
    }


def rows(*jobs: tuple[str, int, int, int], partition: str = "p") -> list[Row]:
    """(job, submit_s, duration_s, gpus)"""
    return [Row(job, submit, lasts, gpus, partition) for job, submit, lasts, gpus in jobs]


def test_jobs_of_one_size_run_first_come_first_served() -> None:
    nodes = traces.partition_nodes({"p": 1}, 8)
    jobs = rows(("a", 0, 100, 8), ("b", 10, 50, 8), ("c", 20, 10, 8))
    simulation, rounds = simulate(traces.scenario(jobs, nodes))
    assert starts(rounds) == {"a": 0, "b": 100, "c": 150}
    said = report(simulation)
    assert said["queue_mean_s"] == pytest.approx((0 + 90 + 130) / 3, abs=0.05)
    assert said["queue_p50_s"] == 90
    assert said["jct_mean_s"] == pytest.approx((100 + 140 + 140) / 3, abs=0.05)
    assert said["gpu_utilisation"] == 1.0


def test_a_job_that_does_not_fit_lets_later_ones_pass() -> None:
    nodes = traces.partition_nodes({"p": 1}, 8)
    jobs = rows(("a", 0, 100, 6), ("large", 10, 50, 8), ("small", 20, 10, 2))
    simulation, rounds = simulate(traces.scenario(jobs, nodes))
    assert starts(rounds) == {"a": 0, "small": 20, "large": 100}
    assert report(simulation)["jobs_finished"] == 3


def test_deadlines_that_were_met_are_counted_by_tier() -> None:
    nodes = traces.partition_nodes({"p": 1}, 8)
    jobs = [
        Row("met", 0, 100, 8, "p", "premium", deadline_s=100),
        Row("missed", 10, 50, 8, "p", "premium", deadline_s=149),
        Row("free", 20, 10, 8, "p", "basic"),
    ]
    simulation, rounds = simulate(traces.scenario(jobs, nodes, Options(estimates=True)))
    tiers = report(simulation)["tiers"]
    found = {name: (t["with_deadline"], t["in_time"]) for name, t in tiers.items()}
    assert found == {"premium": (2, 1), "basic": (0, 0)}
    facts = [f for made in rounds for f in made.facts]
    told = [f for f in facts if isinstance(f, DeadlineAtRisk)]
    assert [(f.job, f.earliest_finish_ms - EPOCH_MS) for f in told] == [("missed", 150_000)]


def test_a_pool_lets_a_partition_use_what_another_leaves_idle() -> None:
    nodes = traces.partition_nodes({"p": 1, "q": 1}, 8)
    jobs = rows(("a", 0, 100, 8), ("b", 1, 100, 8))
    apart, apart_rounds = simulate(traces.scenario(jobs, nodes, Options(apart=True)))
    pooled, pooled_rounds = simulate(traces.scenario(jobs, nodes))
    assert starts(apart_rounds) == {"a": 0, "b": 100}
    assert starts(pooled_rounds) == {"a": 0, "b": 1}
    assert report(apart)["queue_mean_s"] > report(pooled)["queue_mean_s"] == 0


def test_a_gang_never_spans_two_partitions_nodes() -> None:
    nodes = traces.partition_nodes({"p": 1, "q": 1}, 8)
    simulation, _ = simulate(traces.scenario(rows(("wide", 0, 10, 16)), nodes))
    said = report(simulation)
    assert said["jobs_finished"] == 0
    assert said["jobs_refused"] + said["jobs_unfinished"] == said["jobs_submitted"] == 1


def test_a_partition_without_nodes_has_its_jobs_refused_with_a_code() -> None:
    nodes = traces.partition_nodes({"p": 1}, 8)
    jobs = [*rows(("a", 0, 10, 1)), *rows(("b", 1, 10, 1), partition="unknown")]
    simulation, _ = simulate(traces.scenario(jobs, nodes))
    said = report(simulation)
    assert (said["jobs_submitted"], said["jobs_finished"], said["jobs_refused"]) == (2, 1, 1)
    assert said["refusals"] == {"unknown_queue": 1}


def test_a_reclaim_preempts_and_the_victim_waits_and_finishes_later() -> None:
    nodes = traces.partition_nodes({"p": 1, "q": 1}, 8)
    jobs = [
        *rows(("own", 0, 10_000, 8), ("borrowed", 0, 10_000, 8)),
        *rows(("reclaims", 3600, 100, 8), partition="q"),
    ]
    options = Options(preemptible=True, checkpoint_s=600)
    simulation, rounds = simulate(traces.scenario(jobs, nodes, options))
    said = report(simulation)
    assert said["preemptions"] == 1
    assert said["jobs_finished"] == 3
    # checkpoints at 600 s, 1200 s, … : what was done since the one at 3600 s is lost
    assert 0 < said["lost_gpu_s"] <= 8 * 660
    causes = [f.cause for r in rounds for f in r.facts if isinstance(f, PreemptionDecided)]
    assert causes == ["reclaim"]


def test_a_job_without_end_is_counted_as_unfinished() -> None:
    nodes = traces.partition_nodes({"p": 1}, 8)
    jobs = [Row("forever", 0, None, 1, "p"), Row("short", 0, 10, 1, "p")]
    simulation, _ = simulate(traces.scenario(jobs, nodes))
    said = report(simulation)
    assert (said["jobs_finished"], said["jobs_unfinished"]) == (1, 1)


def test_the_ledger_folds_to_the_simulated_cell() -> None:
    nodes = traces.partition_nodes({"p": 2}, 8)
    jobs = rows(*((f"j{i}", i, 7 * i % 50, 1 + i % 8) for i in range(60)))
    records: list[bytes] = []
    simulation = Simulation("c", traces.scenario(jobs, nodes), OneKey(), records.append)
    for _ in simulation.run():
        pass
    folded = Cell("c")
    for record in records:
        evolve(folded, *unseal(record, None))
    assert folded.head == simulation.cell.head
    assert folded.digest() == simulation.cell.digest()
    assert not folded.jobs


@pytest.mark.slow
def test_the_generated_day_is_lively_and_the_same_for_the_same_seed() -> None:
    once, rounds = simulate(workload.day(3, EPOCH_MS, jobs=1500), EPOCH_MS + workload.DAY_MS)
    again, _ = simulate(workload.day(3, EPOCH_MS, jobs=1500), EPOCH_MS + workload.DAY_MS)
    other = workload.day(4, EPOCH_MS, jobs=1500)
    assert once.cell.digest() == again.cell.digest()
    assert other.arrivals != workload.day(3, EPOCH_MS, jobs=1500).arrivals
    facts = [fact for made in rounds for fact in made.facts]
    assert sum(isinstance(f, ReservationActive) for f in facts) >= len(workload.WINDOWS)
    said = report(once)
    assert said["jobs_finished"] > 1000
    assert once.measure.attempts_ended["node_lost"] > 0
