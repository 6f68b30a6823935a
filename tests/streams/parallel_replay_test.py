"""Several processes prove what one proves, and leave to it what does not hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domain.cell import Cell
from domain.ledger import Head, Round, unseal
from streams import workload
from streams.keys import FileSigner, KeyRing
from streams.parallel_replay import verify_in_parallel
from streams.replay import Verdict, verify
from streams.scenario import EPOCH_MS
from streams.simulate import Simulation
from streams.snapshots import FileSnapshots


class Records:
    """A log in memory."""

    def __init__(self, records: list[bytes]) -> None:
        self._records = records

    async def read(self, position: int) -> AsyncIterator[tuple[int, bytes]]:
        for found in enumerate(self._records[position:], position):
            yield found


Made = tuple[list[bytes], KeyRing, FileSnapshots]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A ledger with a snapshot at each twentieth round."""
    signer = FileSigner(tmp_path_factory.mktemp("key") / "cell.pem")
    snapshots = FileSnapshots(tmp_path_factory.mktemp("snapshots"))
    records: list[bytes] = []

    def save(cell: Cell, round: Round) -> None:
        if cell.head.round % 20 == 0:
            snapshots.save(cell.head.round, len(records) - 1, cell.snapshot())

    day = workload.day(3, EPOCH_MS, 200)
    simulation = Simulation("c", day, signer, records.append, then=save)
    for _ in simulation.run(EPOCH_MS + 6 * 3_600_000):
        pass
    assert len(snapshots.kept()) > 4
    return records, KeyRing([signer.public]), snapshots


async def several(
    records: list[bytes], made: Made, expected: Head | None, ring: KeyRing | None = None
) -> Verdict | None:
    steps = verify_in_parallel(Records(records), made[2], ring or made[1], "c", expected, 2)
    return [verdict async for verdict in steps][-1]


async def one(records: list[bytes], ring: KeyRing) -> Verdict:
    async for verdict in verify(Records(records), ring, cell_name="c"):
        last = verdict
    return last


def test_the_verdict_is_that_of_one_process(made: Made) -> None:
    records, ring, _ = made
    again = [*records, records[20]]  # a retry of a record is a stray
    head = unseal(records[-1], None)[1]
    verdict = asyncio.run(several(again, made, head))
    assert verdict == asyncio.run(one(again, ring))
    assert verdict is not None
    assert (verdict.strays, verdict.rounds) == (1, len(records))


@pytest.mark.slow
def test_what_does_not_hold_is_noticed_wherever_it_is(made: Made) -> None:
    records = made[0]
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
        assert asyncio.run(several(wrong, made, expected)) is None
    assert asyncio.run(several(records, made, head, KeyRing([]))) is None


def test_a_snapshot_is_no_proof_of_what_came_before_it(made: Made, tmp_path: Path) -> None:
    """Of another history of the same length, whole in itself: the ranges do not meet."""
    records, ring, snapshots = made
    kept = FileSnapshots(tmp_path)
    round, position = snapshots.kept()[2]
    found = snapshots.latest(round)
    assert found is not None
    forged = Cell.restore(found[2])
    forged.next_job += 1
    kept.save(round, position, forged.snapshot())
    assert asyncio.run(several(records, (records, ring, kept), None)) is None
    (tmp_path / next(tmp_path.iterdir()).name).write_bytes(b"damaged")
    assert asyncio.run(several(records, (records, ring, kept), None)) is not None
