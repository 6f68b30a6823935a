"""The compose file runs the same server versions as the tests."""

from __future__ import annotations

import re
from pathlib import Path

from infra import cassandra, kafka, redis

ROOT = Path(__file__).parents[2]


def test_compose_and_tests_use_the_same_servers() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    images = set(re.findall(r"^    image: (\S+)$", compose, flags=re.MULTILINE))
    assert images == {kafka.IMAGE, cassandra.IMAGE, redis.IMAGE}


def test_the_pinned_jars_have_the_images_versions() -> None:
    pins = ROOT / "infra" / "jars"
    kafka_version = kafka.IMAGE.split(":")[1]
    assert f" kafka_2.13-{kafka_version}.jar\n" in (pins / "kafka.sha256").read_text()
    cassandra_version = cassandra.IMAGE.split(":")[1]
    assert f" cassandra-all-{cassandra_version}.jar\n" in (pins / "cassandra.sha256").read_text()
