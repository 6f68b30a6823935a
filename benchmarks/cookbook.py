"""Each policy of the cookbook on ten days of a trace: a figure without it, and with it.

The trace is Microsoft ITP's, five clusters as one pool. What it does not tell is drawn from the
jobs' names: tiers, deadlines, elasticity, checkpoints, and who accepts an NPU. One cluster has
NPUs, one is rented and has a price. Waits hang on a few long jobs: they are means of several draws.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.keys import Ed25519
from benchmarks.traces import FILES
from domain import facts as f
from domain.cell import Cell
from domain.commands import RequestReservation
from domain.ledger import Round
from domain.policies.commands import ActivatePolicy, DraftPolicy
from domain.policies.documents import PolicyDocument
from domain.policies.facts import PolicyParameterMoved
from domain.policies.rows import drawn
from domain.specs import TIERS
from streams import traces
from streams.scenario import EPOCH_MS, Arrival, Body, Scenario, arrival, in_order
from streams.simulate import Simulation

FOLDER: Final = Path(__file__).parents[1] / "docs" / "cookbook"
HOUR_MS: Final = 3_600_000
NPU_CLUSTER: Final = "cluster02"
RENTED: Final = "cluster10"
PRICE: Final = 30
"""Of a GPU-hour that is rented; an own one costs 10."""
OWN_PRICE: Final = 10
WINDOWS: Final = 40
NODES: Final = {"cluster01": 6, "cluster02": 6, "cluster06": 6, "cluster08": 9, "cluster10": 6}
"""Of 8 slots each: few enough that jobs wait."""
ROOMY: Final = {"cluster01": 8, "cluster02": 8, "cluster06": 8, "cluster08": 16, "cluster10": 8}
CROWDED: Final = {"cluster01": 3, "cluster02": 3, "cluster06": 3, "cluster08": 5, "cluster10": 3}
SIZES: Final = {"cheap-first": ROOMY, "picky-first": CROWDED}
"""Where all is taken there is no place to choose, and where much is free no order."""
DRAWS: Final = 3
WAITS: Final = ("eager-premium", "fair-to-the-small", "picky-first", "yield-to-premium")
"""Policies whose figure is a mean wait."""


class Spell(NamedTuple):
    """Slots of an attempt, or of a part that it grew by, from one moment to another."""

    job: str
    tier: str
    account: str
    slots: int
    gang: int
    accelerator: str
    provider: str
    checkpoint: bool
    grown: bool
    from_ms: int
    to_ms: int
    reason: str

    @property
    def hours(self) -> float:
        return self.slots * (self.to_ms - self.from_ms) / HOUR_MS


class Tally:
    """What happened, for the figures."""

    def __init__(self) -> None:
        self.spells: list[Spell] = []
        self.admitted_ms: dict[str, int] = {}
        self.started_ms: dict[str, int] = {}
        self.slots: dict[str, int] = {}
        self.tiers: dict[str, str] = {}
        self.teams: dict[str, str] = {}
        self.priorities: dict[str, int] = {}
        self.picky: dict[str, bool] = {}
        """Those that accept one type alone."""
        self.codes: dict[str, int] = {}
        self.most: dict[str, int] = {}
        """By account: the most slots that its own queues used at once, of a type."""
        self.reserved = 0
        self.lent_ms: list[tuple[int, int]] = []
        self.moves = 0
        self._open: dict[tuple[str, int], tuple[int, int, Body]] = {}
        self._last: tuple[int, int] = (0, 0)

    def follow(self, cell: Cell, round: Round) -> None:
        now_ms = round.header.now_ms
        self.lent_ms.append((self._last[0], self._last[1] * (now_ms - self._last[0])))
        for refusal in round.refusals:
            self.codes[refusal.code] = self.codes.get(refusal.code, 0) + 1
        for fact in round.facts:
            self._fact(cell, fact, now_ms)
        borrowed = 0
        for account in cell.accounts.values():
            used = max(account.own.values(), default=0) // 1000
            self.most[account.id] = max(self.most.get(account.id, 0), used)
            if account.parent is not None:
                borrowed += sum(account.borrowed(t) for t in sorted(account.nominal)) // 1000
        self._last = (now_ms, borrowed)

    def _fact(self, cell: Cell, fact: Any, now_ms: int) -> None:
        match fact:
            case f.JobAdmitted():
                self._admitted(cell)
            case f.AttemptStarted():
                self._started(cell, fact.job, 0, now_ms)
            case f.AttemptGrown():
                self._started(cell, fact.job, fact.part, now_ms)
            case f.AttemptShrunk():
                self._ended(fact.job, fact.part, now_ms, fact.reason)
            case f.AttemptEnded():
                for job_, part in [k for k in self._open if k[0] == fact.job]:
                    self._ended(job_, part, now_ms, fact.reason)
            case f.ReservationConfirmed():
                self.reserved += 1
            case PolicyParameterMoved():
                self.moves += 1

    def _admitted(self, cell: Cell) -> None:
        for job in reversed(cell.jobs.values()):
            if job.id in self.admitted_ms:
                return
            self.admitted_ms[job.id] = job.seniority_ms
            self.slots[job.id] = job.shape.slots
            self.tiers[job.id] = TIERS[job.shape.tier].value
            self.teams[job.id] = job.shape.queue.account.id
            self.priorities[job.id] = job.shape.spec.priority
            self.picky[job.id] = len(job.shape.spec.flavours) == 1

    def _started(self, cell: Cell, id_: str, part: int, now_ms: int) -> None:
        self._admitted(cell)
        job = cell.jobs.get(id_)
        run = job.parts.get(part) if job is not None and part else job.run if job else None
        if job is None or run is None:  # it began and ended within the round
            return
        self.started_ms.setdefault(id_, now_ms)
        node = cell.nodes[run.nodes[0][0]]
        known = {
            "tier": TIERS[job.shape.tier].value,
            "account": job.shape.queue.account.id,
            "gang": job.shape.slots,
            "accelerator": node.spec.accelerator,
            "provider": node.spec.labels["provider"],
            "checkpoint": job.shape.spec.runtime.checkpoint_interval_s > 0,
        }
        self._open[id_, part] = (now_ms, run.slots, known)

    def _ended(self, id_: str, part: int, now_ms: int, reason: str) -> None:
        opened = self._open.pop((id_, part), None)
        if opened is not None:
            from_ms, slots, known = opened
            spell = Spell(
                id_, slots=slots, grown=part > 0, from_ms=from_ms, to_ms=now_ms, reason=reason,
                **known,
            )  # fmt: skip
            self.spells.append(spell)

    # --- figures ---

    def hours(self, which: Callable[[Spell], bool]) -> float:
        """Slot-hours of these spells."""
        return round(sum(s.hours for s in self.spells if which(s)), 1)

    def wait_s(self, which: Callable[[str], bool]) -> float:
        """Mean time from admission to the first start."""
        waits = [
            self.started_ms[j] - at for j, at in self.admitted_ms.items()
            if j in self.started_ms and which(j)
        ]  # fmt: skip
        return round(sum(waits) / max(1, len(waits)) / 1000, 1)

    def lent_hours(self, by_day: bool) -> float:
        """Slot-hours that accounts used beyond their own quota, by day or by night."""
        parts = (n for at_ms, n in self.lent_ms if _by_day(at_ms) == by_day)
        return round(sum(parts) / HOUR_MS, 1)

    def quickly(self, spell: Spell) -> bool:
        """It began within a quarter of an hour after the job's admission."""
        return spell.from_ms - self.admitted_ms[spell.job] < 900_000

    def cost(self) -> float:
        """Mean price of a slot-hour."""
        rented = self.hours(lambda s: s.provider == "cloud")
        whole = self.hours(lambda s: True)
        return round((rented * PRICE + (whole - rented) * OWN_PRICE) / max(1.0, whole), 2)


