"""Real Apache Cassandra on this machine, for tests and for local development."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path

from infra.java import jar_path, java_command
from infra.server import Cluster, Program, Server, fixed_ports

IMAGE = "cassandra:5.0.5"
_IMAGE_LIB = "/opt/cassandra/lib"

_OPEN = {  # what jvm17-server.options of the distribution exports and opens
    "--add-exports": (
        "java.base/jdk.internal.misc",
        "java.base/jdk.internal.ref",
        "java.base/sun.nio.ch",
        "java.management.rmi/com.sun.jmx.remote.internal.rmi",
        "java.rmi/sun.rmi.registry",
        "java.rmi/sun.rmi.server",
        "java.rmi/sun.rmi.transport",
        "java.rmi/sun.rmi.transport.tcp",
        "java.sql/java.sql",
    ),
    "--add-opens": (
        "java.base/java.io",
        "java.base/java.lang",
        "java.base/java.lang.module",
        "java.base/java.net",
        "java.base/java.nio",
        "java.base/java.util",
        "java.base/java.util.concurrent",
        "java.base/java.util.concurrent.atomic",
        "java.base/jdk.internal.loader",
        "java.base/jdk.internal.math",
        "java.base/jdk.internal.module",
        "java.base/jdk.internal.ref",
        "java.base/jdk.internal.reflect",
        "java.base/jdk.internal.util.jar",
        "java.base/sun.nio.ch",
        "jdk.management/com.sun.management.internal",
    ),
}

_LOGBACK = """<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{HH:mm:ss.SSS} %-5level %logger{24} %msg%n</pattern></encoder>
  </appender>
  <logger name="org.apache.cassandra.db" level="WARN"/>
  <root level="INFO"><appender-ref ref="OUT"/></root>
</configuration>
"""

_QUERY, _RESULT, _STARTUP, _READY = 0x07, 0x08, 0x01, 0x02
_ONE, _ALL = 1, 5


class LocalCassandra(Cluster):
    """A ring of `nodes` servers on 127.0.0.1, .2, .3; node i keeps its data in folder/i.

    `contact_points` and `port` are for clients, `nodes` the single servers. Data and port stay
    with the folder, so it may be stopped, killed and started again, also by another process.
    """

    def __init__(self, folder: Path, nodes: int = 1, heap_mib: int = 768) -> None:
        self._folder = folder.absolute()
        self._heap_mib = heap_mib
        self.contact_points = [f"127.0.0.{i}" for i in range(1, nodes + 1)]
        self._ports = fixed_ports(self._folder, ["native", "storage"], self.contact_points)
        self.port = self._ports["native"]
        ring = [self._server(i) for i in range(1, nodes + 1)]
        super().__init__(ring, self._all_serve_the_ring, in_turn=True)

    def _server(self, node: int) -> Server:
        host = f"127.0.0.{node}"
        return Server(
            f"Cassandra node {node}",
            lambda: self._program(node, host),
            lambda: answers(host, self.port, "SELECT key FROM system.local", _ONE),
        )

    def _all_serve_the_ring(self) -> bool:
        # This table has up to two copies of each row: all nodes must be up, in each one's view.
        level = _ALL if len(self.nodes) > 1 else _ONE
        query = "SELECT count(*) FROM system_traces.sessions"
        return all(answers(host, self.port, query, level) for host in self.contact_points)

    def _program(self, node: int, host: str) -> Program:
        home = self._folder / str(node)
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        (home / "logback.xml").write_text(_LOGBACK)
        # JSON is YAML.
        (home / "cassandra.yaml").write_text(json.dumps(self._yaml(home, host), indent=1))
        jamm = jar_path("cassandra", _IMAGE_LIB, "jamm-0.4.0.jar")
        options = [f"-Xmx{self._heap_mib}m", f"-javaagent:{jamm}", "-XX:+ExitOnOutOfMemoryError"]
        options += [f"{how}={what}=ALL-UNNAMED" for how, all_ in _OPEN.items() for what in all_]
        system = {
            "cassandra.config": f"file://{home}/cassandra.yaml",
            "logback.configurationFile": f"file://{home}/logback.xml",
            "cassandra.storagedir": str(home),
            "java.io.tmpdir": f"{home}/tmp",
            "cassandra-foreground": "yes",
            "cassandra.skip_wait_for_gossip_to_settle": "0",
            # Nodes after the first give the ring so long to answer them, and then do not start.
            "cassandra.ring_delay_ms": "1" if node == 1 else "10000",
            "cassandra.shutdown_announce_in_ms": "100",
        }
        options += [f"-D{key}={value}" for key, value in system.items()]
        main = "org.apache.cassandra.service.CassandraDaemon"
        return Program(IMAGE, java_command("cassandra", _IMAGE_LIB, [*options, main]), home)

    def _yaml(self, home: Path, host: str) -> dict[str, object]:
        seeds = f"127.0.0.1:{self._ports['storage']}"
        return {
            "cluster_name": "aquifer-local",
            "num_tokens": 16,
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "endpoint_snitch": "SimpleSnitch",
            "seed_provider": [
                {
                    "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                    "parameters": [{"seeds": seeds}],
                }
            ],
            "listen_address": host,
            "rpc_address": host,
            "native_transport_port": self.port,
            "storage_port": self._ports["storage"],
            "start_native_transport": True,
            "data_file_directories": [str(home / "data")],
            "commitlog_directory": str(home / "commitlog"),
            "saved_caches_directory": str(home / "saved_caches"),
            "hints_directory": str(home / "hints"),
            "cdc_raw_directory": str(home / "cdc_raw"),
            # A fresh ring has nothing to stream, and a restarted one has its data.
            "auto_bootstrap": False,
            # The default, periodic, loses the last seconds of acknowledged writes at a kill -9:
            # a replay ends at the last sync marker. With one copy of each row that would show.
            "commitlog_sync": "batch",
            "commitlog_segment_size": "16MiB",
            "commitlog_total_space": "256MiB",
            "memtable_heap_space": "64MiB",
            "memtable_offheap_space": "64MiB",
            "file_cache_size": "32MiB",
            "concurrent_compactors": 1,
            "auto_snapshot": False,
        }


def answers(host: str, port: int, query: str, consistency: int) -> bool:
    """A query over the native protocol got rows. OSError if the node does not answer at all."""
    options = struct.pack(">HH", 1, 11) + b"CQL_VERSION" + struct.pack(">H", 5) + b"3.0.0"
    question = query.encode()
    body = struct.pack(">i", len(question)) + question + struct.pack(">HB", consistency, 0)
    with socket.create_connection((host, port), timeout=15) as connection:
        return (
            _ask(connection, _STARTUP, options) == _READY
            and _ask(connection, _QUERY, body) == _RESULT
        )


def _ask(connection: socket.socket, opcode: int, body: bytes) -> int:
    """Send one frame of protocol version 4, and return the opcode of the answer."""
    connection.sendall(struct.pack(">BBHBi", 4, 0, 0, opcode, len(body)) + body)
    with connection.makefile("rb") as stream:
        header = stream.read(9)
        if len(header) < 9:
            raise ConnectionError("the node closed the connection")
        stream.read(int.from_bytes(header[5:9], "big"))
    return int(header[4])
