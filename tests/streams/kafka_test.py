"""Kafka's side of the distributed profile: topics that are refused, lost input, positions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import OffsetOutOfRangeError, ProducerFenced, UnknownTopicOrPartitionError
from msgspec import Raw

from domain.ledger import Accepted
from domain.ports import DeadLetter, Message
from infra.kafka import LocalKafka
from streams.dispatch import Kill
from streams.kafka import (
    KafkaAccepted,
    KafkaCommandSink,
    KafkaDeadLetters,
    KafkaInbox,
    KafkaLog,
)
from streams.kafka_clients import Connected, make_producer, send_all
from streams.kafka_dispatch import KafkaDispatch, instructions_from
from streams.topic_ids import topic_ids
from streams.topics import KINDS, TopicFault, check_topics, create_topics, settings, topic

pytestmark = pytest.mark.servers


async def _make(
    bootstrap: str, name: str, config: Mapping[str, str], partitions: int = 1, copies: int = 1
) -> None:
    """Create one topic; while an older one of that name is being deleted, try again."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(60):
            while True:
                wanted = [NewTopic(name, partitions, copies, topic_configs=dict(config))]
                answer = await admin.create_topics(wanted)
                if not answer.topic_errors[0][1]:
                    return
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def _make_anew(bootstrap: str, name: str, config: Mapping[str, str]) -> None:
    """Delete a topic and create it again; return when the broker shows the new one."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        before = await topic_ids(admin, [name])
        await admin.delete_topics([name])
        await _make(bootstrap, name, config)
        async with asyncio.timeout(60):
            while True:
                with suppress(UnknownTopicOrPartitionError):
                    if await topic_ids(admin, [name]) != before:
                        return
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


def _with_settings(
    kafka: LocalKafka, cell: str, kind: str, changed: Mapping[str, str], partitions: int = 1
) -> list[TopicFault]:
    config = {**settings(kind, 1), **changed}

    async def go() -> list[TopicFault]:
        await _make(kafka.bootstrap, topic(kind, cell), config, partitions)
        await create_topics(kafka.bootstrap, cell)  # leaves the one that is there
        faults, _ = await check_topics(kafka.bootstrap, cell)
        return faults

    return asyncio.run(go())


def test_topics_as_they_are_created_are_accepted(kafka: LocalKafka, fresh_name: str) -> None:
    async def go() -> None:
        for _ in range(2):  # creating them again changes nothing
            await create_topics(kafka.bootstrap, fresh_name)
            faults, ids = await check_topics(kafka.bootstrap, fresh_name)
            assert faults == []
            assert sorted(ids) == sorted(topic(kind, fresh_name) for kind in KINDS)
            assert len(set(ids.values())) == len(KINDS)
        faults, again = await check_topics(kafka.bootstrap, fresh_name, ids)
        assert (faults, again) == ([], ids)

    asyncio.run(go())


def test_missing_topics_are_named(kafka: LocalKafka, fresh_name: str) -> None:
    faults, ids = asyncio.run(check_topics(kafka.bootstrap, fresh_name))
    assert ids == {}
    assert {f.topic for f in faults} == {topic(kind, fresh_name) for kind in KINDS}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "604800000"),
        ("retention.bytes", "1000000000"),
        ("max.message.bytes", "1048588"),
        ("unclean.leader.election.enable", "true"),
    ],
)
def test_a_ledger_that_could_lose_records_is_refused(
    kafka: LocalKafka, fresh_name: str, setting: str, value: str
) -> None:
    found = _with_settings(kafka, fresh_name, "ledger", {setting: value})
    assert [(f.topic, f.setting, f.found) for f in found] == [
        (topic("ledger", fresh_name), setting, value)
    ]


@pytest.mark.parametrize("kind", ["ledger", "accepted"])
def test_one_order_needs_one_partition(kafka: LocalKafka, fresh_name: str, kind: str) -> None:
    found = _with_settings(kafka, fresh_name, kind, {}, partitions=2)
    assert [(f.topic, f.setting, f.found) for f in found] == [
        (topic(kind, fresh_name), "partitions", "2")
    ]


def test_a_compacted_input_is_refused(kafka: LocalKafka, fresh_name: str) -> None:
    found = _with_settings(kafka, fresh_name, "cmd", {"cleanup.policy": "compact"})
    assert [f.setting for f in found] == ["cleanup.policy"]


def test_a_topic_that_was_made_anew_is_noticed(kafka: LocalKafka, fresh_name: str) -> None:
    async def go() -> None:
        await create_topics(kafka.bootstrap, fresh_name)
        _, ids = await check_topics(kafka.bootstrap, fresh_name)
        name = topic("accepted", fresh_name)
        await _make_anew(kafka.bootstrap, name, settings("accepted", 1))
        faults, _ = await check_topics(kafka.bootstrap, fresh_name, ids)
        assert [(f.topic, f.setting) for f in faults] == [(name, "topic id")]
        assert ids[name] in faults[0].rule

    asyncio.run(go())


@pytest.mark.slow
def test_three_replicas_need_two_in_sync(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def go(bootstrap: str) -> None:
        await create_topics(bootstrap, "safe")
        assert (await check_topics(bootstrap, "safe"))[0] == []
        name = topic("ledger", "risky")
        wrong = {**settings("ledger", 3), "min.insync.replicas": "1"}
        await _make(bootstrap, name, wrong, copies=3)
        await create_topics(bootstrap, "risky", copies=3)
        faults, _ = await check_topics(bootstrap, "risky")
        assert [(f.topic, f.setting, f.found) for f in faults] == [
            (name, "min.insync.replicas", "1")
        ]

    with LocalKafka(tmp_path_factory.mktemp("three"), brokers=3, heap_mib=256) as three:
        asyncio.run(go(three.bootstrap))


def _accepted(offset: int) -> Accepted:
    return Accepted(0, offset, f"id{offset}", "s", "CancelJob", "a", 5, Raw(b'{"job":"j"}'))


def test_an_inbox_that_lost_commands_stops(kafka: LocalKafka, fresh_name: str) -> None:
    async def go() -> None:
        await create_topics(kafka.bootstrap, fresh_name)
        async with (
            KafkaAccepted(kafka.bootstrap, fresh_name) as accepted,
            KafkaInbox(kafka.bootstrap, fresh_name) as inbox,
        ):
            await accepted.put(_accepted(i) for i in range(3))
            assert [c.offset for c in await inbox.take({"0": 2}, 10, 10_000)] == [2]
            with pytest.raises(OffsetOutOfRangeError):
                await inbox.take({"0": 4}, 10, 10_000)

    asyncio.run(go())


def test_what_intake_did_not_write_gets_an_outcome(kafka: LocalKafka, fresh_name: str) -> None:
    async def go() -> None:
        await create_topics(kafka.bootstrap, fresh_name)
        producer = make_producer(kafka.bootstrap)
        async with (
            Connected(producer),
            KafkaAccepted(kafka.bootstrap, fresh_name) as accepted,
            KafkaInbox(kafka.bootstrap, fresh_name) as inbox,
        ):
            junk = [b"\xff", b"{}", b'{"id":1}', b"[1]"]
            name = topic("accepted", fresh_name)
            await send_all(producer, name, [(None, value, ()) for value in junk])
            await accepted.put([_accepted(0)])
            taken: list[Accepted] = []
            while len(taken) < 5:
                taken += await inbox.take({"0": len(taken)}, 10, 10_000)
            assert [c.type for c in taken] == ["", "", "", "", "CancelJob"]
            assert [c.offset for c in taken] == [0, 1, 2, 3, 4]
            assert len({(c.source, c.id) for c in taken}) == 5

    asyncio.run(go())


def test_polling_the_log_sees_each_record_once(kafka: LocalKafka, fresh_name: str) -> None:
    async def go() -> None:
        await create_topics(kafka.bootstrap, fresh_name)
        async with KafkaLog(kafka.bootstrap, fresh_name) as log:
            seen: list[bytes] = []
            for turn in range(30):
                for part in range(turn % 4):
                    await log.append(b"%d.%d" % (turn, part))
                seen += [record async for _, record in log.read(len(seen))]
            assert seen == [b"%d.%d" % (t, p) for t in range(30) for p in range(t % 4)]
            abandoned = log.read(0)
            assert await anext(abandoned) == (0, seen[0])
            await abandoned.aclose()
            both = await asyncio.gather(_read(log), _read(log))
            assert list(both) == [seen, seen]

    asyncio.run(go())


async def _read(log: KafkaLog) -> list[bytes]:
    return [record async for _, record in log.read(0)]


def test_the_dispatch_topic_tells_how_far_it_came(kafka: LocalKafka, fresh_name: str) -> None:
    async def go() -> None:
        await create_topics(kafka.bootstrap, fresh_name)
        async with KafkaDispatch(kafka.bootstrap, fresh_name) as told:
            assert await told.last_round() == 0
            await told.send(3, [Kill("a", 1), Kill("b", 2)])
            await told.send(7, [Kill("c", 1)])
            assert await told.last_round() == 7
        async with KafkaDispatch(kafka.bootstrap, fresh_name) as told:
            assert await told.last_round() == 7
        heard = instructions_from(kafka.bootstrap, fresh_name, 0)
        expected = [(0, Kill("a", 1)), (1, Kill("b", 2)), (2, Kill("c", 1))]
        assert [await anext(heard) for _ in expected] == expected
        await heard.aclose()

    asyncio.run(go())


def test_a_message_as_large_as_the_topic_takes(kafka: LocalKafka, fresh_name: str) -> None:
    """It is larger than intake allows: a dead letter holds it whole."""

    async def go() -> None:
        await create_topics(kafka.bootstrap, fresh_name)
        value = b"x" * ((1 << 20) - 200)
        async with (
            KafkaCommandSink(kafka.bootstrap, fresh_name) as sink,
            KafkaDeadLetters(kafka.bootstrap, fresh_name) as dead,
        ):
            await sink.send(Message(value))
            await dead.put([DeadLetter(0, 0, "too_large", "value", "why", 1, value)])
            assert [letter.value async for letter in dead.read()] == [value]

    asyncio.run(go())


def test_a_new_writer_shuts_the_earlier_one_out(kafka: LocalKafka, fresh_name: str) -> None:
    async def go() -> list[bytes]:
        await create_topics(kafka.bootstrap, fresh_name)
        async with (
            KafkaLog(kafka.bootstrap, fresh_name) as old,
            KafkaLog(kafka.bootstrap, fresh_name) as new,
        ):
            await old.take_over()
            await old.append(b"1")
            await new.take_over()
            await old.append(b"2")  # nobody else has written since
            await new.append(b"3")
            for _ in range(2):
                with pytest.raises(ProducerFenced):
                    await old.append(b"late")
            await new.append(b"4")
            return [record async for _, record in new.read(0)]

    assert asyncio.run(go()) == [b"1", b"2", b"3", b"4"]
