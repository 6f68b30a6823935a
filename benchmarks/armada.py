"""One workload beside Armada's simulator: 10,000 GPUs, 20 equal queues, a round every 10 s.

Run times have a minimum and an exponential tail. Armada's simulator leaves the tail out for gangs,
so that their members end together (`submitJobFromJobTemplate` sets its `TailMean` to 0). `plain`
and `preemptible` do as it does; `gang_tails` gives them one.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from statistics import fmean
from typing import Any, Final

from benchmarks.keys import Ed25519
from domain.cell import Cell
from domain.commands import RegisterNode, SetQuota
from domain.facts import AttemptStarted
from domain.ledger import Round
from domain.specs import FabricPath, Queue, Quota
from streams.agent import Work
from streams.heap import YOUNG_ONLY
from streams.scenario import Arrival, Scenario, checked_shape, submission
from streams.simulate import Simulation

NODES = 1250
QUEUES = 20
SINGLE = ((1, 500), (2, 150), (4, 100), (8, 80))
"""(GPUs of a job, jobs of a queue); 20 min and an exponential of mean 20 min."""
GANGS = ((4, 40), (16, 64))
"""(members of 8 GPUs, jobs of a queue); 30 min, and with tails an exponential of mean 30 min."""
ARMADA = {
    "plain": {"cpu_s": 82.0, "makespan_s": 18_780, "queue_mean_s_of_members": 2484},
    "preemptible": {"cpu_s_at_33_virtual_minutes": 246.0},
}
"""Measured with Armada's simulator on this workload. Each member of a gang is a job there."""


