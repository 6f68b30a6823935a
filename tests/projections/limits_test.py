"""Token buckets: nobody gets more than the rate, whatever the pattern; Redis only shares them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infra.redis import LocalRedis
from projections.http import create_app
from projections.limits import CALLERS, Limits
from projections.services import Services
from projections.sqlite_store import SqliteStore
from projections.volatile import Volatile
from tests.projections.asking import Caller
from tests.projections.conftest import CELL

waits = st.lists(st.floats(0, 3), max_size=60)


class Hand:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


@example(rate=5, burst=1, waits=[1.0, 0.05])  # found: told 149 ms of 150
@given(rate=st.integers(1, 20), burst=st.integers(1, 20), waits=waits)
def test_at_most_the_burst_and_the_rate(rate: int, burst: int, waits: list[float]) -> None:
    async def go() -> None:
        hand = Hand()
        limits = Limits(rate, burst, clock=hand)
        taken: list[float] = []
        for wait in waits:
            hand.s += wait
            wait_ms = await limits.take("a")
            if wait_ms == 0:
                taken.append(hand.s)
            else:
                hand.s += wait_ms / 1000
                assert await limits.take("a") == 0, "who waits as told may go on"
                taken.append(hand.s)
        for i, begin in enumerate(taken):
            for j in range(i, len(taken)):
                assert j - i + 1 <= burst + rate * (taken[j] - begin) + 1e-6

    asyncio.run(go())


def test_callers_do_not_take_from_each_other() -> None:
    async def go() -> None:
        limits = Limits(1, 2, clock=Hand())
        assert [bool(await limits.take("a")) for _ in range(3)] == [False, False, True]
        assert [bool(await limits.take("b")) for _ in range(3)] == [False, False, True]

    asyncio.run(go())


def test_buckets_are_bounded() -> None:
    async def go() -> None:
        limits = Limits(1, 1, clock=Hand())
        for i in range(CALLERS + 10):
            await limits.take(str(i))
        assert len(limits._buckets) == CALLERS
        assert await limits.take(str(CALLERS + 9)) > 0, "those used last are kept"

    asyncio.run(go())


def test_too_many_requests_is_a_problem_that_says_when(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "rows.sqlite")
    app = create_app(Services(store, CELL, limits=Limits(1, 2, clock=Hand())))
    caller = Caller(app)
    assert [caller.get("/v1/summary").status_code for _ in range(3)] == [200, 200, 429]
    refused = caller.get("/v1/queues")
    assert refused.json()["code"] == "too_many_requests"
    assert refused.headers["retry-after"] == "1"
    assert caller.get("/livez").status_code == 200


@pytest.mark.servers
def test_processes_share_a_bucket_through_redis(redis_server: LocalRedis, fresh_name: str) -> None:
    async def go() -> None:
        shared = [Volatile(redis_server.url, 30) for _ in range(2)]
        both = [Limits(1, 10, one) for one in shared]
        begin = time.time()
        waits = [await both[i % 2].take(fresh_name) for i in range(40)]
        assert waits.count(0) <= 10 + (time.time() - begin) + 1
        assert waits.count(0) >= 10
        assert all(0 <= wait <= 1000 for wait in waits)
        for one in shared:
            await one.close()

    asyncio.run(go())


@pytest.mark.servers
def test_without_redis_each_process_counts_for_itself(tmp_path: Path) -> None:
    async def go() -> None:
        with LocalRedis(tmp_path) as server:
            shared = Volatile(server.url)
            limits = Limits(1, 3, shared, clock=Hand())
            assert await limits.take("a") == 0
        waits = [await limits.take("a") for _ in range(5)]
        assert [wait > 0 for wait in waits] == [False, False, False, True, True]
        await shared.close()

    asyncio.run(go())
