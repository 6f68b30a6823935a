"""Real Apache Kafka (KRaft) on this machine, for tests and for local development."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.java import java_command
from infra.maven import SetupError
from infra.server import Cluster, Program, Server, fixed_ports, launch

IMAGE = "apache/kafka:4.1.0"
_IMAGE_LIB = "/opt/kafka/libs"
_HOST = "127.0.0.1"
_CLUSTER_ID = "YXF1aWZlci1sb2NhbC0wMQ"  # any 16 bytes in base64


class LocalKafka(Cluster):
    """A cluster of `brokers` nodes, each broker and controller; node i keeps its data in folder/i.

    `bootstrap` is the address for clients, `nodes` the single servers. Data and ports stay with
    the folder, so it may be stopped, killed and started again, also by another process.
    `settings` are added to each node's server.properties and win over ours.
    """

    def __init__(
        self,
        folder: Path,
        brokers: int = 1,
        settings: Mapping[str, str] | None = None,
        heap_mib: int = 512,
        host: str = _HOST,
        within: Sequence[str] = (),
    ) -> None:
        """`within`: words that start a command in the network of `host`, if that is another one."""
        self._folder = folder.absolute()
        self._brokers = brokers
        self._settings = dict(settings or {})
        self._heap_mib = heap_mib
        self._host = host
        self._within = within
        self._ids = list(range(1, brokers + 1))
        names = [f"{kind}.{node}" for node in self._ids for kind in ("broker", "controller")]
        self._ports = fixed_ports(self._folder, names, [_HOST])
        self.bootstrap = ",".join(f"{host}:{self.port(node)}" for node in self._ids)
        nodes = [self._server(node) for node in self._ids]
        super().__init__(nodes, self._each_sees_all, in_turn=False)

    def port(self, node: int) -> int:
        """The client port of a node, counted from 1."""
        return self._ports[f"broker.{node}"]

    def data(self, node: int = 1) -> Path:
        """The log directory of a node: one folder for each topic partition."""
        return self._folder / str(node) / "data"

    def _each_sees_all(self) -> bool:
        return all(known_brokers(self._host, self.port(i)) == set(self._ids) for i in self._ids)

    def _server(self, node: int) -> Server:
        return Server(
            f"Kafka node {node}",
            lambda: self._program(node),
            lambda: node in known_brokers(self._host, self.port(node)),
        )

    def _program(self, node: int) -> Program:
        home = self._folder / str(node)
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        properties = home / "server.properties"
        lines = [f"{key}={value}" for key, value in self._properties(node).items()]
        properties.write_text("\n".join(lines) + "\n")
        if not (self.data(node) / "meta.properties").exists():
            self._format(home, properties)
        return self._java(home, "kafka.Kafka", str(properties))

    def _java(self, home: Path, *main: str) -> Program:
        options = [f"-Xmx{self._heap_mib}m", "-XX:+UseSerialGC", "-Dlog4j2.level=INFO"]
        options += ["-Djava.awt.headless=true", f"-Djava.io.tmpdir={home}/tmp"]
        command = java_command("kafka", _IMAGE_LIB, [*options, *main])
        return Program(IMAGE, [*self._within, *command], home)

    def _format(self, home: Path, properties: Path) -> None:
        arguments = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(properties)]
        child = launch(self._java(home, *arguments), home / "format.txt")
        deadline = time.monotonic() + 120
        while child.alive():
            if time.monotonic() > deadline:
                child.kill()
                raise SetupError(f"Kafka's folder was not formatted:\n{child.log_tail()}")
            time.sleep(0.05)
        child.stop()
        if not (self.data(int(home.name)) / "meta.properties").exists():
            raise SetupError(f"Kafka's folder was not formatted:\n{child.log_tail()}")

    def _properties(self, node: int) -> dict[str, str]:
        controller, host = self._ports[f"controller.{node}"], self._host
        voters = (f"{i}@{host}:{self._ports[f'controller.{i}']}" for i in self._ids)
        copies = str(min(3, self._brokers))
        in_sync = str(max(1, min(3, self._brokers) - 1))
        return {
            "process.roles": "broker,controller",
            "node.id": str(node),
            "controller.quorum.voters": ",".join(voters),
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{host}:{self.port(node)},CONTROLLER://{host}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{host}:{self.port(node)}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.data(node)),
            "auto.create.topics.enable": "false",
            "default.replication.factor": copies,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": in_sync,
            "transaction.state.log.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            # A killed broker may come back only when its old session has ended.
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "1000",
            # All nodes stop at once: the last could not hand its partitions to anybody.
            "controlled.shutdown.enable": "false",
            **self._settings,
        }


def known_brokers(host: str, port: int, timeout_s: int = 5) -> set[int]:
    """The node ids in a broker's answer to a Metadata request. OSError if there is no answer."""
    client = b"aquifer"
    body = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        stream = connection.makefile("rb")
        with stream:
            size = stream.read(4)
            answer = stream.read(int.from_bytes(size, "big"))
    if len(answer) < 8:
        raise ConnectionError("the broker closed the connection")
    ids, at = set(), 8  # after the correlation id and the number of brokers
    for _ in range(int.from_bytes(answer[4:8], "big")):
        node, name = struct.unpack_from(">ih", answer, at)
        ids.add(node)
        at += 4 + 2 + name + 4  # id, host name, port
        at += 2 + max(0, struct.unpack_from(">h", answer, at)[0])  # rack, -1 for none
    return ids
