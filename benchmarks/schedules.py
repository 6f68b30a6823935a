"""Simulated schedules: the whole system in one process on a virtual clock, with faults, by seed."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, Final

from msgspec import Struct

from tests.simulation import planted, schedule, shrink

CHUNK: Final = 50


class Chunk(Struct):
    """What a range of seeds gave."""

    seeds: int
    happened: Counter[str]
    rounds: int = 0
    commands: int = 0
    steps: int = 0
    virtual_s: float = 0.0
    failed: list[tuple[int, str]] = []


def run_chunk(first: int, end: int) -> Chunk:
    chunk = Chunk(end - first, Counter(), failed=[])
    for seed in range(first, end):
        outcome = schedule.run(seed)
        chunk.happened.update(outcome.happened)
        chunk.rounds += outcome.rounds
        chunk.commands += outcome.commands
        chunk.steps += outcome.steps
        chunk.virtual_s += outcome.virtual_s
        if outcome.violation is not None:
            shortest = shrink.shortest(seed)
            chunk.failed.append((seed, shrink.told(seed, shortest)))
    return chunk


def _chunks(first: int, end: int) -> Iterator[tuple[int, int]]:
    for start in range(first, end, CHUNK):
        yield start, min(start + CHUNK, end)


def run_all(first: int, end: int, processes: int) -> dict[str, Any]:
    begun = time.perf_counter()
    total = Chunk(0, Counter(), failed=[])
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(run_chunk, *chunk) for chunk in _chunks(first, end)]
        for done in as_completed(waiting):
            chunk = done.result()
            total.seeds += chunk.seeds
            total.happened.update(chunk.happened)
            total.rounds += chunk.rounds
            total.commands += chunk.commands
            total.steps += chunk.steps
            total.virtual_s += chunk.virtual_s
            for failure in chunk.failed:
                total.failed.append(failure)
                print(failure[1], file=sys.stderr, flush=True)
            if total.seeds % 1000 < CHUNK:
                per_s = total.seeds / (time.perf_counter() - begun)
                told = f"{total.seeds} schedules, {per_s:.1f}/s, {len(total.failed)} failed"
                print(told, file=sys.stderr, flush=True)
    seconds = time.perf_counter() - begun
    return {
        "seeds": f"{first}..{end - 1}",
        "schedules": total.seeds,
        "violations": len(total.failed),
        "failed_seeds": sorted(seed for seed, _ in total.failed),
        "processes": processes,
        "hours": round(seconds / 3600, 3),
        "schedules_per_s": round(total.seeds / seconds, 1),
        "virtual_hours": round(total.virtual_s / 3600, 1),
        "rounds": total.rounds,
        "commands": total.commands,
        "awaits": total.steps,
        "faults": sum(total.happened.values()),
        "faults_by_kind": dict(sorted(total.happened.items())),
    }


def find(name: str, seeds: int) -> tuple[str, int | None, str]:
    """(bug, first seed that fails with it and not without it, what was violated)"""
    for seed in range(seeds):
        with planted.BUGS[name]():
            violation = schedule.run(seed).violation
        if violation is not None and schedule.run(seed).violation is None:
            return name, seed, str(violation)
    return name, None, ""


def run_planted(seeds: int, processes: int) -> dict[str, Any]:
    begun = time.perf_counter()
    found: dict[str, Any] = {}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(find, name, seeds) for name in planted.BUGS]):
            name, seed, violation = done.result()
            found[name] = seed
            print(f"{name}: seed {seed}: {violation[:120]}", file=sys.stderr, flush=True)
    return {
        "planted": len(found),
        "found": sum(seed is not None for seed in found.values()),
        "within_seeds": seeds,
        "hours": round((time.perf_counter() - begun) / 3600, 3),
        "first_seed": {name: found[name] for name in planted.BUGS},
    }


def crash_each(seed: int, role: str, awaits: Sequence[int]) -> list[str]:
    """What a kill of the role at each of these awaits violates."""
    kept = schedule.without_faults(seed)
    outcomes = ((n, schedule.run(seed, kept, (role, n))) for n in awaits)
    return [f"{role} {n}: {o.violation}" for n, o in outcomes if o.violation is not None]


def every_await(seed: int, processes: int) -> dict[str, Any]:
    """A schedule without other faults, once for each await of each role: a kill comes there."""
    begun = time.perf_counter()
    steps = schedule.run(seed, schedule.without_faults(seed)).steps_of
    violations: list[str] = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting = [
            pool.submit(crash_each, seed, role, range(first, min(first + CHUNK, last + 1)))
            for role, last in steps.items()
            for first in range(1, last + 1, CHUNK)
        ]
        for done in as_completed(waiting):
            violations += done.result()
    for violation in violations:
        print(violation, file=sys.stderr)
    return {
        "seed": seed,
        "schedules": sum(steps.values()),
        "awaits_by_role": dict(sorted(steps.items())),
        "violations": len(violations),
        "hours": round((time.perf_counter() - begun) / 3600, 3),
    }


def replay(text: str) -> dict[str, Any]:
    """A schedule as it was printed: a seed, and the points that are kept."""
    seed_text, _, points = text.partition(":")
    seed = int(seed_text)
    kept = [int(n) for n in points.split(",")] if points else None
    outcome = schedule.run(seed, kept)
    print(shrink.told(seed, outcome), file=sys.stderr)
    violation = str(outcome.violation) if outcome.violation is not None else None
    return {"seed": seed, "violation": violation, "head": outcome.head, "awaits": outcome.steps}


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks schedules", description=__doc__)
    parser.add_argument("--seeds", default="0..999", help="A..B, both included")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--planted", action="store_true", help="find each planted bug")
    parser.add_argument("--replay", help="SEED or SEED:POINT,POINT,… as a failure prints it")
    parser.add_argument("--every-await", type=int, metavar="SEED", help="kill at each await")
    args = parser.parse_args(argv)
    if args.replay is not None:
        return replay(args.replay)
    if args.every_await is not None:
        return every_await(args.every_await, args.processes)
    if args.planted:
        return run_planted(2000, args.processes)
    first, _, last = args.seeds.partition("..")
    return run_all(int(first), int(last or first) + 1, args.processes)
