"""What every profile's log, inbox, command sink and dead letters promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from domain.commands import CancelJob
from domain.ledger import Accepted
from domain.ports import DeadLetter, Message
from streams.envelope import binary, structured
from tests.contract.conftest import Ports, Profile

T = TypeVar("T")
WAIT_MS = 10_000
"""How long a test lets a message travel; it returns as soon as the message is there."""


async def all_of(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]


def cancel(number: int) -> Message:
    return structured(CancelJob(job=f"j{number}"), source="s", id=str(number), time_ms=1000)


async def take(ports: Ports, after: dict[str, int], amount: int) -> list[Accepted]:
    """So many commands, however many calls they take."""
    taken: list[Accepted] = []
    after = dict(after)
    while len(taken) < amount:
        more = await ports.inbox.take(after, amount - len(taken), WAIT_MS)
        assert more, f"{len(taken)} of {amount} commands came"
        assert len(more) <= amount - len(taken)
        taken += more
        after[str(more[-1].partition)] = more[-1].offset + 1
    return taken


async def letters(ports: Ports, amount: int) -> list[DeadLetter]:
    """The dead letters, once there are so many."""
    for _ in range(WAIT_MS // 100):
        found = await all_of(ports.dead_letters.read())
        if len(found) >= amount:
            return found
        await ports.inbox.take({}, 1000, 100)  # intake may happen on reading
        await asyncio.sleep(0.01)
    raise AssertionError(f"fewer than {amount} dead letters")


# --- the log ---


def test_an_empty_log(profile: Profile) -> None:
    async def go() -> None:
        async with profile() as ports:
            assert await all_of(ports.log.read(0)) == []
            assert await ports.log.end() == 0

    asyncio.run(go())


def test_records_are_kept_in_order_with_their_positions(profile: Profile) -> None:
    async def go() -> None:
        async with profile() as ports:
            records = [b"%d" % i * (i + 1) for i in range(300)]
            positions = [await ports.log.append(record) for record in records]
            assert positions == sorted(set(positions))
            expected = list(zip(positions, records, strict=True))
            assert await all_of(ports.log.read(0)) == expected
            for start in (0, 1, 150, 299):
                assert await all_of(ports.log.read(positions[start])) == expected[start:]
            assert await ports.log.end() > positions[-1]
            assert await all_of(ports.log.read(await ports.log.end())) == []

    asyncio.run(go())


def test_the_next_record_of_a_single_writer_gets_the_end(profile: Profile) -> None:
    async def go() -> None:
        async with profile() as ports:
            for _ in range(5):
                end = await ports.log.end()
                assert await ports.log.append(b"record") == end

    asyncio.run(go())


def test_any_bytes_and_large_records(profile: Profile) -> None:
    async def go() -> None:
        async with profile() as ports:
            records = [b"\0\xff\n", bytes(range(256)), b"x" * 900_000]
            for record in records:
                await ports.log.append(record)
            assert [r for _, r in await all_of(ports.log.read(0))] == records

    asyncio.run(go())


def test_a_reader_stops_at_the_end_as_it_was(profile: Profile) -> None:
    async def go() -> None:
        async with profile() as ports:
            await ports.log.append(b"1")
            seen = []
            async for _, record in ports.log.read(0):
                seen.append(record)
                await ports.log.append(b"later")
                assert len(seen) < 10
            assert seen == [b"1"]

    asyncio.run(go())


def test_two_writers_get_different_positions(profile: Profile) -> None:
    async def go() -> None:
        async with profile() as one, profile() as two:
            mine = [one.log.append(b"one") for _ in range(20)]
            theirs = [two.log.append(b"two") for _ in range(20)]
            positions = await asyncio.gather(*mine, *theirs)
            found = await all_of(one.log.read(0))
            assert [p for p, _ in found] == sorted(set(positions))
            for place, position in enumerate(positions):
                assert dict(found)[position] == (b"one" if place < 20 else b"two")
            assert await all_of(two.log.read(0)) == found

    asyncio.run(go())


def test_the_log_outlives_who_wrote_it(profile: Profile) -> None:
    async def go() -> None:
        async with profile() as ports:
            position = await ports.log.append(b"kept")
        async with profile() as ports:
            assert await all_of(ports.log.read(0)) == [(position, b"kept")]
            assert await ports.log.append(b"next") > position

    asyncio.run(go())


# --- commands ---


def test_an_empty_inbox_answers_after_its_wait(profile: Profile) -> None:
    async def go() -> None:
        async with profile() as ports:
            assert list(await ports.inbox.take({}, 10, 0)) == []
            assert list(await ports.inbox.take({}, 10, 20)) == []

    asyncio.run(go())


def test_commands_come_in_order_and_again_if_asked_again(profile: Profile) -> None:
    async def go() -> None:
        async with profile() as ports:
            for number in range(50):
                await ports.sink.send(cancel(number))
            taken = await take(ports, {}, 50)
            assert [c.id for c in taken] == [str(i) for i in range(50)]
            places = [(c.partition, c.offset) for c in taken]
            assert len(set(places)) == 50
            assert [c.offset for c in taken] == sorted(c.offset for c in taken)
            assert await take(ports, {}, 50) == taken
            after = {str(taken[19].partition): taken[19].offset + 1}
            assert await take(ports, after, 30) == taken[20:]
            few = await ports.inbox.take({}, 7, WAIT_MS)
            assert list(few) == taken[: len(few)]
            assert 0 < len(few) <= 7

    asyncio.run(go())


def test_both_modes_and_all_parts_of_a_message_arrive(profile: Profile) -> None:
    async def go() -> None:
        async with profile() as ports:
            one = structured(CancelJob(job="j"), source="s", id="1", time_ms=1234)
            two = binary(CancelJob(job="j"), source="s", id="2", time_ms=1234)
            for message in (one, two):
                with_actor = (*message.headers, ("aquifer-actor", b"ann"))
                await ports.sink.send(Message(message.value, with_actor, message.key))
            for id_, command in zip("12", await take(ports, {}, 2), strict=True):
                assert (command.id, command.source, command.type) == (id_, "s", "CancelJob")
                assert (command.actor, command.time_ms) == ("ann", 1234)
                assert bytes(command.data) == b'{"job":"j"}'

    asyncio.run(go())


def test_a_waiting_inbox_wakes_for_what_another_process_sends(profile: Profile) -> None:
    async def go() -> None:
        async with profile() as ports, profile() as others:
            waiting = asyncio.create_task(take(ports, {}, 1))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await others.sink.send(cancel(1))
            assert [c.id for c in await waiting] == ["1"]

    asyncio.run(go())


# --- dead letters ---


def test_what_is_no_command_is_a_dead_letter_once_and_whole(profile: Profile) -> None:
    async def go() -> None:
        bad = Message(b"\xff\x00", (("content-type", b"\xfe"),), b"key")
        async with profile() as ports:
            for number in range(6):
                await ports.sink.send(bad if number % 2 else cancel(number))
            taken = await take(ports, {}, 3)
            assert [c.id for c in taken] == ["0", "2", "4"]
            found = await letters(ports, 3)
            assert len(found) == 3
            assert {(x.value, x.headers, x.key) for x in found} == {
                (bad.value, bad.headers, bad.key)
            }
            assert {(x.code, x.field) for x in found} == {("invalid_utf8", "value")}
            assert all(x.message and x.time_ms for x in found)
            places = {(x.partition, x.offset) for x in found}
            assert len(places) == 3
        async with profile() as ports:  # intake starts anew
            assert [c.id for c in await take(ports, {}, 3)] == ["0", "2", "4"]
            await ports.sink.send(cancel(9))
            assert [c.id for c in await take(ports, {}, 4)] == ["0", "2", "4", "9"]
            assert await letters(ports, 3) == found

    asyncio.run(go())


def test_many_dead_letters_do_not_hide_a_command(profile: Profile) -> None:
    async def go() -> None:
        async with profile() as ports:
            for _ in range(40):
                await ports.sink.send(Message(b"bad"))
            assert len(await letters(ports, 40)) == 40
            await ports.sink.send(cancel(1))
            for _ in range(2):
                assert [c.id for c in await take(ports, {}, 1)] == ["1"]
            assert len(await letters(ports, 40)) == 40

    asyncio.run(go())


def test_dead_letters_that_are_put_twice_are_read_once(profile: Profile) -> None:
    async def go() -> None:
        async with profile() as ports:
            some = [
                DeadLetter(0, i, "code", "field", "why", 5, b"\xff", (("h", b"\xfe"),), b"k")
                for i in range(600)
            ]
            await ports.dead_letters.put(some)
            await ports.dead_letters.put(some[100:200])
            assert await all_of(ports.dead_letters.read()) == some

    asyncio.run(go())
