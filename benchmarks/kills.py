"""kill -9 of every role and server under load: what is lost, doubled or stale, and the recovery."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.faults.site import FAULTS, Site

PARTS: Final = {
    "decider": 8, "intake": 6, "projector": 6, "dispatch": 5, "api": 5, "agents": 4,
    "standby": 2, "kafka": 2, "redis": 1, "cassandra": 1,
}  # fmt: skip
"""How many of forty kills each gets."""


def schedule(amount: int, seed: int) -> list[str]:
    whole = [what for what in FAULTS for _ in range(PARTS[what])]
    random = Random(seed)
    made: list[str] = []
    while len(made) < amount:
        random.shuffle(whole)
        made += whole
    return made[:amount]


async def measure(site: Site, amount: int, seed: int, until: float) -> dict[str, list[float]]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    random = Random(seed)
    async with site.running():
        await site.both_stand()
        for number, what in enumerate(schedule(amount, seed), 1):
            if time.monotonic() > until:
                break
            if what in ("decider", "standby"):
                await site.both_stand()
            await asyncio.sleep(random.uniform(0.2, 1.5))
            seconds = await site.fault(what, random)
            found[what].append(seconds)
            print(f"{number} {what}: {seconds:.2f} s", file=sys.stderr, flush=True)
    return found


def report(site: Site, found: dict[str, list[float]], minutes: float) -> dict[str, Any]:
    recovery = {}
    for what in FAULTS:
        spans = sorted(found.get(what, []))
        if spans:
            recovery[what] = {
                "kills": len(spans),
                "p50_s": round(spans[len(spans) // 2], 2),
                "p99_s": round(spans[len(spans) * 99 // 100], 2),
            }
    kinds = ("lost", "doubled", "stale", "wrong", "divergent")
    return {
        "kills": sum(map(len, found.values())),
        "minutes": round(minutes, 1),
        "rounds": site.rounds,
        "commands": site.commands,
        "operations_of_clients": len(site.history),
        "of_unknown_outcome": sum(op.result == "unknown" for op in site.history),
        **{kind: sum(f.startswith(kind) for f in site.faults_found) for kind in kinds},
        "rows_compared": site.rows,
        "recovery": recovery,
    }


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=120, help="no kill comes later")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        begun = time.monotonic()
        with site.servers():
            until = begun + 60 * args.minutes
            found = asyncio.run(measure(site, args.kills, args.seed, until))
        for fault in site.faults_found:
            print(fault, file=sys.stderr)
        return report(site, found, (time.monotonic() - begun) / 60)
