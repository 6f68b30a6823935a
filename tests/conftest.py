"""Real servers for the tests that carry the marker `servers`, started once when first needed."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest

from infra.cassandra import LocalCassandra
from infra.kafka import LocalKafka
from infra.redis import LocalRedis


@pytest.hookimpl(tryfirst=True)  # before xdist's own, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with servers share an xdist worker, so that the servers start once; those of faults,
    which start servers of their own, another one."""
    for item in items:
        if item.get_closest_marker("servers") and not item.get_closest_marker("xdist_group"):
            group = "faults" if "faults" in item.path.parts else "servers"
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """One broker, shared: use names of your own, and leave it running."""
    with LocalKafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def cassandra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCassandra]:
    """One node, shared: use a keyspace of your own, and leave it running."""
    with LocalCassandra(tmp_path_factory.mktemp("cassandra")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """One server, shared: use keys of your own, and leave it running."""
    with LocalRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def fresh_name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses; good for a topic, a cell, a keyspace or a key."""
    plain = re.sub(r"[^a-z0-9]+", "_", request.node.name.lower())[:24].strip("_")
    return f"{plain}_{uuid.uuid4().hex[:8]}"
