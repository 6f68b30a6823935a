"""The real servers keep what was acknowledged through kill -9 and a restart on the same folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, Session
from cassandra.policies import RoundRobinPolicy
from redis import Redis

from infra.cassandra import LocalCassandra
from infra.kafka import LocalKafka, known_brokers
from infra.maven import SetupError
from infra.redis import LocalRedis

pytestmark = pytest.mark.servers


async def _create_topic(kafka: LocalKafka, topic: str, copies: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, copies)])
    finally:
        await admin.close()


async def _produce(kafka: LocalKafka, topic: str, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def _consume(kafka: LocalKafka, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        return [(await asyncio.wait_for(consumer.getone(), 60)).value for _ in range(count)]
    finally:
        await consumer.stop()


def test_kafka_serves_the_session(kafka: LocalKafka, fresh_name: str) -> None:
    async def run() -> list[bytes]:
        await _create_topic(kafka, fresh_name, copies=1)
        await _produce(kafka, fresh_name, [b"one", b"two"])
        return await _consume(kafka, fresh_name, 2)

    assert asyncio.run(run()) == [b"one", b"two"]


def test_kafka_keeps_records_through_kill_and_restart(tmp_path: Path, fresh_name: str) -> None:
    values = [b"%d" % i for i in range(100)]
    with LocalKafka(tmp_path) as kafka:
        asyncio.run(_create_topic(kafka, fresh_name, copies=1))
        asyncio.run(_produce(kafka, fresh_name, values))
        kafka.kill()
        assert not kafka.nodes[0].alive
        with pytest.raises(OSError, match="refused"):
            known_brokers("127.0.0.1", kafka.port(1))
        kafka.start()
        assert asyncio.run(_consume(kafka, fresh_name, len(values))) == values
    # Another object on the same folder finds the same ports and data.
    with LocalKafka(tmp_path) as again:
        assert again.bootstrap == kafka.bootstrap
        assert asyncio.run(_consume(again, fresh_name, len(values))) == values


def test_kafka_paused_gives_no_answer_until_resumed(tmp_path: Path) -> None:
    with LocalKafka(tmp_path) as kafka:
        kafka.pause()
        with pytest.raises(TimeoutError):
            known_brokers("127.0.0.1", kafka.port(1), timeout_s=1)
        kafka.resume()
        assert known_brokers("127.0.0.1", kafka.port(1)) == {1}


def test_three_brokers_keep_records_when_one_is_killed(tmp_path: Path, fresh_name: str) -> None:
    with LocalKafka(tmp_path, brokers=3) as kafka:
        asyncio.run(_create_topic(kafka, fresh_name, copies=3))
        asyncio.run(_produce(kafka, fresh_name, [b"before"]))
        kafka.nodes[0].kill()
        asyncio.run(_produce(kafka, fresh_name, [b"after"]))
        assert asyncio.run(_consume(kafka, fresh_name, 2)) == [b"before", b"after"]
        kafka.start()
        assert known_brokers("127.0.0.1", kafka.port(1)) == {1, 2, 3}


def test_a_broken_setting_is_reported_with_the_log(tmp_path: Path) -> None:
    kafka = LocalKafka(tmp_path, settings={"process.roles": "astronaut"})
    with pytest.raises(SetupError, match="astronaut"):
        kafka.start()


@contextmanager
def _session(cassandra: LocalCassandra) -> Iterator[Session]:
    profile = ExecutionProfile(
        load_balancing_policy=RoundRobinPolicy(),
        consistency_level=ConsistencyLevel.QUORUM,
        request_timeout=60,
    )
    cluster = Cluster(
        cassandra.contact_points,
        port=cassandra.port,
        protocol_version=5,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
    )
    try:
        yield cluster.connect()
    finally:
        cluster.shutdown()


def _write_rows(cassandra: LocalCassandra, keyspace: str, rows: int) -> None:
    replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    with _session(cassandra) as session:
        session.execute(f"CREATE KEYSPACE {keyspace} WITH replication = {replication}")
        session.execute(f"CREATE TABLE {keyspace}.t (k int PRIMARY KEY, v int)")
        for i in range(rows):
            session.execute(f"INSERT INTO {keyspace}.t (k, v) VALUES (%s, %s)", (i, i * i))


def _read_rows(cassandra: LocalCassandra, keyspace: str) -> dict[int, int]:
    with _session(cassandra) as session:
        return {row.k: row.v for row in session.execute(f"SELECT k, v FROM {keyspace}.t")}


def test_cassandra_serves_the_session(cassandra: LocalCassandra, fresh_name: str) -> None:
    _write_rows(cassandra, fresh_name, rows=2)
    assert _read_rows(cassandra, fresh_name) == {0: 0, 1: 1}


def test_cassandra_keeps_rows_through_kill_and_restart(tmp_path: Path, fresh_name: str) -> None:
    with LocalCassandra(tmp_path) as cassandra:
        _write_rows(cassandra, fresh_name, rows=500)
        cassandra.kill()
        cassandra.start()
        assert _read_rows(cassandra, fresh_name) == {i: i * i for i in range(500)}


def test_redis_serves_the_session(redis_server: LocalRedis, fresh_name: str) -> None:
    with Redis.from_url(redis_server.url) as client:
        assert client.ping()
        client.set(fresh_name, b"kept")
        assert client.get(fresh_name) == b"kept"


def test_redis_comes_back_empty_after_kill(tmp_path: Path) -> None:
    with LocalRedis(tmp_path) as server, Redis.from_url(server.url) as client:
        client.set("a", b"lost")
        server.kill()
        server.start()
        assert client.get("a") is None
