"""One schedule: a seed, and which of its faults and commands are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import domain.jobs
from tests.simulation import audit, clients, faults, workload
from tests.simulation.faults import Fault
from tests.simulation.loop import Violation, VirtualTime
from tests.simulation.workload import POISON_MARK
from tests.simulation.world import World


@dataclass
class Outcome:
    violation: Violation | None
    happened: Counter[str]
    rounds: int
    commands: int
    steps: int
    virtual_s: float
    head: str
    """Hash of the last believed record: equal runs have equal ones."""
    kept: list[int] = field(default_factory=list)
    steps_of: Counter[str] = field(default_factory=Counter)
    """Awaits by role."""


def points(seed: int) -> list[Fault]:
    """All that a schedule can leave out: its faults, and then its commands."""
    planned = faults.plan(seed, 3)
    work = workload.generate(seed, sum(f.kind == "poison" for f in planned))
    return planned + [Fault("command", n=n) for n in range(len(work.items))]


def describe(seed: int, point: Fault) -> str:
    """A fault, or the command that stands at the point."""
    if point.kind != "command":
        return str(point)
    planned = faults.plan(seed, 3)
    item = workload.generate(seed, sum(f.kind == "poison" for f in planned)).items[point.n]
    what = (
        repr(item.raw)
        if item.command is None
        else item.command.model_dump_json(exclude_defaults=True)
    )
    name = "" if item.command is None else type(item.command).__name__
    times = f" {item.copies} times" if item.copies > 1 else ""
    return f"command of client {item.client} at {item.at_s:.1f} s{times}: {name} {what}"


def run(seed: int, kept: list[int] | None = None, crash: tuple[str, int] | None = None) -> Outcome:
    """The schedule of a seed; `kept` are indexes of `points`, None keeps all.

    `crash`: the role is killed at that await, too.
    """
    every = points(seed)
    keep = range(len(every)) if kept is None else kept
    chosen = [every[i] for i in sorted(keep)]
    planned = [f for f in chosen if f.kind != "command"]
    if crash is not None:
        planned.append(Fault("crash", crash[0], n=crash[1], for_s=1.0))
    work = workload.generate(seed, sum(f.kind == "poison" for f in every))
    poisons = sum(f.kind == "poison" for f in planned)
    items = [work.items[f.n] for f in chosen if f.kind == "command"]
    work.items = _with_poisons(items, poisons)
    with simulated():
        world = World(seed, planned, work)
        violation = None
        try:
            world.run()
            audit.finish(world)
        except Violation as error:
            violation = error
        except Exception as error:
            violation = Violation(f"{type(error).__name__}: {error}")
            violation.__cause__ = error
        world.close()
    return Outcome(
        violation,
        world.injector.happened,
        len(world.chain.rounds),
        sum(len(r.commands) for r in world.chain.rounds),
        world.loop.handled,
        world.loop.time(),
        world.chain.head.hash,
        sorted(keep),
        world.injector.steps,
    )


def without_faults(seed: int) -> list[int]:
    """The points of a seed that are commands."""
    return [i for i, f in enumerate(points(seed)) if f.kind == "command"]


def _with_poisons(items: list[workload.Item], poisons: int) -> list[workload.Item]:
    """A poison command is kept only with its fault."""
    kept = []
    for item in items:
        if item.poison:
            poisons -= 1
        if not item.poison or poisons >= 0:
            kept.append(item)
    return kept


@contextmanager
def simulated() -> Iterator[None]:
    """The outermost parts of the product are replaced: Kafka's clients, time, and long waits."""
    submit_job = domain.jobs.submit_job

    def poisoned(turn: Any, accepted: Any, at: int) -> None:
        assert POISON_MARK not in bytes(accepted.data), "poison"
        submit_job(turn, accepted, at)

    with (
        patch("streams.kafka_clients.AIOKafkaConsumer", clients.Consumer),
        patch("streams.kafka_clients.AIOKafkaProducer", clients.Producer),
        patch("streams.kafka_clients.time", VirtualTime),
        patch("streams.kafka_intake.time", VirtualTime),
        patch("streams.remembered.time", VirtualTime),
        patch("streams.fleet.LONGEST_WAIT_S", 3.0),
        patch("streams.kafka_intake.COMMIT_S", 4),
        patch("streams.project.LOOK_S", 8.0),
        patch("domain.snapshots.SAVED_AFTER", 15),
        patch("domain.jobs.submit_job", poisoned),
    ):
        yield
