"""The read model in Cassandra.

Each write carries the round that it comes from as its timestamp: a late or repeated write of an
older round changes nothing, whoever sends it, and one row is written once a round, so that equal
timestamps mean equal rows. After a reset (the ledger was made anew) the timestamps are of a higher
epoch, and so above all tombstones.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, ResultSet, Session
from cassandra.policies import (
    ConstantReconnectionPolicy,
    DCAwareRoundRobinPolicy,
    TokenAwarePolicy,
)
from cassandra.query import BatchStatement, BatchType, PreparedStatement, dict_factory

from projections.store import Applied, Fields
from projections.tables import TABLES, Key, Row, Table

BATCH_ROWS: Final = 100
IN_FLIGHT: Final = 32
RECONNECT_S: Final = 1.0
EPOCH: Final = 1 << 40
"""Timestamps of one epoch; a ledger has fewer rounds."""
_TYPES: Final = {"text": "text", "int": "bigint", "bool": "boolean", "json": "text"}


def schema(keyspace: str, replication: str) -> list[str]:
    """Statements that make the keyspace and its tables if they are not there."""
    made = [f"CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}"]
    for table in TABLES.values():
        columns = ", ".join(f'"{n}" {_TYPES[k]}' for n, k in table.columns.items())
        key = f"({_names(table.partition)})"
        if table.clustering:
            key += f", {_names(table.clustering)}"
        made.append(
            f"CREATE TABLE IF NOT EXISTS {keyspace}.{table.name} ({columns}, PRIMARY KEY ({key}))"
        )
    made.append(
        f"CREATE TABLE IF NOT EXISTS {keyspace}.applied (cell text PRIMARY KEY, epoch bigint, "
        "round bigint, hash text, position bigint, at_ms bigint)"
    )
    return made


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{n}"' for n in columns)


class CassandraStore:
    """Connect with `await CassandraStore.connect(...)`."""

    def __init__(self, cluster: Cluster, session: Session, keyspace: str) -> None:
        self._cluster = cluster
        self._session = session
        self._keyspace = keyspace
        self._gate = asyncio.Semaphore(IN_FLIGHT)
        self._prepared: dict[str, PreparedStatement] = {}
        self._epochs: dict[str, int] = {}

    @staticmethod
    async def connect(
        contact_points: Sequence[str],
        port: int = 9042,
        keyspace: str = "aquifer",
        replication: str = "{'class': 'SimpleStrategy', 'replication_factor': 1}",
        datacenter: str = "datacenter1",
    ) -> CassandraStore:
        """Raises cassandra.cluster.NoHostAvailable. The schema is made if it is not there."""
        return await asyncio.to_thread(
            _connect, list(contact_points), port, keyspace, replication, datacenter
        )

    # --- statements -------------------------------------------------------------------------------

    def _prepare(self, cql: str) -> PreparedStatement:
        statement = self._prepared.get(cql)
        if statement is None:
            statement = self._session.prepare(cql)
            statement.is_idempotent = True
            self._prepared[cql] = statement
        return statement

    async def _statement(self, cql: str) -> PreparedStatement:
        known = self._prepared.get(cql)
        return known if known is not None else await asyncio.to_thread(self._prepare, cql)

    async def _run(self, statement: object, values: Sequence[Any] = ()) -> ResultSet:
        """Execute on the driver's own event loop, and come back to ours."""
        loop = asyncio.get_running_loop()
        async with self._gate:
            done: asyncio.Future[Any] = loop.create_future()
            future = self._session.execute_async(statement, tuple(values) or None)
            future.add_callbacks(
                lambda rows: loop.call_soon_threadsafe(_settle, done.set_result, done, rows),
                lambda error: loop.call_soon_threadsafe(_settle, done.set_exception, done, error),
            )
            return await done

    def _upsert(self, table: Table) -> str:
        marks = ", ".join("?" * len(table.columns))
        return (
            f"INSERT INTO {self._keyspace}.{table.name} ({_names(table.columns)}) "
            f"VALUES ({marks}) USING TIMESTAMP ?"
        )

    def _delete(self, table: Table) -> str:
        where = " AND ".join(f'"{n}" = ?' for n in table.key)
        return f"DELETE FROM {self._keyspace}.{table.name} USING TIMESTAMP ? WHERE {where}"

    # --- the store --------------------------------------------------------------------------------

    async def write(self, cell: str, rows: Sequence[Row], applied: Applied) -> None:
        epoch = await self._epoch(cell)
        parts: dict[tuple[object, ...], list[Row]] = {}
        for row in rows:
            width = len(TABLES[row.table].partition)
            parts.setdefault((row.table, *row.key[:width]), []).append(row)
        batches = [
            part[first : first + BATCH_ROWS]
            for part in parts.values()
            for first in range(0, len(part), BATCH_ROWS)
        ]
        await asyncio.gather(*(self._write_batch(batch, epoch) for batch in batches))
        cql = (
            f"INSERT INTO {self._keyspace}.applied (cell, epoch, round, hash, position, at_ms) "
            "VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
        )
        values = (cell, epoch, applied.round, applied.hash, applied.position, applied.at_ms)
        stamp = epoch * EPOCH + applied.round
        await self._run(await self._statement(cql), (*values, stamp))

    async def _write_batch(self, rows: list[Row], epoch: int) -> None:
        batch = BatchStatement(BatchType.UNLOGGED, consistency_level=ConsistencyLevel.LOCAL_QUORUM)
        for row in rows:
            table, stamp = TABLES[row.table], epoch * EPOCH + row.round
            if row.values is None:
                statement = await self._statement(self._delete(table))
                batch.add(statement, (stamp, *row.key))
            else:
                statement = await self._statement(self._upsert(table))
                batch.add(statement, (*row.key, *_cells(table, row.values), stamp))
        batch.is_idempotent = True
        await self._run(batch)

    async def get(self, table: str, key: Key) -> Fields | None:
        shape = TABLES[table]
        where = " AND ".join(f'"{n}" = ?' for n in shape.key)
        cql = f"SELECT {_names(shape.columns)} FROM {self._keyspace}.{table} WHERE {where}"
        for row in await self._run(await self._statement(cql), key):
            return _fields(shape, row)
        return None

    async def scan(
        self,
        table: str,
        partition: Key,
        *,
        after: Key | None = None,
        limit: int = 100,
        backwards: bool = False,
    ) -> list[Fields]:
        shape = TABLES[table]
        where = " AND ".join(f'"{n}" = ?' for n in shape.partition)
        values: list[str | int] = [*partition]
        if after is not None:
            marks = ", ".join("?" * len(after))
            where += f" AND ({_names(shape.clustering)}) {'<' if backwards else '>'} ({marks})"
            values.extend(after)
        order = ", ".join(f'"{n}" {"DESC" if backwards else "ASC"}' for n in shape.clustering)
        cql = (
            f"SELECT {_names(shape.columns)} FROM {self._keyspace}.{table} WHERE {where} "
            f"ORDER BY {order} LIMIT {int(limit)}"
        )
        rows = await self._run(await self._statement(cql), values)
        return [_fields(shape, row) for row in rows]

    async def applied(self, cell: str) -> Applied:
        row = await self._applied_row(cell)
        if row is None or row["round"] is None:
            return Applied()
        return Applied(row["round"], row["hash"], row["position"], row["at_ms"])

    async def _applied_row(self, cell: str) -> Fields | None:
        cql = (
            f"SELECT epoch, round, hash, position, at_ms FROM {self._keyspace}.applied "
            "WHERE cell = ?"
        )
        for row in await self._run(await self._statement(cql), (cell,)):
            found: Fields = row
            return found
        return None

    async def _epoch(self, cell: str) -> int:
        if cell not in self._epochs:
            row = await self._applied_row(cell)
            self._epochs[cell] = (row["epoch"] or 0) if row else 0
        return self._epochs[cell]

    async def cells(self) -> list[str]:
        cql = f"SELECT cell, round FROM {self._keyspace}.applied"
        rows = await self._run(await self._statement(cql))
        return sorted(row["cell"] for row in rows if row["round"] is not None)

    async def reset(self, cell: str) -> None:
        """Forget the cell's rows. What is written later is of a higher epoch."""
        epoch = await self._epoch(cell)
        stamp = epoch * EPOCH + EPOCH - 1
        for table in TABLES.values():
            await self._empty(table, cell, stamp)
        cql = (
            f"INSERT INTO {self._keyspace}.applied (cell, epoch, round, hash, position, at_ms) "
            "VALUES (?, ?, null, null, null, null) USING TIMESTAMP ?"
        )
        await self._run(await self._statement(cql), (cell, epoch + 1, (epoch + 1) * EPOCH))
        self._epochs[cell] = epoch + 1

    async def _empty(self, table: Table, cell: str, stamp: int) -> None:
        names = _names(table.partition)
        cql = f"SELECT DISTINCT {names} FROM {self._keyspace}.{table.name}"
        where = " AND ".join(f'"{n}" = ?' for n in table.partition)
        delete = f"DELETE FROM {self._keyspace}.{table.name} USING TIMESTAMP ? WHERE {where}"
        statement = await self._statement(delete)
        for row in await asyncio.to_thread(_all, self._session, cql):
            if row["cell"] == cell:
                await self._run(statement, (stamp, *(row[n] for n in table.partition)))

    async def close(self) -> None:
        await asyncio.to_thread(self._cluster.shutdown)


