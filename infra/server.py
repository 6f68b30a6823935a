"""One real server on one folder: start, stop, kill, pause, resume; the same for both ways."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from infra.maven import SetupError
from infra.process import Process

Way = Literal["docker", "jvm"]


class Child(Protocol):
    """What runs a server: a child process or a container. Each lives from its making to its end."""

    def alive(self) -> bool: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def stop(self) -> None: ...
    def log_tail(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Program:
    """One command line, and the official image that can run it; it writes only to `folder`."""

    image: str
    command: Sequence[str]
    folder: Path


@cache
def chosen_way() -> Way:
    """`docker` where a Docker engine answers, else `jvm`; AQUIFER_SERVERS forces one of them."""
    forced = os.environ.get("AQUIFER_SERVERS")
    if forced == "docker":
        return "docker"
    if forced == "jvm":
        return "jvm"
    if forced:
        raise SetupError(f"AQUIFER_SERVERS must be docker or jvm, not {forced!r}")
    if shutil.which("docker") is None:
        return "jvm"
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, timeout=30)
    except subprocess.TimeoutExpired:
        return "jvm"
    return "docker" if answer.returncode == 0 else "jvm"


def launch(program: Program, log: Path) -> Child:
    """Start the program, in a container or as a child process, and return at once."""
    if chosen_way() == "docker":
        from infra.container import Container

        return Container(program.image, program.command, program.folder)
    return Process(program.command, log)


class Server:
    """A server that can be started again on the same folder, however it ended before."""

    def __init__(
        self, name: str, program: Callable[[], Program], ready: Callable[[], bool]
    ) -> None:
        """`ready` asks the server by its own protocol; OSError means not yet."""
        self.name = name
        self._program = program
        self._ready = ready
        self._child: Child | None = None

    def start(self, within_s: int = 120) -> None:
        """Start and wait until it answers. Raises SetupError with the log's tail if it does not."""
        self.launch()
        self.wait(within_s)

    def launch(self) -> None:
        """Start without waiting."""
        if self.alive:
            raise RuntimeError(f"{self.name} is already running")
        program = self._program()
        program.folder.mkdir(parents=True, exist_ok=True)
        self._child = launch(program, program.folder / "log.txt")

    def wait(self, within_s: int = 120) -> None:
        """Wait until the server answers. On failure it is killed and its log's tail raised."""
        self.wait_for(self._ready, within_s)

    def wait_for(self, true: Callable[[], bool], within_s: int = 120) -> None:
        """Wait for any question to the server to come true, where OSError means not yet."""
        child = self._running()
        deadline = time.monotonic() + within_s
        while not _holds(true):
            if not child.alive() or time.monotonic() > deadline:
                why = f"gave no answer in {within_s} s" if child.alive() else "ended at its start"
                child.kill()
                raise SetupError(f"{self.name} {why}; its log ends:\n{child.log_tail()}")
            time.sleep(0.1)

    @property
    def alive(self) -> bool:
        """The server runs, or is paused."""
        return self._child is not None and self._child.alive()

    def _running(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._child

    def stop(self) -> None:
        """Ask it to end, and wait. No error if it has ended already."""
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """SIGKILL: no farewell, no flush."""
        self._running().kill()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self._running().pause()

    def resume(self) -> None:
        """End a pause."""
        self._running().resume()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class Cluster:
    """Servers that belong together; `nodes` are the single ones, to kill or pause just one."""

    def __init__(
        self, nodes: list[Server], serve_together: Callable[[], bool], in_turn: bool
    ) -> None:
        """`in_turn`: a node is started when the one before it answers, else all at once."""
        self.nodes = nodes
        self._serve_together = serve_together
        self._in_turn = in_turn

    def start(self) -> None:
        """Start every node that does not run, and wait until they serve together."""
        for node in self.nodes:
            if not node.alive:
                node.launch()
            if self._in_turn:
                node.wait()
        for node in self.nodes:
            node.wait()
        self.nodes[0].wait_for(self._serve_together)

    def stop(self) -> None:
        """Ask every node to end, all at once, and wait."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(Server.stop, self.nodes))

    def kill(self) -> None:
        """SIGKILL to every node."""
        for node in self.nodes:
            node.kill()

    def pause(self) -> None:
        """Freeze every node."""
        for node in self.nodes:
            node.pause()

    def resume(self) -> None:
        """End the pause of every node."""
        for node in self.nodes:
            node.resume()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _holds(true: Callable[[], bool]) -> bool:
    try:
        return true()
    except OSError:
        return False


def fixed_ports(folder: Path, names: Sequence[str], hosts: Sequence[str]) -> dict[str, int]:
    """A free port for each name, free on all hosts; the same ones again for the same folder."""
    file = folder / "ports.json"
    if file.exists():
        ports: dict[str, int] = json.loads(file.read_text())
        return ports
    folder.mkdir(parents=True, exist_ok=True)
    chosen: list[int] = []
    while len(chosen) < len(names):
        # Below the kernel's range for outgoing connections: a client that retries while the
        # server is down must never be given the server's own port.
        port = random.randrange(20_000, 30_000)
        if port not in chosen and all(_is_free(host, port) for host in hosts):
            chosen.append(port)
    ports = dict(zip(names, chosen, strict=True))
    file.write_text(json.dumps(ports))
    return ports


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise SetupError(f"cannot listen on {host}: {error.strerror}") from error
        return True
