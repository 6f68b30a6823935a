"""`aquifer run --regions N --once`: regions in processes of their own that form one pool.

Each has its ledger, decider, agents and relay; they meet only in each other's way in, with signed
letters. Most of the work comes to the first. When all jobs have their outcome the processes are
stopped, and the ledgers are checked, each by itself and all together.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, structs, to_builtins

from aquifer.clocks import ScaledClock
from aquifer.folder import Folder, fresh
from aquifer.output import emit, fail, note, progress
from aquifer.settings import Settings
from aquifer.together import together, until_stopped
from aquifer.trust import signer_of, verifier_of
from domain.commands import Command, RegisterNode, SetQuota, SubmitJob
from domain.pool.commands import SetPeers
from domain.pool.specs import HandoffRules, PeerSpec
from domain.specs import FabricPath, Flavour, Queue, Quota, ReplicaGroup
from streams.agent import Work
from streams.dispatch import Start
from streams.fleet import Fleet
from streams.ownership import Ownership
from streams.peers import Pace, Relay
from streams.reader import LedgerReader
from streams.sqlite import Database, SqliteCommandSink, SqliteLog

if TYPE_CHECKING:
    from aquifer.embedded import Embedded

POOLS: Final = "pools"
"""Where the folders of pools are made, in the state directory."""
SPEED: Final = 60
ORIGIN_MS: Final = 1_735_689_600_000
SPAN_MS: Final = 900_000
"""All jobs come within this time."""
NODES: Final = 3
SLOTS: Final = 8
SOURCE: Final = "pool"
LOOK_S: Final = 0.2
PATIENCE_S: Final = 300
PACE: Final = Pace(0.1, 2.0)
RULES: Final = HandoffRules(offer_s=120, claim_s=300, rest_s=60, min_benefit_s=30)
"""Times as they pass at `SPEED`: a letter that takes 50 ms takes 3 s."""


class Plan(Struct, frozen=True):
    """What each process needs to know."""

    root: str
    regions: tuple[str, ...]
    seed: int
    jobs: int
    begun_ns: int

    def folder(self, region: str) -> Folder:
        return Folder(Path(self.root) / region)


def run_pool(
    settings: Settings, folder: Path | None, count: int, seed: int, jobs: int, as_json: bool
) -> None:
    """Run the pool to its end, and prove it."""
    root = folder if folder is not None else fresh(settings.state_dir / POOLS).root
    names = tuple(f"region-{i + 1}" for i in range(count))
    plan = Plan(str(root), names, seed, jobs, 0)
    _prepare(settings, plan)
    plan = structs.replace(plan, begun_ns=time.time_ns())
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_region, args=(settings, plan, n)) for n in names]
    for process in processes:
        process.start()
    try:
        asyncio.run(_until_done(settings, plan, processes))
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    _tell(settings, plan, as_json)


def _settings(settings: Settings, plan: Plan, region: str) -> Settings:
    folder = plan.folder(region)
    own = {"cell": region, "state_dir": folder.root, "actors": folder.root / "actors.json"}
    return settings.model_copy(update={**own, "signing_key": None, "keys": None})


def _prepare(settings: Settings, plan: Plan) -> None:
    """Each region has a key, and believes its own for all and its peers' for what peers say."""
    keys = {}
    for region in plan.regions:
        folder = plan.folder(region)
        signer = signer_of(_settings(settings, plan, region), folder)
        keys[region] = {signer.key_id: signer.public.hex()}
        Database(folder.ledger).close()
    for region in plan.regions:
        actors = [
            {
                "actor": name,
                "keys": keys[name],
                "roles": ["operator"] if name == region else ["peer"],
                "regions": [name],
            }
            for name in plan.regions
        ]
        path = _settings(settings, plan, region).actors
        assert path is not None, "it was set above"
        path.write_text(json.dumps({"actors": actors}))


# --- one region -----------------------------------------------------------------------------------


def _region(settings: Settings, plan: Plan, name: str) -> None:
    until_stopped(_live(_settings(settings, plan, name), plan, name))


