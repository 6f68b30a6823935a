"""`python -m infra.local`: real Kafka, Cassandra and Redis on this machine until Ctrl-C.

Data stays in the folder given (default var/servers), so the next start finds it again.
"""

from __future__ import annotations

import argparse
import signal
from contextlib import ExitStack, suppress
from pathlib import Path

from infra.cassandra import LocalCassandra
from infra.kafka import LocalKafka
from infra.redis import LocalRedis


def main() -> None:
    """Start all three, print the settings that Aquifer reads, and wait to be ended."""
    parser = argparse.ArgumentParser(prog="python -m infra.local", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("var/servers"))
    parser.add_argument("--brokers", type=int, default=1, help="Kafka nodes")
    parser.add_argument("--cassandra-nodes", type=int, default=1)
    options = parser.parse_args()
    # SIGTERM ends it as Ctrl-C does: the servers are stopped in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), ExitStack() as running:
        kafka = running.enter_context(LocalKafka(options.folder / "kafka", options.brokers))
        print(f"export AQUIFER_KAFKA={kafka.bootstrap}", flush=True)
        redis = running.enter_context(LocalRedis(options.folder / "redis"))
        print(f"export AQUIFER_REDIS={redis.url}", flush=True)
        cassandra = running.enter_context(
            LocalCassandra(options.folder / "cassandra", options.cassandra_nodes)
        )
        hosts = ",".join(f"{host}:{cassandra.port}" for host in cassandra.contact_points)
        print(f"export AQUIFER_CASSANDRA={hosts}", flush=True)
        print("# running until Ctrl-C", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
