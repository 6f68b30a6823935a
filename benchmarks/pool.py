"""Regions that hand jobs over, beside regions apart and one perfect pool: two public traces.

Every region is a cell of its own on one virtual clock; they hear of each other only by letters that
take time. Nobody knows durations, and nothing is preempted.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.keys import Ed25519
from benchmarks.traces import FILES, SIZES
from domain.commands import SetQuota
from domain.specs import Queue, Quota
from streams import traces
from streams.pooled import Pooled
from streams.scenario import Scenario

POOL = "pool"
REFERENCE = {
    "itp": {"perfect_pool_queue_mean_s": 2485, "apart_queue_mean_s": 85_858},
    "philly": {"perfect_pool_queue_mean_s": 70_213, "apart_queue_mean_s": 84_573},
}
"""FIFO that skips what does not fit, by a simulator of its own (not ours)."""


def scenarios(rows: list[traces.Row], sizes: dict[str, int]) -> dict[str, Scenario]:
    """One a partition; every region knows all accounts, and lends what its own leave idle."""
    nodes = traces.partition_nodes(sizes, 8)
    whole = traces.scenario(rows, nodes)
    home = {r.job: r.partition for r in rows}
    made = {}
    for region in sizes:
        work = {_id(job, home[job], region): needs for job, needs in whole.work.items()}
        made[region] = Scenario(
            [n for n in nodes if n.path.cluster == region],
            [SetQuota(account=POOL), *(_quota(p, 8 * sizes[p] * (p == region)) for p in sizes)],
            [a for a in whole.arrivals if home[a.body["job"]] == region],
            work,
        )
    return made


def _id(job: str, home: str, region: str) -> str:
    return job if home == region else f"{job}@{home}"


def _quota(partition: str, nominal: int) -> SetQuota:
    quota = Quota(accelerator=traces.GPU, nominal=nominal)
    queues = (Queue(queue=partition),)
    return SetQuota(account=partition, parent=POOL, quotas=(quota,), queues=queues)


def run(path: Path, sizes: dict[str, int], round_ms: int, jobs: int | None) -> dict[str, Any]:
    begin = time.process_time()
    rows = traces.read(path, "jobs")[:jobs]
    used = {r.partition for r in rows}
    sizes = {name: count for name, count in sizes.items() if name in used}
    pool = Pooled(scenarios(rows, sizes), Ed25519(), len, round_ms=round_ms)
    for _ in pool.run():
        pass
    return {**pool.report(), "cpu_s": round(time.process_time() - begin, 1)}


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks pool", description=__doc__)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    parser.add_argument("--trace", choices=sorted(FILES), action="append")
    parser.add_argument("--round-ms", type=int, default=1000)
    parser.add_argument("--jobs", type=int, help="only so many of each trace")
    parser.add_argument("--json", action="store_true", help="accepted; the output is always JSON")
    args = parser.parse_args(argv)
    result: dict[str, Any] = {}
    for name in args.trace or sorted(FILES):
        found = run(args.traces / FILES[name], SIZES[name], args.round_ms, args.jobs)
        apart_s = REFERENCE[name]["apart_queue_mean_s"]
        pooled_s = REFERENCE[name]["perfect_pool_queue_mean_s"]
        result[name] = {
            **found,
            **REFERENCE[name],
            "times_the_perfect_pool": round(found["queue_mean_s"] / pooled_s, 2),
            "times_below_apart": round(apart_s / max(1, found["queue_mean_s"]), 1),
        }
    return result