def _by_day(at_ms: int) -> bool:
    return 6 <= at_ms // HOUR_MS % 24 < 20


def _weekday(at_ms: int) -> int:
    return (at_ms // (24 * HOUR_MS) + 3) % 7


def _launch(spell: Spell) -> bool:
    return not spell.grown and _weekday(spell.from_ms) == 3


def _preempted(tally: Tally, which: Callable[[Spell], bool]) -> int:
    return sum(s.reason == "preempted" and not s.grown and which(s) for s in tally.spells)


Figure = Callable[[Tally], float]
BELOW: Final = ("standard", "basic")
FIGURES: Final[dict[str, tuple[str, Figure]]] = {
    "freeze-for-a-launch": (
        "basic jobs started on launch day",
        lambda t: len({s.job for s in t.spells if s.tier == "basic" and _launch(s)}),
    ),
    "night-lending": ("slot-hours lent by day", lambda t: t.lent_hours(True)),
    "npu-after-15-minutes": (
        "jobs that took an NPU within a quarter of an hour",
        lambda t: len({s.job for s in t.spells if s.accelerator == "npu" and t.quickly(s)}),
    ),
    "team-ceiling": ("most slots of the team at once", lambda t: t.most["cluster08"]),
    "burst-for-deadlines": (
        "rented slot-hours of jobs below premium",
        lambda t: t.hours(lambda s: s.provider == "cloud" and s.tier in BELOW),
    ),
    "cheap-first": ("price of a slot-hour", Tally.cost),
    "picky-first": (
        "mean wait of jobs that accept GPUs alone, s",
        lambda t: t.wait_s(lambda j: t.picky[j]),
    ),
    "eager-premium": (
        "mean wait of premium jobs, s",
        lambda t: t.wait_s(lambda j: t.tiers[j] == "premium"),
    ),
    "spare-large-gangs": (
        "preemptions of 16 slots or more",
        lambda t: _preempted(t, lambda s: s.gang >= 16),
    ),
    "priority-cap": (
        "jobs with a priority above 5",
        lambda t: sum(p > 5 for p in t.priorities.values()),
    ),
    "premium-is-short": (
        "premium slot-hours",
        lambda t: t.hours(lambda s: s.tier == "premium"),
    ),
    "growth-off-hours": (
        "slot-hours grown into on weekdays, begun from 8 to 20",
        lambda t: t.hours(
            lambda s: s.grown and _weekday(s.from_ms) < 5 and 8 <= s.from_ms // HOUR_MS % 24 < 20
        ),
    ),
    "fair-to-the-small": (
        "mean wait of other teams' jobs, s",
        lambda t: t.wait_s(lambda j: t.teams[j] != "cluster08"),
    ),
    "no-giants": ("jobs of more than 32 slots", lambda t: sum(n > 32 for n in t.slots.values())),
    "npus-for-premium-by-day": (
        "NPU slot-hours below premium, begun by day",
        lambda t: t.hours(
            lambda s: (
                s.accelerator == "npu" and s.tier in BELOW and 8 <= s.from_ms // HOUR_MS % 24 < 20
            )
        ),
    ),
    "yield-to-premium": (
        "mean wait of premium jobs, s",
        lambda t: t.wait_s(lambda j: t.tiers[j] == "premium"),
    ),
    "quiet-nights": (
        "preemptions by night",
        lambda t: _preempted(t, lambda s: not _by_day(s.to_ms - 60_000)),
    ),
    "own-nodes-for-basic": (
        "rented slot-hours of basic jobs",
        lambda t: t.hours(lambda s: s.provider == "cloud" and s.tier == "basic"),
    ),
    "short-windows": ("reservations confirmed", lambda t: t.reserved),
    "spare-what-cannot-resume": (
        "preemptions of what keeps no checkpoint, above basic",
        lambda t: _preempted(t, lambda s: not s.checkpoint and s.tier != "basic"),
    ),
}
"""By policy: what it is for, as a number."""


# --- the world ------------------------------------------------------------------------------------


def scenario(path: Path, days: int, sizes: dict[str, int], draw: int) -> Scenario:
    rows = [r for r in traces.read(path, "jobs") if r.submit_s < days * 86_400]
    nodes = []
    for node in traces.partition_nodes(sizes, 8):
        cluster = node.path.cluster
        labels = {"provider": "cloud" if cluster == RENTED else "own"}
        labels["price"] = str(PRICE if cluster == RENTED else OWN_PRICE)
        kind = {"accelerator": "npu", "kind": "npu"} if cluster == NPU_CLUSTER else {}
        nodes.append(node.model_copy(update={"labels": labels, **kind}))
    plain = traces.scenario(rows, nodes, traces.Options(preemptible=True, estimates=True))
    quotas = plain.quotas
    arrivals = [Arrival(a.at_ms, a.type, _enriched(a, draw)) for a in plain.arrivals]
    return Scenario(nodes, quotas, in_order([*arrivals, *windows(days)]), plain.work)


def _enriched(submitted: Arrival, number: int) -> Body:
    """The job with what the trace does not tell, drawn from its name."""
    body, name = dict(submitted.body), submitted.body["job"]

    def draw(what: str) -> int:
        return drawn(f"{number}/{what}/{name}") // 10_000

    tier = draw("tier")
    body.pop("tier", None)
    if tier < 15 or tier >= 60:
        body["tier"] = "premium" if tier < 15 else "basic"
    npu = draw("npu") < 50
    body["flavours"] = [{"accelerator": "gpu"}, *([{"accelerator": "npu"}] if npu else [])]
    runtime = dict(body.get("runtime", {}))
    if draw("checkpoint") < 50:
        runtime["checkpoint_interval_s"] = 1800
    body["runtime"] = runtime
    if draw("deadline") < 20:
        body["deadline"] = {"finish_by_ms": EPOCH_MS + submitted.at_ms + 3 * 24 * HOUR_MS}
    if priority := draw("priority") // 10:
        body["priority"] = priority
    groups = body["groups"]
    if draw("elastic") < 20 and len(groups) == 1 and groups[0].get("slots", 1) <= 4:
        body["groups"] = [{**groups[0], "grow_to": 4}]
    return body


def windows(days: int) -> list[Arrival]:
    """Requests for reservations, some long, some late."""
    found = []
    for n in range(WINDOWS):
        at_ms = n * days * 24 * HOUR_MS // WINDOWS
        start_ms = EPOCH_MS + at_ms + (n % 4) * HOUR_MS + 600_000
        command = RequestReservation(
            reservation=f"window-{n}",
            account="cluster08",
            accelerator="gpu",
            count=1,
            slots=8,
            start_ms=start_ms,
            end_ms=start_ms + (6 + 4 * (n % 3)) * HOUR_MS,
            queues=("cluster08",),
        )
        found.append(arrival(at_ms, command))
    return found


def run(world: Scenario, policy: PolicyDocument | None, round_s: int) -> Tally:
    arrivals = world.arrivals
    if policy is not None:
        draft = DraftPolicy(document=policy)
        activate = ActivatePolicy(policy=policy.policy, version=policy.version)
        arrivals = [arrival(0, draft), arrival(0, activate), *arrivals]
    what = Scenario(world.nodes, world.quotas, arrivals, world.work)
    tally = Tally()
    simulation = Simulation(
        "cookbook", what, Ed25519(), len, round_ms=1000 * round_s, then=tally.follow
    )
    until_ms = simulation.last_submission_ms + 2 * 24 * HOUR_MS
    for _ in simulation.run(until_ms):
        pass
    assert "invalid_policy" not in tally.codes, tally.codes
    return tally


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks cookbook", description=__doc__)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    parser.add_argument("--policy", choices=[*FIGURES], action="append")
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--round-s", type=int, default=60)
    args = parser.parse_args(argv)
    worlds: dict[tuple[tuple[int, ...], int], tuple[Scenario, Tally]] = {}

    def world(sizes: dict[str, int], draw: int) -> tuple[Scenario, Tally]:
        """A world, and what happens in it without any policy."""
        key = tuple(sizes.values()), draw
        if key not in worlds:
            made = scenario(args.traces / FILES["itp"], args.days, sizes, draw)
            worlds[key] = made, run(made, None, args.round_s)
        return worlds[key]

    result: dict[str, Any] = {"jobs": len(world(NODES, 0)[1].admitted_ms), "days": args.days}
    for name in args.policy or FIGURES:
        text = (FOLDER / f"{name}.json").read_text()
        document = PolicyDocument.model_validate_json(json.dumps(json.loads(text)))
        what, figure = FIGURES[name]
        befores, afters, moves = [], [], 0
        for draw in range(DRAWS if name in WAITS else 1):
            made, before = world(SIZES.get(name, NODES), draw)
            after = run(made, document, args.round_s)
            befores.append(figure(before))
            afters.append(figure(after))
            moves += after.moves
        result[name] = {"figure": what, "before": _mean(befores), "after": _mean(afters)}
        if moves:
            result[name]["moves"] = moves
        print(name, befores, afters, file=sys.stderr, flush=True)
    return result


def _mean(figures: list[float]) -> float:
    return figures[0] if len(figures) == 1 else round(sum(figures) / len(figures), 1)
