"""From 3 to 64 regions that share a million accelerators: traffic, decisions, waiting; `--plot`."""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.keys import Ed25519
from domain.commands import RegisterNode, SetQuota
from domain.facts import AttemptStarted
from domain.ledger import unseal
from domain.specs import FabricPath, Queue, Quota
from streams.agent import Work
from streams.pooled import Pooled
from streams.scenario import Arrival, Scenario, checked_shape, submission

ACCELERATORS: Final = 1_000_000
REGIONS: Final = (3, 8, 16, 32, 64)
SLOTS: Final = 8
GANG: Final = 32
"""Nodes of a job: 256 accelerators."""
SPAN_S: Final = 300
RUNS_S: Final = (60, 120)
HOT: Final = 3
"""One region in so many has more work than it can do; the others can take it."""
LOAD: Final = {True: 1.3, False: 0.5}


def scenario(name: str, nodes: int, hot: bool, seed: int) -> Scenario:
    rng = random.Random(f"{seed}/{name}")
    made = [
        RegisterNode(
            node=f"{name}-{n}",
            accelerator="gpu",
            slots=SLOTS,
            path=FabricPath(region=name, cluster=name, block=f"b{n // 512}", rack=f"k{n // 32}"),
        )
        for n in range(nodes)
    ]
    quota = Quota(accelerator="gpu", nominal=nodes * SLOTS)
    shape = checked_shape(
        {
            "queue": "all",
            "groups": [{"count": GANG, "slots": SLOTS}],
            "flavours": [{"accelerator": "gpu"}],
        }
    )
    jobs = round(LOAD[hot] * nodes * SPAN_S / GANG / (sum(RUNS_S) / 2))
    arrivals: list[Arrival] = []
    work: dict[str, Work] = {}
    for i, at_ms in enumerate(sorted(rng.randrange(SPAN_S * 1000) for _ in range(jobs))):
        job = f"{name}-{i}"
        arrivals.append(submission(at_ms, shape, job))
        work[job] = Work(1000 * rng.randint(*RUNS_S))
    queues = (Queue(queue="all"),)
    quotas = [SetQuota(account="all", quotas=(quota,), queues=queues)]
    return Scenario(made, quotas, arrivals, work)


def point(regions: int, accelerators: int, seed: int) -> dict[str, Any]:
    """One number of regions."""
    nodes = accelerators // SLOTS // regions
    names = [f"r{n:02}" for n in range(regions)]
    scenarios = {n: scenario(n, nodes, not i % HOT, seed) for i, n in enumerate(names)}
    every = {f"{job}@{n}": w for n, s in scenarios.items() for job, w in s.work.items()}
    for one in scenarios.values():
        one.work.update(every)
    started = 0

    def see(record: bytes) -> None:
        nonlocal started
        started += sum(isinstance(f, AttemptStarted) for f in unseal(record, None)[0].facts)

    begin_s = time.process_time()
    pool = Pooled(scenarios, Ed25519(), see)
    for _ in pool.run():
        pass
    cpu_s = time.process_time() - begin_s
    report = pool.report()
    span_s = (pool.now_ms - pool.origin_ms) / 1000
    letters = report["letters"]
    adverts = letters.get("AdvertiseInventory", 0)
    return {
        "regions": regions,
        "nodes_a_region": nodes,
        "jobs": report["jobs_submitted"],
        "jobs_moved": report["jobs_moved"],
        "queue_mean_s": report["queue_mean_s"],
        "queue_p99_s": report["queue_p99_s"],
        "adverts_a_region_and_s": round(adverts / regions / span_s, 2),
        "letters_a_moved_job": round(
            (sum(letters.values()) - adverts) / max(1, report["jobs_moved"]), 2
        ),
        "cpu_s_in_all": round(cpu_s, 1),
        "decisions_per_cpu_s": round(started / cpu_s),
        "decisions_s_with_a_core_each": round(started * regions / cpu_s),
    }


def draw(points: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "regions"
    from matplotlib import pyplot

    panels = {
        "adverts_a_region_and_s": "adverts sent by a region, per second",
        "letters_a_moved_job": "other letters, per job that moved",
        "queue_mean_s": "mean queueing, s",
        "decisions_s_with_a_core_each": "decisions per second, a core each",
    }
    figure, all_axes = pyplot.subplots(1, len(panels), figsize=(14, 3.2))
    sizes = [p["regions"] for p in points]
    for axes, (name, label) in zip(all_axes, panels.items(), strict=True):
        axes.plot(sizes, [p[name] for p in points], marker="o")
        axes.set_title(label, fontsize=9)
        axes.set_xlabel("regions")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks regions", description=__doc__)
    parser.add_argument("--regions", type=int, nargs="*", default=list(REGIONS))
    parser.add_argument("--accelerators", type=int, default=ACCELERATORS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="draw into this file, .svg or .png")
    parser.add_argument("--json", action="store_true", help="accepted; the output is always JSON")
    args = parser.parse_args(argv)
    points = [point(count, args.accelerators, args.seed) for count in args.regions]
    if args.plot is not None:
        draw(points, args.plot)
    return {"accelerators": args.accelerators, "points": points}
