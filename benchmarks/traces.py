"""Two clusters as one pool: queueing and CPU beside Armada's, by account beside alone.

Nobody knows durations. Each partition is an account whose quota is its size; in the pool it may
borrow what others leave idle.
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path
from typing import Any

from benchmarks.keys import Ed25519
from domain.commands import SetPolicy
from domain.specs import PolicyParameters
from streams import traces
from streams.heap import YOUNG_ONLY
from streams.scenario import Arrival, Scenario, arrival
from streams.simulate import Simulation

SIZES = {
    "itp": {"cluster01": 8, "cluster02": 8, "cluster06": 8, "cluster08": 16, "cluster10": 8},
    "philly": {
        "6214e9": 16,
        "b436b2": 16,
        "ee9e8c": 16,
        "7f04ca": 8,
        "6c71a0": 8,
        "11cb48": 4,
        "2869ce": 4,
        "e13805": 4,
        "103959": 2,
        "ed69ec": 2,
    },
}
"""Nodes of 8 GPUs by partition; a partition without jobs in the trace has none."""

FILES = {
    "itp": "itp/itp_5regions_01-02-06-08-10.csv",
    "philly": "philly/philly_9vcs_sep-oct.csv",
}
ARMADA = {
    "itp": {"plain": {"cpu_s": 44.3, "queue_mean_s": 2551}, "preemptible": {"queue_mean_s": 2512}},
    "philly": {"plain": {"cpu_s": 218.7, "queue_mean_s": 27_732}},
}
"""Armada's simulator on the same files and sizes."""

RESTART_S = 30
"""Charged to what was preempted, when it starts again."""

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "least_attained": {"order": "least_attained", "yield_ratio_milli": 8000},
    "moves": {"consolidation": True},
    "least_attained_moves": {
        "order": "least_attained",
        "yield_ratio_milli": 8000,
        "consolidation": True,
    },
    "expected": {"order": "least_remaining"},
    "reclaim": {"min_run_s": (0, 0, 0, 0), "queue_delay_s": (0, 0, 0, 0)},
}
"""plain: nothing is preempted, first come first served. least_attained: those that have had little
come first. moves: what may be preempted moves together for what needs nodes in one piece. expected:
nothing is preempted, and what is expected to need least comes first, by what earlier jobs needed.
reclaim: what an account lent comes back at once, whatever it costs."""


def scenario(rows: list[traces.Row], form: str, apart: bool) -> Scenario:
    sizes = SIZES["itp" if rows[0].partition in SIZES["itp"] else "philly"]
    used = {r.partition for r in rows}
    nodes = traces.partition_nodes({p: n for p, n in sizes.items() if p in used}, 8)
    preemptible = form not in ("plain", "expected")
    plain = traces.scenario(rows, nodes, traces.Options(apart=apart, preemptible=preemptible))
    runtime = {"checkpoint_interval_s": 7 * 86_400, "restore_s": RESTART_S}
    arrivals: list[Arrival] = []
    for submitted in plain.arrivals:
        body = {**submitted.body, "runtime": runtime} if preemptible else submitted.body
        arrivals.append(Arrival(submitted.at_ms, submitted.type, body))
    policy = SetPolicy(parameters=PolicyParameters(**FORMS[form]))
    return Scenario(plain.nodes, plain.quotas, [arrival(0, policy), *arrivals], plain.work)


def run(path: Path, form: str, apart: bool, round_s: int) -> dict[str, Any]:
    begin = time.process_time()
    what = scenario(traces.read(path, "jobs"), form, apart)
    simulation = Simulation("traces", what, Ed25519(), len, round_ms=1000 * round_s)
    for _ in simulation.run():
        pass
    cpu_s = round(time.process_time() - begin, 1)
    report = simulation.measure.report(simulation.last_submission_ms)
    kept = ("queue_mean_s", "queue_p99_s", "jct_mean_s", "preemptions", "lost_gpu_s", "rounds")
    return {
        "cpu_s": cpu_s,
        **{name: report[name] for name in kept},
        "jobs_finished": report["jobs_finished"],
        "queue_mean_s_by_account": simulation.measure.queue_mean_s(),
    }


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks traces", description=__doc__)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    parser.add_argument("--trace", choices=[*SIZES], action="append")
    parser.add_argument("--form", choices=[*FORMS], action="append")
    parser.add_argument("--round-s", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="accepted; the output is always JSON")
    args = parser.parse_args(argv)
    gc.set_threshold(*YOUNG_ONLY)  # as a worker does
    result: dict[str, Any] = {}
    for name in args.trace or SIZES:
        path = args.traces / FILES[name]
        forms = {form: run(path, form, False, args.round_s) for form in args.form or FORMS}
        result[name] = {
            **forms,
            "alone": run(path, "plain", True, args.round_s),
            "armada": ARMADA[name],
        }
    return result
