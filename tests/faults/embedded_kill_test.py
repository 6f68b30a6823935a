"""kill -9 of an embedded decider in the middle of work: each command has exactly one outcome."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.commands import CancelJob
from domain.ledger import Round
from domain.ports import Message
from streams.envelope import structured
from streams.replay import verify
from tests import hostile
from tests.faults.history import originals
from tests.streams.cells import NAME, START_MS, Site, submit, world

COMMANDS = 600
KILLS = 12

DECIDER = """
import asyncio, sys
from pathlib import Path
from tests.streams.cells import Site

site = Site(Path(sys.argv[1]))
# As fast as it goes, with snapshots in between: kills meet every part of the work.
decider = site.decider(max_commands=7, max_wait_ms=5, snapshot_facts=40,
                       told=lambda round, cell: print(round.header.round, flush=True))
asyncio.run(decider.run())
"""


def _messages(chance: random.Random) -> list[Message]:
    """Commands, each once to three times, with hostile ones between them."""
    commands = [*world(4), *(submit(f"j{n}", 1 + n % 3) for n in range(COMMANDS))]
    commands += [CancelJob(job=f"j{n}") for n in range(0, COMMANDS, 3)]
    sent: list[Message] = []
    for number, command in enumerate(commands):
        message = structured(command, source="test", id=str(number), time_ms=START_MS)
        sent += [message] * chance.choice((1, 1, 2, 3))
    bad = [message for _, message in hostile.messages(200)]
    for message in bad:
        sent.insert(chance.randrange(len(sent)), message)
    return sent


def _outcomes(rounds: list[Round]) -> Counter[str]:
    """By command id: how often it had an outcome that is not `same as before`."""
    found: Counter[str] = Counter()
    for round in rounds:
        found.update(c.id for c in originals(round))
    return found


def _run_once(path: Path, rounds: int) -> str:
    """A decider that is killed once it told of so many rounds; what it told last."""
    process = subprocess.Popen(
        [sys.executable, "-c", DECIDER, str(path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(rounds)]
    process.send_signal(signal.SIGKILL)
    told += [line for line in process.stdout if line.endswith("\n")]
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return told[-1]


@pytest.mark.slow
def test_every_command_has_one_outcome(tmp_path: Path) -> None:
    chance = random.Random(7)
    site = Site(tmp_path)
    sent = _messages(chance)

    async def feed(some: list[Message]) -> None:
        for message in some:
            await site.sink.send(message)

    part = len(sent) // (KILLS + 1)
    last_told = 0
    for number in range(KILLS):
        asyncio.run(feed(sent[number * part : (number + 1) * part]))
        # At least this much is left to decide, whatever the run before got done.
        last_told = int(_run_once(tmp_path, chance.randrange(1, 4)))
    asyncio.run(feed(sent[KILLS * part :]))

    async def finish() -> list[Round]:
        decider = site.decider()
        cell = await decider.recover()
        assert cell.head.round >= last_told, "what was told is in the log"
        while await decider.step() is not None:
            pass
        async for verdict in verify(site.log, site.ring, cell_name=NAME, expected=cell.head):
            proven = verdict
        assert proven.intact, proven.broken
        assert proven.head == decider.cell.head
        return await site.rounds()

    rounds = asyncio.run(finish())
    assert [r.header.round for r in rounds] == list(range(1, len(rounds) + 1))
    outcomes = _outcomes(rounds)
    good = {_id(m) for m in sent if m.key == b"test"}
    assert outcomes == Counter(good)
    assert sum(len(r.duplicates) for r in rounds) == sum(m.key == b"test" for m in sent) - len(good)

    async def letters() -> list[Any]:
        return [letter async for letter in site.dead_letters.read()]

    assert len(asyncio.run(letters())) == 200
    site.database.close()


def _id(message: Message) -> str:
    found: str = msgspec.json.decode(message.value)["id"]
    return found
