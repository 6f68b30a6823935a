"""The simulation itself: a slice of its schedules, and that it finds what it must find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulation import planted, schedule, shrink
from tests.simulation.faults import KINDS

ROOT = Path(__file__).parents[2]
SLICE = 240
"""Schedules that CI runs, in groups that several processes share."""
GROUPS = 8

QUICK = {
    "reader_believes_any_record": 40,
    "intake_commits_first": 40,
    "told_before_belief": 2,
    "zombie_believes_itself": 40,
    "inbox_goes_on_from_its_own_position": 40,
    "fleet_forgets_what_stands": 100,
}
"""Planted bugs that are found within so many seeds; `benchmarks schedules --planted` runs all."""


@pytest.mark.slow
@pytest.mark.parametrize("group", range(GROUPS))
def test_no_schedule_violates_an_invariant(group: int) -> None:
    for seed in range(group, SLICE, GROUPS):
        outcome = schedule.run(seed)
        if outcome.violation is not None:
            pytest.fail(shrink.told(seed, shrink.shortest(seed)))
        assert outcome.rounds
        assert outcome.commands


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_found(name: str) -> None:
    with planted.BUGS[name]():
        violations = (schedule.run(seed).violation for seed in range(QUICK[name]))
        assert any(violation is not None for violation in violations)


def test_all_kinds_of_faults_are_planned() -> None:
    kinds = {point.kind for seed in range(200) for point in schedule.points(seed)}
    assert kinds == {*KINDS, "command"}


@pytest.mark.slow
def test_a_failing_schedule_is_shortened_and_replayed() -> None:
    name = "fleet_forgets_what_stands"
    with planted.BUGS[name]():
        seed = next(s for s in range(QUICK[name]) if schedule.run(s).violation is not None)
        shortest = shrink.shortest(seed)
        again = schedule.run(seed, shortest.kept)
    assert len(shortest.kept) < len(schedule.points(seed)) // 2
    assert str(again.violation) == str(shortest.violation)
    assert again.head == shortest.head
    assert f"--replay {seed}:" in shrink.told(seed, shortest)
    assert schedule.run(seed, shortest.kept).violation is None, "without the bug"


def _elsewhere(seed: int, hash_seed: str) -> Any:
    """The schedule in another process, in which sets of strings have another order."""
    command = [sys.executable, "-m", "benchmarks", "schedules", "--replay", str(seed)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    return json.loads(made.stdout.splitlines()[-1])


def test_a_seed_gives_the_same_schedule_in_every_process() -> None:
    seed = 3
    here = schedule.run(seed)
    for hash_seed in ("1", "2"):
        found = _elsewhere(seed, hash_seed)
        assert (found["head"], found["awaits"]) == (here.head, here.steps)
