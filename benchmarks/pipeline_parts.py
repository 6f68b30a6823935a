"""What `benchmarks pipeline` starts as processes of its own, and where a command's time goes."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from benchmarks.keys import Ed25519
from domain.cell import Cell
from domain.commands import Command
from domain.decide import decide
from domain.ledger import ENGINE, Accepted, Header, seal
from domain.ports import Message
from streams.envelope import structured
from streams.faust_app import ROLES, Worker, run_worker
from streams.identity import Identity
from streams.intake import accept
from streams.kafka import decode_accepted, encode_accepted
from streams.kafka_clients import Connected, make_consumer, make_producer, send_all
from streams.keys import FileSigner, KeyRing
from streams.remembered import RememberedHead
from streams.snapshots import FileSnapshots
from streams.topics import topic

BATCH = 250
BARE = "bare"


class WallClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


async def bare(bootstrap: str) -> NoReturn:
    """The ceiling: take messages, change each a little, send it on, commit now and then."""
    consumer, producer = make_consumer(bootstrap, group="bare"), make_producer(bootstrap)
    consumer.subscribe([topic("cmd", BARE)])
    async with Connected(consumer, producer):
        commit = asyncio.create_task(asyncio.sleep(0))
        committed_at = time.monotonic()
        while True:
            batch = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
            records = [(r.key, r.value[::-1], ()) for part in batch.values() for r in part]
            await send_all(producer, topic("accepted", BARE), records)
            if commit.done() and time.monotonic() - committed_at > 1:
                commit = asyncio.create_task(consumer.commit())
                committed_at = time.monotonic()


async def worker(bootstrap: str, cell: str, folder: Path, roles: str) -> None:
    signer = FileSigner(folder / "key.pem")
    await run_worker(
        Worker(
            bootstrap=bootstrap,
            cell=cell,
            roles=tuple(role for role in ROLES if role in roles.split(",")),
            folder=folder / roles.replace(",", "-"),
            clock=WallClock(),
            verifier=KeyRing([signer.public]),
            snapshots=FileSnapshots(folder / "snapshots"),
            identity=Identity(),
            signer=signer,
            remembered=RememberedHead(folder / "head.json", every_s=1),
        )
    )


def parts(
    messages: Sequence[Message], capacity: Callable[[int], list[Command]]
) -> dict[str, dict[str, float]]:
    """Microseconds a command of each step without Kafka, by commands in a round."""
    return {f"rounds_of_{size}": _parts(messages, capacity, size) for size in (5, 50, 500)}


STEPS = ("accept", "encode", "decode", "decide", "seal")


def _parts(
    messages: Sequence[Message], capacity: Callable[[int], list[Command]], size: int
) -> dict[str, float]:
    identity, signer, cell = Identity(), Ed25519(), Cell("parts")
    spent = dict.fromkeys(STEPS, 0)

    def one_round(taken: Sequence[Message], offset: int) -> None:
        marks = [time.perf_counter_ns()]
        results = [accept(m, 0, 0, identity, 0) for m in taken]
        marks.append(time.perf_counter_ns())
        values = [encode_accepted(r) for r in results if isinstance(r, Accepted)]
        marks.append(time.perf_counter_ns())
        commands = [decode_accepted(v, 0, offset + n, 0) for n, v in enumerate(values)]
        marks.append(time.perf_counter_ns())
        header = Header(cell.head.round + 1, max(cell.now_ms, 10), 100_000, ENGINE)
        made = decide(cell, header, commands)
        marks.append(time.perf_counter_ns())
        _, head = seal(made, signer)
        marks.append(time.perf_counter_ns())
        assert len(commands) == len(taken), "every message is good"
        cell.believe(head, made.inputs)
        for step, begin, end in zip(STEPS, marks, marks[1:], strict=False):
            spent[step] += end - begin

    ready = [
        structured(c, source="set-up", id=f"c{n}", time_ms=1)
        for n, c in enumerate(capacity(len(messages)))
    ]
    one_round(ready, 0)
    spent.update(dict.fromkeys(STEPS, 0))
    for start in range(0, len(messages), size):
        one_round(messages[start : start + size], len(ready) + start)
    return {step: round(ns / 1000 / len(messages), 1) for step, ns in spent.items()}


def _child(arguments: Sequence[str]) -> None:
    match arguments:
        case ["bare", bootstrap]:
            asyncio.run(bare(bootstrap))
        case [roles, bootstrap, cell, folder]:
            asyncio.run(worker(bootstrap, cell, Path(folder), roles))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    _child(sys.argv[1:])
