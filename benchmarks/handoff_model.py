"""Hand-offs and rights in every state of small pools, by the real decide and evolve."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import msgspec

from tests.protocol import models, mutants
from tests.protocol.explore import UNBOUNDED, Model, Violation, explore

POOLS: dict[str, Callable[[], Model]] = {
    "two regions, one job, three steps of time": lambda: models.two_by_one(3),
    "two regions, two jobs": models.two_by_two,
    "three regions, one job, three hops": models.three_by_one,
    "a region that loses its ledger": lambda: models.reborn(2),
    "rights that ride on the release": lambda: models.rights_that_ride(3),
    "rights on request": lambda: models.rights_on_request(1),
    "a guarded job, its region held for lost": models.owner_lost,
    "a guarded job, its guardian held for lost": models.guardian_lost,
    "a guarded job that is handed over or adopted": models.moved_and_lost,
    "three regions that vote": models.voted,
}


def check(model: Model, max_states: int) -> dict[str, Any]:
    begin = time.process_time()
    found = explore(model, max_states)
    spent_s = round(time.process_time() - begin, 1)
    return {**msgspec.to_builtins(found), "cpu_s": spent_s}


def mutant(name: str) -> dict[str, Any]:
    """What the check says of a seeded fault. Raises AssertionError if it finds none."""
    with mutants.seeded(name) as model:
        try:
            explore(model)
        except Violation as violation:
            return {"found": violation.rule, "steps": len(violation.path)}
    raise AssertionError(f"the fault {name!r} was not found")


def main(argv: list[str]) -> dict[str, Any]:
    """Raises Violation if a state breaks a rule, or none leads to the end."""
    parser = argparse.ArgumentParser(prog="benchmarks handoff-model", description=__doc__)
    parser.add_argument("--max-states", type=int, default=UNBOUNDED, help="of each pool")
    parser.add_argument("--json", action="store_true", help="accepted; the output is always JSON")
    args = parser.parse_args(argv)
    return {
        "pools": {name: check(make(), args.max_states) for name, make in POOLS.items()},
        "mutants": {name: mutant(name) for name in mutants.MUTANTS},
    }
