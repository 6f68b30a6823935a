"""`python -m tests.faults.trouble KIND FOLDER`: two deciders under load, and one real trouble.

Run it in a network and a mount namespace of its own (`unshare -rnm`): it takes the network
down and fills a disk. It prints what it found as JSON.
"""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from aiokafka import TopicPartition

from streams.kafka import KafkaLog
from streams.kafka_clients import Connected, make_consumer, read_to_end
from streams.replay import verify
from streams.topics import topic
from tests.faults.pair import CELL, Pair

DISK_MIB: Final = 400
CUT_S: Final = 25
"""Longer than any time-out of ours and of the group."""
WITHIN_S: Final = 120
QUIET_S: Final = 10


def _network(state: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


async def cut(pair: Pair) -> None:
    """Nobody reaches anybody, and then everybody again."""
    _network("down")
    await asyncio.sleep(CUT_S)
    _network("up")


async def loss(pair: Pair) -> None:
    """A quarter of the time all packets are lost, for half a minute."""
    for _ in range(20):
        _network("down")
        await asyncio.sleep(0.4)
        _network("up")
        await asyncio.sleep(1.2)


async def full_disk(pair: Pair) -> None:
    """Broker and deciders have no room for anything, and then they have again."""
    ballast = pair.folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    await asyncio.sleep(CUT_S)
    ballast.unlink()
    await asyncio.to_thread(pair.kafka.start)  # a broker without a disk ends


async def stopped_broker(pair: Pair) -> None:
    """SIGSTOP of the broker: connections stay open and nothing answers."""
    pair.kafka.pause()
    await asyncio.sleep(CUT_S)
    pair.kafka.resume()


async def restarted_broker(pair: Pair) -> None:
    pair.kafka.stop()
    await asyncio.to_thread(pair.kafka.start)


async def both_stopped(pair: Pair) -> None:
    """SIGSTOP of both deciders for longer than their session: each wakes as one that was away."""
    for role in pair.deciders.values():
        await role.pause()
    await asyncio.sleep(CUT_S)
    for role in pair.deciders.values():
        await role.resume()


TROUBLES: Final[dict[str, Callable[[Pair], Awaitable[None]]]] = {
    made.__name__: made
    for made in (cut, loss, full_disk, stopped_broker, restarted_broker, both_stopped)
}


async def run(pair: Pair, kind: str) -> dict[str, Any]:
    async with pair.running():
        await pair.ready()
        rounds = len(pair.watch.believed)
        await TROUBLES[kind](pair)
        over_s, begin = time.time(), time.monotonic()
        async with asyncio.timeout(WITHIN_S):
            await pair.watch.until_newer("decider", over_s)
        recovered_s = time.monotonic() - begin
        await asyncio.sleep(QUIET_S)
        pair.load_ends()
        left = -1
        while (now := len(pair.acknowledged - pair.decided().keys())) not in (0, left):
            left = now
            await asyncio.sleep(QUIET_S)
        lost = await _traced(pair, pair.acknowledged - pair.decided().keys())
    decided = pair.decided()
    async with KafkaLog(pair.kafka.bootstrap, CELL) as log:
        async for verdict in verify(log, pair.ring, cell_name=CELL):
            proven = verdict
    return {
        "trouble": kind,
        "acknowledged": len(pair.acknowledged),
        "lost": len(pair.acknowledged - decided.keys()),
        "lost_seen_in": lost,
        "doubled": sum(n > 1 for n in decided.values()),
        "rounds_before": rounds,
        "rounds": len(pair.watch.believed),
        "proven": proven.intact,
        "recovered_s": round(recovered_s, 1),
    }


async def _traced(pair: Pair, ids: set[str]) -> dict[str, list[str]]:
    """For each id, the topics that hold it and where."""
    found: dict[str, list[str]] = {id_: [] for id_ in ids}
    for kind in ("cmd", "accepted", "dead"):
        consumer = make_consumer(pair.kafka.bootstrap)
        async with Connected(consumer):
            for number in range(4 if kind == "cmd" else 1):
                partition = TopicPartition(topic(kind, CELL), number)
                async for record in read_to_end(consumer, partition, 0):
                    for id_ in ids:
                        if f'"{id_}"'.encode() in record.value:
                            found[id_].append(f"{kind}-{number}:{record.offset}")
    return found


def main(kind: str, folder: Path) -> None:
    _network("up")
    size = f"size={DISK_MIB}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(folder)], check=True)
    pair = Pair(folder)
    with pair.kafka:
        print(json.dumps(asyncio.run(run(pair, kind))))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