def _connect(
    contact_points: list[str], port: int, keyspace: str, replication: str, datacenter: str
) -> CassandraStore:
    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(datacenter)),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        request_timeout=10,
        row_factory=dict_factory,
    )
    cluster = Cluster(
        contact_points,
        port=port,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        # The default waits ever longer, up to ten minutes, for a node that came back long ago.
        reconnection_policy=ConstantReconnectionPolicy(RECONNECT_S, max_attempts=None),
        protocol_version=5,
    )
    try:
        session = cluster.connect()
        for statement in schema(keyspace, replication):
            session.execute(statement)
    except BaseException:
        cluster.shutdown()
        raise
    return CassandraStore(cluster, session, keyspace)


def _all(session: Session, cql: str) -> list[Fields]:
    return list(session.execute(cql))


def _settle(setter: Callable[[Any], None], done: asyncio.Future[Any], outcome: Any) -> None:
    if not done.cancelled():
        setter(outcome if outcome is not None else [])


def _cells(table: Table, values: Fields) -> list[Any]:
    return [
        json.dumps(values[n], sort_keys=True) if k == "json" else values[n]
        for n, k in table.values.items()
    ]


def _fields(table: Table, row: Fields) -> Fields:
    return {
        n: json.loads(row[n]) if k == "json" and row[n] is not None else row[n]
        for n, k in table.columns.items()
    }
