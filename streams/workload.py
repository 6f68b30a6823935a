"""A generated day of work for a region: what `aquifer run` shows when no trace is given.

Everything follows from a seed. The distributions, all independent of each other but where said:

- Arrivals: a Poisson-like process whose rate follows the hour of the day (`HOURLY`).
- Team: by weight (`TEAMS`), each with its own share of the quota and preferred accelerators.
- Size: accelerators of a job from `SIZES`; more than a node's are gangs of full nodes.
- Execution time: log-normal, median 9 minutes, sigma 1.5, cut to 30 s .. 10 h; gangs take
  twice as long. What a job says of it is 1 to 2 times as much in steps of five minutes; a fifth
  says nothing.
- Tier: premium 12 %, standard 53 %, basic 35 %. A third of the h100 jobs of standard and basic tier
  take an a100 after ten minutes of waiting.
- Jobs longer than half an hour write checkpoints every half hour (10 s each, 60 s to restore).
- 3 % fail once and are restarted; 2 % are cancelled within an hour.
- Faults: `OUTAGES` nodes fall silent for 40 minutes each, at random moments.
- Fixed: two reservations with jobs of their own, the drain of a rack around noon, and a part of
  one team's quota that is another's in the afternoon.
"""

from __future__ import annotations

from random import Random
from typing import Final

from msgspec import Struct

from domain.commands import (
    CancelJob,
    CordonNode,
    DrainNode,
    RegisterNode,
    RequestReservation,
    SetQuota,
)
from domain.specs import FabricPath, Queue, Quota
from streams.agent import Work
from streams.scenario import (
    Arrival,
    Body,
    Outage,
    Scenario,
    arrival,
    checked_shape,
    in_order,
    submission,
)

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
MINUTE_MS: Final = 60_000
SLOTS: Final = 8
LEASE_S: Final = 900
OUTAGES: Final = 5
RACK_NODES: Final = 4
BLOCK_RACKS: Final = 2
ROOT: Final = "company"


class Park(Struct, frozen=True):
    """Equal nodes of one cluster."""

    cluster: str
    accelerator: str
    kind: str
    nodes: int
    memory_mib: int


class Team(Struct, frozen=True):
    name: str
    weight: int
    """Of its share in the arrivals."""
    quota: dict[str, int]
    """Nominal slots by accelerator type."""
    prefers: tuple[tuple[str, int], ...]
    """Accelerator types with weights."""


class Window(Struct, frozen=True):
    """A reservation of the day, and who uses it."""

    purpose: str
    team: str
    accelerator: str
    count: int
    """Whole nodes."""
    start_ms: int
    length_ms: int


PARKS: Final = (
    Park("north", "h100", "gpu", 24, 81_920),
    Park("south", "a100", "gpu", 16, 40_960),
    Park("west", "ascend910", "npu", 16, 65_536),
)
TEAMS: Final = (
    Team("research", 40, {"h100": 96, "a100": 32, "ascend910": 16}, (("h100", 7), ("a100", 3))),
    Team("search", 25, {"h100": 64, "a100": 32, "ascend910": 16}, (("h100", 5), ("a100", 5))),
    Team("speech", 20, {"h100": 16, "a100": 48, "ascend910": 32}, (("a100", 6), ("ascend910", 4))),
    Team("vision", 15, {"h100": 16, "a100": 16, "ascend910": 64}, (("ascend910", 8), ("h100", 2))),
)
WINDOWS: Final = (
    Window("evaluation", "search", "h100", 4, 10 * HOUR_MS, 2 * HOUR_MS),
    Window("launch", "vision", "ascend910", 4, 15 * HOUR_MS, HOUR_MS),
)
SIZES: Final = {1: 500, 2: 150, 4: 130, 8: 140, 16: 50, 32: 24, 64: 6}
TIERS: Final = {"premium": 12, "standard": 53, "basic": 35}
HOURLY: Final = (3, 2, 2, 2, 2, 3, 4, 6, 9, 11, 12, 11, 9, 10, 12, 12, 11, 9, 7, 6, 5, 5, 4, 3)


def nodes() -> list[RegisterNode]:
    made = []
    for park in PARKS:
        for i in range(park.nodes):
            rack = i // RACK_NODES
            path = FabricPath(
                region="home",
                cluster=park.cluster,
                block=f"{park.cluster}-b{rack // BLOCK_RACKS}",
                rack=f"{park.cluster}-r{rack}",
            )
            spec = RegisterNode(
                node=f"{park.cluster}-{i:02}",
                accelerator=park.accelerator,
                kind="npu" if park.kind == "npu" else "gpu",
                slots=SLOTS,
                memory_mib=park.memory_mib,
                host_cpu_milli=96_000,
                host_memory_mib=1_048_576,
                path=path,
                lease_s=LEASE_S,
            )
            made.append(spec)
    return made


def _quota(team: Team, more: dict[str, int] | None = None) -> SetQuota:
    quotas = tuple(
        Quota(accelerator=t, nominal=n + (more or {}).get(t, 0)) for t, n in team.quota.items()
    )
    queues = (
        Queue(queue=f"{team.name}-batch"),
        Queue(queue=f"{team.name}-urgent", weight=2000),
    )
    return SetQuota(account=team.name, parent=ROOT, quotas=quotas, queues=queues)


