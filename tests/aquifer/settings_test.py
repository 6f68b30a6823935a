"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from aquifer.settings import BadSettings, load


def test_settings_have_defaults_and_read_their_variables() -> None:
    assert not load({}).distributed
    found = load(
        {"AQUIFER_CELL": "north", "AQUIFER_KAFKA": "k:1", "AQUIFER_STATE_DIR": "/s", "X": "y"}
    )
    assert (found.cell, found.distributed, found.state_dir) == ("north", True, Path("/s"))


def test_an_empty_variable_is_not_set() -> None:
    assert load({"AQUIFER_KAFKA": ""}).kafka is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AQUIFER_PORT", "70000"),
        ("AQUIFER_CELL", "a b"),
        ("AQUIFER_KEYSPACE", "a;b"),
        ("AQUIFER_NO", "1"),
    ],
)
def test_a_bad_setting_is_named_and_its_value_is_not_shown(name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=name) as raised:
        load({name: value})
    assert value not in str(raised.value).replace("1", "") or value == "1"


def test_secrets_are_not_printed() -> None:
    found = load({"AQUIFER_REDIS": "redis://:hunter2@r:6379/0"})
    assert "hunter2" not in f"{found!r} {found} {found.model_dump_json()}"
    assert found.redis is not None
    assert "hunter2" in found.redis.get_secret_value()


@pytest.mark.parametrize(
    ("text", "hosts", "port"),
    [("a", ["a"], 9042), ("a:9142,b:9142", ["a", "b"], 9142), ("a, b", ["a", "b"], 9042)],
)
def test_cassandras_contact_points(text: str, hosts: list[str], port: int) -> None:
    assert load({"AQUIFER_CASSANDRA": text}).contact_points == (hosts, port)


def test_cassandras_hosts_have_one_port() -> None:
    with pytest.raises(BadSettings, match="one port"):
        _ = load({"AQUIFER_CASSANDRA": "a:1,b:2"}).contact_points
