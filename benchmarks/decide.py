"""Decisions per CPU second of one cell at full size: cold fill and steady state."""

from __future__ import annotations

import argparse
import gc
import random
import resource
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import msgspec

from benchmarks.keys import Ed25519
from domain.cell import Cell
from domain.commands import RegisterNode
from domain.decide import decide
from domain.facts import AttemptGrown, AttemptShrinking, AttemptStarted, AttemptStopping
from domain.ledger import ENGINE, Accepted, Head, Header, Round, Signer, canonical, seal
from domain.specs import FabricPath
from streams.decider import Settings
from streams.heap import YOUNG_ONLY, use_huge_pages
from streams.rounds import Sweep

SIZES = ((1, 1, 50), (1, 2, 20), (1, 4, 12), (1, 8, 12), (2, 8, 3), (4, 8, 2), (16, 8, 1))
"""(replicas, slots, weight) of the jobs: mostly small ones, some gangs up to 128 slots."""
TIERS = ("premium", "standard", "standard", "basic")
QUEUES = 100
WORK = Settings().work
"""Of a round, as of a live decider's."""
DECISIONS = (AttemptStarted, AttemptStopping, AttemptGrown, AttemptShrinking)


class Bench:
    def __init__(self, nodes: int, shapes: int, seed: int) -> None:
        self.cell = Cell("bench")
        self.random = random.Random(seed)
        self.signer: Signer = Ed25519()
        self.offset = 0
        self.now_ms = 1_000_000
        self.round_ms = 100
        self.bytes = 0
        self.facts: Counter[str] = Counter()
        self.sweep = Sweep()
        self.running: list[tuple[str, int]] = []
        """Attempts that were started, and some that were told to stop since."""
        self._stopped: set[tuple[str, int]] = set()
        self._due: list[dict[str, Any]] = []
        """What the agents will report of the last rounds."""
        self.jobs = 0
        self.nodes = nodes
        self.bodies = [self._body(n) for n in range(shapes)]

    def _body(self, number: int) -> dict[str, Any]:
        weights = [w for _, _, w in SIZES]
        count, slots, _ = self.random.choices(SIZES, weights)[0]
        body: dict[str, Any] = {
            "queue": f"q{number % QUEUES}",
            "groups": [{"count": count, "slots": slots} if slots > 1 else {}],
            "flavours": [{"accelerator": "h100"}],
            "priority": number // QUEUES + 1,
            "runtime": {"checkpoint_interval_s": 600},
        }
        tier = TIERS[number % len(TIERS)]
        if tier != "standard":
            body["tier"] = tier
        if count > 4:
            body["placement"] = {"required_level": "block"}
        return body

    def accept(self, type_: str, body: dict[str, Any]) -> Accepted:
        self.offset += 1
        data = msgspec.Raw(canonical(body))
        id_ = f"c{self.offset}"
        return Accepted(0, self.offset - 1, id_, "bench", type_, "bench", self.now_ms, data)

    def submit(self) -> Accepted:
        self.jobs += 1
        return self.accept("SubmitJob", {"job": f"job-{self.jobs}", **self.bodies[self._pick()]})

    def _pick(self) -> int:
        return self.random.randrange(len(self.bodies))

    def round(self, commands: Iterable[Accepted], work: int = 100_000) -> tuple[int, float]:
        """(decisions, CPU seconds) of one round, with its record.

        Decisions are attempts, and parts of them, that are started or told to stop.
        """
        given = list(commands)
        header = self.header(work)
        before = time.process_time()
        round_, record, head = self.decided(header, given)
        self.cell.believe(head, round_.inputs)
        self.sweep.after(round_)
        spent = time.process_time() - before
        self.hear(round_)
        self.bytes += len(record)
        self.facts.update(type(fact).__name__ for fact in round_.facts)
        return sum(isinstance(fact, DECISIONS) for fact in round_.facts), spent

    def header(self, work: int = 100_000) -> Header:
        """Of the next round."""
        self.now_ms += self.round_ms
        return Header(self.cell.head.round + 1, self.now_ms, work, ENGINE)

    def decided(self, header: Header, given: list[Accepted]) -> tuple[Round, bytes, Head]:
        """One round and its record."""
        round_ = decide(self.cell, header, given)
        return round_, *seal(round_, self.signer)

    def hear(self, round_: Round) -> None:
        """The agents do at once what they are told."""
        for fact in round_.facts:
            if not isinstance(fact, DECISIONS):
                continue
            told = {"job": fact.job, "attempt": fact.attempt}
            if isinstance(fact, AttemptStarted):
                self.running.append((fact.job, fact.attempt))
                self._due.append({**told, "state": "running"})
            elif isinstance(fact, AttemptStopping):
                self._stopped.add((fact.job, fact.attempt))
                self._due.append({**told, "state": "stopped"})
            elif isinstance(fact, AttemptShrinking):
                self._due.append({**told, "part": fact.part, "state": "stopped"})

    def load(self, ends: int) -> list[Accepted]:
        """Of a round: what the agents report, `ends` attempts that finish, and as many jobs."""
        submitted = (self.submit() for _ in range(ends))
        return [*self.reports(), *self.finish(ends), *submitted]

    def reports(self) -> list[Accepted]:
        """What the agents have done since they were last asked."""
        due, self._due = self._due, []
        return [self.accept("ReportAttempt", body) for body in due]

    def set_up(self, pending: int) -> dict[str, Any]:
        self.round(self.first_commands())
        memory = _rss()
        spent = 0.0
        for _ in range(0, pending, 2000):
            spent += self.round([self.submit() for _ in range(2000)])[1]
        used = _rss() - memory
        return {
            "admissions_per_cpu_s": int(pending / spent),
            "bytes_per_pending_job": used // max(1, pending),
        }

    def first_commands(self) -> list[Accepted]:
        """The accounts, with equal quota."""
        quota = [{"accelerator": "h100", "nominal": self.nodes * 8 // QUEUES}]
        setup = [self.accept("SetQuota", {"account": "org"})]
        for n in range(QUEUES):
            body = {"account": f"a{n}", "parent": "org", "quotas": quota}
            setup.append(self.accept("SetQuota", {**body, "queues": [{"queue": f"q{n}"}]}))
        return setup

    def finish(self, ends: int) -> list[Accepted]:
        """Reports of the end of some attempts, chosen by chance."""
        commands = []
        for _ in range(min(ends, len(self.running))):
            at = self.random.randrange(len(self.running))
            self.running[at], self.running[-1] = self.running[-1], self.running[at]
            job, attempt = self.running.pop()
            if (job, attempt) in self._stopped:
                self._stopped.remove((job, attempt))
                continue
            body = {"job": job, "attempt": attempt, "state": "finished"}
            commands.append(self.accept("ReportAttempt", body))
        return commands

    def add_nodes(self) -> None:
        for first in range(0, self.nodes, 500):
            self.round((self.node(n) for n in range(first, min(self.nodes, first + 500))), 0)

    def node(self, n: int) -> Accepted:
        path = FabricPath(region="r", cluster="c", block=f"b{n // 128:04}", rack=f"k{n // 16:05}")
        node = RegisterNode(node=f"n{n:06}", accelerator="h100", slots=8, path=path)
        body = node.model_dump(mode="json", exclude_defaults=True)
        return self.accept("RegisterNode", body)

    def fill(self) -> dict[str, Any]:
        """Rounds without commands until nothing more fits."""
        total, times = 0, []
        while True:
            decisions, spent = self.round((), 1000)
            times.append(spent)
            total += decisions
            if not decisions:
                break
        while told := self.reports():
            for first in range(0, len(told), 500):
                self.round(told[first : first + 500], 0)
        return _figures(total, times)

    def steady(self, rounds: int, ends: int) -> dict[str, Any]:
        """Rounds under `load`."""
        total, times = 0, []
        for _ in range(rounds):
            decisions, spent = self.round(self.load(ends), WORK)
            total += decisions
            times.append(spent)
        return _figures(total, times)


def _figures(decisions: int, times: list[float]) -> dict[str, Any]:
    ordered = sorted(times)
    return {
        "decisions": decisions,
        "decisions_per_cpu_s": int(decisions / max(1e-9, sum(times))),
        "rounds": len(times),
        "round_p50_ms": round(ordered[len(ordered) // 2] * 1000, 1),
        "round_p99_ms": round(ordered[len(ordered) * 99 // 100] * 1000, 1),
    }


def _rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks decide", description=__doc__)
    parser.add_argument("--nodes", type=int, default=12_500)
    parser.add_argument("--pending", type=int, default=1_000_000)
    parser.add_argument("--shapes", type=int, nargs="*", default=[400, 4000])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--ends", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--plain", action="store_true", help="Whole slots and tiers only; not with all switched on."
    )
    args = parser.parse_args(argv)
    result: dict[str, Any] = {"nodes": args.nodes, "slots": args.nodes * 8, "pending": args.pending}
    for shapes in args.shapes:  # each in a process of its own: memory is measured by its peak
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            result[f"shapes_{shapes}"] = process.submit(measure, args, shapes).result()
    return result


def measure(args: argparse.Namespace, shapes: int) -> dict[str, Any]:
    """Figures of one size; `args` has nodes, pending, rounds, ends, seed and plain."""
    from benchmarks.everything import Everything

    gc.set_threshold(*YOUNG_ONLY)  # as a worker does
    bench = (Bench if args.plain else Everything)(args.nodes, shapes, args.seed)
    figures = bench.set_up(args.pending)
    bench.add_nodes()
    gc.collect()  # what set-up left behind is not a round's
    use_huge_pages()  # as a worker does, now and then
    figures["cold_fill"] = bench.fill()
    use_huge_pages()
    bench.facts.clear()
    figures["steady"] = bench.steady(args.rounds, args.ends)
    figures["steady"]["facts"] = dict(sorted(bench.facts.items()))
    figures["peak_rss_mib"] = _rss() // 2**20
    return figures