def quotas() -> list[SetQuota]:
    return [SetQuota(account=ROOT), *(_quota(team) for team in TEAMS)]


def day(seed: int, origin_ms: int, jobs: int = 4000, name: str = "d0") -> Scenario:
    """The scenario of a day that begins at `origin_ms`; its jobs are named after it."""
    random = Random(f"{seed}/{name}")
    arrivals: list[Arrival] = []
    work: dict[str, Work] = {}
    shapes: dict[str, Body] = {}
    for i, at_ms in enumerate(_moments(random, jobs)):
        job = f"{name}-{i:05}"
        made, needs = _job(random, shapes, job, at_ms)
        arrivals.append(made)
        work[job] = needs
        if random.random() < 0.02:
            cancel_ms = at_ms + random.randrange(HOUR_MS)
            arrivals.append(arrival(cancel_ms, CancelJob(job=job, reason="no longer needed")))
    arrivals += _reservations(name, origin_ms, work)
    arrivals += _operations()
    arrivals = [a for a in in_order(arrivals) if a.at_ms < DAY_MS]
    return Scenario(nodes(), quotas(), arrivals, work, _outages(random))


def _moments(random: Random, jobs: int) -> list[int]:
    """Times of arrival, in order."""
    hours = random.choices(range(24), HOURLY, k=jobs)
    return sorted(hour * HOUR_MS + 1000 * random.randrange(3600) for hour in hours)


def _job(random: Random, shapes: dict[str, Body], name: str, at_ms: int) -> tuple[Arrival, Work]:
    team = random.choices(TEAMS, [t.weight for t in TEAMS])[0]
    types, weights = zip(*team.prefers, strict=True)
    accelerator = random.choices(types, weights)[0]
    size = random.choices(list(SIZES), list(SIZES.values()))[0]
    tier = random.choices(list(TIERS), list(TIERS.values()))[0]
    run_s = min(36_000, max(30, int(random.lognormvariate(6.3, 1.5))))
    run_s *= 2 if size > SLOTS else 1
    patient = accelerator == "h100" and tier != "premium" and random.random() < 0.33
    estimate_s = -(-int(run_s * random.uniform(1, 2)) // 300) * 300
    said_s = estimate_s if random.random() < 0.8 else None
    fails = random.random() < 0.03
    shape: Body = {
        "queue": f"{team.name}-{'urgent' if tier == 'premium' else 'batch'}",
        "tier": tier,
        "groups": [{"count": -(-size // SLOTS), "slots": min(size, SLOTS)}],
        "flavours": [{"accelerator": accelerator}],
        "max_restarts": 2,
    }
    if patient:
        shape["flavours"].append({"accelerator": "a100", "after_wait_s": 600})
    if run_s > 1800:
        saves = {"checkpoint_interval_s": 1800, "checkpoint_write_s": 10, "restore_s": 60}
        shape["runtime"] = saves
    key = repr(shape)
    if key not in shapes:
        shapes[key] = checked_shape(shape)
    return submission(at_ms, shapes[key], name, said_s), Work(1000 * run_s, int(fails))


def _reservations(day: str, origin_ms: int, work: dict[str, Work]) -> list[Arrival]:
    """The windows are asked for an hour after midnight; their jobs come as they begin."""
    arrivals: list[Arrival] = []
    for window in WINDOWS:
        name = f"{day}-{window.purpose}"
        queue = f"{window.team}-urgent"
        asked = RequestReservation(
            reservation=name,
            account=window.team,
            accelerator=window.accelerator,
            count=window.count,
            slots=SLOTS,
            start_ms=origin_ms + window.start_ms,
            end_ms=origin_ms + window.start_ms + window.length_ms,
            queues=(queue,),
        )
        arrivals.append(arrival(HOUR_MS, asked))
        shape = checked_shape(
            {
                "queue": queue,
                "tier": "reserved",
                "groups": [{"count": window.count // 2, "slots": SLOTS}],
                "flavours": [{"accelerator": window.accelerator}],
                "reservation": name,
            }
        )
        for i in range(6):
            job = f"{name}-{i}"
            arrivals.append(submission(window.start_ms + (i - 2) * MINUTE_MS, shape, job))
            work[job] = Work(window.length_ms // 4)
    return arrivals


def _operations() -> list[Arrival]:
    """A rack is emptied over noon; some quota belongs to another team in the afternoon."""
    drained = [f"north-{i:02}" for i in range(2 * RACK_NODES, 3 * RACK_NODES)]
    return [
        *(arrival(12 * HOUR_MS, DrainNode(node=n, reason="maintenance")) for n in drained),
        *(arrival(14 * HOUR_MS, CordonNode(node=n, cordoned=False)) for n in drained),
        arrival(15 * HOUR_MS, _quota(TEAMS[0], {"h100": -24})),
        arrival(15 * HOUR_MS, _quota(TEAMS[1], {"h100": 24})),
        *(arrival(19 * HOUR_MS, _quota(team)) for team in TEAMS[:2]),
    ]


def _outages(random: Random) -> list[Outage]:
    names = random.sample([n.node for n in nodes()], OUTAGES)
    starts = [random.randrange(DAY_MS - HOUR_MS) // 1000 * 1000 for _ in names]
    return [Outage(s, s + 40 * MINUTE_MS, n) for s, n in zip(starts, names, strict=True)]
