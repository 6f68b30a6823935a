"""`aquifer rent` beside a worker on Kafka: it is killed, and what waits for room still runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from aquifer.clocks import SystemClock
from aquifer.folder import Folder
from aquifer.settings import Settings
from aquifer.trust import signer_of, verifier_of
from domain.commands import Command, RegisterNode, SetQuota, SubmitJob
from domain.ledger import Round
from domain.specs import FabricPath, Flavour, Queue, Quota, ReplicaGroup, Runtime
from infra.kafka import LocalKafka
from streams.envelope import structured
from streams.kafka import KafkaCommandSink, KafkaLog
from streams.reader import LedgerReader
from streams.topics import create_topics
from tests.faults.supervised import Supervised

PATH = FabricPath(region="own", cluster="own", block="b", rack="r")
WITHIN_S = 300
TABLE = {
    "rules": {"patience_s": 1},
    "providers": [
        {
            "provider": "cloud",
            "offers": [
                {
                    "offer": "spot",
                    "accelerator": "h100",
                    "slots": 8,
                    "path": {"region": "cloud", "cluster": "cloud", "block": "b", "rack": "r"},
                    "price_milli": 900,
                    "most": 2,
                    "lead_s": 2,
                    "term_s": 600,
                }
            ],
        }
    ],
}


def job(name: str, seconds: int) -> SubmitJob:
    return SubmitJob(
        job=name,
        queue="batch",
        groups=(ReplicaGroup(slots=8),),
        flavours=(Flavour(accelerator="h100"),),
        runtime=Runtime(estimate_s=seconds),
        max_restarts=5,
    )


@pytest.mark.servers
@pytest.mark.slow
def test_who_rents_is_killed_and_what_waits_for_room_still_runs(
    kafka: LocalKafka, fresh_name: str, tmp_path: Path
) -> None:
    nodes, table = tmp_path / "nodes.jsonl", tmp_path / "providers.json"
    own = RegisterNode(node="own-0", accelerator="h100", slots=8, path=PATH)
    nodes.write_text(own.model_dump_json())
    table.write_text(json.dumps(TABLE))
    settings = Settings(cell=fresh_name, state_dir=tmp_path / "state", kafka=kafka.bootstrap)
    signer_of(settings, Folder(settings.state_dir))
    environment = {
        "AQUIFER_CELL": fresh_name,
        "AQUIFER_KAFKA": kafka.bootstrap,
        "AQUIFER_STATE_DIR": str(settings.state_dir),
    }
    words = {
        "worker": ["worker", "--role=intake", "--role=decider", "--role=dispatch"],
        "agents": ["agents", "--nodes", str(nodes)],
        "rent": ["rent", str(table), "--every-s", "1"],
    }
    roles = {n: Supervised(w, environment, tmp_path / f"{n}.log") for n, w in words.items()}

    async def rounds() -> list[Round]:
        ring = verifier_of(settings, Folder(settings.state_dir))
        async with KafkaLog(kafka.bootstrap, fresh_name) as log:
            return [b.round async for b in LedgerReader(log, fresh_name, ring).read()]

    async def seen(what: str) -> None:
        """Wait for a fact that is written so."""
        async with asyncio.timeout(WITHIN_S):
            while what not in repr([r.facts for r in await rounds()]):  # noqa: ASYNC110
                await asyncio.sleep(0.5)

    async def go() -> None:
        await create_topics(kafka.bootstrap, fresh_name)
        quota = Quota(accelerator="h100", nominal=64)
        first: list[Command] = [
            SetQuota(account="a", quotas=(quota,), queues=(Queue(queue="batch"),)),
            job("long", 600),
        ]
        clock = SystemClock()
        async with KafkaCommandSink(kafka.bootstrap, fresh_name) as sink:
            for number, command in enumerate([*first, job("waits", 12)]):
                message = structured(command, source="test", id=str(number), time_ms=clock.now_ms())
                await sink.send(message)
            for role in roles.values():
                role.start()
            await seen("AttemptStarted(job='waits'")
            await roles["rent"].kill()  # the simulated provider dies with it, and so do its nodes
            await seen("NodeRemoved(node='cloud-spot-1'")
            await seen("JobFinished(job='waits'")

    async def all_of_it() -> None:
        try:
            await go()
        except TimeoutError:
            tails = "\n".join(role.tail() for role in roles.values())
            raise AssertionError(f"it did not happen; the logs end:\n{tails}") from None
        finally:
            for role in roles.values():
                await role.stop()

    asyncio.run(all_of_it())
