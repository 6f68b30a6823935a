"""The read model in one SQLite file: a batch is one transaction."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from projections.store import Applied, Fields
from projections.tables import TABLES, Key, Row, Table

BUSY_S: Final = 30
_TYPES: Final = {"text": "TEXT", "int": "INTEGER", "bool": "INTEGER", "json": "TEXT"}


def _schema(table: Table) -> str:
    columns = ", ".join(f"{n} {_TYPES[k]}" for n, k in table.columns.items())
    key = ", ".join(table.key)
    return (
        f"CREATE TABLE IF NOT EXISTS {table.name} "
        f"({columns}, at_round INTEGER NOT NULL, PRIMARY KEY ({key})) WITHOUT ROWID"
    )


def _upsert(table: Table) -> str:
    names = (*table.columns, "at_round")
    marks = ", ".join("?" * len(names))
    sets = ", ".join(f"{n} = excluded.{n}" for n in (*table.values, "at_round"))
    return (
        f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks}) "
        f"ON CONFLICT DO UPDATE SET {sets} WHERE excluded.at_round > at_round"
    )


_UPSERT: Final = {t.name: _upsert(t) for t in TABLES.values()}
_DELETE: Final = {
    t.name: f"DELETE FROM {t.name} WHERE {' AND '.join(f'{n} = ?' for n in t.key)} "
    "AND at_round <= ?"
    for t in TABLES.values()
}


class SqliteStore:
    """Safe to use from several processes: one writes, all read."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
            self._connection.execute(f"PRAGMA {pragma}")
        for table in TABLES.values():
            self._connection.execute(_schema(table))
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS applied "
            "(cell TEXT PRIMARY KEY, round INTEGER, hash TEXT, position INTEGER, at_ms INTEGER)"
        )

    async def write(self, cell: str, rows: Sequence[Row], applied: Applied) -> None:
        await asyncio.to_thread(self.write_now, cell, rows, applied)

    def write_now(self, cell: str, rows: Sequence[Row], applied: Applied) -> None:
        """`write` for callers without an event loop."""
        with self._lock, self._transaction() as run:
            for row in rows:
                if row.values is None:
                    run.execute(_DELETE[row.table], (*row.key, row.round))
                else:
                    run.execute(_UPSERT[row.table], _cells(row))
            state = (cell, applied.round, applied.hash, applied.position, applied.at_ms)
            run.execute("INSERT OR REPLACE INTO applied VALUES (?, ?, ?, ?, ?)", state)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._connection)

    async def get(self, table: str, key: Key) -> Fields | None:
        where = " AND ".join(f"{n} = ?" for n in TABLES[table].key)
        found = await self._rows(table, where, key, "")
        return found[0] if found else None

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
        where = " AND ".join(f"{n} = ?" for n in shape.partition)
        values: list[str | int] = [*partition]
        if after is not None:
            names, marks = ", ".join(shape.clustering), ", ".join("?" * len(after))
            where += f" AND ({names}) {'<' if backwards else '>'} ({marks})"
            values.extend(after)
        order = ", ".join(f"{n} {'DESC' if backwards else 'ASC'}" for n in shape.clustering)
        return await self._rows(table, where, values, f" ORDER BY {order} LIMIT {int(limit)}")

    async def _rows(
        self, table: str, where: str, values: Sequence[str | int], tail: str
    ) -> list[Fields]:
        shape = TABLES[table]
        statement = f"SELECT {', '.join(shape.columns)} FROM {table} WHERE {where}{tail}"
        rows = await asyncio.to_thread(self._fetch, statement, values)
        return [_fields(shape, row) for row in rows]

    def _fetch(self, statement: str, values: Sequence[Any]) -> list[Any]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    async def applied(self, cell: str) -> Applied:
        statement = "SELECT round, hash, position, at_ms FROM applied WHERE cell = ?"
        rows = await asyncio.to_thread(self._fetch, statement, (cell,))
        return Applied(*rows[0]) if rows else Applied()

    async def cells(self) -> list[str]:
        rows = await asyncio.to_thread(self._fetch, "SELECT cell FROM applied ORDER BY cell", ())
        return [cell for (cell,) in rows]

    async def reset(self, cell: str) -> None:
        await asyncio.to_thread(self._reset, cell)

    def _reset(self, cell: str) -> None:
        with self._lock, self._transaction() as run:
            for name in (*TABLES, "applied"):
                run.execute(f"DELETE FROM {name} WHERE cell = ?", (cell,))

    async def close(self) -> None:
        with self._lock:
            self._connection.close()


class _Transaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def __exit__(self, kind: object, *_: object) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def _cells(row: Row) -> tuple[Any, ...]:
    assert row.values is not None, "deleted rows have no cells"
    values = []
    for name, kind in TABLES[row.table].values.items():
        value = row.values[name]
        values.append(json.dumps(value, sort_keys=True) if kind == "json" else value)
    return (*row.key, *values, row.round)


def _fields(table: Table, row: Sequence[Any]) -> Fields:
    fields: Fields = {}
    for (name, kind), value in zip(table.columns.items(), row, strict=True):
        if value is not None and kind == "json":
            value = json.loads(value)
        elif value is not None and kind == "bool":
            value = bool(value)
        fields[name] = value
    return fields
