"""Several processes prove what one proves, and leave to it what does not hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from domain.ledger import Head, unseal
from streams import parallel_replay, workload
from streams.keys import FileSigner, KeyRing
from streams.parallel_replay import verify_in_parallel
from streams.replay import Verdict, verify
from streams.scenario import EPOCH_MS
from streams.simulate import Simulation


class Records:
    """A log in memory."""

    def __init__(self, records: list[bytes]) -> None:
        self._records = records

    async def read(self, position: int) -> AsyncIterator[tuple[int, bytes]]:
        for found in enumerate(self._records[position:], position):
            yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[bytes], KeyRing]:
    signer = FileSigner(tmp_path_factory.mktemp("key") / "cell.pem")
    records: list[bytes] = []
    simulation = Simulation("c", workload.day(3, EPOCH_MS, 200), signer, records.append)
    for _ in simulation.run(EPOCH_MS + 6 * 3_600_000):
        pass
    return records, KeyRing([signer.public])


async def several(records: list[bytes], ring: KeyRing, expected: Head | None) -> Verdict | None:
    steps = verify_in_parallel(Records(records), ring, "c", expected, 2)
    return [verdict async for verdict in steps][-1]


async def one(records: list[bytes], ring: KeyRing) -> Verdict:
    async for verdict in verify(Records(records), ring, cell_name="c"):
        last = verdict
    return last


def test_the_verdict_is_that_of_one_process(
    made: tuple[list[bytes], KeyRing], monkeypatch: pytest.MonkeyPatch
) -> None:
    records, ring = made
    monkeypatch.setattr(parallel_replay, "RANGE_FACTS", 400)
    again = [*records[:50], records[20], *records[50:]]  # a retry of a record is a stray
    head = unseal(records[-1], None)[1]
    verdict = asyncio.run(several(again, ring, head))
    assert verdict == asyncio.run(one(again, ring))
    assert verdict is not None
    assert (verdict.strays, verdict.rounds) == (1, len(records))


def test_what_does_not_hold_is_noticed_wherever_it_is(
    made: tuple[list[bytes], KeyRing], monkeypatch: pytest.MonkeyPatch
) -> None:
    records, ring = made
    monkeypatch.setattr(parallel_replay, "RANGE_FACTS", 800)
    head = unseal(records[-1], None)[1]
    last = len(records) - 1
    sig = records[30].replace(b'"sig":"', b'"sig":"0', 1)
    for wrong, expected in (
        ([*records[:30], sig, *records[31:]], head),
        ([*records[:100], *records[101:]], head),
        (records[:last], head),
        (records, Head(last, "0" * 64)),
        ([*records[:9], records[10], records[9], *records[11:]], head),
    ):
        assert asyncio.run(several(wrong, ring, expected)) is None
    stranger = KeyRing([])
    assert asyncio.run(several(records, stranger, head)) is None
