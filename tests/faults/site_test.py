"""A whole cell under load: each role and server is killed once, and planted bugs are found."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from tests.faults.site import FAULTS, WITHIN_S, Site

LOOK_S = 5

pytestmark = [pytest.mark.servers, pytest.mark.slow]


def test_each_role_and_server_is_killed_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is lost, doubled or stale, and the read model is that of a fresh projection."""
    site = Site(tmp_path_factory.mktemp("site"))

    async def go() -> None:
        async with site.running():
            random = Random(1)
            await site.both_stand()
            for what in FAULTS:
                await site.fault(what, random)

    with site.servers():
        asyncio.run(go())
    assert site.faults_found == []
    assert {op.kind for op in site.history if op.result == "ok"} == {"write", "outcome", "read"}
    assert site.commands > len(site.sent) > 100


def test_a_planted_stale_read_and_a_planted_lost_write_are_found(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    planted = {"api-1": "stale_read", "intake": "lost_write"}
    site = Site(tmp_path_factory.mktemp("planted"), planted)

    async def go() -> None:
        async with site.running():
            await asyncio.sleep(20)
            for _ in range(WITHIN_S // LOOK_S):  # on a slow machine the first comes late
                found = await asyncio.to_thread(site.seen_by_clients)
                if any(fault.startswith("stale read") for fault in found):
                    break
                await asyncio.sleep(LOOK_S)

    with site.servers():
        asyncio.run(go())
    kinds = {fault.partition(":")[0] for fault in site.faults_found}
    assert {"stale read", "lost write"} <= kinds
