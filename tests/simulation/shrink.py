"""The shortest schedule of a seed that still fails: faults and commands are left out until all that
is left is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.simulation import schedule
from tests.simulation.schedule import Outcome

MOST_RUNS: Final = 400


def shortest(seed: int, run: Callable[[int, list[int]], Outcome] = schedule.run) -> Outcome:
    """Raises ValueError if the whole schedule does not fail."""
    found = run(seed, list(range(len(schedule.points(seed)))))
    if found.violation is None:
        raise ValueError(f"seed {seed} does not fail")
    runs, size = 0, max(1, len(found.kept) // 2)
    while runs < MOST_RUNS:
        before = found
        for start in range(0, len(found.kept), size):
            kept = [i for i in before.kept[:start] if i in found.kept]
            kept += before.kept[start + size :]
            shorter = run(seed, kept)
            runs += 1
            if shorter.violation is not None:
                found = shorter
        if size > 1:
            size = max(1, size // 2)
        elif len(found.kept) == len(before.kept):
            break
    return found


def told(seed: int, outcome: Outcome) -> str:
    """The schedule for people, and how to run it again."""
    every = schedule.points(seed)
    lines = [f"seed {seed}: {outcome.violation}"]
    lines += [f"  {schedule.describe(seed, every[i])}" for i in outcome.kept]
    again = ",".join(map(str, outcome.kept))
    lines.append(f"  again: python -m benchmarks schedules --replay {seed}:{again}")
    return "\n".join(lines)
