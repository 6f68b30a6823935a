"""Deadlines: the share of strict jobs in time, by policy and load, on Chronus' traces.

The load is the work of the trace over what the GPUs could do from its first to its last submission;
it is reached by the number of nodes. One account holds all jobs. Strict jobs are of the premium
tier with a soft deadline (a late one is run all the same), soft ones standard, best effort basic.
Durations are known, as to Chronus by its profiler, or are told wrongly by up to a factor of two.
A job that is preempted keeps its work and restarts for 30 s.
"""

from __future__ import annotations

import argparse
import random
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks.keys import Ed25519
from domain.bundles import BUNDLES
from domain.commands import SetPolicy
from domain.specs import PolicyParameters
from streams import traces
from streams.scenario import Arrival, Scenario, arrival
from streams.simulate import Simulation

TRACES = {"slo": "trace_job_Philly_SLO.csv", "mix": "trace_job_Philly_MIX1.csv"}
"""slo: all jobs are strict. mix: 70 % are, the others are best effort."""
LOADS = (0.8, 1.0, 1.2)
RESTART_S = 30
ALL = "all"

POLICIES: dict[str, PolicyParameters] = {
    "fifo": PolicyParameters(preemption=False),
    "tiers": PolicyParameters(),
    "shortest_remaining": PolicyParameters(
        order="least_remaining", yield_ratio_milli=1100, min_run_s=(0, 60, 60, 60)
    ),
    **BUNDLES,
}
"""fifo: all jobs are of one tier, and nothing is preempted. tiers: the default policy."""


def jobs(path: Path, tiers: bool) -> list[traces.Row]:
    rows = [replace(r, partition=ALL) for r in traces.read(path, "slo")]
    return rows if tiers else [replace(r, tier="standard") for r in rows]


def nodes_for(rows: list[traces.Row], load: float) -> int:
    """So many nodes of 8 GPUs that the offered load is `load`."""
    work = sum(r.gpus * (r.duration_s or 0) for r in rows)
    span_s = rows[-1].submit_s - rows[0].submit_s
    return round(work / span_s / load / 8)


def scenario(rows: list[traces.Row], nodes: int, policy: PolicyParameters, wrong: bool) -> Scenario:
    options = traces.Options(preemptible=True, estimates=True)
    plain = traces.scenario(rows, traces.partition_nodes({ALL: nodes}, 8), options)
    rng = random.Random(1)
    arrivals: list[Arrival] = [arrival(0, SetPolicy(parameters=policy))]
    for submitted in plain.arrivals:
        runtime = {
            "checkpoint_interval_s": 7 * 86_400,
            "restore_s": RESTART_S,
            **submitted.body["runtime"],
        }
        if wrong:
            runtime["estimate_s"] = int(runtime["estimate_s"] * 2 ** rng.uniform(-1, 1))
        body = {**submitted.body, "runtime": runtime}
        arrivals.append(Arrival(submitted.at_ms, submitted.type, body))
    return Scenario(plain.nodes, plain.quotas, arrivals, plain.work)


def run(path: Path, name: str, load: float, wrong: bool, round_s: int) -> dict[str, Any]:
    begin = time.process_time()
    rows = jobs(path, tiers=name != "fifo")
    nodes = nodes_for(rows, load)
    simulation = Simulation(
        "slo", scenario(rows, nodes, POLICIES[name], wrong), Ed25519(), len, round_ms=1000 * round_s
    )
    for _ in simulation.run():
        pass
    report = simulation.measure.report(simulation.last_submission_ms)
    tiers = report["tiers"]
    due = sum(t["with_deadline"] for t in tiers.values())
    basic = tiers.get("basic", {})
    kept = ("jobs_finished", "jct_mean_s", "gpu_utilisation", "preemptions", "lost_gpu_s")
    return {
        "strict_in_time": round(sum(t["in_time"] for t in tiers.values()) / due, 4),
        "best_effort_jct_mean_s": basic.get("jct_mean_s"),
        **{field: report[field] for field in kept},
        "nodes": nodes,
        "rounds": report["rounds"],
        "cpu_s": round(time.process_time() - begin, 1),
    }


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks slo", description=__doc__)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    parser.add_argument("--only", nargs="*", choices=TRACES, default=list(TRACES))
    parser.add_argument("--policies", nargs="*", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--loads", nargs="*", type=float, default=list(LOADS))
    parser.add_argument("--wrong-estimates", action="store_true", help="by up to a factor of two")
    parser.add_argument("--round-s", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="accepted; the output is always JSON")
    args = parser.parse_args(argv)
    asked = [(t, n, v) for t in args.only for v in args.loads for n in args.policies]
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        told = [
            pool.submit(
                run, args.traces / "slo" / TRACES[t], n, v, args.wrong_estimates, args.round_s
            )
            for t, n, v in asked
        ]
        result: dict[str, Any] = {}
        for (trace, name, load), future in zip(asked, told, strict=True):
            by_load = result.setdefault(trace, {}).setdefault(f"load_{load}", {})
            by_load[name] = future.result()
    return result
