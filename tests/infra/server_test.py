"""Ports and the choice of way, without starting a server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.maven import SetupError
from infra.server import chosen_way, fixed_ports


@pytest.fixture(autouse=True)
def _fresh_choice() -> Iterator[None]:
    chosen_way.cache_clear()
    yield
    chosen_way.cache_clear()


def test_ports_are_free_distinct_and_the_same_again(tmp_path: Path) -> None:
    ports = fixed_ports(tmp_path, ["a", "b", "c"], ["127.0.0.1"])
    assert len(set(ports.values())) == 3
    for port in ports.values():
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))
    assert fixed_ports(tmp_path, ["a", "b", "c"], ["127.0.0.1"]) == ports


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"192\.0\.2\.1"):
        fixed_ports(tmp_path, ["a"], ["192.0.2.1"])


@pytest.mark.parametrize("way", ["docker", "jvm"])
def test_the_environment_forces_a_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUIFER_SERVERS", way)
    assert chosen_way() == way


def test_an_unknown_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUIFER_SERVERS", "podman")
    with pytest.raises(SetupError, match="docker or jvm"):
        chosen_way()


@pytest.mark.parametrize(("exit_code", "way"), [(0, "docker"), (1, "jvm")])
def test_docker_is_used_when_its_engine_answers(
    exit_code: int, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tmp_path / "docker"
    client.write_text(f"#!/bin/sh\nexit {exit_code}\n")
    client.chmod(0o755)
    monkeypatch.delenv("AQUIFER_SERVERS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert chosen_way() == way
