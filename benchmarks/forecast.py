"""Start estimates on a public trace: how far off they are, beside the mean wait so far."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.keys import Ed25519
from benchmarks.traces import FILES, SIZES, scenario
from domain.cell import Cell
from domain.facts import AttemptStarted
from domain.ledger import Round
from streams import traces
from streams.forecast import Outlook, heads
from streams.simulate import Simulation

WARM_UP = 10
"""In this part of the jobs nobody asks: nothing has been learned yet."""


class Asked:
    """One question: when does the job start?"""

    def __init__(self, at_ms: int, expected_ms: int | None, naive_ms: int) -> None:
        self.at_ms = at_ms
        self.expected_ms = expected_ms
        self.naive_ms = naive_ms


class Run:
    def __init__(self, path: Path, form: str, every: int, rounds: int) -> None:
        what = scenario(traces.read(path, "jobs"), form, False)
        self.every, self.rounds = every, rounds
        self.simulation = Simulation(
            "traces", what, Ed25519(), len, round_ms=10_000, then=self._see
        )
        self.starts: dict[str, int] = {}
        self.asked: list[tuple[str, Asked]] = []
        self.waited_ms: list[int] = []
        self.cpu_s: list[float] = []

    def _see(self, cell: Cell, made: Round) -> None:
        for fact in made.facts:
            if isinstance(fact, AttemptStarted) and fact.job not in self.starts:
                self.starts[fact.job] = made.header.now_ms
                if fact.job in cell.jobs:
                    self.waited_ms.append(made.header.now_ms - cell.jobs[fact.job].seniority_ms)

    def run(self) -> None:
        simulation = self.simulation
        due = simulation.arrivals // WARM_UP
        for arrived in simulation.run():
            if arrived >= due and arrived < simulation.arrivals:
                due += self.every
                self._ask()

    def _ask(self) -> None:
        cell, now_ms = self.simulation.cell, self.simulation.now_ms
        waiting = heads(cell)
        if not waiting:
            return
        begin_s = time.process_time()
        forecast = Outlook(cell, now_ms).look([job.id for job in waiting], self.rounds)
        self.cpu_s.append(time.process_time() - begin_s)
        usual_ms = round(fmean(self.waited_ms or [0]))
        for expected in forecast.expected:
            waits_ms = max(0, now_ms - cell.jobs[expected.job].seniority_ms)
            naive_ms = now_ms + max(0, usual_ms - waits_ms)
            self.asked.append((expected.job, Asked(now_ms, expected.at_ms, naive_ms)))


def figures(run: Run) -> dict[str, Any]:
    """Errors in seconds; `within_2`: share of answers within a factor of two, or a minute."""
    off, naive, left, within, bias = [], [], [], 0, []
    known = [(job, a) for job, a in run.asked if job in run.starts and a.expected_ms is not None]
    for job, asked in known:
        assert asked.expected_ms is not None, "filtered"
        actual_s = (run.starts[job] - asked.at_ms) / 1000
        told_s = (asked.expected_ms - asked.at_ms) / 1000
        left.append(actual_s)
        off.append(abs(told_s - actual_s))
        bias.append(told_s - actual_s)
        naive.append(abs((asked.naive_ms - asked.at_ms) / 1000 - actual_s))
        within += actual_s / 2 <= told_s <= 2 * actual_s or abs(told_s - actual_s) <= 60
    return {
        "asked": len(run.asked),
        "answered": len(known),
        "left_mean_s": round(fmean(left)),
        "off_mean_s": round(fmean(off)),
        "off_median_s": round(median(off)),
        "bias_mean_s": round(fmean(bias)),
        "within_2": round(within / len(known), 3),
        "mean_wait_off_mean_s": round(fmean(naive)),
        "mean_wait_off_median_s": round(median(naive)),
        "cpu_ms_median": round(1000 * median(run.cpu_s)),
        "cpu_ms_max": round(1000 * max(run.cpu_s)),
    }


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks forecast", description=__doc__)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    parser.add_argument("--trace", choices=[*SIZES], default="itp")
    parser.add_argument("--form", choices=("plain", "expected"), default="plain")
    parser.add_argument("--every", type=int, default=100, help="Jobs between two questions.")
    parser.add_argument("--rounds", type=int, default=2000, help="How far to look ahead.")
    parser.add_argument("--json", action="store_true", help="accepted; the output is always JSON")
    args = parser.parse_args(argv)
    run = Run(args.traces / FILES[args.trace], args.form, args.every, args.rounds)
    run.run()
    return figures(run)
