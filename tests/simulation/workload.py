"""What a small world has, and what its clients ask of it; all from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

from domain import commands as c
from domain import specs as s
from streams.agent import Work
from tests.simulation.loop import START_MS

TYPES: Final = ("gpu", "npu")
SLOTS: Final = 4
GPU: Final = (s.Flavour(accelerator="gpu"),)
POISON: Final = "poison"
"""A job with this label trips an assertion inside decide."""
POISON_MARK: Final = b'"poison":"yes"'


class Span(NamedTuple):
    """Of a schedule: commands are sent, and faults happen, within so many seconds."""

    seconds: float
    fewest: int
    most: int
    """Commands of clients, but for those that follow another one."""


LONG: Final = Span(40.0, 4, 18)
SHORT: Final = Span(10.0, 2, 7)
SPANS: Final = (LONG, SHORT, SHORT, SHORT)
"""Seeds take turns. Most schedules are short: more of them fit into an hour. The long ones reach
what takes many commands."""
LEAVES: Final = ("team-a", "team-b")
OPEN: Final = tuple(s.Quota(accelerator=t, nominal=64) for t in TYPES)


@dataclass
class Item:
    """A command of a client."""

    at_s: float
    client: int
    command: c.Command | None
    """None: the message is `raw`, which is no command."""
    raw: bytes = b""
    copies: int = 1
    """It is sent so often."""
    binary: bool = False
    forbidden: bool = False
    """Its client has no right to give it."""
    poison: bool = False

    @property
    def valid(self) -> bool:
        return self.command is not None and not self.forbidden


@dataclass
class Workload:
    nodes: list[c.RegisterNode]
    fleets: list[list[int]]
    """Nodes of each fleet, by index."""
    items: list[Item]
    work: dict[str, Work] = field(default_factory=dict)

    def healing(self) -> list[c.Command]:
        """What an operator orders once the faults are over, so that all work can be done."""
        return [
            c.SetPolicy(parameters=s.PolicyParameters(requeue_backoff_s=1)),
            *(_leaf(name, OPEN, ()) for name in LEAVES),
        ]


def span(seed: int) -> Span:
    return SPANS[seed % len(SPANS)]


def generate(seed: int, poisons: int) -> Workload:
    random = Random(seed)
    span_s, fewest, most = span(seed)
    nodes = [_node(random, n) for n in range(random.randint(1, 3))]
    single = random.random() < 0.6
    fleets = [list(range(len(nodes)))] if single else [[n] for n in range(len(nodes))]
    made = Workload(nodes, fleets, [])
    made.items.extend(Item(0.0, 0, command) for command in _basics(random))
    clients = random.randint(1, 2)
    for number in range(random.randint(fewest, most)):
        item = Item(random.random() * span_s, 1 + random.randrange(clients), None)
        _fill(random, item, made, number)
        item.binary = random.random() < 0.3
        item.copies = 1 if random.random() < 0.85 else random.randint(2, 3)
        made.items.append(item)
        if isinstance(item.command, c.SubmitJob) and random.random() < 0.1:  # while it may claim
            cancel = c.CancelJob(job=item.command.job)
            made.items.append(Item(item.at_s + random.random() * 4, item.client, cancel))
    for number in range(poisons):
        job = _job(random, f"poison-{number}", made)
        job = job.model_copy(update={"labels": {POISON: "yes"}})
        copies = random.choice((1, 1, 2))
        made.items.append(Item(random.random() * span_s, 1, job, copies=copies, poison=True))
    made.items.sort(key=lambda i: i.at_s)
    return made


def _node(random: Random, n: int) -> c.RegisterNode:
    return c.RegisterNode(
        node=f"n{n}",
        accelerator="npu" if n == 2 else "gpu",
        kind="npu" if n == 2 else "gpu",
        slots=SLOTS,
        host_cpu_milli=8000,
        host_memory_mib=8192,
        path=s.FabricPath(region="r", cluster="c", block="b", rack=f"k{n // 2}"),
        lease_s=random.choice((0, 30, 60)),
    )


def _leaf(
    name: str, quotas: tuple[s.Quota, ...], orders: tuple[Any, ...], weight: int = 1000
) -> c.SetQuota:
    queue = s.Queue(queue=f"{name}-q", order="strict" if "strict" in orders else "skip")
    return c.SetQuota(account=name, parent="org", quotas=quotas, queues=(queue,), weight=weight)


def _quotas(random: Random) -> tuple[s.Quota, ...]:
    """Of two leaves that share, each may have all: no job waits for quota for ever."""
    nominal = random.choice((4, 8, 12))
    lending = random.choice((None, None, 2))
    return tuple(s.Quota(accelerator=t, nominal=nominal, lending_limit=lending) for t in TYPES)


def _basics(random: Random) -> list[c.Command]:
    made: list[c.Command] = [
        c.SetQuota(account="org", quotas=tuple(s.Quota(accelerator=t, nominal=4) for t in TYPES))
    ]
    made.extend(_leaf(name, _quotas(random), ()) for name in LEAVES)
    if random.random() < 0.5:
        made.append(_policy(random))
    return made


def _policy(random: Random) -> c.SetPolicy:
    eager = random.random() < 0.7
    return c.SetPolicy(
        parameters=s.PolicyParameters(
            preemption=random.random() < 0.9,
            min_run_s=(0, 0, 0, 0) if eager else (0, 5, 5, 10),
            queue_delay_s=(0, 0, 0, 0) if eager else (0, 5, 20, 40),
            requeue_backoff_s=random.choice((1, 5)),
            order=random.choice(("seniority", "seniority", "least_attained", "least_remaining")),
            yield_ratio_milli=random.choice((0, 0, 2000)),
            gathering=random.random() < 0.4,
            gather_after_s=(0, 0, 0, 0) if eager else (0, 5, 20, 40),
            duplicate_window_s=random.choice((7 * 86_400, 7 * 86_400, 3600)),
        )
    )


def _fill(random: Random, item: Item, made: Workload, number: int) -> None:
    """One of what clients ask for; mostly jobs."""
    chance = random.random()
    name = f"j{random.randrange(max(1, number))}"
    node = random.choice(made.nodes).node
    if chance < 0.55:
        item.command = _job(random, f"j{number}", made)
    elif chance < 0.63:
        item.command = c.CancelJob(job=name)
    elif chance < 0.67:
        item.command = c.AmendJob(
            job=name, priority=random.choice((None, 0, 5)), tier=random.choice((None, *s.Tier))
        )
    elif chance < 0.71:
        item.command = c.PreemptJob(job=name)
        item.client = 0
    elif chance < 0.80:
        item.client = 0
        item.command = random.choice(
            (
                c.CordonNode(node=node),
                c.CordonNode(node=node, cordoned=False),
                c.DrainNode(node=node),
                c.DrainNode(node=node),
                c.RemoveNode(node=node),
            )
        )
    elif chance < 0.85:
        item.client = 0
        leaf = random.choice(LEAVES)
        orders = random.choice(((), ("strict",)))
        item.command = _leaf(leaf, _quotas(random), orders, random.choice((500, 2000)))
    elif chance < 0.87:
        item.client, item.command = 0, _policy(random)
    elif chance < 0.91:
        item.client, item.command = 0, _reservation(random)
    elif chance < 0.95:
        item.command = _job(random, f"j{number}", made)
        if not any(g.share_milli < 1000 for g in item.command.groups):
            reservation = f"r{random.randrange(2)}"
            update = {"queue": "team-a-q", "reservation": reservation, "flavours": GPU}
            item.command = item.command.model_copy(update=update)
    elif chance < 0.975:
        item.raw = random.choice((b"", b"{", b'{"specversion":"1.0"}', b"\xff\xfe", b"[1.5]"))
    else:
        item.command = c.DrainNode(node=node)
        item.forbidden = True


def _reservation(random: Random) -> c.RequestReservation:
    start_ms = START_MS + random.randrange(0, 40_000)
    return c.RequestReservation(
        reservation=f"r{random.randrange(2)}",
        account="team-a",
        accelerator="gpu",
        count=1,
        slots=random.choice((2, 4)),
        start_ms=start_ms,
        end_ms=start_ms + random.randrange(5_000, 40_000),
        queues=("team-a-q",),
    )


def _job(random: Random, name: str, made: Workload) -> c.SubmitJob:
    npu = len(made.nodes) == 3 and random.random() < 0.3
    flavours: tuple[s.Flavour, ...] = (s.Flavour(accelerator="npu" if npu else "gpu"),)
    if len(made.nodes) == 3 and random.random() < 0.2:
        other = s.Flavour(accelerator="gpu" if npu else "npu", after_wait_s=random.choice((0, 15)))
        flavours = (*flavours, other)
    gpus = min(len(made.nodes), 2)
    widest = 1 if npu or len(flavours) > 1 else gpus
    chance = random.random()
    group = s.ReplicaGroup(slots=random.choice((1, 2, 4)))
    if chance < 0.3:
        group = s.ReplicaGroup(count=random.randint(1, widest), slots=random.choice((2, 4)))
    elif chance < 0.45:
        group = s.ReplicaGroup(share_milli=random.choice((250, 500, 600)))
    elif chance < 0.6:
        group = s.ReplicaGroup(
            slots=random.choice((1, 2)), host_cpu_milli=random.choice((3000, 5000))
        )
    checkpoints = random.choice((0, 0, 3))
    made.work[name] = Work(
        random.choice((2_000, 5_000, 10_000, 20_000)),
        failures=random.choice((0, 0, 0, 1, 2)),
    )
    return c.SubmitJob(
        job=name,
        queue=f"{random.choice(LEAVES)}-q",
        tier=random.choice(tuple(s.Tier)),
        priority=random.choice((0, 0, 5)),
        groups=(group,),
        flavours=flavours,
        runtime=s.Runtime(
            grace_s=random.choice((0, 2, 30)),
            checkpoint_interval_s=checkpoints,
            checkpoint_write_s=1 if checkpoints else 0,
            restore_s=random.choice((0, 1)),
            max_s=random.choice((None, None, None, 15)),
            estimate_s=random.choice((None, 5, 20)),
        ),
        preemptible=random.random() < 0.8,
        max_restarts=random.choice((0, 1, 2)),
    )
