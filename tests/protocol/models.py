"""The pools that are checked."""

from __future__ import annotations

from domain.cell import Cell
from domain.commands import Command, SetQuota
from domain.pool.commands import GrantRights, SetPeers
from domain.pool.specs import Amount, HandoffRules, PeerSpec
from domain.specs import Locality, Queue, Quota, Runtime
from tests.domain.given import Given, job, node
from tests.protocol import world
from tests.protocol.explore import Model, Rebirth
from tests.protocol.world import H100, START_MS, Regions

RULES = HandoffRules(min_benefit_s=0, return_s=0, rest_s=0, lost_s=0)
UNITS = 4000
VOTED = RULES.model_copy(update={"lost_s": world.TICK_MS // 1000})


def submitted(name: str, hops: int, failover: bool) -> Command:
    where = Locality(max_hops=hops, on_region_loss="failover" if failover else "wait")
    return job(name, locality=where, runtime=Runtime(grace_s=1))


def cell(
    name: str,
    all_: tuple[str, ...],
    slots: int,
    jobs: tuple[str, ...],
    hops: int,
    rights: int = -1,
    epoch: int = 1,
    rules: HandoffRules = RULES,
    failover: bool = False,
) -> Cell:
    """A region of one node, or none, and its jobs, all at one moment."""
    given = Given(name, START_MS)
    peers = tuple(PeerSpec(region=p, actor=p) for p in all_ if p != name)
    quota = Quota(accelerator=H100, nominal=9)
    if rights >= 0:
        quota = Quota(accelerator=H100, nominal=0, rights=True)
    given.round(
        SetPeers(region=name, epoch=epoch, peers=peers, rules=rules),
        SetQuota(account="a", quotas=(quota,), queues=(Queue(queue="q"),)),
    )
    if rights > 0:
        amount = Amount(account="a", accelerator=H100, milli=rights)
        given.round(GrantRights(grant="all", amount=amount))
    if slots:
        given.round(node(f"{name}-0", slots=slots))
    for submission in jobs:
        given.round(submitted(submission, hops, failover))
    return given.cell


def two_by_one(ticks: int = 2) -> Model:
    """Two regions, one job: it cannot run at home, and its new home may be cordoned."""
    names = ("e", "w")
    cells = [cell("e", names, 0, ("j",), 2), cell("w", names, 1, (), 2)]
    back = (world.cordon("w", False),)
    jobs = frozenset({("e", "j", 1)})
    return Model(Regions(cells, ticks), jobs, operator=(world.cordon("w", True),), always=back)


def two_by_two(ticks: int = 1) -> Model:
    """Two regions, two jobs of one region: one of them runs and may be preempted."""
    names = ("e", "w")
    cells = [cell("e", names, 1, ("i", "j"), 2), cell("w", names, 1, (), 2)]
    jobs = frozenset({("e", "i", 1), ("e", "j", 1)})
    operator = (world.preempt("e", "i"), world.cordon("w", True))
    back = (world.cordon("w", False),)
    return Model(Regions(cells, ticks), jobs, operator=operator, always=back)


def three_by_one(ticks: int = 1, hops: int = 3) -> Model:
    """Three regions, one job, up to three hops: where it comes to, it may not be able to run."""
    names = ("e", "n", "w")
    cells = [
        cell("e", names, 0, ("j",), hops),
        cell("n", names, 1, (), hops),
        cell("w", names, 1, (), hops),
    ]
    operator = (world.cordon("n", True),)
    back = (world.cordon("n", False),)
    jobs = frozenset({("e", "j", 1)})
    return Model(Regions(cells, ticks), jobs, operator=operator, always=back)


def rights_that_ride(ticks: int = 1) -> Model:
    """The job's rights are where it cannot run: they come with it."""
    names = ("e", "w")
    cells = [cell("e", names, 0, ("j",), 2, UNITS), cell("w", names, 1, (), 2, 0)]
    return Model(Regions(cells, ticks), frozenset({("e", "j", 1)}), limit=UNITS)


def rights_on_request(ticks: int = 1) -> Model:
    """Jobs that stay at home, of one account whose rights are all in one region at first."""
    names = ("e", "w")
    cells = [cell("e", names, 1, ("i",), 0, UNITS), cell("w", names, 1, ("j",), 0, 0)]
    jobs = frozenset({("e", "i", 1), ("w", "j", 1)})
    return Model(Regions(cells, ticks, surplus=UNITS), jobs, limit=UNITS)


def reborn(ticks: int = 1) -> Model:
    """The home region loses its ledger, and the same name is submitted to its new one."""
    names = ("e", "w")
    cells = [cell("e", names, 0, ("j",), 1), cell("w", names, 1, (), 1)]
    again = cell("e", names, 0, ("j",), 1, epoch=2)
    regions = Regions(cells, ticks)
    rebirth = Rebirth(0, regions.enter(again), frozenset({("e", "j", 2)}))
    return Model(regions, frozenset({("e", "j", 1)}), rebirth=rebirth)


def guarded(slots: int, *operator: world.Heard) -> Model:
    """Two regions, one job of the east that may fail over; an operator holds one for lost."""
    names = ("e", "w")
    cells = [
        cell("e", names, slots, ("j",), 1, failover=True),
        cell("w", names, 1, (), 1, failover=True),
    ]
    return Model(Regions(cells, 1), frozenset({("e", "j", 1)}), operator=operator, failover=True)


def owner_lost() -> Model:
    return guarded(1, world.fence("w", "e"), world.preempt("e", "j"))


def guardian_lost() -> Model:
    return guarded(1, world.fence("e", "w"), world.preempt("e", "j"))


def moved_and_lost() -> Model:
    """The job waits in the east, and may be handed over to its guardian, or adopted by it."""
    return guarded(0, world.fence("w", "e"))


def moved_from_its_guardian() -> Model:
    """Of two peers the one that is not the guardian has room; the guardian adopts the job."""
    names = ("e", "n", "w")
    cells = [cell(name, names, 0, (), 2, failover=True) for name in names[1:]]
    home = cell("e", names, 0, ("j",), 2, failover=True)
    regions = Regions([home, *cells], 1)
    by = Cell.restore(regions.locals[regions.start[0]].snapshot).pool.guards.of["j"].by
    cells = [cell(n, names, int(n != by), (), 2, failover=True) for n in names[1:]]
    operator = (world.fence(by, "e"),)
    jobs = frozenset({("e", "j", 1)})
    return Model(Regions([home, *cells], 1), jobs, operator=operator, failover=True)


def voted() -> Model:
    """Three regions hold each other for lost, by votes, whoever hears of whom."""
    names = ("e", "n", "w")
    jobs = {"e": ("j",)}
    cells = [cell(n, names, 1, jobs.get(n, ()), 0, rules=VOTED, failover=True) for n in names]
    return Model(Regions(cells, 1), frozenset({("e", "j", 1)}), failover=True)
