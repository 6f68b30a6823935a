"""GPUs left unallocated when tasks worth all of a cluster have arrived: nine mixes of openb."""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from domain.cell import Cell
from domain.commands import Command, SetPolicy, SetQuota
from domain.decide import decide
from domain.facts import AttemptStarted
from domain.ledger import ENGINE, Accepted, Head, Header, canonical
from domain.specs import PolicyParameters, Queue, Quota
from streams import traces
from streams.envelope import body_of
from streams.scenario import Body, checked_shape

FGD_AND_BEST_FIT = {
    "default": (4.77, 7.14),
    "cpu050": (5.02, 6.44),
    "cpu100": (4.79, 6.74),
    "gpushare40": (6.04, 8.56),
    "gpushare60": (8.75, 10.94),
    "gpuspec10": (5.34, 6.90),
    "gpuspec20": (5.34, 11.53),
    "multigpu20": (4.47, 6.27),
    "multigpu30": (3.64, 5.43),
}
"""Published: unallocated GPU %, mean of 10 seeds (Weng et al., ATC '23, and its artifact)."""

ROUND = 50
"""Tasks of one round. They are placed one by one in the order of their arrival."""
WINDOW = (99.5, 100.5)
"""Arrived load in % over which the published figures are means, too."""


class Task(NamedTuple):
    shape: Body
    milli: int
    """Thousandths of GPUs."""


class Bench:
    """A cell of which one mix's tasks ask, drawn with replacement: they stay, or wait for ever."""

    def __init__(self, folder: Path, mix: str, seed: int, score: str) -> None:
        self.cell = Cell("openb")
        self.offset = 0
        self.random = random.Random(seed)
        nodes = traces.listed_nodes(folder / "openb_node_list_gpu_node.csv")
        self.capacity_milli = 1000 * sum(n.slots for n in nodes)
        quota = Quota(accelerator=traces.GPU, nominal=self.capacity_milli // 1000)
        account = SetQuota(account="all", quotas=(quota,), queues=(Queue(queue="openb"),))
        policy = PolicyParameters.model_validate({"node_score": score})
        first: list[Command] = [SetPolicy(parameters=policy), account, *nodes]
        self._round(self._accept(c) for c in first)
        rows = traces.read(folder / f"openb_pod_list_{mix}.csv", "openb")
        self.tasks = [_task(row) for row in rows]

    def run(self) -> float:
        """Unallocated GPU %, the mean over the window."""
        arrived = allocated = 0
        found: list[float] = []
        for tasks in self._arrivals():
            started = self._submit(tasks)
            for number, task in tasks:
                arrived += task.milli
                allocated += task.milli if f"t{number}" in started else 0
                load = 100 * arrived / self.capacity_milli
                if load >= WINDOW[1]:
                    return statistics.mean(found)
                if load >= WINDOW[0]:
                    found.append(100 - 100 * allocated / self.capacity_milli)
        raise AssertionError("arrivals never end")

    def _arrivals(self) -> Iterator[list[tuple[int, Task]]]:
        number = 0
        while True:
            yield [(number + i, self.random.choice(self.tasks)) for i in range(ROUND)]
            number += ROUND

    def _submit(self, tasks: Sequence[tuple[int, Task]]) -> set[str]:
        """The jobs of these that start at once."""
        return self._round(self._job(f"t{number}", task.shape) for number, task in tasks)

    def _job(self, name: str, shape: Body) -> Accepted:
        return self._taken("SubmitJob", {**shape, "job": name})

    def _accept(self, command: Command) -> Accepted:
        return self._taken(type(command).__name__, body_of(command))

    def _taken(self, type_: str, body: Body) -> Accepted:
        self.offset += 1
        data = msgspec.Raw(canonical(body))
        return Accepted(0, self.offset - 1, f"c{self.offset}", "bench", type_, "bench", 0, data)

    def _round(self, given: Iterator[Accepted]) -> set[str]:
        header = Header(self.cell.head.round + 1, 0, 1_000_000, ENGINE)
        round_ = decide(self.cell, header, list(given))
        assert not round_.refusals, round_.refusals[0]
        self.cell.believe(Head(round_.header.round, ""), round_.inputs)
        return {f.job for f in round_.facts if isinstance(f, AttemptStarted)}


def _task(row: traces.Row) -> Task:
    alike = msgspec.structs.replace(row, tier="standard")  # one line: who comes first is first
    shape = traces.shape_of(alike, [traces.GPU], 8, traces.Options())
    return Task(checked_shape(shape), row.gpus * row.share_milli)


def _measure(folder: Path, mix: str, seed: int, score: str) -> tuple[float, float, int]:
    """Unallocated GPU %, CPU seconds, tasks."""
    begin = time.process_time()
    bench = Bench(folder, mix, seed, score)
    return bench.run(), time.process_time() - begin, bench.cell.next_job


def _mixes(folder: Path) -> list[str]:
    """Those with published figures first, then the others."""
    prefix = "openb_pod_list_"
    found = sorted(path.stem.removeprefix(prefix) for path in folder.glob(f"{prefix}*.csv"))
    known = [mix for mix in FGD_AND_BEST_FIT if mix in found]
    return [*known, *(mix for mix in found if mix not in FGD_AND_BEST_FIT)]


def _mean(mixes: list[dict[str, Any]]) -> dict[str, float]:
    names = mixes[0] if mixes else ()
    return {name: round(statistics.mean(m[name] for m in mixes), 2) for name in names}


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks openb", description=__doc__)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    parser.add_argument("--mixes", nargs="*", help="by default all that the folder holds")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="accepted; the output is always JSON")
    args = parser.parse_args(argv)
    folder = args.traces / "openb"
    names = args.mixes or _mixes(folder)
    scores = ("fragmentation", "best_fit")
    mixes: dict[str, Any] = {}
    totals = dict.fromkeys(scores, (0.0, 0))
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as processes:
        asked = [(m, s, seed) for m in names for s in scores for seed in range(args.seeds)]
        runs = [processes.submit(_measure, folder, m, seed, s) for m, s, seed in asked]
        done: dict[tuple[str, str], list[float]] = {}
        for (mix, score, _), run in zip(asked, runs, strict=True):
            unallocated, cpu_s, tasks = run.result()
            done.setdefault((mix, score), []).append(unallocated)
            spent, jobs = totals[score]
            totals[score] = (spent + cpu_s, jobs + tasks)
    for mix in names:
        fgd, best_fit = FGD_AND_BEST_FIT.get(mix, (None, None))
        mixes[mix] = {
            "unallocated_pct": round(statistics.mean(done[mix, "fragmentation"]), 2),
            "best_fit": round(statistics.mean(done[mix, "best_fit"]), 2),
            "fgd_published": fgd,
            "best_fit_published": best_fit,
        }
    return {
        "mixes": mixes,
        "mean_of_published": _mean([m for m in mixes.values() if m["fgd_published"] is not None]),
        "cpu_s": {score: round(spent, 1) for score, (spent, _) in totals.items()},
        "us_per_task": {s: int(1e6 * spent / jobs) for s, (spent, jobs) in totals.items()},
    }
