"""Deciders of two versions at once: the newer one goes on with the ledger, the older one stops."""

from __future__ import annotations

import asyncio

import pytest

from domain.ledger import ENGINE
from streams.kafka import KafkaLog
from streams.replay import verify
from tests.faults.pair import CELL, Pair, settled


@pytest.mark.servers
@pytest.mark.slow
def test_a_newer_version_takes_over_under_load(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("upgrade")
    pair = Pair(folder, {"a": "engine_before"})
    watch, old, new = pair.watch, pair.deciders["a"], pair.deciders["b"]

    async def go() -> None:
        async with asyncio.timeout(240), pair.running(["a"]):
            await watch.until_other("")
            new.start()
            await settled(pair.kafka.bootstrap, 2)
            rounds = len(watch.believed)
            while len(watch.believed) < rounds + 20:  # the newer one follows the older one
                await watch.more.wait()
                watch.more.clear()
            await old.kill()
            await watch.until_other("a")
            await old.started(3)  # it came back, and could not go on
            assert old.said("start the new version")
            await old.stop()
            pair.deciders["a"] = old.upgraded()
            pair.deciders["a"].start()
            await settled(pair.kafka.bootstrap, 2)
            await new.kill()
            await watch.until_other("b")
            pair.load_ends()
            while pair.acknowledged - pair.decided().keys():
                await watch.more.wait()
                watch.more.clear()
        engines = [one.round.header.engine for one in watch.believed]
        assert engines == sorted(engines)
        assert set(engines) == {ENGINE - 1, ENGINE}
        assert max(pair.decided().values()) == 1
        async with KafkaLog(pair.kafka.bootstrap, CELL) as log:
            async for verdict in verify(log, pair.ring, cell_name=CELL):
                proven = verdict
        assert proven.intact, proven.broken
        assert proven.folded == engines.count(ENGINE - 1)

    with pair.kafka:
        asyncio.run(go())
