"""A ring of three Cassandra nodes loses one: the read model goes on, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from domain.ledger import unseal
from infra.cassandra import LocalCassandra
from projections.cassandra_store import CassandraStore
from projections.projector import Projector
from streams import workload
from streams.keys import FileSigner
from streams.simulate import Simulation
from tests.faults.tables import all_rows

CELL = "local"
START_MS = 1_735_689_600_000
RECORDS = 240
THREE = "{'class': 'SimpleStrategy', 'replication_factor': 3}"


def _records(folder: Path) -> list[bytes]:
    made: list[bytes] = []
    signer = FileSigner(folder / "cell.pem")
    scenario = workload.day(1, START_MS, 4000)
    simulation = Simulation(CELL, scenario, signer, made.append, origin_ms=START_MS)
    for _ in simulation.run(START_MS + 24 * 3_600_000):
        if len(made) >= RECORDS:
            break
    return made[:RECORDS]


@pytest.mark.servers
@pytest.mark.slow
@pytest.mark.xdist_group("servers")  # the other worker has more time
def test_a_node_of_three_is_killed_and_comes_back(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    records = _records(tmp_path)
    folder = tmp_path_factory.mktemp("ring")
    ring = LocalCassandra(folder, nodes=3, heap_mib=512)

    async def project(keyspace: str, kill: bool) -> None:
        store = await CassandraStore.connect(
            ring.contact_points, ring.port, keyspace, replication=THREE
        )
        projector = Projector(CELL, store, None)
        await projector.position()
        for position, record in enumerate(records):
            if kill and position == RECORDS // 3:
                ring.nodes[1].kill()
            if kill and position == RECORDS * 2 // 3:
                await asyncio.to_thread(ring.start)
                assert all(node.alive for node in ring.nodes)
            await projector.on_record(position, record)
        assert (await store.applied(CELL)).round == unseal(records[-1], None)[1].round
        await store.close()

    with ring:
        asyncio.run(project("lived", kill=True))
        ring.nodes[2].kill()  # what was written meanwhile is on the two that are left
        asyncio.run(project("fresh", kill=False))
        contact = (ring.contact_points[:2], ring.port)
        lived, fresh = all_rows(*contact, "lived"), all_rows(*contact, "fresh")
    shutil.rmtree(folder)
    assert lived == fresh
    assert sum(map(len, lived.values())) > RECORDS
