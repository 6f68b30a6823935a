"""Seconds until a second decider leads, after kill -9 or SIGSTOP of the first, on real Kafka."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.faults.pair import Pair, Takeover


async def measure(pair: Pair, amount: int) -> list[Takeover]:
    found = []
    async with pair.running():
        await pair.ready()
        for number in range(amount):
            takeover = await pair.fault("stop" if number % 2 else "kill")
            found.append(takeover)
            print(number, takeover, file=sys.stderr, flush=True)
    return found


def report(found: list[Takeover]) -> dict[str, Any]:
    result: dict[str, Any] = {"faults": len(found)}
    for how in ("kill", "stop"):
        spans = sorted(t.seconds for t in found if t.how == how)
        result[how] = {
            "faults": len(spans),
            "p50_s": spans[len(spans) // 2],
            "p99_s": spans[len(spans) * 99 // 100],
            "max_s": spans[-1],
        }
    result["late_records_of_the_old_one"] = sum(t.late_records for t in found)
    result["old_ones_that_tried_and_were_refused"] = sum(t.shut_out for t in found)
    return result


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks standby", description=__doc__)
    parser.add_argument("--faults", type=int, default=60)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair(Path(folder))
        with pair.kafka:
            return report(asyncio.run(measure(pair, args.faults)))
