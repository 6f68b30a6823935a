"""A second decider takes over from one that was killed or stopped, which can write nothing more."""

from __future__ import annotations

import asyncio

import pytest

from streams.kafka import KafkaLog
from streams.reader import LedgerReader
from streams.replay import verify
from tests.faults.pair import CELL, Pair


@pytest.mark.servers
@pytest.mark.slow
def test_a_standby_takes_over_and_the_old_decider_can_write_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    pair = Pair(tmp_path_factory.mktemp("pair"))

    async def go() -> None:
        async with pair.running():
            await pair.ready()
            for how in ("stop", "kill", "stop"):
                leader, rounds = pair.watch.leader, len(pair.watch.believed)
                takeover = await pair.fault(how)
                assert pair.watch.leader != leader
                assert len(pair.watch.believed) > rounds
                assert takeover.late_records == 0
        async with KafkaLog(pair.kafka.bootstrap, CELL) as log:
            async for verdict in verify(log, pair.ring, cell_name=CELL):
                proven = verdict
            heads = [found.head async for found in LedgerReader(log, CELL, pair.ring).read()]
        assert proven.intact, proven.broken
        assert proven.head == heads[-1]
        watched = [found.head for found in pair.watch.believed]
        assert watched == heads[: len(watched)]  # deciders end after the watch, with more rounds

    with pair.kafka:
        asyncio.run(go())
