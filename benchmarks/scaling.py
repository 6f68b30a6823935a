"""How a round's time and memory grow with accelerators and with jobs; `--plot` draws it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import decide

GPUS_PER_NODE = 8
ACCELERATORS = (1_000, 3_200, 10_000, 32_000, 100_000)
JOBS = (10_000, 32_000, 100_000, 320_000, 1_000_000)
SHAPES = 4000
FIXED_JOBS = 100_000
"""Waiting jobs while the accelerators grow; the jobs grow on the largest number of accelerators."""


def point(accelerators: int, jobs: int, rounds: int, ends: int) -> dict[str, Any]:
    """One size, in a process of its own: memory is measured by its peak."""
    nodes = accelerators // GPUS_PER_NODE
    size = {"nodes": nodes, "pending": jobs, "rounds": rounds, "ends": ends}
    args = argparse.Namespace(**size, seed=1, plain=False)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        found = process.submit(decide.measure, args, SHAPES).result()
    steady = found["steady"]
    return {
        "accelerators": accelerators,
        "jobs": jobs,
        "round_p50_ms": steady["round_p50_ms"],
        "round_p99_ms": steady["round_p99_ms"],
        "decisions_per_cpu_s": steady["decisions_per_cpu_s"],
        "peak_rss_mib": found["peak_rss_mib"],
    }


def sweep(
    sizes: dict[str, list[tuple[int, int]]], args: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """The points of all sizes, by what grows in them."""
    return {
        what: [point(accelerators, jobs, args.rounds, args.ends) for accelerators, jobs in of]
        for what, of in sizes.items()
    }


def medians(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of one size: a machine that others use, too, is slow for minutes."""
    return {name: median(p[name] for p in points) for name in points[0]}


def draw(sweeps: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Time above, memory below; the format follows the file's name."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "scaling"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, sharex="col", sharey="row", figsize=(10, 6))
    for column, (what, points) in enumerate(sweeps.items()):
        sizes = [p[what] for p in points]
        time, memory = panels[0][column], panels[1][column]
        for name, label in (("round_p50_ms", "median"), ("round_p99_ms", "99th percentile")):
            time.plot(sizes, [p[name] for p in points], marker="o", label=label)
        memory.plot(sizes, [p["peak_rss_mib"] for p in points], marker="o", color="tab:green")
        memory.axhline(2048, color="0.6", linestyle="--")
        memory.set_xlabel(what)
        for axes in (time, memory):
            axes.set_xscale("log")
            axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("CPU ms of a round")
    panels[0][0].legend()
    panels[1][0].set_ylabel("peak memory, MiB (line: 2 GiB)")
    for row in panels:
        row[0].set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks scaling", description=__doc__)
    parser.add_argument("--accelerators", type=int, nargs="*", default=list(ACCELERATORS))
    parser.add_argument("--jobs", type=int, nargs="*", default=list(JOBS))
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--ends", type=int, default=300, help="attempts that end in each round")
    parser.add_argument("--repeat", type=int, default=1, help="sweeps, of which medians are told")
    parser.add_argument("--plot", type=Path, help="draw into this file, .svg or .png")
    parser.add_argument("--json", action="store_true", help="accepted; the output is always JSON")
    args = parser.parse_args(argv)
    most = max(args.accelerators)
    sizes = {
        "accelerators": [(a, FIXED_JOBS) for a in args.accelerators],
        "jobs": [(most, j) for j in args.jobs],
    }
    all_ = [sweep(sizes, args) for _ in range(args.repeat)]
    sweeps = {
        what: [medians(p) for p in zip(*(s[what] for s in all_), strict=True)] for what in sizes
    }
    if args.plot is not None:
        draw(sweeps, args.plot)
    return {"shapes": SHAPES, **sweeps}
