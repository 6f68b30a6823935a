"""What 200 rules in force add to a round of a full-size cell, and predicates in rows per second.

The rules match, rank and limit, and yet ask for little that would be decided otherwise, so that
what is measured is their cost. Two cells get the same rounds in turn, one with rules and one
without, so that both meet the same noise of the machine.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.decide import Bench
from domain.ledger import canonical
from domain.policies import rows
from domain.policies.attributes import INDEX
from domain.policies.documents import PolicyDocument
from domain.policies.effects import PPM
from domain.policies.live import Live, Scoped, live_rule
from domain.policies.rulebook import masks
from domain.policies.validation import trees_of
from streams.heap import YOUNG_ONLY

CONDITIONS = (
    "job.tier == '{tier}' && job.slots >= {slots}",
    "job.queue == 'q{queue}' && job.replicas > 1",
    "'org' in job.accounts && job.priority > {priority}",
    "job.slots * {slots} > 64 || job.tier in ['premium', '{tier}']",
    "job.queue.startsWith('q{queue}') && !(job.elastic) && signal.utilisation > {ppm}",
    "signal.wait_standard > {seconds} && job.replica_slots == {slots}",
)
TIERS = ("premium", "standard", "basic")
PROMISED = "job.tier == 'premium' ? 300 : (job.tier == 'standard' ? 3600 : 86400)"
EFFECTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("guard", {"do": "ceiling", "value": 100_000}),
    ("order", {"do": "boost", "value": "param.by"}),
    ("order", {"do": "share", "value": 1_000_001}),
    ("score", {"do": "prefer", "value": 3}),
    ("remedy", {"do": "loss", "value": 1_000_001}),
    ("remedy", {"do": "patience", "value": PROMISED}),
    ("scale", {"do": "replicas", "value": 64}),
    ("admit", {"do": "priority", "value": "job.priority"}),
    ("handoff", {"do": "threshold", "value": 600}),
    ("guard", {"do": "after_wait", "value": 60, "accelerator": "npu"}),
)


def documents(rules: int, each: int = 20) -> list[dict[str, Any]]:
    """Policies of 20 rules each; conditions and effects in turn."""
    made: list[dict[str, Any]] = []
    for first in range(0, rules, each):
        listed = []
        for n in range(first, min(rules, first + each)):
            phase, effect = EFFECTS[n % len(EFFECTS)]
            when = CONDITIONS[(n * 7 + n // 10) % len(CONDITIONS)].format(
                tier=TIERS[n % 3],
                slots=1 << n % 4,
                queue=n % 100,
                priority=n % 40,
                ppm=n * 1000,
                seconds=60 * (n % 10),
            )
            if phase == "score" and n % 20 < 10:
                when += " && node.slots >= 4"
            listed.append({"rule": f"r{n}", "phase": phase, "when": when, "then": effect})
        param = {"param": "by", "value": 1, "min": 0, "max": 5}
        name = f"bench-{first // each:02}"
        made.append({"policy": name, "version": 1, "params": [param], "rules": listed})
    return made


def activate(bench: Bench, rules: int) -> None:
    for document in documents(rules):
        draft = bench.accept("DraftPolicy", {"document": document})
        act = bench.accept("ActivatePolicy", {"policy": document["policy"], "version": 1})
        round_, _, head = bench.decided(bench.header(0), [draft, act])
        assert not round_.refusals, round_.refusals
        bench.cell.believe(head, round_.inputs)


def paired(args: argparse.Namespace) -> dict[str, Any]:
    """CPU time of rounds without and with the rules, the same ones in turn."""
    benches = [Bench(args.nodes, args.shapes, args.seed) for _ in range(2)]
    for bench in benches:
        bench.round_ms = args.round_ms
        bench.set_up(args.pending)
        bench.add_nodes()
    activate(benches[1], args.rules)
    gc.collect()
    fills = [bench.fill() for bench in benches]
    gc.collect()
    gc.disable()  # else sweeps of both are met, and paid, by the one that allocates more at a time
    spent: tuple[list[float], list[float]] = ([], [])
    decisions = [0, 0]
    for turn in range(args.rounds):
        for which in (0, 1) if turn % 2 else (1, 0):
            bench = benches[which]
            made, cpu_s = bench.round(bench.load(args.ends))
            spent[which].append(cpu_s)
            decisions[which] += made
    plain, ruled = (sum(s) for s in spent)
    per = [s / d for s, d in zip((plain, ruled), decisions, strict=True)]
    shapes = benches[1].cell.shapes.values()
    return {
        "round_mean_ms": {"plain": _ms(plain, args.rounds), "rules": _ms(ruled, args.rounds)},
        "round_p50_ms": {n: _median(s) for n, s in zip(("plain", "rules"), spent, strict=True)},
        "decisions": {"plain": decisions[0], "rules": decisions[1]},
        "cold_fill": {"plain": fills[0], "rules": fills[1]},
        "added_percent_by_round": round(100 * (ruled / plain - 1), 1),
        "added_percent_by_decision": round(100 * (per[1] / per[0] - 1), 1),
        "shapes_with_a_ruling": sum(bool(s.ruling.why) for s in shapes),
        "signals_frozen": benches[1].cell.signals.values,
        "settle_ms": _settle_ms(benches[1]),
    }


def _settle_ms(bench: Bench) -> float:
    """All rules for all shapes anew, as when a signal has changed; the median of five."""
    found = []
    for _ in range(5):
        bench.cell.rulebook.dirty = True
        before = time.process_time()
        bench.cell.rulebook.settle(bench.cell)
        found.append(time.process_time() - before)
    return _median(found)


def _ms(total_s: float, count: int) -> float:
    return round(1000 * total_s / count, 2)


def _median(seconds: list[float]) -> float:
    return round(1000 * sorted(seconds)[len(seconds) // 2], 2)


def predicates(rows_: int) -> dict[str, Any]:
    """Rows per second of one rule over columns, beside numpy on the same columns."""
    bench = Bench(1, 400, 1)
    bench.round(bench.first_commands())
    bench.round([bench.submit() for _ in range(2000)])
    names = bench.cell.rulebook.names
    shapes = list(bench.cell.shapes.values())
    table = [rows.of_spec(names, s.spec, s.queue) for s in shapes]
    table = (table * (rows_ // len(table) + 1))[:rows_]
    when = "job.tier == 'premium' && job.slots >= 8 && job.replicas > 1 && job.priority < 3"
    body = {"rule": "r", "phase": "order", "when": when, "then": {"do": "boost", "value": 1}}
    document = PolicyDocument.model_validate_json(
        canonical({"policy": "p", "version": 1, "rules": [body]})
    )
    scoped = Scoped(None, 0, (0, PPM))
    rule = live_rule("p", document.rules[0], trees_of(document), scoped, {}, names)
    columns = list(np.array(table, dtype=np.int64).T)
    tier, slots, replicas, priority = (
        columns[INDEX[f"job.{name}"]] for name in ("tier", "slots", "replicas", "priority")
    )
    premium = names.of("premium")

    def bare() -> object:
        return (tier == premium) & (slots >= 8) & (replicas > 1) & (priority < 3)

    one_row = table[0]
    return {
        "rows": rows_,
        "clauses": 4,
        "rows_per_s": {
            "rule": _rate(lambda: rule.static(columns, ()), rows_),
            "numpy": _rate(bare, rows_),
            "rule_with_the_table_built": _rate(lambda: masks([rule], table), rows_),
            "one_row_at_a_time": _rate(lambda: _each(rule, one_row), 1000),
        },
    }


def _each(rule: Live, row: Any) -> object:
    return [rule.static(row, ()) for _ in range(1000)]


def _rate(work: Callable[[], object], rows_: int) -> int:
    """The best of seven."""
    best = 1e9
    for _ in range(7):
        before = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - before)
    return round(rows_ / best)


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks policies", description=__doc__)
    parser.add_argument("--nodes", type=int, default=12_500)
    parser.add_argument("--pending", type=int, default=1_000_000)
    parser.add_argument("--shapes", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--round-ms", type=int, default=1000, help="so far rounds are apart")
    parser.add_argument("--ends", type=int, default=300)
    parser.add_argument("--rules", type=int, default=200)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    gc.set_threshold(*YOUNG_ONLY)  # as a worker does
    return {
        "nodes": args.nodes,
        "slots": args.nodes * 8,
        "pending": args.pending,
        "shapes": args.shapes,
        "rules": args.rules,
        **paired(args),
        "predicates": predicates(args.rows),
    }
