"""A real Redis server on this machine, for tests and for local development."""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

from infra.maven import SetupError, cache_dir, jars
from infra.server import Program, Server, chosen_way, fixed_ports

IMAGE = "redis:7-alpine"
_HOST = "127.0.0.1"
_BINARIES = {  # in the jar embedded-redis, by operating system and machine
    ("linux", "x86_64"): "redis-server-6.2.6-v5-linux-amd64",
    ("linux", "aarch64"): "redis-server-6.2.7-linux-arm64",
    ("darwin", "x86_64"): "redis-server-6.2.6-v5-darwin-amd64",
    ("darwin", "arm64"): "redis-server-6.2.6-v5-darwin-arm64",
}


class LocalRedis(Server):
    """One server that keeps nothing on disk; `url` is its address for clients."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self.port = fixed_ports(self._folder, ["redis"], [_HOST])["redis"]
        self.url = f"redis://{_HOST}:{self.port}/0"
        super().__init__("Redis", self._program, self._pings)

    def _program(self) -> Program:
        binary = "redis-server" if chosen_way() == "docker" else find_redis()
        options = ["--port", str(self.port), "--bind", _HOST, "--dir", str(self._folder)]
        options += ["--save", "", "--appendonly", "no"]
        return Program(IMAGE, [binary, *options], self._folder)

    def _pings(self) -> bool:
        with socket.create_connection((_HOST, self.port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64) == b"+PONG\r\n"


def find_redis() -> str:
    """The redis-server of this machine, else the one in the pinned jar. Raises SetupError."""
    installed = shutil.which("redis-server")
    if installed:
        return installed
    name = _BINARIES.get((sys.platform, platform.machine()))
    if name is None:
        raise SetupError("install redis-server (packages: redis-server, redis), or start Docker")
    folder = jars("redis")
    binary = cache_dir() / "bin" / f"{folder.name}-{name}"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        (jar,) = folder.iterdir()
        with zipfile.ZipFile(jar) as archive:
            fresh = binary.with_suffix(".new")
            fresh.write_bytes(archive.read(name))
        fresh.chmod(0o755)
        fresh.rename(binary)
    probe = subprocess.run([binary, "--version"], capture_output=True, text=True)
    if probe.returncode != 0:
        raise SetupError(
            f"the bundled redis-server does not run here ({probe.stderr.strip()}): "
            "install redis-server (packages: redis-server, redis), or start Docker"
        )
    return str(binary)