def scenario(seed: int, preemptible: bool, gang_tails: bool = False) -> Scenario:
    rng = random.Random(seed)
    nodes = [
        RegisterNode(
            node=f"n{n:04}",
            accelerator="gpu",
            slots=8,
            host_cpu_milli=64_000,
            host_memory_mib=1024 * 1024,
            path=FabricPath(region="r", cluster="c", block=f"b{n // 125}", rack=f"k{n // 25:02}"),
        )
        for n in range(NODES)
    ]
    quotas = [SetQuota(account="all")]
    arrivals: list[Arrival] = []
    work: dict[str, Work] = {}
    for q in range(QUEUES):
        quota = Quota(accelerator="gpu", nominal=NODES * 8 // QUEUES)
        name = f"q{q:02}"
        queues = (Queue(queue=name),)
        quotas.append(SetQuota(account=name, parent="all", quotas=(quota,), queues=queues))
        kinds = [(1, gpus, jobs, 20) for gpus, jobs in SINGLE]
        # "one a node": a member fills its node, so no rule for spreading is needed
        kinds += [(members, 8, jobs // members, 30) for members, jobs in GANGS]
        for members, gpus, jobs, minutes in kinds:
            shape = checked_shape(
                {
                    "queue": name,
                    "groups": [{"count": members, "slots": gpus}],
                    "flavours": [{"accelerator": "gpu"}],
                    "preemptible": preemptible,
                }
            )
            for j in range(jobs):
                job = f"{name}-{members}x{gpus}-{j}"
                arrivals.append(submission(0, shape, job))
                tail_ms = int(rng.expovariate(1 / (60_000 * minutes)))
                tailed = members == 1 or gang_tails
                work[job] = Work(60_000 * minutes + (tail_ms if tailed else 0))
    return Scenario(nodes, quotas, arrivals, work)


def bounds(what: Scenario) -> dict[str, int]:
    """Seconds below which no makespan can be: of all work on all slots, and of the longest job."""
    slots = {a.body["job"]: _slots(a) for a in what.arrivals}
    worked = sum(slots[job] * (work.ms or 0) for job, work in what.work.items())
    longest = max(work.ms or 0 for work in what.work.values())
    return {"work_s": worked // (NODES * 8 * 1000), "longest_s": longest // 1000}


def heap(what: Scenario, first: Callable[[int, int], int]) -> int:
    """Makespan, s, of the same jobs where slots are one heap: no nodes, no accounts, no rounds.

    `first`: the key of a size by (slots, number of its first job that waits), the least goes first.
    """
    waiting: dict[int, deque[tuple[int, int]]] = {}
    for number, submitted in enumerate(what.arrivals):
        run_ms = what.work[submitted.body["job"]].ms or 0
        waiting.setdefault(_slots(submitted), deque()).append((number, run_ms))
    free, now_ms, last_ms = NODES * 8, 0, 0
    ends: list[tuple[int, int]] = []
    while waiting:
        fits = [
            (first(slots, jobs[0][0]), slots) for slots, jobs in waiting.items() if slots <= free
        ]
        if fits:
            slots = min(fits)[1]
            _, run_ms = waiting[slots].popleft()
            if not waiting[slots]:
                del waiting[slots]
            free -= slots
            last_ms = max(last_ms, now_ms + run_ms)
            heappush(ends, (now_ms + run_ms, slots))
        else:
            now_ms, slots = heappop(ends)
            free += slots
    return last_ms // 1000


ORDERS: Final[dict[str, Callable[[int, int], int]]] = {
    "as_submitted_s": lambda _, number: number,
    "small_first_s": lambda slots, _: slots,
    "large_first_s": lambda slots, _: -slots,
}
"""Orders that know no durations, for `heap`."""


def heaps(first: int, seeds: int, gang_tails: bool) -> dict[str, list[int]]:
    """What perfect packing makes of the draws; they are the same in both forms."""
    draws = [scenario(seed, False, gang_tails) for seed in range(first, first + seeds)]
    return {name: [heap(what, order) for what in draws] for name, order in ORDERS.items()}


def _slots(submitted: Arrival) -> int:
    groups: Any = submitted.body["groups"]
    return sum(int(g.get("count", 1)) * int(g.get("slots", 1)) for g in groups)


def run(seed: int, preemptible: bool, gang_tails: bool) -> dict[str, Any]:
    written = 0

    def append(record: bytes) -> None:
        nonlocal written
        written += len(record)

    started_ms: list[int] = []

    def first_starts(cell: Cell, made: Round) -> None:
        for fact in made.facts:
            if isinstance(fact, AttemptStarted) and fact.attempt == 1:
                members = sum(g.count for g in cell.jobs[fact.job].shape.spec.groups)
                started_ms.extend([cell.now_ms - start_ms] * members)

    begin = time.process_time()
    what = scenario(seed, preemptible, gang_tails)
    simulation = Simulation("armada", what, Ed25519(), append, round_ms=10_000, then=first_starts)
    start_ms = simulation.now_ms
    for _ in simulation.run():
        pass
    report = simulation.measure.report(simulation.last_submission_ms)
    kept = ("jobs_finished", "queue_mean_s", "preemptions", "lost_gpu_s", "rounds", "facts")
    return {
        "cpu_s": round(time.process_time() - begin, 2),
        "makespan_s": (simulation.now_ms - start_ms) // 1000,
        **{name: report[name] for name in kept},
        "first_start_mean_s_of_members": round(fmean(started_ms) / 1000, 1),
        "ledger_mib": written >> 20,
        "bounds": bounds(what),
    }


def runs(first: int, seeds: int, preemptible: bool, gang_tails: bool = False) -> dict[str, Any]:
    """The first seed's run, and beside it what the draws of others make of it."""
    each = [run(seed, preemptible, gang_tails) for seed in range(first, first + seeds)]
    spread = {
        name: {"mean": round(fmean(one[name] for one in each), 1), "of": [o[name] for o in each]}
        for name in ("makespan_s", "queue_mean_s", "first_start_mean_s_of_members", "cpu_s")
    }
    longest = [one["bounds"]["longest_s"] for one in each]
    return {**each[0], "seeds": spread, "longest_job_s": longest}


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks armada", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=5, help="So many, one after the other.")
    parser.add_argument("--json", action="store_true", help="accepted; the output is always JSON")
    args = parser.parse_args(argv)
    gc.set_threshold(*YOUNG_ONLY)  # as a worker does
    draws = args.seed, args.seeds
    return {
        "plain": runs(*draws, False),
        "preemptible": runs(*draws, True),
        "heap": heaps(*draws, False),
        "gang_tails": {
            "plain": runs(*draws, False, True),
            "preemptible": runs(*draws, True, True),
            "heap": heaps(*draws, True),
        },
        "armada": ARMADA,
    }
