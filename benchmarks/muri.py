"""Two complete virtual clusters on 64 GPUs: mean completion time beside the published figures."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.keys import Ed25519
from domain.commands import SetPolicy
from domain.specs import PolicyParameters
from streams import traces
from streams.scenario import Arrival, Scenario, arrival
from streams.simulate import Simulation

PUBLISHED = {
    "vc1": {"srtf": 1_370_603, "srsf": 980_141, "tiresias": 3_330_371},
    "vc3": {"srtf": 193_082, "srsf": 185_022, "tiresias": 347_213},
}
"""Mean completion time in s: Muri, SIGCOMM'22, figure 9."""

RESTART_S = 30
"""Charged to what was preempted, when it starts again."""

ORDERS = {
    "unknown_durations": {"order": "least_attained", "yield_ratio_milli": 8000},
    "exact_durations": {"order": "least_remaining", "yield_ratio_milli": 1100},
}


def scenario(path: Path, exact: bool, policy: dict[str, Any]) -> Scenario:
    """The trace's jobs; they keep their work when they are preempted, but restart for 30 s."""
    rows = traces.read(path, "jobs")
    nodes = traces.partition_nodes({rows[0].partition: 8}, 8)
    plain = traces.scenario(rows, nodes, traces.Options(preemptible=True))
    runtime = {"checkpoint_interval_s": 7 * 86_400, "restore_s": RESTART_S}
    durations = {r.job: r.duration_s for r in rows}
    parameters = PolicyParameters(min_run_s=(0, 60, 60, 60), **policy)
    arrivals: list[Arrival] = [arrival(0, SetPolicy(parameters=parameters))]
    for submitted in plain.arrivals:
        own = {**runtime, "estimate_s": durations[submitted.body["job"]]} if exact else runtime
        body = {**submitted.body, "runtime": own}
        arrivals.append(Arrival(submitted.at_ms, submitted.type, body))
    return Scenario(plain.nodes, plain.quotas, arrivals, plain.work)


def run(path: Path, exact: bool, policy: dict[str, Any], round_s: int) -> dict[str, Any]:
    begin = time.process_time()
    simulation = Simulation(
        "muri", scenario(path, exact, policy), Ed25519(), len, round_ms=1000 * round_s
    )
    for _ in simulation.run():
        pass
    report = simulation.measure.report(simulation.last_submission_ms)
    kept = ("jobs_submitted", "jobs_finished", "preemptions", "lost_gpu_s", "rounds")
    return {
        "jct_mean_s": int(report["jct_mean_s"]),
        **{name: report[name] for name in kept},
        "cpu_s": round(time.process_time() - begin, 1),
    }


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks muri", description=__doc__)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    parser.add_argument("--round-s", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="accepted; the output is always JSON")
    args = parser.parse_args(argv)
    result: dict[str, Any] = {}
    for name, published in PUBLISHED.items():
        path = args.traces / "philly" / f"muri_philly_{name}.csv"
        runs = {
            kind: run(path, kind == "exact_durations", policy, args.round_s)
            for kind, policy in ORDERS.items()
        }
        result[name] = {**runs, "published_jct_mean_s": published}
    return result