async def _live(settings: Settings, plan: Plan, name: str) -> None:
    from aquifer.embedded import opened

    clock = ScaledClock(SPEED)
    folder = plan.folder(name)
    peers = {p: Database(plan.folder(p).ledger) for p in plan.regions if p != name}
    async with opened(settings, folder, clock) as ports:
        decider = ports.decider()
        await decider.recover()
        clock.start(ORIGIN_MS + SPEED * (time.time_ns() - plan.begun_ns) // 1_000_000)
        work = {job: needs for r in plan.regions for _, job, needs in _jobs(plan, r)}
        fleet = Fleet(lambda start: _work_of(work, start))
        fleet.add_nodes(_nodes(name), clock.now_ms())
        sinks = {peer: SqliteCommandSink(database) for peer, database in peers.items()}
        known = (ports.log, ports.verifier, ports.snapshots)
        relay = Relay(name, *known, sinks, ports.signer, clock, PACE)
        await together(
            decider.run(), ports.run_fleet(fleet, "f"), relay.run(), _feed(ports, clock, plan, name)
        )


def _work_of(work: dict[str, Work], start: Start) -> Work:
    return work[start.job.partition("@")[0]]


def _nodes(region: str) -> list[RegisterNode]:
    path = FabricPath(region=region, cluster=region, block="b", rack="r")
    return [
        RegisterNode(node=f"{region}-{i}", accelerator="h100", slots=SLOTS, path=path)
        for i in range(NODES)
    ]


def _jobs(plan: Plan, region: str) -> list[tuple[int, str, Work]]:
    """(moment, name, work) of what comes to the region: most comes to the first."""
    random = Random(f"{plan.seed}/{region}")
    others = len(plan.regions) - 1
    share = plan.jobs * 7 // 10 if region == plan.regions[0] else plan.jobs * 3 // 10 // others
    moments = sorted(random.randrange(SPAN_MS) for _ in range(share))
    return [
        (at_ms, f"{region}-job-{i}", Work(1000 * (30 + int(random.expovariate(1 / 120)))))
        for i, at_ms in enumerate(moments)
    ]


def _commands(plan: Plan, region: str) -> list[Command]:
    """What makes the region one: peers, and a queue that all regions know."""
    peers = tuple(PeerSpec(region=p, actor=p) for p in plan.regions if p != region)
    quota = Quota(accelerator="h100", nominal=NODES * SLOTS)
    return [
        SetPeers(region=region, peers=peers, rules=RULES),
        SetQuota(account="all", quotas=(quota,), queues=(Queue(queue="batch"),)),
    ]


async def _feed(ports: Embedded, clock: ScaledClock, plan: Plan, region: str) -> None:
    for i, command in enumerate(_commands(plan, region)):
        await ports.send(command, SOURCE, f"s{i}")
    random = Random(f"{plan.seed}/{region}/sizes")
    for at_ms, job, _ in _jobs(plan, region):
        await clock.reach(ORIGIN_MS + at_ms)
        size = random.choice((1, 1, 2, 4, 4, 8, 16))
        group = ReplicaGroup(count=-(-size // SLOTS), slots=min(size, SLOTS))
        flavours = (Flavour(accelerator="h100"),)
        submitted = SubmitJob(job=job, queue="batch", groups=(group,), flavours=flavours)
        await ports.send(submitted, SOURCE, job)
    await asyncio.Event().wait()


# --- all regions ----------------------------------------------------------------------------------


async def _until_done(settings: Settings, plan: Plan, processes: list[SpawnProcess]) -> None:
    """Follow the ledgers until every job has its outcome."""
    expected = sum(len(_jobs(plan, region)) for region in plan.regions)
    pool = Ownership()
    followed = []
    for region in plan.regions:
        folder = plan.folder(region)
        log = SqliteLog(Database(folder.ledger))
        ring = verifier_of(_settings(settings, plan, region), folder)
        followed.append((LedgerReader(log, region, ring), pool.ledger()))
    begun = time.monotonic()
    with progress("a pool of regions") as tell:
        while True:
            for reader, ledger in followed:
                async for believed in reader.read():
                    ledger.read([believed.round])
            done = sum(pool.verdict().outcomes.values())
            tell(done, expected)
            if done >= expected:
                return
            if time.monotonic() - begun > PATIENCE_S:
                fail(f"{done} of {expected} jobs had an outcome after {PATIENCE_S} s")
            if any(process.exitcode is not None for process in processes):
                fail("a region's process ended")
            await asyncio.sleep(LOOK_S)


def _tell(settings: Settings, plan: Plan, as_json: bool) -> None:
    from aquifer.audit import prove

    verdict = asyncio.run(check(settings, plan))
    proofs = {region: prove(plan.folder(region).root) for region in plan.regions}
    report: dict[str, Any] = to_builtins(verdict)
    report["regions"] = {
        region: {name: proof[name] for name in ("rounds", "decided_again", "broken")}
        for region, proof in proofs.items()
    }
    report["folder"] = plan.root
    emit(report, as_json)
    broken = [region for region, proof in proofs.items() if proof["broken"] is not None]
    if broken or verdict.faults:
        fail(f"the pool does not hold: {broken or verdict.faults}")
    note(
        f"proven: {len(proofs)} ledgers, and each of {verdict.jobs} jobs had one owner"
        f" at each moment and one outcome; {verdict.hand_offs} hand-offs"
    )


async def check(settings: Settings, plan: Plan) -> Any:
    """The verdict on whose every job was, from the ledgers alone."""
    pool = Ownership()
    for region in plan.regions:
        folder = plan.folder(region)
        database = Database(folder.ledger)
        ring = verifier_of(_settings(settings, plan, region), folder)
        ledger = pool.ledger()
        async for believed in LedgerReader(SqliteLog(database), region, ring).read():
            ledger.read([believed.round])
        database.close()
    return pool.verdict()
